// SPDX-License-Identifier: Apache-2.0
// Coding errors and attention of every cell of an item.
#include "traces/cells.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/cell_features.h"
#include "traces/tables.h"

struct kv_cell_errors {
    struct kv_format *format;
    uint8_t width; // index of KV_CELLS_BITS
    unsigned jobs;
    struct kv_cell_table_scratch **scratch; // [jobs]
};

static int check_format(struct kv_cell_errors *c, struct kv_error *e) {
    const struct kv_format *f = c->format;
    size_t w = 0;
    if (f->scope != KV_SCOPE_VECTOR || f->centre.tokens > 0)
        return kv_fail(e, KV_EUSAGE, f->canonical,
                       "does not code each head's vector by itself, so a cell has no error of its "
                       "own; cells are recorded with a format such as " KV_CELLS_FORMAT);
    while (w < f->n_widths && f->width_bits[w] != KV_CELLS_BITS) w++;
    if (w == f->n_widths)
        return kv_fail(e, KV_EUSAGE, f->canonical,
                       "has no width of %d bits, at which errors of cells are recorded",
                       KV_CELLS_BITS);
    c->width = (uint8_t)w;
    return 0;
}

int kv_cell_errors_open(struct kv_cell_errors **out, const char *spec,
                        const struct kv_format_setting *setting, unsigned jobs,
                        struct kv_error *e) {
    *out = NULL;
    struct kv_cell_errors *c = kv_alloc(1, sizeof *c);
    int rc = kv_format_open(&c->format, spec, setting, e);
    if (rc == 0) rc = check_format(c, e);
    if (rc) {
        kv_cell_errors_close(c);
        return rc;
    }
    c->scratch = kv_alloc(jobs, sizeof(struct kv_cell_table_scratch *));
    for (; c->jobs < jobs; c->jobs++) c->scratch[c->jobs] = kv_cell_table_scratch_new(c->format);
    *out = c;
    return 0;
}

void kv_cell_errors_close(struct kv_cell_errors *c) {
    if (!c) return;
    for (unsigned w = 0; w < c->jobs; w++) kv_cell_table_scratch_free(c->scratch[w]);
    kv_format_close(c->format);
    free(c->scratch);
    free(c);
}

const char *kv_cell_errors_format(const struct kv_cell_errors *c) {
    return c->format->canonical;
}

int kv_cell_errors_fill(struct kv_cell_errors *c, unsigned worker, const struct kv_trace_info *in,
                        const struct kv_trace_item *it, float *error, struct kv_error *e) {
    size_t n = it->n_tokens * kv_cells(&in->shape);
    uint8_t *widths = kv_alloc(n, 1);
    memset(widths, c->width, n);
    int rc = kv_coding_error(in, it, c->format, widths, c->scratch[worker], error, e);
    free(widths);
    return rc;
}

void kv_cell_attention(const struct kv_shape *s, const struct kv_trace_item *it, uint32_t layer,
                       const float *q, const struct kv_layer_kv *kv, const float *k_exact,
                       float *attention) {
    size_t n_kv = (size_t)s->n_kv_heads * s->head_dim, n_q = (size_t)s->n_heads * s->head_dim,
           per_layer = (size_t)s->n_kv_heads * KV_N_CELL_FEATURES;
    float *scores = kv_alloc(it->n_tokens, sizeof *scores);
    for (uint32_t row = 0, c = 0; row < it->n_tokens; row++) {
        bool in_choice = row >= it->n_context;
        while (in_choice && row >= it->first[c + 1]) c++;
        const struct kv_cell_span seen[] = {{k_exact, n_kv, in_choice ? it->n_context : row},
                                            {in_choice ? k_exact + it->first[c] * n_kv : NULL, n_kv,
                                             in_choice ? row - it->first[c] : 0}};
        kv_cell_features(s, q + row * n_q, kv->k + row * n_kv, kv->v + row * n_kv, seen,
                         in_choice ? 2 : 1, scores,
                         attention + ((size_t)row * s->n_layers + layer) * per_layer);
    }
    free(scores);
}
