// SPDX-License-Identifier: Apache-2.0
// One item's forward pass as a recording sees it: each layer's rows as they pass by, then the
// distributions.
#include "traces/item_pass.h"

#include <stdlib.h>

#include "sim/base/finite.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "traces/cells.h"
#include "traces/features.h"

struct kv_item_pass *kv_item_pass_new(const struct kv_model *m, const struct kv_trace_item *item,
                                      uint32_t keep) {
    const struct kv_shape *s = &m->shape;
    size_t n = item->n_tokens, n_kv = (size_t)s->n_kv_heads * s->head_dim;
    struct kv_item_pass *p = kv_alloc(1, sizeof *p);
    *p = (struct kv_item_pass){.m = m, .item = item};
    p->exact_k = kv_alloc(n * n_kv, sizeof(float));
    p->exact_v = kv_alloc(n * n_kv, sizeof(float));
    p->features = kv_alloc(n * KV_N_FEATURES, sizeof(float));
    if (keep & KV_KEEP_KV) {
        p->k = kv_alloc(n * s->n_layers * n_kv, sizeof *p->k);
        p->v = kv_alloc(n * s->n_layers * n_kv, sizeof *p->v);
    }
    if (keep & KV_KEEP_Q) p->q = kv_alloc(n * s->n_layers * s->n_heads * s->head_dim, sizeof *p->q);
    if (keep & KV_KEEP_HIDDEN) p->hidden = kv_alloc(n * s->n_layers * s->hidden, sizeof *p->hidden);
    if (keep & KV_KEEP_CELLS) {
        p->input = kv_alloc(n * s->n_layers * s->hidden, sizeof *p->input);
        p->attention = kv_alloc(n * kv_cells(s) / 2 * KV_N_CELL_FEATURES, sizeof(float));
        p->surprisal = kv_alloc(n, sizeof(float));
    }
    return p;
}

void kv_item_pass_free(struct kv_item_pass *p) {
    if (!p) return;
    void *blocks[] = {p->exact_k, p->exact_v, p->features,  p->k,         p->v, p->q,
                      p->hidden,  p->input,   p->attention, p->surprisal, p};
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) free(blocks[b]);
}

// Copies one layer's rows [n_tokens][width] into [n_tokens][n_layers][width] as fp16.
static void keep_rows(const struct kv_item_pass *p, uint16_t *to, uint32_t layer, const float *x,
                      size_t width) {
    if (!to) return;
    for (size_t row = 0; row < p->item->n_tokens; row++)
        kv_f32_to_f16_n(x + row * width, to + (row * p->m->shape.n_layers + layer) * width, width);
}

void kv_item_pass_observe(void *self, uint32_t layer, const float *x, const float *norm,
                          const float *q, const struct kv_layer_kv *kv) {
    struct kv_item_pass *p = self;
    const struct kv_shape *s = &p->m->shape;
    (void)kv;
    keep_rows(p, p->hidden, layer, x, s->hidden);
    keep_rows(p, p->q, layer, q, (size_t)s->n_heads * s->head_dim);
    p->norm_now = norm;
    p->q_now = q;
}

static void round_to_half(const float *x, uint16_t *half, float *y, size_t n) {
    kv_f32_to_f16_n(x, half, n);
    kv_f16_to_f32_n(half, y, n);
}

// A cache of fp16 cannot hold every model's keys and values; what would become infinite there is no
// recording.
static int check_half(const struct kv_item_pass *p, const char *what, uint32_t layer,
                      const float *x, const uint16_t *half, size_t n, size_t width,
                      struct kv_error *e) {
    size_t i = kv_find_not_finite_f16(half, n);
    if (i == n) return 0;
    return kv_fail(e, KV_EFAIL, p->m->name,
                   "item %u (id %s): a %s of layer %u at token %zu is %g, which fp16 cannot hold "
                   "(up to 65504): nothing is recorded",
                   p->item->index, p->item->id, what, layer, i / width, (double)x[i]);
}

