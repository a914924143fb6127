// SPDX-License-Identifier: Apache-2.0
// The steps of a layer but attention: norms, products, biases, RoPE, the gate, residuals.
#include "sim/model/layer.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/kernels.h"
#include "sim/model/rope.h"
#include "sim/model/scratch.h"

void kv_layer_run_init(struct kv_layer_run *p, struct kv_scratch *s) {
    kv_paths_init(&p->at, p->job->tree);
    const struct kv_shape *sh = &p->m->shape;
    size_t keys = (size_t)sh->n_kv_heads * sh->head_dim * p->at.ld,
           group = sh->n_heads / sh->n_kv_heads;
    p->by_blocks = p->at.longest > KV_AT_ONCE_TOKENS;
    p->scratch = s;
    p->masked = kv_alloc(p->at.longest + 1, 1);
    if (p->by_blocks && p->job->tree->n_choices == 0) return; // no row attends by itself
    p->k_t[0] = kv_scratch_floats(s, KV_BUF_KEYS_EXACT, keys);
    p->k_t[1] = kv_scratch_floats(s, KV_BUF_KEYS_CODED, keys);
    // Columns between segments are read but never used; stale NaNs there would be harmless but
    // slow.
    memset(p->k_t[0], 0, keys * sizeof(float));
    memset(p->k_t[1], 0, keys * sizeof(float));
    p->weights = kv_scratch_floats(s, KV_BUF_WEIGHTS_ROW, group * p->at.ld_row);
    p->q_scaled = kv_scratch_floats(s, KV_BUF_Q_SCALED, group * sh->head_dim);
}

void kv_layer_run_fini(struct kv_layer_run *p) {
    free(p->masked);
    kv_paths_fini(&p->at);
}

struct kv_layer_kv kv_layer_take_kv(const struct kv_model *m, size_t n, struct kv_scratch *s) {
    n *= (size_t)m->shape.n_kv_heads * m->shape.head_dim;
    return (struct kv_layer_kv){kv_scratch_floats(s, KV_BUF_K_RAW, n),
                                kv_scratch_floats(s, KV_BUF_K, n),
                                kv_scratch_floats(s, KV_BUF_V, n)};
}

static void add_bias(float *y, const float *bias, size_t rows, size_t n) {
    for (size_t r = 0; r < rows && bias; r++, y += n)
        for (size_t i = 0; i < n; i++) y[i] += bias[i];
}

// ---- chunks of rows -------------------------------------------------------------------

// A part of the layer, chunk by chunk: each reads rows of `from` and writes or adds to those of
// `to`.
struct chunks {
    const struct kv_layer_run *p;
    size_t rows;
    void (*chunk)(const struct chunks *c, size_t at, size_t n, struct kv_scratch *s);
    const float *from;
    float *to;
    float *norm;            // of all rows, or NULL: in the scratch
    struct kv_layer_kv *kv; // of what goes into attention
    float *up;              // [rows][2 ffn] where gate and up stay, or NULL: in the scratch
};

static void one_chunk(void *self, struct kv_scratch *hand, size_t i) {
    const struct chunks *c = self;
    size_t at = i * KV_CHUNK_ROWS;
    c->chunk(c, at, kv_layer_rows(c->p, c->rows - at), hand);
}

// Threads share chunks, but where products are elsewhere (accelerator.h): those are a thread's own.
static int by_chunks(struct chunks *c, struct kv_scratch *s, struct kv_error *e) {
    size_t n = c->p->by_blocks ? (c->rows + KV_CHUNK_ROWS - 1) / KV_CHUNK_ROWS : c->rows > 0;
    if (!c->p->m->layers[c->p->layer].qkv.accelerator)
        return kv_scratch_parallel(s, n, one_chunk, c, e);
    for (size_t i = 0; i < n; i++) one_chunk(c, s, i);
    return 0;
}

// ---- into attention -------------------------------------------------------------------

