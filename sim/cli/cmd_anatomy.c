// SPDX-License-Identifier: Apache-2.0
// kvsim anatomy: why a format fails on a model, and what is expected to help.
#include <stdlib.h>

#include "analysis/studies/anatomy.h"
#include "reports/draw/anatomy.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/print.h"
#include "sim/base/talk.h"
#include "sim/cli/opening.h"

static const char *const tables[] = {"all", "places", "remedies", NULL};
enum { ALL, PLACES_ALONE, REMEDIES_ALONE };

#define PLACES(X, T)                                                                               \
    X(T, layer, KV_COUNT(row->layer))                                                              \
    X(T, kv_head, KV_COUNT(row->head))                                                             \
    X(T, side, KV_TEXT(row->side ? "v" : "k"))                                                     \
    X(T, damage_pct, KV_NUMBER(row->damage_pct, 2))                                                \
    X(T, damage_nats, KV_NUMBER(row->damage, 6))                                                   \
    X(T, relative_error, KV_NUMBER(row->error, 4))                                                 \
    X(T, error_to_spread, KV_NUMBER(row->buried, 3))                                               \
    X(T, bias_norm, KV_NUMBER(row->bias, 2))                                                       \
    X(T, constant_pct, KV_NUMBER(row->constant_pct, 1))                                            \
    X(T, after_rope_pct, KV_NUMBER(row->after_pct, 1))                                             \
    X(T, largest_mean, KV_NUMBER(row->mean, 2))                                                    \
    X(T, its_channel, KV_COUNT(row->mean_channel))                                                 \
    X(T, widest_range, KV_NUMBER(row->range, 2))                                                   \
    X(T, channel, KV_COUNT(row->range_channel))                                                    \
    X(T, kurtosis, KV_NUMBER(row->kurtosis, 1))                                                    \
    X(T, pair_pct, KV_NUMBER(row->pair_pct, 1))                                                    \
    X(T, pair, KV_COUNT(row->pair))                                                                \
    X(T, first_ratio, KV_NUMBER(row->first_ratio, 2))                                              \
    X(T, sink_pct, KV_NUMBER(row->sink_pct, 1))                                                    \
    X(T, named, KV_TEXT(row->named ? "yes" : ""))
KV_TABLE_COLUMNS(places, kv_anatomy_place, PLACES)

#define REMEDIES(X, T)                                                                             \
    X(T, remedy, KV_TEXT(row->name))                                                               \
    X(T, within, KV_TEXT(row->within ? "yes" : ""))                                                \
    X(T, allocated_bits, KV_NUMBER(row->allocated_bits, 3))                                        \
    X(T, more_bits, KV_NUMBER(row->more_bits, 3))                                                  \
    X(T, kl_fisher, KV_NUMBER(row->kl_fisher, 6))                                                  \
    X(T, left_pct, KV_NUMBER(row->left_pct, 1))                                                    \
    X(T, kl_exact, KV_NUMBER(row->kl_exact, 6))                                                    \
    X(T, exact_left_pct, KV_NUMBER(row->exact_left_pct, 1))                                        \
    X(T, rough, KV_TEXT(row->rough ? "yes" : ""))                                                  \
    X(T, spec, KV_TEXT(row->spec))
KV_TABLE_COLUMNS(remedies, kv_anatomy_remedy, REMEDIES)

// Data formats get one table, text all of them and the verdict; which else goes to stderr.
static int print(const struct kv_anatomy *a, int table, enum kv_output how, struct kv_error *e) {
    bool text = how == KV_OUT_TEXT;
    int rc = 0;
    if (table == REMEDIES_ALONE && !a->options.trace)
        return kv_fail(e, KV_EUSAGE, "--table", "without a trace there are no remedies");
    if (table == PLACES_ALONE || table == ALL)
        rc = kv_table_print_rows(places, a->places, a->n_layers * a->n_heads * 2, sizeof *a->places,
                                 how, e);
    if (rc == 0 && a->n_remedies && (table == REMEDIES_ALONE || (table == ALL && text)))
        rc = kv_table_print_rows(remedies, a->remedies, a->n_remedies, sizeof *a->remedies, how, e);
    if (rc) return rc;
    if (text)
        kv_print("%s\n", a->verdict);
    else
        kv_say("%s", a->verdict);
    return kv_flush_stdout(e);
}

