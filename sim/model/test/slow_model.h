// SPDX-License-Identifier: Apache-2.0
// For tests: the forward pass over a token tree in float64 and plain loops, the judge of the fast
// one.
#ifndef KV_MODEL_TEST_SLOW_MODEL_H
#define KV_MODEL_TEST_SLOW_MODEL_H

#include <math.h>
#include <stdlib.h>

#include "sim/model/forward.h"

enum { SLOW_LONGEST = 64 }; // tokens of a path

// One read of a cached number: the query at `query` (a row) in `layer` reads element `element` of
// row `row`, which stands at `position` of its path.
struct slow_read {
    uint32_t layer, query, row, element;
    enum kv_side side;
    size_t position;
};

struct slow {
    const struct kv_model *m;
    const struct kv_tree *t;
    // What is read where x is stored; NULL = x.
    double (*read)(const void *self, const struct slow_read *r, double x);
    // Whether a query sees a row at all; NULL = always.
    bool (*sees)(const void *self, uint32_t layer, size_t kv_head, uint32_t query, uint32_t row);
    // Gets the attention weights of a query's head over its path; NULL = not wanted.
    void (*weights)(const void *self, uint32_t layer, uint32_t query, const uint32_t *path,
                    const double *w, size_t n);
    const void *self;
};

static inline void slow_norm(double *y, const double *x, const float *gain, size_t n, double eps) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += x[i] * x[i];
    for (size_t i = 0; i < n; i++) y[i] = x[i] / sqrt(s / (double)n + eps) * (double)gain[i];
}

static inline void slow_product(double *y, const struct kv_matrix *w, const double *x) {
    for (size_t r = 0; r < w->rows; r++) {
        y[r] = 0;
        for (size_t c = 0; c < w->cols; c++) y[r] += (double)w->f32[r * w->cols + c] * x[c];
    }
}

// y += b, where the model has it.
static inline void slow_bias(double *y, const float *b, size_t n) {
    for (size_t i = 0; i < n && b; i++) y[i] += (double)b[i];
}

// Each of the heads over its RMS, where the model does that.
static inline void slow_norm_heads(const struct kv_model *m, double *x, const float *gain,
                                   size_t heads) {
    size_t d = m->shape.head_dim;
    for (size_t h = 0; h < heads && gain; h++)
        slow_norm(x + h * d, x + h * d, gain, d, (double)m->rms_eps);
}

static inline double slow_gate(const struct kv_model *m, double x) {
    if (m->activation == KV_SILU) return x / (1 + exp(-x));
    return x / 2 * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

static inline void slow_rope(const struct kv_model *m, const struct kv_rope *r, double *x,
                             size_t heads, uint32_t position) {
    size_t d = m->shape.head_dim, half = d / 2;
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < half; i++) {
            size_t a = h * d + (m->order == KV_ORDER_GGML ? 2 * i : i),
                   b = m->order == KV_ORDER_GGML ? a + 1 : a + half;
            double angle = position * kv_rope_frequency(r, (uint32_t)d, (uint32_t)i);
            double xa = x[a], xb = x[b], grow = (double)r->attention_factor;
            x[a] = grow * (xa * cos(angle) - xb * sin(angle));
            x[b] = grow * (xa * sin(angle) + xb * cos(angle));
        }
}

// Rows that `row` sees, in order of position.
static inline size_t slow_path(const struct kv_tree *t, uint32_t row, uint32_t *path) {
    size_t n = 0;
    uint32_t c = t->n_choices;
    for (uint32_t i = 0; i < t->n_choices; i++)
        if (row >= t->first[i] && row < t->first[i + 1]) c = i;
    for (uint32_t i = 0; i < t->n_context && i <= row; i++) path[n++] = i;
    if (c < t->n_choices)
        for (uint32_t i = t->first[c]; i <= row; i++) path[n++] = i;
    return n;
}

static inline double slow_read(const struct slow *s, struct slow_read r, double x) {
    return s->read ? s->read(s->self, &r, x) : x;
}

