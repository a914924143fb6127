// SPDX-License-Identifier: Apache-2.0
// kvsim quant: the error of formats on recorded keys and values, or on Gaussian vectors.
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/cli/options.h"
#include "sim/cli/lists.h"
#include "analysis/studies/coding_error.h"

#include <stdlib.h>

// What is compared when no format is named: each of the table once, and the variants that the
// comparison turns on.
static const char *const usual[] = {
    "sym",   "asym",     "asym:group=32",  "asym-zp", "kivi",     "qaq",     "hqq",
    "turbo", "rotatekv", "hadamard(sym)",  "q8_0",    "q5_0",     "q5_1",    "q4_0",
    "q4_1",  "iq4_nl",   "hadamard(q4_0)", "nf4",     "fp8_e4m3", "fp8_e5m2"};

static int open_source(struct kv_quant_source *s, struct kv_trace **trace, const struct kv_cli *c,
                       struct kv_error *e) {
    const char *dir = kv_opt(c, "trace");
    *trace = NULL;
    if ((dir != NULL) == kv_opt_given(c, "gaussian"))
        return kv_fail(e, KV_EUSAGE, "quant",
                       "say where vectors come from: --trace DIR or --gaussian");
    if (!dir) {
        *s = (struct kv_quant_source){
            .setting = {.shape = {.n_layers = 4, .n_heads = 9, .n_kv_heads = 3, .head_dim = 64},
                        .order = KV_ORDER_GGML},
            .seed = c->seed,
            .n_items = 1,
            .title = "Gaussian vectors of 64"};
        return 0;
    }
    int rc = kv_trace_open(trace, dir, e);
    if (rc) return rc;
    const struct kv_trace_info *info = kv_trace_info(*trace);
    if (!(info->keep & KV_KEEP_KV))
        return kv_fail(e, KV_EFAIL, dir, "holds no keys and values; kvsim record --keep kv does");
    *s = (struct kv_quant_source){.trace = *trace,
                                  .setting = {info->shape, info->order},
                                  .seed = c->seed,
                                  .n_items = info->n_items};
    snprintf(s->title, sizeof s->title, "%s, %zu items (%s); %s", info->task_name, info->n_items,
             info->subset, info->model_name);
    return 0;
}

// Widths asked for that the format has; without --bits all but fp16 storage.
static bool wanted(const struct kv_format *f, uint32_t width, const uint32_t *bits, size_t n_bits) {
    for (size_t i = 0; i < n_bits; i++)
        if (bits[i] == f->width_bits[width]) return true;
    return n_bits == 0 && (f->width_bits[width] < 16 || f->n_widths == 1);
}

struct rows {
    struct kv_quant_row *row;
    size_t n;
};

static int measure_format(struct rows *rows, const struct kv_quant_source *s, const char *spec,
                          const uint32_t *bits, size_t n_bits, const struct kv_cli *c,
                          struct kv_error *e) {
    struct kv_format *f;
    int rc = kv_format_open(&f, spec, &s->setting, e);
    if (rc) return rc;
    size_t before = rows->n;
    for (uint32_t w = 0; w < f->n_widths; w++)
        for (int side = 0; side < 2 && rc == 0 && wanted(f, w, bits, n_bits); side++) {
            rows->row = kv_grow(rows->row, rows->n + 1, sizeof *rows->row);
            rc = kv_quant_measure(&rows->row[rows->n], s, f, (enum kv_side)side, w, c->jobs, e);
            rows->row[rows->n].spec = spec;
            if (rc == 0) rows->n++;
        }
    if (rc == 0 && rows->n == before) kv_say("%s has none of the widths asked for", spec);
    kv_format_close(f);
    return rc;
}

static void print_numbers(struct kv_table *t, const struct kv_quant_row *r) {
    kv_table_number(t, r->effective_bits, 3);
    kv_table_number(t, r->entropy_bits, 3);
    kv_table_number(t, r->rmse, 6);
    kv_table_number(t, r->relative, 6);
    kv_table_count(t, r->worst_layer);
    kv_table_number(t, r->worst_relative, 6);
    kv_table_number(t, r->largest, 4);
    kv_table_number(t, r->cosine, 6);
    kv_table_count(t, (long long)r->values);
}