// Beside a trace a model that nobody named is taken where it is the trace's, and done without
// otherwise.
static int open_model(const struct kv_cli *c, const struct kv_trace *trace, struct kv_model **m,
                      struct kv_error *e) {
    bool needed = !trace || kv_opt(c, "model") || kv_opt_given(c, "check");
    struct kv_error ignored = {0};
    if (trace && needed) return kv_opt_model(c, kv_trace_info(trace), m, e);
    if (trace) {
        if (kv_tolerate(kv_opt_model(c, kv_trace_info(trace), m, &ignored), &ignored)) *m = NULL;
        return 0;
    }
    char *path = kv_model_path(kv_opt(c, "model"));
    int rc = path ? kv_model_open(m, path, KV_WEIGHTS_BF16, e)
                  : kv_fail(e, KV_EUSAGE, "anatomy",
                            "-m MODEL is needed: a GGUF file or a Hugging Face folder");
    free(path);
    return rc;
}

static int anatomy(struct kv_cli *c, struct kv_error *e) {
    struct kv_anatomy a = {0};
    struct kv_trace *trace = NULL;
    struct kv_model *model = NULL;
    struct kv_anatomy_options o = {.format = kv_opt(c, "format"), .jobs = c->jobs, .seed = c->seed};
    int table = ALL;
    long bits;
    int rc = kv_opt_named(c, "table", tables, &table, e);
    if (rc == 0) rc = kv_opt_int(c, "bits", 1, 16, &bits, e);
    if (rc == 0) rc = kv_opt_float(c, "budget", 0, 16, &o.budget_bits, e);
    if (rc == 0) rc = kv_opt_range(c, "items", &o.items, e);
    if (rc == 0 && c->n_args) rc = kv_trace_open(&trace, c->args[0], e);
    if (rc == 0) rc = open_model(c, trace, &model, e);
    if (rc == 0) {
        o.model = model;
        o.trace = trace;
        o.bits = (uint32_t)bits;
        o.check = kv_opt_given(c, "check") ? 3 : 0;
        rc = kv_opt_blame(c, kv_anatomy_open(&a, &o, e), e);
    }
    if (rc == 0 && kv_opt(c, "out")) rc = kv_anatomy_draw(&a, kv_opt(c, "out"), e);
    if (rc == 0) rc = print(&a, table, c->output, e);
    kv_anatomy_close(&a);
    kv_model_close(model);
    kv_trace_close(trace);
    return rc;
}

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL,
     "that the trace was recorded from, or whose weights alone are read (default: $KVSIM_MODEL, "
     "then data/*.gguf)"},
    {"format", 'f', "FORMAT", "asym:group=32", "the format whose failing is looked into"},
    {"bits", 'b', "N", "4", "at this width"},
    {"budget", 0, "BITS", "0.25", "allocated bits a value that a first remedy may cost more"},
    {"check", 0, NULL, NULL, "run the format and the first three remedies exactly"},
    {"items", 0, "A-B", NULL, "only items A to B of the trace, counted from 0"},
    {"table", 0, "WHICH", "all", "places, remedies, or all (as TSV and JSON: places)"},
    {"out", 'o', "DIR", NULL, "also draw DIR/anatomy.svg and .png: heat maps by layer and channel"},
    KV_COMPUTE_OPTION,
    KV_PRECISION_OPTION,
    {0}};

const struct kv_command kv_cmd_anatomy = {
    .name = "anatomy",
    .summary = "says why a format fails on a model: which layers and channels, and what would help",
    .usage = "[TRACE]",
    .example = "kvsim anatomy work/samples.trace --table remedies",
    .options = options,
    .max_args = 1,
    .run = anatomy};
