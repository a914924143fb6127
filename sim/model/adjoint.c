// SPDX-License-Identifier: Apache-2.0
// Backward through head, norms, gates, attention, RoPE and residuals, for activations only.
#include "sim/model/adjoint.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/model/accelerator.h"
#include "sim/model/back.h"
#include "sim/model/kernels.h"
#include "sim/model/layer.h"
#include "sim/model/scratch.h"

// ---- labels ---------------------------------------------------------------------------

// Smallest v with p_0 + ... + p_v > u: the token at quantile u of a distribution.
static uint32_t quantile(const float *p, size_t n, double u) {
    double sum = 0;
    size_t last = 0;
    for (size_t v = 0; v < n; v++) {
        if (p[v] > 0) last = v;
        sum += (double)p[v];
        if (sum > u) return (uint32_t)v;
    }
    return (uint32_t)last; // rounding left the sum below u
}

void kv_adjoint_seed(const struct kv_model *m, const float *final, const struct kv_scored *scored,
                     size_t n_scored, uint64_t seed, size_t n_draws, struct kv_scratch *s,
                     struct kv_adjoint_seed *out) {
    size_t h = m->shape.hidden, vocab = m->shape.vocab, first_label = 0;
    *out = (struct kv_adjoint_seed){.n_scored = n_scored, .scored = scored, .n_draws = n_draws};
    for (size_t i = 0; i < n_scored; i++) out->n_labels += scored[i].count;
    out->mean_row = kv_alloc(n_scored * h, sizeof(float));
    out->label = kv_alloc(n_draws * out->n_labels, sizeof *out->label);
    size_t most = kv_head_rows(m);
    float *gathered = kv_alloc(most * h, sizeof *gathered);
    for (size_t from = 0, n; from < n_scored; from += n) {
        struct kv_reference r;
        n = n_scored - from < most ? n_scored - from : most;
        for (size_t i = 0; i < n; i++)
            memcpy(gathered + i * h, final + scored[from + i].row * h, h * sizeof *final);
        kv_head_reference(m, gathered, n, s, &r);
        kv_product_back(&m->head, r.p, n, out->mean_row + from * h, s);
        for (size_t i = 0; i < n; i++) {
            for (uint32_t c = 0; c < scored[from + i].count; c++)
                for (size_t draw = 0; draw < n_draws; draw++) {
                    double u = kv_draw(seed + draw, scored[from + i].row, c) * r.sum_p[i];
                    out->label[draw * out->n_labels + first_label + c] =
                        quantile(r.p + i * vocab, vocab, u);
                }
            first_label += scored[from + i].count;
        }
    }
    free(gathered);
}

void kv_adjoint_seed_fini(struct kv_adjoint_seed *seed) {
    free(seed->mean_row);
    free(seed->label);
    *seed = (struct kv_adjoint_seed){0};
}

void kv_adjoint_draw(const struct kv_model *m, const struct kv_adjoint_seed *seed, size_t draw,
                     size_t n_tokens, float *d_final) {
    size_t h = m->shape.hidden;
    const uint32_t *label = seed->label + draw * seed->n_labels;
    memset(d_final, 0, n_tokens * h * sizeof *d_final);
    for (size_t i = 0; i < seed->n_scored; i++) {
        float *d = d_final + seed->scored[i].row * h;
        const float *mean = seed->mean_row + i * h;
        for (size_t j = 0; j < h; j++) d[j] = -(float)seed->scored[i].count * mean[j];
        for (uint32_t c = 0; c < seed->scored[i].count; c++, label++)
            for (size_t j = 0; j < h; j++) {
                size_t at = *label * h + j;
                d[j] += m->head.f32 ? m->head.f32[at] : kv_bf16_to_f32(m->head.bf16[at]);
            }
    }
}

// ---- attention ------------------------------------------------------------------------

struct back {
    const struct kv_model *m;
    const struct kv_adjoint *job;
    struct kv_paths at;
    float *dk, *dv;           // [n_tokens][n_kv] of the chain
    float *dk_read, *dv_read; // of the counted reads; the same as above when all count
    float *dq;                // [n_tokens][n_q]
    float *d_evict;           // [n_tokens][n_kv_heads]
    float *k_t, *v_t;         // [n_kv][ld] transposed, segments padded to KV_TILE columns
    float *weights, *d_score, *q_scaled, *out; // one row's
};

