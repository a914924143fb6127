// SPDX-License-Identifier: Apache-2.0
// kvsim quant: the error of formats on recorded keys and values, or on Gaussian vectors.
#include <stdlib.h>

#include "analysis/studies/coding_error.h"
#include "reports/draw/coding_error.h"
#include "sim/base/memory.h"
#include "sim/cli/lists.h"

// What is compared when no format is named: each of the table once, and the variants that the
// comparison turns on.
static const char *const usual[] = {
    "sym",   "asym",     "asym:group=32",  "asym-zp", "kivi",     "qaq",     "hqq",
    "turbo", "rotatekv", "hadamard(sym)",  "q8_0",    "q5_0",     "q5_1",    "q4_0",
    "q4_1",  "iq4_nl",   "hadamard(q4_0)", "nf4",     "fp8_e4m3", "fp8_e5m2"};

static const char *side_name(enum kv_side side) {
    return side == KV_KEY ? "K" : "V";
}

#define FORMATS(X, T)                                                                              \
    X(T, format, KV_TEXT(row->spec))                                                               \
    X(T, side, KV_TEXT(side_name(row->side)))                                                      \
    X(T, width_bits, KV_COUNT(row->bits))                                                          \
    X(T, effective_bits, KV_NUMBER(row->effective_bits, 3))                                        \
    X(T, entropy_bits, KV_NUMBER(row->entropy_bits, 3))                                            \
    X(T, rmse, KV_NUMBER(row->rmse, 6))                                                            \
    X(T, relative_error, KV_NUMBER(row->relative, 6))                                              \
    X(T, worst_layer, KV_COUNT(row->worst_layer))                                                  \
    X(T, worst_relative_error, KV_NUMBER(row->worst_relative, 6))                                  \
    X(T, max_error, KV_NUMBER(row->largest, 4))                                                    \
    X(T, cosine, KV_NUMBER(row->cosine, 6))                                                        \
    X(T, values, KV_COUNT(row->values))
KV_TABLE_COLUMNS(formats, kv_quant_row, FORMATS)

struct layer {
    const struct kv_quant_row *of;
    size_t layer;
};
#define LAYERS(X, T)                                                                               \
    X(T, format, KV_TEXT(row->of->spec))                                                           \
    X(T, side, KV_TEXT(side_name(row->of->side)))                                                  \
    X(T, width_bits, KV_COUNT(row->of->bits))                                                      \
    X(T, layer, KV_COUNT(row->layer))                                                              \
    X(T, relative_error, KV_NUMBER(row->of->layers[row->layer], 6))
KV_TABLE_COLUMNS(layers, layer, LAYERS)

static int print_layers(const struct kv_quant_row *rows, size_t n, size_t n_layers,
                        enum kv_output how, struct kv_error *e) {
    struct layer *at = kv_alloc(n * n_layers + 1, sizeof *at);
    for (size_t i = 0; i < n * n_layers; i++)
        at[i] = (struct layer){&rows[i / n_layers], i % n_layers};
    int rc = kv_table_print_rows(layers, at, n * n_layers, sizeof *at, how, e);
    free(at);
    return rc;
}

static int open_source(struct kv_quant_source *s, struct kv_trace **trace, const struct kv_cli *c,
                       struct kv_error *e) {
    const char *dir = kv_opt(c, "trace");
    if ((dir != NULL) == kv_opt_given(c, "gaussian"))
        return kv_fail(e, KV_EUSAGE, "quant",
                       "say where vectors come from: --trace DIR or --gaussian");
    *s = kv_quant_gaussian(c->seed);
    int rc = dir ? kv_trace_open(trace, dir, e) : 0;
    return rc || !dir ? rc : kv_quant_recorded(s, *trace, c->seed, e);
}

static int quant(struct kv_cli *c, struct kv_error *e) {
    bool named = c->n_args > 0;
    uint32_t bits[16];
    struct kv_quant_options o = {.specs = named ? (const char *const *)c->args : usual,
                                 .n_specs = named ? c->n_args : sizeof usual / sizeof *usual,
                                 .bits = bits,
                                 .jobs = c->jobs};
    struct kv_quant_source source;
    struct kv_trace *trace = NULL;
    struct kv_quant_row *rows = NULL;
    size_t n = 0;
    int rc = kv_opt(c, "bits") ? kv_opt_counts(c, "bits", 1, 16, bits, 16, &o.n_bits, e) : 0;
    if (rc == 0) rc = open_source(&source, &trace, c, e);
    if (rc == 0) rc = kv_quant_compare(&rows, &n, &source, &o, e);
    if (rc == 0 && n == 0)
        rc = kv_fail(e, KV_EUSAGE, "--bits",
                     "no format has one of these widths: nothing is measured");
    if (rc == 0 && kv_opt(c, "out")) rc = kv_quant_draw(rows, n, &source, kv_opt(c, "out"), e);
    if (rc == 0)
        rc = kv_opt_given(c, "layers")
                 ? print_layers(rows, n, source.setting.shape.n_layers, c->output, e)
                 : kv_table_print_rows(formats, rows, n, sizeof *rows, c->output, e);
    kv_quant_rows_free(rows, n);
    kv_trace_close(trace);
    return rc;
}

static const struct kv_option options[] = {
    {"trace", 't', "DIR", NULL, "recorded keys and values (kvsim record --keep kv)"},
    {"gaussian", 'g', NULL, NULL, "seeded Gaussian vectors of 64 instead"},
    {"bits", 'b', "LIST", NULL, "widths, as 2,4,8 (default: all that a format has below 16)"},
    {"layers", 'l', NULL, NULL, "a line a layer"},
    {"out", 'o', "DIR", NULL, "also draw DIR/quant_error.svg and .png: error against bits"},
    {0}};

const struct kv_command kv_cmd_quant = {
    .name = "quant",
    .summary = "measures the error of formats on keys and values",
    .usage = "[FORMAT...]",
    .example = "kvsim quant sym asym 'hadamard(sym)' --bits 2,4,8 --gaussian",
    .options = options,
    .max_args = 1000,
    .run = quant,
};
