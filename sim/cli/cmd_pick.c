// SPDX-License-Identifier: Apache-2.0
// kvsim pick: the fastest or smallest stored policy that keeps a bound, in one sentence.
#include "analysis/studies/pick.h"

#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/cli/opening.h"
#include "sim/cli/row_options.h"

static const struct kv_option options[] = {
    {"max", 0, "BOUND", NULL, "kl=X: mean divergence from the 16-bit run, nats a scored token"},
    {"min-acc", 0, "X", NULL, "accuracy, 0 to 1"},
    {"max-bytes", 0, "N", NULL,
     "bytes of the whole cache at the context; 40M, 1.5G (powers of 1000)"},
    {"context", 'c', "N", "2048", "context in tokens at which bytes and time are meant"},
    {"device", 'd', "NAME", NULL, "device that prices a token (default: the first shipped)"},
    {"for", 0, "RUNTIME", NULL, "only what it serves as it is; names as in export"},
    {"smallest", 0, NULL, NULL, "the smallest cache, not the fastest step"},
    {"confidence", 0, "P", "0.95", "of the intervals whose ends must keep the bounds"},
    {"together", 0, NULL, NULL, "that confidence for all policies at once, not for each alone"},
    {"digest", 0, "D", NULL, "only the recording whose digest begins so"},
    {"mode", 0, "NAME", NULL, "only replays of this read mode"},
    {"db", 0, "FILE", "kvsim.db", "the store"},
    {0}};

struct row {
    const struct kv_pick_row *r;
    const struct kv_picks *all;
    size_t rank;
};

#define PICKED(X, T)                                                                               \
    X(T, spec, KV_TEXT(row->r->row->s.spec))                                                       \
    X(T, rank, KV_COUNT(row->rank))                                                                \
    X(T, keeps, KV_COUNT(row->r->keeps))                                                           \
    X(T, misses, KV_TEXT(row->r->misses))                                                          \
    X(T, kl_nats, KV_NUMBER(row->r->kl.mean, 6))                                                   \
    X(T, kl_low, KV_NUMBER(row->r->kl.interval.low, 6))                                            \
    X(T, kl_high, KV_NUMBER(row->r->kl.interval.high, 6))                                          \
    X(T, acc, KV_NUMBER(row->r->row->s.acc[KV_ACC], 4))                                            \
    X(T, acc_low, KV_NUMBER(row->r->acc.low, 4))                                                   \
    X(T, kl_positions, KV_COUNT(row->r->positions))                                                \
    X(T, n, KV_COUNT(row->r->kl.n))                                                                \
    X(T, bytes, KV_NUMBER(row->r->bytes, 0))                                                       \
    X(T, ms_per_token, KV_NUMBER(row->r->ms, 4))                                                   \
    X(T, ms_error_pct,                                                                             \
      KV_NUMBER(row->all->rows.device ? 100 * row->all->rows.device->error_median : NAN, 2))       \
    X(T, extrapolated, KV_COUNT(row->r->row->at[0].extrapolated))                                  \
    X(T, context, KV_NUMBER(row->all->rows.context[0], -1))                                        \
    X(T, measured_tokens, KV_NUMBER(row->r->row->s.context_tokens, 1))                             \
    X(T, device, KV_TEXT(row->all->rows.device ? row->all->rows.device->name : NULL))              \
    X(T, mode, KV_TEXT(kv_mode_names[row->r->row->s.mode]))                                        \
    X(T, trace, KV_TEXT(row->r->row->s.trace_digest))                                              \
    X(T, label, KV_TEXT(row->r->row->label))
KV_TABLE_COLUMNS(columns, row, PICKED)

static int print_table(const struct kv_picks *p, enum kv_output output, struct kv_error *e) {
    struct kv_table *t = kv_table_begin(columns);
    for (size_t g = 0; g < p->n; g++)
        for (size_t i = 0; i < p->at[g].n; i++) {
            const struct row x = {&p->at[g].row[i], p, i + 1};
            kv_table_add_rows(t, columns, &x, 1, sizeof x);
        }
    return kv_table_print(t, output, e);
}

static int print_sentences(const struct kv_picks *p, struct kv_error *e) {
    for (size_t g = 0; g < p->n; g++) {
        if (p->n > 1) kv_print("%s%s\n", g ? "\n" : "", p->at[g].title);
        kv_print("%s\n", p->at[g].sentence);
    }
    return kv_flush_stdout(e);
}

static int read_options(const struct kv_cli *c, struct kv_pick_options *o, struct kv_error *e) {
    *o = kv_pick_defaults();
    o->db = kv_opt(c, "db");
    o->device = kv_opt(c, "device");
    o->trace = kv_opt(c, "digest");
    o->runtime = kv_opt(c, "for");
    o->smallest = kv_opt_given(c, "smallest");
    o->together = kv_opt_given(c, "together");
    int rc = kv_pick_read_max(o, kv_opt(c, "max"), e);
    if (rc == 0) rc = kv_pick_read_bytes(o, kv_opt(c, "max-bytes"), e);
    if (rc == 0 && kv_opt(c, "min-acc")) rc = kv_opt_float(c, "min-acc", 0, 1, &o->acc_least, e);
    if (rc == 0) rc = kv_opt_float(c, "context", 1, 1e9, &o->context, e);
    if (rc == 0) rc = kv_opt_float(c, "confidence", 0.5, 0.999999, &o->confidence, e);
    if (rc == 0) rc = kv_opt_name_set(c, "mode", kv_mode_names, &o->modes, e);
    return rc;
}

static int pick(struct kv_cli *c, struct kv_error *e) {
    struct kv_pick_options o;
    struct kv_picks p = {0};
    int rc = kv_opt_blame(c, read_options(c, &o, e), e);
    if (rc == 0) rc = kv_opt_blame(c, kv_pick_run(&p, &o, e), e);
    if (rc == 0)
        rc = c->output == KV_OUT_TEXT ? print_sentences(&p, e) : print_table(&p, c->output, e);
    if (rc == 0 && !p.n_answered)
        rc = kv_fail(e, KV_EFAIL, "pick", "no policy of %s keeps that", o.db);
    kv_pick_fini(&p);
    return rc;
}

const struct kv_command kv_cmd_pick = {
    .name = "pick",
    .summary = "says which stored policy is the fastest, or the smallest, that keeps a bound",
    .usage = "",
    .example = "kvsim pick --db work/demo.db --max kl=0.1 --context 4096",
    .options = options,
    .run = pick};