// The counted part of a row's gradient is its outer products with the first `counted` of what it
// sees.
static void count_reads(const struct back *b, const struct kv_attend_back *a, size_t counted) {
    size_t t = 0, dim = a->dim;
    for (size_t i = 0; i < a->n_spans; i++) {
        ptrdiff_t shift = b->dk_read - b->dk, shift_v = b->dv_read - b->dv;
        for (size_t j = 0; j < a->span[i].count && t < counted; j++, t++) {
            float *dk = a->span[i].dk + shift + j * a->span[i].ld;
            float *dv = a->span[i].dv + shift_v + j * a->span[i].ld;
            for (size_t g = 0; g < a->n_q; g++)
                for (size_t k = 0; k < dim; k++) {
                    dk[k] += a->d_score[g * a->ld_w + t] * a->q[g * dim + k];
                    dv[k] += a->weights[g * a->ld_w + t] * a->d_out[g * dim + k];
                }
        }
    }
}

// How many of the `len` positions from `from` on count for a row.
static size_t count_of(const struct back *b, uint32_t row, size_t from, size_t len) {
    if (!b->job->counted) return len;
    size_t upto = b->job->counted[row];
    upto = upto > from ? upto - from : 0;
    return upto < len ? upto : len;
}

// With d s_t = a_t (dL/do . v_t - dL/do . o), the change is - d s_t / (1 - a_t). A token that takes
// all the attention has no such limit; its share is held below 1 - 1e-4.
static void add_evictions(const struct back *b, const struct kv_attend_back *a, uint32_t row,
                          size_t head, size_t from) {
    size_t heads = b->m->shape.n_kv_heads, seen = count_of(b, row, from, a->len);
    if (seen > a->len - 1) seen = a->len - 1; // a token's own query always sees it
    for (size_t j = 0; j < seen; j++) {
        size_t to = kv_paths_row(&b->at, b->at.choice[row], from + j);
        for (size_t g = 0; g < a->n_q; g++)
            b->d_evict[to * heads + head] -=
                a->d_score[g * a->ld_w + j] / fmaxf(1 - a->weights[g * a->ld_w + j], 1e-4f);
    }
}

static void back_row(struct back *b, uint32_t layer, const float *d_mixed, uint32_t row,
                     size_t head) {
    const struct kv_tape_layer *tape = &b->job->tape->layers[layer];
    const struct kv_shape *sh = &b->m->shape;
    const struct kv_tree *t = b->job->tree;
    size_t d = sh->head_dim, group = sh->n_heads / sh->n_kv_heads,
           width = (size_t)sh->n_kv_heads * d;
    size_t q_at = ((size_t)row * sh->n_heads + head * group) * d;
    uint32_t c = b->at.choice[row];
    size_t end = b->at.position[row] + 1,
           seen = kv_window_start(b->m->layers[layer].window, b->at.position[row]),
           len = end - seen;
    float scale = 1.0f / sqrtf((float)d);
    for (size_t i = 0; i < group * d; i++) b->q_scaled[i] = tape->q[q_at + i] * scale;
    struct kv_attend fore = {.n_q = group,
                             .dim = d,
                             .q = b->q_scaled,
                             .len = len,
                             .weights = b->weights,
                             .ld_w = b->at.ld_row,
                             .out = b->out};
    struct kv_attend_back a = {.n_q = group,
                               .dim = d,
                               .len = len,
                               .q = b->q_scaled,
                               .weights = b->weights,
                               .out = tape->mixed + q_at,
                               .d_out = d_mixed + q_at,
                               .d_score = b->d_score,
                               .ld_w = b->at.ld_row,
                               .dq = b->dq + q_at};
    // The part of the context that it sees, then of its choice.
    size_t context = c == t->n_choices ? end : t->n_context;
    for (size_t part = 0; part < 2; part++) {
        size_t from = part && seen < context ? context : seen, to = part ? end : context;
        if (from >= to) continue;
        size_t column = part ? b->at.column[c] + from - context : from,
               at = kv_paths_row(&b->at, c, from) * width + head * d, i = fore.n_spans++;
        fore.span[i] = (struct kv_span){b->k_t + head * d * b->at.ld + column, b->at.ld,
                                        tape->v + at, width, to - from};
        a.span[i] = (struct kv_attend_back_span){.k = tape->k + at,
                                                 .v = tape->v + at,
                                                 .v_t = b->v_t + head * d * b->at.ld + column,
                                                 .dk = b->dk + at,
                                                 .dv = b->dv + at,
                                                 .ld = width,
                                                 .ld_t = b->at.ld,
                                                 .count = to - from};
        a.n_spans = fore.n_spans;
    }
    kv_kernels()->attend(&fore); // weights again: cheaper than keeping them
    kv_kernels()->attend_back(&a);
    for (size_t i = 0; i < group * d; i++) b->dq[q_at + i] *= scale;
    add_evictions(b, &a, row, head, seen);
    if (b->job->counted) count_reads(b, &a, count_of(b, row, seen, len));
}