// What the layer knows of each token when it codes it.
static int keep_cells(const struct kv_item_pass *p, uint32_t layer, const struct kv_layer_kv *kv,
                      struct kv_error *e) {
    const struct kv_shape *s = &p->m->shape;
    size_t h = s->hidden, n = p->item->n_tokens * h;
    if (!p->input) return 0;
    uint16_t *half = kv_alloc(n, sizeof *half);
    kv_f32_to_f16_n(p->norm_now, half, n);
    int rc = check_half(p, "normalised input", layer, p->norm_now, half, n, h, e);
    for (size_t row = 0; row < p->item->n_tokens && rc == 0; row++)
        memcpy(p->input + (row * s->n_layers + layer) * h, half + row * h, h * sizeof *half);
    free(half);
    if (rc == 0) kv_cell_attention(s, p->item, layer, p->q_now, kv, p->exact_k, p->attention);
    return rc;
}

int kv_item_pass_store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                       struct kv_layer_view *view, struct kv_error *e) {
    struct kv_item_pass *p = self;
    size_t width = (size_t)p->m->shape.n_kv_heads * p->m->shape.head_dim,
           n = p->item->n_tokens * width;
    uint16_t *half = kv_alloc(n, sizeof *half);
    round_to_half(kv->k, half, p->exact_k, n);
    int rc = check_half(p, "key", layer, kv->k, half, n, width, e);
    round_to_half(kv->v, half, p->exact_v, n);
    if (rc == 0) rc = check_half(p, "value", layer, kv->v, half, n, width, e);
    free(half);
    p->refused = rc != 0;
    if (rc) return rc;
    kv_add_ranges(&p->m->shape, p->exact_k, 0, p->item->n_tokens, KV_KEY_RANGE, p->features);
    kv_add_ranges(&p->m->shape, p->exact_v, 0, p->item->n_tokens, KV_VALUE_RANGE, p->features);
    keep_rows(p, p->k, layer, p->exact_k, width);
    keep_rows(p, p->v, layer, p->exact_v, width);
    *view = (struct kv_layer_view){.k_exact = p->exact_k, .v_exact = p->exact_v};
    rc = keep_cells(p, layer, kv, e);
    p->refused = rc != 0;
    return rc;
}

void kv_item_pass_judge(const struct kv_item_pass *p, struct kv_scratch *s, const float *final,
                        const uint32_t *rows, size_t n_rows, float *next_logprob, double *score) {
    const struct kv_trace_item *it = p->item;
    size_t h = p->m->shape.hidden;
    size_t most = kv_head_rows(p->m);
    float *gathered = kv_alloc(most * h, sizeof *gathered);
    for (size_t from = 0, n; from < n_rows; from += n) {
        struct kv_reference r;
        n = n_rows - from < most ? n_rows - from : most;
        for (size_t i = 0; i < n; i++)
            memcpy(gathered + i * h, final + rows[from + i] * h, h * sizeof *final);
        kv_head_reference(p->m, gathered, n, s, &r);
        for (size_t i = 0; i < n; i++) {
            uint32_t row = rows[from + i];
            float *f = p->features + (size_t)row * KV_N_FEATURES;
            kv_reference_features(p->m, &r, i, &f[KV_ENTROPY_NATS], &f[KV_CONFIDENCE]);
            bool branch = it->n_choices > 0 && row + 1 == it->n_context;
            bool last = row + 1 == it->n_tokens;
            for (uint32_t c = 0; c < it->n_choices && !last; c++)
                last = row + 1 == it->first[c + 1];
            if (branch && score)
                for (uint32_t c = 0; c < it->n_choices; c++) {
                    double first = kv_reference_logprob(p->m, &r, i, it->ids[it->first[c]]);
                    score[c] += first;
                    if (p->surprisal) p->surprisal[it->first[c]] = (float)(0 - first);
                }
            if (branch || last) continue;
            double logprob = kv_reference_logprob(p->m, &r, i, it->ids[row + 1]);
            next_logprob[row] = (float)logprob;
            if (p->surprisal) p->surprisal[row + 1] = (float)(0 - logprob);
            uint32_t c = 0;
            while (c + 1 < it->n_choices && row >= it->first[c + 1]) c++;
            if (score) score[c] += logprob;
        }
    }
    free(gathered);
}