// k, v: [n_tokens][n_kv_heads * d] of the layer.
static inline void slow_attend(const struct slow *s, uint32_t layer, uint32_t row, const double *q,
                               const double *k, const double *v, double *out) {
    const struct kv_shape *sh = &s->m->shape;
    size_t d = sh->head_dim, n_kv = (size_t)sh->n_kv_heads * d;
    uint32_t path[SLOW_LONGEST];
    double w[SLOW_LONGEST];
    size_t n = slow_path(s->t, row, path), window = s->m->layers[layer].window;
    for (size_t h = 0; h < sh->n_heads; h++) {
        size_t kv = h / (sh->n_heads / sh->n_kv_heads);
        double top = -INFINITY, sum = 0;
        for (size_t j = 0; j < n; j++) {
            struct slow_read r = {layer, row, path[j], (uint32_t)(kv * d), KV_KEY, j};
            w[j] = 0;
            for (size_t i = 0; i < d; i++, r.element++)
                w[j] += q[h * d + i] * slow_read(s, r, k[path[j] * n_kv + kv * d + i]) *
                        (double)s->m->attn_scale;
            if (window && n - j > window) w[j] = -INFINITY;
            if (s->sees && !s->sees(s->self, layer, kv, row, path[j])) w[j] = -INFINITY;
            top = fmax(top, w[j]);
        }
        for (size_t j = 0; j < n; j++) sum += w[j] = exp(w[j] - top);
        for (size_t j = 0; j < n; j++) w[j] /= sum;
        for (size_t i = 0; i < d; i++) {
            out[h * d + i] = 0;
            for (size_t j = 0; j < n; j++) {
                struct slow_read r = {layer, row, path[j], (uint32_t)(kv * d + i), KV_VALUE, j};
                out[h * d + i] += w[j] * slow_read(s, r, v[path[j] * n_kv + kv * d + i]);
            }
        }
        if (s->weights) s->weights(s->self, layer, row, path, w, n);
    }
}

// Hidden states after the last norm, [n_tokens][hidden].
static inline void slow_forward(const struct slow *s, double *final) {
    const struct kv_shape *sh = &s->m->shape;
    size_t h = sh->hidden, d = sh->head_dim, n_q = sh->n_heads * d, n_kv = sh->n_kv_heads * d,
           width = n_q + 2 * n_kv, rows = s->t->n_tokens;
    double *x = calloc(rows * h, sizeof *x), *norm = calloc(h, sizeof *norm),
           *q = calloc(rows * n_q, sizeof *q), *k = calloc(rows * n_kv, sizeof *k),
           *v = calloc(rows * n_kv, sizeof *v), *qkv = calloc(width, sizeof *qkv),
           *mixed = calloc(n_q, sizeof *mixed), *delta = calloc(h, sizeof *delta),
           *up = calloc(2 * sh->ffn, sizeof *up);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < h; i++)
            x[r * h + i] =
                (double)s->m->embed_scale * (double)s->m->embed.f32[s->t->ids[r] * h + i];
    for (uint32_t l = 0; l < sh->n_layers; l++) {
        const struct kv_layer_weights *w = &s->m->layers[l];
        for (uint32_t r = 0; r < rows; r++) {
            uint32_t path[SLOW_LONGEST];
            slow_norm(norm, x + r * h, w->attn_norm, h, (double)s->m->rms_eps);
            slow_product(qkv, &w->qkv, norm);
            slow_bias(qkv, w->qkv_bias, width);
            slow_norm_heads(s->m, qkv, w->q_norm, sh->n_heads);
            slow_norm_heads(s->m, qkv + n_q, w->k_norm, sh->n_kv_heads);
            slow_rope(s->m, &s->m->rope[w->rope], qkv, sh->n_heads + sh->n_kv_heads,
                      (uint32_t)slow_path(s->t, r, path) - 1);
            memcpy(q + r * n_q, qkv, n_q * sizeof *q);
            memcpy(k + r * n_kv, qkv + n_q, n_kv * sizeof *k);
            memcpy(v + r * n_kv, qkv + n_q + n_kv, n_kv * sizeof *v);
        }
        for (uint32_t r = 0; r < rows; r++) {
            slow_attend(s, l, r, q + r * n_q, k, v, mixed);
            slow_product(delta, &w->out, mixed);
            slow_bias(delta, w->out_bias, h);
            if (w->attn_post_norm)
                slow_norm(delta, delta, w->attn_post_norm, h, (double)s->m->rms_eps);
            for (size_t i = 0; i < h; i++) x[r * h + i] += delta[i];
            slow_norm(norm, x + r * h, w->ffn_norm, h, (double)s->m->rms_eps);
            slow_product(up, &w->gateup, norm);
            slow_bias(up, w->gateup_bias, 2 * sh->ffn);
            for (size_t i = 0; i < sh->ffn; i++) up[i] = slow_gate(s->m, up[i]) * up[sh->ffn + i];
            slow_product(delta, &w->down, up);
            slow_bias(delta, w->down_bias, h);
            if (w->ffn_post_norm)
                slow_norm(delta, delta, w->ffn_post_norm, h, (double)s->m->rms_eps);
            for (size_t i = 0; i < h; i++) x[r * h + i] += delta[i];
        }
    }
    for (size_t r = 0; r < rows; r++)
        slow_norm(final + r * h, x + r * h, s->m->final_norm, h, (double)s->m->rms_eps);
    double *blocks[] = {x, norm, q, k, v, qkv, mixed, delta, up};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
}

#endif