// ---- layers ---------------------------------------------------------------------------

static void take_buffers(struct back *b, struct kv_scratch *s) {
    const struct kv_tree *t = b->job->tree;
    const struct kv_shape *sh = &b->m->shape;
    size_t n_kv = (size_t)sh->n_kv_heads * sh->head_dim, group = sh->n_heads / sh->n_kv_heads;
    b->k_t = kv_scratch_floats(s, KV_BUF_KEYS_EXACT, n_kv * b->at.ld);
    b->v_t = kv_scratch_floats(s, KV_BUF_KEYS_CODED, n_kv * b->at.ld);
    memset(b->k_t, 0, n_kv * b->at.ld * sizeof(float));
    memset(b->v_t, 0, n_kv * b->at.ld * sizeof(float));
    b->weights = kv_scratch_floats(s, KV_BUF_WEIGHTS_ROW, 2 * group * b->at.ld_row);
    b->d_score = b->weights + group * b->at.ld_row;
    b->q_scaled = kv_scratch_floats(s, KV_BUF_Q_SCALED, 2 * group * sh->head_dim);
    b->out = b->q_scaled + group * sh->head_dim;
    b->dk = kv_scratch_floats(s, KV_BUF_DK, 4 * t->n_tokens * n_kv);
    b->dv = b->dk + t->n_tokens * n_kv;
    b->dk_read = b->job->counted ? b->dv + t->n_tokens * n_kv : b->dk;
    b->dv_read = b->job->counted ? b->dk_read + t->n_tokens * n_kv : b->dv;
    b->d_evict = kv_scratch_floats(s, KV_BUF_EVICT, (size_t)t->n_tokens * sh->n_kv_heads);
    b->dq = kv_scratch_floats(s, KV_BUF_DQ, (size_t)t->n_tokens * sh->n_heads * sh->head_dim);
}

// dx (of what a part added, before its norm) from dx (after it): dx itself where there is no norm,
// else in the scratch.
static const float *back_part(const struct back *b, const float *dx, const float *delta,
                              const float *norm, struct kv_scratch *s) {
    size_t rows = b->job->tree->n_tokens, h = b->m->shape.hidden;
    if (!norm) return dx;
    float *d_delta = kv_scratch_floats(s, KV_BUF_DELTA, rows * h);
    memset(d_delta, 0, rows * h * sizeof *d_delta);
    kv_kernels()->rms_norm_back(d_delta, dx, delta, norm, rows, h, b->m->rms_eps);
    return d_delta;
}

// One row's gradient of heads before their norm, from that of heads after it.
static void back_heads(const struct kv_model *m, float *to, const float *d, const float *raw,
                       const float *gain, size_t n_heads) {
    size_t n = n_heads * m->shape.head_dim;
    memset(to, 0, n * sizeof *to);
    if (gain)
        kv_kernels()->rms_norm_back(to, d, raw, gain, n_heads, m->shape.head_dim, m->rms_eps);
    else
        memcpy(to, d, n * sizeof *to);
}

// d_qkv [n_tokens][n_q + 2 n_kv] from the gradients of queries and keys after RoPE, and of values.
static void back_qkv(const struct back *b, uint32_t l, float *d_qkv) {
    const struct kv_model *m = b->m;
    const struct kv_shape *sh = &m->shape;
    const struct kv_layer_weights *w = &m->layers[l];
    const struct kv_tape_layer *tape = &b->job->tape->layers[l];
    size_t rows = b->job->tree->n_tokens, n_kv = (size_t)sh->n_kv_heads * sh->head_dim,
           n_q = (size_t)sh->n_heads * sh->head_dim;
    float gain = kv_query_gain(m);
    for (size_t i = 0; i < rows * n_q && gain != 1; i++) b->dq[i] *= gain;
    kv_rope_back(m, l, b->dq, rows, sh->n_heads, b->at.position);
    kv_rope_back(m, l, b->dk, rows, sh->n_kv_heads, b->at.position);
    for (size_t row = 0; row < rows; row++, d_qkv += n_q + 2 * n_kv) {
        back_heads(m, d_qkv, b->dq + row * n_q, w->q_norm ? tape->q_raw + row * n_q : NULL,
                   w->q_norm, sh->n_heads);
        back_heads(m, d_qkv + n_q, b->dk + row * n_kv, w->k_norm ? tape->k_raw + row * n_kv : NULL,
                   w->k_norm, sh->n_kv_heads);
        memcpy(d_qkv + n_q + n_kv, b->dv + row * n_kv, n_kv * sizeof *d_qkv);
    }
}