// Heads of one row as they go into RoPE: each over its RMS where the model has a norm of heads
// (Henry et al. 2020, arXiv 2010.04245), else as they are. keep: their copy before, or NULL.
static void norm_heads(const struct kv_model *m, float *to, const float *from, const float *gain,
                       size_t n_heads, float *keep) {
    size_t d = m->shape.head_dim, bytes = n_heads * d * sizeof *to;
    if (gain)
        kv_kernels()->rms_norm(to, from, gain, n_heads, d, m->rms_eps);
    else
        memcpy(to, from, bytes);
    if (keep) memcpy(keep, from, bytes);
}

// Splits the fused product of n of the rows computed, from the `from`-th on, into Q (rotated in
// place of `q`) and this layer's K and V rows.
static void split_qkv(const struct kv_layer_run *p, size_t from, size_t n, const float *qkv,
                      float *q, struct kv_layer_kv *kv) {
    const struct kv_shape *sh = &p->m->shape;
    const struct kv_layer_weights *w = &p->m->layers[p->layer];
    size_t nq = (size_t)sh->n_heads * sh->head_dim, nk = (size_t)sh->n_kv_heads * sh->head_dim;
    float gain = kv_query_gain(p->m), *q_raw = p->tape ? p->tape->q_raw : NULL,
          *k_raw = p->tape ? p->tape->k_raw : NULL;
    q += from * nq;
    for (size_t i = 0, row = p->job->first_row + from; i < n;
         i++, row++, qkv += nq + 2 * nk, q += nq) {
        uint32_t position = p->at.position[row];
        norm_heads(p->m, q, qkv, w->q_norm, sh->n_heads, q_raw ? q_raw + row * nq : NULL);
        kv_rope_turn(p->m, p->layer, q, sh->n_heads, position, 1);
        for (size_t j = 0; j < nq && gain != 1; j++) q[j] *= gain;
        norm_heads(p->m, kv->k_raw + row * nk, qkv + nq, w->k_norm, sh->n_kv_heads,
                   k_raw ? k_raw + row * nk : NULL);
        memcpy(kv->k + row * nk, kv->k_raw + row * nk, nk * sizeof *q);
        kv_rope_turn(p->m, p->layer, kv->k + row * nk, sh->n_kv_heads, position, 1);
        memcpy(kv->v + row * nk, qkv + nq + nk, nk * sizeof *q);
    }
}

static void project_chunk(const struct chunks *c, size_t at, size_t n, struct kv_scratch *s) {
    const struct kv_layer_weights *w = &c->p->m->layers[c->p->layer];
    size_t h = c->p->m->shape.hidden;
    float *norm = c->norm ? c->norm + at * h : kv_scratch_floats(s, KV_BUF_NORM, n * h),
          *qkv = kv_scratch_floats(s, KV_BUF_QKV, n * w->qkv.rows);
    kv_kernels()->rms_norm(norm, c->from + at * h, w->attn_norm, n, h, c->p->m->rms_eps);
    kv_product(&w->qkv, norm, n, qkv, s);
    add_bias(qkv, w->qkv_bias, n, w->qkv.rows);
    split_qkv(c->p, at, n, qkv, c->to, c->kv);
}

int kv_layer_project(const struct kv_layer_run *p, const float *x, size_t rows, float *q,
                     struct kv_layer_kv *kv, struct kv_scratch *s, struct kv_error *e) {
    struct chunks c = {.p = p, .rows = rows, .chunk = project_chunk, .from = x, .to = q, .kv = kv};
    if (p->job->observe) // who observes sees the norm of all rows
        c.norm = kv_scratch_floats(s, KV_BUF_NORM, rows * p->m->shape.hidden);
    return by_chunks(&c, s, e);
}

// ---- onto the residual stream ---------------------------------------------------------

// Adds a part's output, through its norm where there is one; keep: a copy before that norm, or
// NULL.
static void add_part(const struct kv_model *m, float *delta, const float *norm, float *keep,
                     size_t rows, float *x) {
    size_t h = m->shape.hidden, n = rows * h;
    if (keep) memcpy(keep, delta, n * sizeof *delta);
    if (norm) kv_kernels()->rms_norm(delta, delta, norm, rows, h, m->rms_eps);
    for (size_t i = 0; i < n; i++) x[i] += delta[i];
}

// A member of the tape from an offset on; NULL where there is none.
static float *taped(float *member, size_t at) {
    return member ? member + at : NULL;
}

