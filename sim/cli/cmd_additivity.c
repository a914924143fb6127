// SPDX-License-Identifier: Apache-2.0
// kvsim additivity: is the damage of many coarse parts the sum of each part's own?
#include <stdlib.h>

#include "analysis/studies/additivity.h"
#include "reports/draw/additivity.h"
#include "sim/base/args.h"
#include "sim/base/memory.h"
#include "sim/cli/lists.h"
#include "sim/cli/opening.h"

#define FLIPS(X, T)                                                                                \
    X(T, unit, KV_TEXT(kv_flip_units[row->unit]))                                                  \
    X(T, bits, KV_COUNT(row->bits))                                                                \
    X(T, flipped, KV_COUNT(row->n_flipped))                                                        \
    X(T, of, KV_COUNT(row->n_parts))                                                               \
    X(T, sets, KV_COUNT(row->n_sets))                                                              \
    X(T, kl_exact, KV_NUMBER(row->exact, 6))                                                       \
    X(T, sum_of_singles, KV_NUMBER(row->singles, 6))                                               \
    X(T, exact_to_sum, KV_NUMBER(row->exact_to_sum, 3))                                            \
    X(T, ratio_low, KV_NUMBER(row->ratio_low, 3))                                                  \
    X(T, ratio_high, KV_NUMBER(row->ratio_high, 3))                                                \
    X(T, predicted, KV_NUMBER(row->predicted, 6))                                                  \
    X(T, predicted_to_exact, KV_NUMBER(row->predicted_to_exact, 3))
KV_TABLE_COLUMNS(flips, kv_flip_row, FLIPS)

static int print(const struct kv_additivity *a, enum kv_output how, struct kv_error *e) {
    size_t n;
    struct kv_flip_row *rows = kv_flip_rows(a, &n);
    int rc = kv_table_print_rows(flips, rows, n, sizeof *rows, how, e);
    free(rows);
    return rc;
}

// Caller frees the units.
static int read_units(const struct kv_cli *c, enum kv_flip_unit **units, size_t *n,
                      struct kv_error *e) {
    char **list;
    int rc = 0;
    *n = kv_opt_list(c, "units", &list);
    *units = kv_alloc(*n + 1, sizeof **units);
    for (size_t i = 0; i < *n && rc == 0; i++) {
        int unit = kv_index_of(list[i], kv_flip_units);
        (*units)[i] = (enum kv_flip_unit)unit;
        if (unit < 0)
            rc = kv_fail(e, KV_EUSAGE, "--units", "%s: layer, keys, values or position is expected",
                         list[i]);
    }
    kv_list_free(list, *n);
    return rc;
}

static int run(const struct kv_cli *c, struct kv_additivity_options *o,
               const struct kv_trace *trace, struct kv_additivity *a, struct kv_error *e) {
    struct kv_model *model = NULL;
    int rc = kv_opt_model(c, kv_trace_info(trace), &model, e);
    if (rc == 0) rc = kv_opt_blame(c, kv_additivity_run(a, trace, model, o, e), e);
    kv_model_close(model);
    return rc;
}

static int additivity(struct kv_cli *c, struct kv_error *e) {
    struct kv_additivity_options o = {
        .format = kv_opt(c, "format"), .jobs = c->jobs, .seed = c->seed};
    struct kv_additivity a = {0};
    struct kv_trace *trace = NULL;
    enum kv_flip_unit *units = NULL;
    uint32_t bits[KV_MAX_WIDTHS];
    long sets = 0;
    int rc = kv_opt_int(c, "sets", 1, 8, &sets, e);
    if (rc == 0) rc = kv_opt_counts(c, "bits", 1, 16, bits, KV_MAX_WIDTHS, &o.n_bits, e);
    if (rc == 0) rc = read_units(c, &units, &o.n_units, e);
    if (rc == 0) rc = kv_opt_range(c, "items", &o.items, e);
    if (rc == 0) rc = kv_trace_open(&trace, c->args[0], e);
    o.units = units;
    o.bits = bits;
    o.sets = (size_t)sets;
    if (rc == 0) rc = run(c, &o, trace, &a, e);
    if (rc == 0 && kv_opt(c, "out")) rc = kv_additivity_draw(&a, kv_opt(c, "out"), e);
    if (rc == 0) rc = print(&a, c->output, e);
    kv_additivity_fini(&a);
    kv_trace_close(trace);
    free(units);
    return rc;
}

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL, "the model the trace was recorded from (default: as in replay)"},
    KV_COMPUTE_OPTION,
    KV_PRECISION_OPTION,
    {"format", 'f', "FORMAT", "asym:group=32", "the format of flipped parts"},
    {"bits", 'b', "LIST", "2,3,4", "widths that parts are flipped to, from 16"},
    {"units", 0, "LIST", "layer,position", "what is flipped: layer, keys, values, position"},
    {"sets", 0, "N", "3", "random sets of each size"},
    {"items", 0, "A-B", NULL, "only items A to B of the trace, counted from 0"},
    {"out", 'o', "DIR", NULL, "also draws joint damage against the sum there"},
    {0}};

const struct kv_command kv_cmd_additivity = {
    .name = "additivity",
    .summary = "compares joint damage with the sum of its parts, both run exactly",
    .usage = "TRACE",
    .example = "kvsim additivity work/samples.trace --items 0-1 --bits 4 --units position",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = additivity};