static int print_rows(const struct rows *rows, enum kv_output how, struct kv_error *e) {
    static const struct kv_column columns[] = {{"format", KV_LEFT},
                                               {"side", KV_LEFT},
                                               {"width_bits", KV_RIGHT},
                                               {"effective_bits", KV_RIGHT},
                                               {"entropy_bits", KV_RIGHT},
                                               {"rmse", KV_RIGHT},
                                               {"relative_error", KV_RIGHT},
                                               {"worst_layer", KV_RIGHT},
                                               {"worst_relative_error", KV_RIGHT},
                                               {"max_error", KV_RIGHT},
                                               {"cosine", KV_RIGHT},
                                               {"values", KV_RIGHT}};
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < rows->n; i++) {
        kv_table_text(t, rows->row[i].spec);
        kv_table_text(t, rows->row[i].side == KV_KEY ? "K" : "V");
        kv_table_count(t, rows->row[i].bits);
        print_numbers(t, &rows->row[i]);
    }
    return kv_table_print(t, how, e);
}

static int print_layers(const struct rows *rows, size_t n_layers, enum kv_output how,
                        struct kv_error *e) {
    static const struct kv_column columns[] = {{"format", KV_LEFT},
                                               {"side", KV_LEFT},
                                               {"width_bits", KV_RIGHT},
                                               {"layer", KV_RIGHT},
                                               {"relative_error", KV_RIGHT}};
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < rows->n; i++)
        for (size_t l = 0; l < n_layers; l++) {
            kv_table_text(t, rows->row[i].spec);
            kv_table_text(t, rows->row[i].side == KV_KEY ? "K" : "V");
            kv_table_count(t, rows->row[i].bits);
            kv_table_count(t, (long long)l);
            kv_table_number(t, rows->row[i].layers[l], 6);
        }
    return kv_table_print(t, how, e);
}

static int expand(char ***specs, size_t *n, const struct kv_cli *c, struct kv_error *e) {
    *specs = NULL;
    *n = 0;
    int rc = 0;
    size_t n_texts = c->n_args ? c->n_args : sizeof usual / sizeof *usual;
    for (size_t i = 0; i < n_texts && rc == 0; i++) {
        char **list;
        size_t more;
        rc = kv_spec_expand(c->n_args ? c->args[i] : usual[i], &list, &more, e);
        if (rc) break;
        *specs = kv_grow(*specs, *n + more, sizeof **specs);
        for (size_t k = 0; k < more; k++) (*specs)[(*n)++] = list[k];
        free(list);
    }
    return rc;
}

static int quant(struct kv_cli *c, struct kv_error *e) {
    struct kv_quant_source source;
    struct kv_trace *trace = NULL;
    struct rows rows = {0};
    char **specs = NULL;
    uint32_t bits[16];
    size_t n_specs = 0, n_bits = 0;
    int rc = expand(&specs, &n_specs, c, e);
    if (!rc && kv_opt(c, "bits")) rc = kv_opt_counts(c, "bits", 1, 16, bits, 16, &n_bits, e);
    if (!rc) rc = open_source(&source, &trace, c, e);
    for (size_t i = 0; i < n_specs && !rc; i++)
        rc = measure_format(&rows, &source, specs[i], bits, n_bits, c, e);
    if (!rc && kv_opt_given(c, "layers"))
        rc = print_layers(&rows, source.setting.shape.n_layers, c->output, e);
    else if (!rc)
        rc = print_rows(&rows, c->output, e);
    if (!rc && kv_opt(c, "out")) rc = kv_quant_draw(rows.row, rows.n, &source, kv_opt(c, "out"), e);
    for (size_t i = 0; i < rows.n; i++) free(rows.row[i].layers);
    free(rows.row);
    if (specs) kv_list_free(specs, n_specs);
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