static void add_mixed_chunk(const struct chunks *c, size_t at, size_t n, struct kv_scratch *s) {
    const struct kv_layer_run *p = c->p;
    const struct kv_layer_weights *w = &p->m->layers[p->layer];
    size_t h = p->m->shape.hidden;
    float *delta = kv_scratch_floats(s, KV_BUF_DELTA, n * h);
    kv_product(&w->out, c->from + at * w->out.cols, n, delta, s);
    add_bias(delta, w->out_bias, n, h);
    add_part(p->m, delta, w->attn_post_norm, p->tape ? taped(p->tape->attn_delta, at * h) : NULL, n,
             c->to + at * h);
}

int kv_layer_add_mixed(const struct kv_layer_run *p, const float *mixed, size_t rows, float *x,
                       struct kv_scratch *s, struct kv_error *e) {
    struct chunks c = {.p = p, .rows = rows, .chunk = add_mixed_chunk, .from = mixed, .to = x};
    return by_chunks(&c, s, e);
}

// One chunk of what follows; p->by_blocks cuts no further.
static void gate_up(const struct kv_layer_run *p, const float *x, size_t rows, float *up,
                    struct kv_scratch *s) {
    const struct kv_layer_weights *w = &p->m->layers[p->layer];
    float *norm = kv_scratch_floats(s, KV_BUF_NORM, rows * p->m->shape.hidden);
    kv_kernels()->rms_norm(norm, x, w->ffn_norm, rows, p->m->shape.hidden, p->m->rms_eps);
    kv_product(&w->gateup, norm, rows, up, s);
    add_bias(up, w->gateup_bias, rows, w->gateup.rows);
}

static void down(const struct kv_layer_run *p, const float *up, size_t rows, float *delta,
                 struct kv_scratch *s) {
    const struct kv_layer_weights *w = &p->m->layers[p->layer];
    const struct kv_kernels *k = kv_kernels();
    size_t ffn = p->m->shape.ffn;
    float *act = kv_scratch_floats(s, KV_BUF_ACT, rows * ffn);
    (p->m->activation == KV_GELU_TANH ? k->geglu : k->swiglu)(act, up, rows, ffn);
    kv_product(&w->down, act, rows, delta, s);
    add_bias(delta, w->down_bias, rows, p->m->shape.hidden);
}

void kv_layer_gate_up(const struct kv_layer_run *p, const float *x, size_t rows, float *up,
                      struct kv_scratch *s) {
    for (size_t at = 0, n; at < rows; at += n) {
        n = kv_layer_rows(p, rows - at);
        gate_up(p, x + at * p->m->shape.hidden, n, up + at * 2 * p->m->shape.ffn, s);
    }
}

void kv_layer_down(const struct kv_layer_run *p, const float *up, size_t rows, float *delta,
                   struct kv_scratch *s) {
    for (size_t at = 0, n; at < rows; at += n) {
        n = kv_layer_rows(p, rows - at);
        down(p, up + at * 2 * p->m->shape.ffn, n, delta + at * p->m->shape.hidden, s);
    }
}

static void feed_forward_chunk(const struct chunks *c, size_t at, size_t n, struct kv_scratch *s) {
    const struct kv_layer_run *p = c->p;
    size_t h = p->m->shape.hidden, width = 2 * (size_t)p->m->shape.ffn;
    float *up = c->up ? c->up + at * width : kv_scratch_floats(s, KV_BUF_GATEUP, n * width),
          *delta = kv_scratch_floats(s, KV_BUF_DELTA, n * h), *x = c->to + at * h;
    gate_up(p, x, n, up, s);
    down(p, up, n, delta, s);
    add_part(p->m, delta, p->m->layers[p->layer].ffn_post_norm,
             p->tape ? taped(p->tape->ffn_delta, at * h) : NULL, n, x);
}

int kv_layer_feed_forward(const struct kv_layer_run *p, float *up, size_t rows, float *x,
                          struct kv_scratch *s, struct kv_error *e) {
    struct chunks c = {.p = p, .rows = rows, .chunk = feed_forward_chunk, .to = x, .up = up};
    return by_chunks(&c, s, e);
}