// dx (of the layer's input) from dx (of its output), in place, of one draw.
static void back_layer(struct back *b, size_t draw, uint32_t l, float *dx, struct kv_scratch *s) {
    const struct kv_model *m = b->m;
    const struct kv_shape *sh = &m->shape;
    const struct kv_layer_weights *w = &m->layers[l];
    const struct kv_tape_layer *tape = &b->job->tape->layers[l];
    const struct kv_kernels *k = kv_kernels();
    size_t rows = b->job->tree->n_tokens, h = sh->hidden,
           n_kv = (size_t)sh->n_kv_heads * sh->head_dim, n_q = (size_t)sh->n_heads * sh->head_dim;
    float *d_act = kv_scratch_floats(s, KV_BUF_ACT, rows * sh->ffn);
    float *d_gateup = kv_scratch_floats(s, KV_BUF_GATEUP, rows * 2 * sh->ffn);
    float *d_norm = kv_scratch_floats(s, KV_BUF_NORM, rows * h);
    float *d_mixed = kv_scratch_floats(s, KV_BUF_MIXED, rows * n_q);
    float *d_qkv = kv_scratch_floats(s, KV_BUF_QKV, rows * (n_q + 2 * n_kv));
    kv_product_back(&w->down, back_part(b, dx, tape->ffn_delta, w->ffn_post_norm, s), rows, d_act,
                    s);
    (m->activation == KV_GELU_TANH ? k->geglu_back : k->swiglu_back)(d_gateup, d_act, tape->gateup,
                                                                     rows, sh->ffn);
    kv_product_back(&w->gateup, d_gateup, rows, d_norm, s);
    k->rms_norm_back(dx, d_norm, tape->middle, w->ffn_norm, rows, h, m->rms_eps);
    kv_product_back(&w->out, back_part(b, dx, tape->attn_delta, w->attn_post_norm, s), rows,
                    d_mixed, s);
    memset(b->dk, 0, (b->job->counted ? 4 : 2) * rows * n_kv * sizeof(float));
    memset(b->d_evict, 0, rows * sh->n_kv_heads * sizeof(float));
    for (size_t head = 0; head < sh->n_kv_heads; head++)
        for (uint32_t row = 0; row < rows; row++) back_row(b, l, d_mixed, row, head);
    b->job->take(b->job->self, draw, l, b->dk_read, b->dv_read, b->d_evict);
    back_qkv(b, l, d_qkv);
    kv_product_back(&w->qkv, d_qkv, rows, d_norm, s);
    k->rms_norm_back(dx, d_norm, tape->x, w->attn_norm, rows, h, m->rms_eps);
}

// On the accelerator that holds the weights, unless it cannot take the item. A device that fails
// ends the call, as in product.c.
static bool back_elsewhere(struct back *b, struct kv_scratch *s) {
    char why[256] = "";
    const struct kv_accelerator *a = b->m->accelerator;
    if (!a || !a->back) return false;
    int rc = kv_back_hand_over(b->m, b->job, &b->at, s, a->back, why, sizeof why);
    if (rc && rc != KV_BACK_TOO_LONG)
        kv_raise(KV_EFAIL, a->hardware, "going back over %u tokens failed: %s",
                 b->job->tree->n_tokens, why);
    return rc == 0;
}

void kv_adjoint(const struct kv_model *m, const struct kv_adjoint *job, struct kv_scratch *s) {
    struct back b = {.m = m, .job = job};
    size_t n = (size_t)job->tree->n_tokens * m->shape.hidden,
           n_kv = (size_t)m->shape.n_kv_heads * m->shape.head_dim;
    kv_paths_init(&b.at, job->tree);
    if (back_elsewhere(&b, s)) {
        kv_paths_fini(&b.at);
        return;
    }
    take_buffers(&b, s);
    float *dx = kv_scratch_floats(s, KV_BUF_X, job->n_draws * n);
    memset(dx, 0, job->n_draws * n * sizeof *dx);
    for (size_t draw = 0; draw < job->n_draws; draw++)
        kv_kernels()->rms_norm_back(dx + draw * n, job->d_final + draw * n, job->tape->x,
                                    m->final_norm, job->tree->n_tokens, m->shape.hidden,
                                    m->rms_eps);
    for (uint32_t l = m->shape.n_layers; l-- > 0;) {
        kv_tape_recall(m, job->tree, job->tape, l, s);
        kv_paths_transpose(&b.at, n_kv, job->tape->layers[l].k, b.k_t);
        kv_paths_transpose(&b.at, n_kv, job->tape->layers[l].v, b.v_t);
        for (size_t draw = 0; draw < job->n_draws; draw++)
            back_layer(&b, draw, l, dx + draw * n, s);
    }
    kv_paths_fini(&b.at);
}
