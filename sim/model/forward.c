// SPDX-License-Identifier: Apache-2.0
// Llama's forward pass over a tree: norm, fused QKV, RoPE, attention over spans, SwiGLU, residuals.
#include "sim/model/forward.h"

#include <stdlib.h>

#include "sim/base/blas.h"
#include "sim/base/guard.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/model/accelerator.h"
#include "sim/model/kernels.h"
#include "sim/model/paths.h"
#include "sim/model/rope.h"
#include "sim/model/scratch.h"

// ---- scratch --------------------------------------------------------------------------

struct kv_scratch *kv_scratch_new(void) {
    return kv_alloc(1, sizeof(struct kv_scratch));
}

void kv_scratch_free(struct kv_scratch *s) {
    if (!s) return;
    for (size_t i = 0; i < KV_N_BUFFERS; i++) free(s->buffer[i].p);
    free(s);
}

float *kv_scratch_floats(struct kv_scratch *s, enum kv_buffer which, size_t n) {
    if (s->buffer[which].n < n) {
        free(s->buffer[which].p);
        s->buffer[which].p = NULL;
        s->buffer[which].n = 0;
        s->buffer[which].p = kv_alloc(n, sizeof(float));
        s->buffer[which].n = n;
    }
    return s->buffer[which].p;
}

// The matrix in float32: its own memory, or widened into the scratch.
static const float *as_f32(const struct kv_matrix *w, struct kv_scratch *s) {
    if (w->f32) return w->f32;
    size_t n = w->rows * w->cols;
    float *wide = kv_scratch_floats(s, KV_BUF_WEIGHTS, n);
    for (size_t i = 0; i < n; i++) wide[i] = kv_bf16_to_f32(w->bf16[i]);
    return wide;
}

// On the accelerator that holds the matrix. A device that fails ends the call: what was finished is
// in the store.
static bool elsewhere(bool transposed, const struct kv_matrix *w, const float *x, size_t rows,
                      float *y) {
    char why[256] = "";
    const struct kv_accelerator *a = w->accelerator;
    if (!a) return false;
    size_t n = transposed ? w->rows : w->cols, k = transposed ? w->cols : w->rows;
    if (a->multiply(transposed, rows, n, k, x, w->f32, y, why, sizeof why))
        kv_raise(KV_EFAIL, a->hardware, "a product of %zu x %zu x %zu failed: %s", rows, n, k, why);
    return true;
}

void kv_product(const struct kv_matrix *w, const float *x, size_t rows, float *y,
                struct kv_scratch *s) {
    if (rows == 0 || elsewhere(true, w, x, rows, y)) return;
    kv_sgemm(false, true, rows, w->rows, w->cols, x, w->cols, as_f32(w, s), w->cols, 0, y, w->rows);
}

void kv_product_back(const struct kv_matrix *w, const float *dy, size_t rows, float *dx,
                     struct kv_scratch *s) {
    if (rows == 0 || elsewhere(false, w, dy, rows, dx)) return;
    kv_sgemm(false, false, rows, w->cols, w->rows, dy, w->rows, as_f32(w, s), w->cols, 0, dx,
             w->cols);
}

// ---- attention over one layer ---------------------------------------------------------

struct layer_pass {
    const struct kv_model *m;
    const struct kv_forward *job;
    struct kv_paths at;
    struct kv_layer_view view;
    const float *q; // [rows][n_heads * d], unscaled
    float *out;     // [rows][n_heads * d]
    uint32_t layer;
    float *k_t[2];   // transposed keys, exact and coded: [n_kv_heads][d][ld]
    float *weights;  // [group][ld_w]
    float *q_scaled; // [group][d]
    uint8_t *masked; // [longest path]
};

// Appends the positions [from, to) of a segment that starts at row `start`, column `column`.
static void add_span(struct kv_attend *a, const struct layer_pass *p, bool coded_k, bool coded_v,
                     size_t head, size_t start, size_t column, size_t from, size_t to) {
    if (from >= to) return;
    size_t d = p->m->shape.head_dim, width = (size_t)p->m->shape.n_kv_heads * d;
    const float *v = coded_v ? p->view.v_coded : p->view.v_exact;
    a->span[a->n_spans++] = (struct kv_span){
        .k_t = p->k_t[coded_k] + head * d * p->at.ld + column + from,
        .ld_k = p->at.ld,
        .v = v + (start + from) * width + head * d,
        .ld_v = width,
        .count = to - from,
    };
}

// Cuts [0, visible) of a segment whose first position is `base` where coded K or coded V end.
static void add_segment(struct kv_attend *a, const struct layer_pass *p, const uint32_t upto[2],
                        size_t head, size_t start, size_t column, size_t base, size_t visible) {
    size_t end[2];
    for (int s = 0; s < 2; s++) {
        end[s] = upto[s] > base ? upto[s] - base : 0;
        if (end[s] > visible) end[s] = visible;
    }
    size_t low = end[KV_KEY] < end[KV_VALUE] ? end[KV_KEY] : end[KV_VALUE];
    size_t high = end[KV_KEY] + end[KV_VALUE] - low;
    add_span(a, p, true, true, head, start, column, 0, low);
    add_span(a, p, end[KV_KEY] == high, end[KV_VALUE] == high, head, start, column, low, high);
    add_span(a, p, false, false, head, start, column, high, visible);
}

static void count_attention(const struct layer_pass *p, uint32_t row, const struct kv_attend *a) {
    const struct kv_tree *t = p->job->tree;
    struct kv_attention_stats *s = p->job->stats;
    uint32_t c = p->at.choice[row];
    bool last_layer = p->layer + 1 == p->m->shape.n_layers;
    float per_head = 1.0f / (float)p->m->shape.n_heads;
    float share = per_head / (float)p->m->shape.n_layers;
    // Each choice goes on from the context; what a choice's token receives is its own branch's.
    float later = c == t->n_choices ? share : share / (float)t->n_choices;
    for (size_t g = 0; g < a->n_q; g++) {
        const float *w = a->weights + g * a->ld_w;
        double sum = 0, squares = 0;
        for (size_t j = 0; j < a->len; j++) {
            size_t to = j < t->n_context ? j : t->first[c] + j - t->n_context;
            bool own = to == row;
            if (s->so_far && (own || c == t->n_choices)) s->so_far[to] += share * w[j];
            if (s->future && !own) s->future[to] += (j < t->n_context ? later : share) * w[j];
            sum += w[j];
            squares += (double)w[j] * w[j];
        }
        double mean = sum / (double)a->len;
        if (s->variance && last_layer)
            s->variance[row] += per_head * (float)(squares / (double)a->len - mean * mean);
    }
}

static void attend_row(struct layer_pass *p, uint32_t row, size_t head) {
    const struct kv_shape *sh = &p->m->shape;
    const struct kv_tree *t = p->job->tree;
    size_t d = sh->head_dim, group = sh->n_heads / sh->n_kv_heads, first_row = p->job->first_row;
    uint32_t c = p->at.choice[row], position = p->at.position[row], none[2] = {0, 0};
    const uint32_t *upto = p->job->coded_upto ? p->job->coded_upto + 2 * (size_t)row : none;
    struct kv_attend a = {.n_q = group, .dim = d, .q = p->q_scaled, .len = position + 1};
    const float *q = p->q + ((row - first_row) * sh->n_heads + head * group) * d;
    float scale = 1.0f / sqrtf((float)d);
    for (size_t i = 0; i < group * d; i++) p->q_scaled[i] = q[i] * scale;
    if (c == t->n_choices)
        add_segment(&a, p, upto, head, 0, 0, 0, a.len);
    else {
        add_segment(&a, p, upto, head, 0, 0, 0, t->n_context);
        add_segment(&a, p, upto, head, t->first[c], p->at.column[c], t->n_context,
                    a.len - t->n_context);
    }
    if (p->view.evicted) {
        const uint8_t *gone = p->view.evicted + head * t->n_tokens;
        for (size_t j = 0; j < a.len; j++)
            p->masked[j] = gone[j < t->n_context ? j : t->first[c] + j - t->n_context];
        p->masked[a.len - 1] = 0; // a token's own query sees it
        a.masked = p->masked;
    }
    a.weights = p->weights;
    a.ld_w = p->at.ld_row;
    a.out = p->out + ((row - first_row) * sh->n_heads + head * group) * d;
    kv_kernels()->attend(&a);
    if (p->job->stats) count_attention(p, row, &a);
}

static void attend_rows(struct layer_pass *p, uint32_t from, uint32_t to) {
    for (size_t h = 0; h < p->m->shape.n_kv_heads; h++)
        for (uint32_t row = from; row < to; row++) attend_row(p, row, h);
}

// The rows in runs between which what is stored may change: the context's end at multiples of
// age_tokens, the choices are the last.
static int attend_as_it_ages(struct layer_pass *p, size_t width, struct kv_error *e) {
    const struct kv_forward *job = p->job;
    const struct kv_tree *t = job->tree;
    for (uint32_t from = job->first_row, to; from < t->n_tokens; from = to) {
        bool in_context = from < t->n_context;
        int aged = job->age(job->self, p->layer, in_context ? from : t->n_context, e);
        if (aged < 0) return aged;
        if (aged && p->view.k_coded) kv_paths_transpose(&p->at, width, p->view.k_coded, p->k_t[1]);
        to = in_context ? (from / job->age_tokens + 1) * job->age_tokens : t->n_tokens;
        if (in_context && to > t->n_context) to = t->n_context;
        attend_rows(p, from, to);
    }
    return 0;
}

static int attention(struct layer_pass *p, struct kv_error *e) {
    size_t width = (size_t)p->m->shape.n_kv_heads * p->m->shape.head_dim;
    if (p->view.k_exact) kv_paths_transpose(&p->at, width, p->view.k_exact, p->k_t[0]);
    if (p->view.k_coded) kv_paths_transpose(&p->at, width, p->view.k_coded, p->k_t[1]);
    if (p->job->age) return attend_as_it_ages(p, width, e);
    attend_rows(p, p->job->first_row, p->job->tree->n_tokens);
    return 0;
}

// ---- parts of the pass ----------------------------------------------------------------

static void embed(const struct kv_model *m, const struct kv_forward *job, float *x) {
    size_t h = m->shape.hidden;
    for (uint32_t row = job->first_row; row < job->tree->n_tokens; row++, x += h) {
        size_t at = (size_t)job->tree->ids[row] * h;
        for (size_t i = 0; i < h; i++)
            x[i] = m->embed.f32 ? m->embed.f32[at + i] : kv_bf16_to_f32(m->embed.bf16[at + i]);
        if (job->disturb > 0)
            for (size_t i = 0; i < h; i++)
                x[i] *= (float)(1 + job->disturb * (2 * kv_draw(job->disturb_seed, row, i) - 1));
    }
}

static void take_buffers(struct layer_pass *p, struct kv_scratch *s) {
    const struct kv_shape *sh = &p->m->shape;
    size_t keys = (size_t)sh->n_kv_heads * sh->head_dim * p->at.ld,
           group = sh->n_heads / sh->n_kv_heads;
    p->k_t[0] = kv_scratch_floats(s, KV_BUF_KEYS_EXACT, keys);
    p->k_t[1] = kv_scratch_floats(s, KV_BUF_KEYS_CODED, keys);
    // Columns between segments are read but never used; stale NaNs there would be harmless but
    // slow.
    memset(p->k_t[0], 0, keys * sizeof(float));
    memset(p->k_t[1], 0, keys * sizeof(float));
    p->weights = kv_scratch_floats(s, KV_BUF_WEIGHTS_ROW, group * p->at.ld_row);
    p->q_scaled = kv_scratch_floats(s, KV_BUF_Q_SCALED, group * sh->head_dim);
    p->masked = kv_alloc(p->at.longest + 1, 1);
}

static void add_into(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

// Splits the fused product into Q (rotated in place of `q`) and this layer's K and V rows.
static void split_qkv(const struct layer_pass *p, const float *qkv, float *q,
                      struct kv_layer_kv *kv) {
    const struct kv_shape *sh = &p->m->shape;
    size_t nq = (size_t)sh->n_heads * sh->head_dim, nk = (size_t)sh->n_kv_heads * sh->head_dim;
    for (uint32_t row = p->job->first_row; row < p->job->tree->n_tokens;
         row++, qkv += nq + 2 * nk, q += nq) {
        memcpy(q, qkv, nq * sizeof *q);
        kv_rope_turn(p->m, p->layer, q, sh->n_heads, p->at.position[row], 1);
        memcpy(kv->k_raw + row * nk, qkv + nq, nk * sizeof *q);
        memcpy(kv->k + row * nk, qkv + nq, nk * sizeof *q);
        kv_rope_turn(p->m, p->layer, kv->k + row * nk, sh->n_kv_heads, p->at.position[row], 1);
        memcpy(kv->v + row * nk, qkv + nq + nk, nk * sizeof *q);
    }
}

// ---- steps of a layer, which going back over a thrifty tape takes again -----------------

static struct kv_layer_kv take_layer_kv(const struct kv_model *m, size_t n, struct kv_scratch *s) {
    n *= (size_t)m->shape.n_kv_heads * m->shape.head_dim;
    return (struct kv_layer_kv){kv_scratch_floats(s, KV_BUF_K_RAW, n),
                                kv_scratch_floats(s, KV_BUF_K, n),
                                kv_scratch_floats(s, KV_BUF_V, n)};
}

// Q, K and V of the rows computed, from x entering the layer.
static void project(const struct layer_pass *p, const float *x, size_t rows, float *q,
                    struct kv_layer_kv *kv, struct kv_scratch *s) {
    const struct kv_layer_weights *w = &p->m->layers[p->layer];
    float *norm = kv_scratch_floats(s, KV_BUF_NORM, rows * p->m->shape.hidden),
          *qkv = kv_scratch_floats(s, KV_BUF_QKV, rows * w->qkv.rows);
    kv_kernels()->rms_norm(norm, x, w->attn_norm, rows, p->m->shape.hidden, p->m->rms_eps);
    kv_product(&w->qkv, norm, rows, qkv, s);
    split_qkv(p, qkv, q, kv);
}

// Attention's output onto the residual stream.
static void add_mixed(const struct layer_pass *p, const float *mixed, size_t rows, float *x,
                      struct kv_scratch *s) {
    float *delta = kv_scratch_floats(s, KV_BUF_DELTA, rows * p->m->shape.hidden);
    kv_product(&p->m->layers[p->layer].out, mixed, rows, delta, s);
    add_into(x, delta, rows * p->m->shape.hidden);
}

// [rows][2 ffn], gate and up side by side.
static void gate_up(const struct layer_pass *p, const float *x, size_t rows, float *up,
                    struct kv_scratch *s) {
    const struct kv_layer_weights *w = &p->m->layers[p->layer];
    float *norm = kv_scratch_floats(s, KV_BUF_NORM, rows * p->m->shape.hidden);
    kv_kernels()->rms_norm(norm, x, w->ffn_norm, rows, p->m->shape.hidden, p->m->rms_eps);
    kv_product(&w->gateup, norm, rows, up, s);
}

static int check_tree(const struct kv_model *m, const struct kv_tree *t, struct kv_error *e) {
    for (uint32_t row = 0; row < t->n_tokens; row++) {
        if (t->ids[row] >= m->shape.vocab)
            return kv_fail(e, KV_EFAIL, "forward pass", "token %u has id %u; the model knows %u",
                           row, t->ids[row], m->shape.vocab);
        if (kv_tree_position(t, row) >= m->shape.max_tokens)
            return kv_fail(e, KV_EFAIL, "forward pass",
                           "a sequence is longer than the model's %u tokens", m->shape.max_tokens);
    }
    return 0;
}

// ---- tape -----------------------------------------------------------------------------

// Floats that a layer keeps of its own, and those that layers of a thrifty tape share.
struct tape_floats {
    size_t own, shared;
};
static struct tape_floats tape_floats(const struct kv_shape *s, size_t n) {
    size_t n_kv = (size_t)s->n_kv_heads * s->head_dim, n_q = (size_t)s->n_heads * s->head_dim;
    return (struct tape_floats){n * (s->hidden + 2 * n_kv),
                                n * (s->hidden + 2 * n_q + 2 * (size_t)s->ffn)};
}

size_t kv_tape_bytes(const struct kv_model *m, size_t n_tokens, bool thrifty) {
    const struct kv_shape *s = &m->shape;
    struct tape_floats f = tape_floats(s, n_tokens);
    return sizeof(float) *
           (s->n_layers * f.own + (thrifty ? 1 : s->n_layers) * f.shared + n_tokens * s->hidden);
}

struct kv_tape *kv_tape_new(const struct kv_model *m, size_t n, size_t most_bytes) {
    const struct kv_shape *s = &m->shape;
    size_t n_kv = (size_t)s->n_kv_heads * s->head_dim, n_q = (size_t)s->n_heads * s->head_dim;
    struct tape_floats f = tape_floats(s, n);
    bool thrifty = kv_tape_bytes(m, n, false) > most_bytes;
    struct kv_tape *t = kv_alloc(1, sizeof *t);
    t->n_layers = t->holds = s->n_layers;
    t->layers = kv_alloc(s->n_layers, sizeof *t->layers);
    t->x = kv_alloc(n * s->hidden, sizeof(float));
    if (thrifty) t->shared = kv_alloc(f.shared, sizeof(float));
    for (size_t l = 0; l < s->n_layers; l++) {
        float *at = kv_alloc(f.own + (thrifty ? 0 : f.shared), sizeof(float));
        struct kv_tape_layer *y = &t->layers[l];
        y->x = at, at += n * s->hidden;
        y->k = at, at += n * n_kv;
        y->v = at, at += n * n_kv;
        if (thrifty) at = t->shared;
        y->middle = at, at += n * s->hidden;
        y->q = at, at += n * n_q;
        y->mixed = at, at += n * n_q;
        y->gateup = at;
    }
    return t;
}

void kv_tape_free(struct kv_tape *t) {
    if (!t) return;
    for (size_t l = 0; l < t->n_layers; l++) free(t->layers[l].x);
    free(t->layers);
    free(t->shared);
    free(t->x);
    free(t);
}

static void tape(struct kv_tape_layer *t, const struct kv_model *m, size_t rows, const float *x,
                 const float *q, const struct kv_layer_view *view) {
    const struct kv_shape *s = &m->shape;
    size_t n_kv = rows * s->n_kv_heads * s->head_dim * sizeof(float);
    memcpy(t->x, x, rows * s->hidden * sizeof *x);
    memcpy(t->q, q, rows * s->n_heads * s->head_dim * sizeof *x);
    memcpy(t->k, view->k_coded ? view->k_coded : view->k_exact, n_kv);
    memcpy(t->v, view->v_coded ? view->v_coded : view->v_exact, n_kv);
}

// ---- the pass -------------------------------------------------------------------------

int kv_forward(const struct kv_model *m, const struct kv_forward *job, struct kv_scratch *s,
               struct kv_error *e) {
    const struct kv_tree *t = job->tree;
    const struct kv_shape *sh = &m->shape;
    const struct kv_kernels *kernels = kv_kernels();
    int rc = check_tree(m, t, e);
    if (rc) return rc;
    size_t rows = t->n_tokens - job->first_row, h = sh->hidden,
           n_kv = (size_t)sh->n_kv_heads * sh->head_dim, n_q = (size_t)sh->n_heads * sh->head_dim;
    struct layer_pass p = {.m = m, .job = job};
    kv_paths_init(&p.at, t);
    take_buffers(&p, s);
    float *x = kv_scratch_floats(s, KV_BUF_X, rows * h);
    float *q = kv_scratch_floats(s, KV_BUF_Q, rows * n_q),
          *mixed = kv_scratch_floats(s, KV_BUF_MIXED, rows * n_q);
    float *up = kv_scratch_floats(s, KV_BUF_GATEUP, rows * 2 * sh->ffn);
    float *act = kv_scratch_floats(s, KV_BUF_ACT, rows * sh->ffn);
    float *delta = kv_scratch_floats(s, KV_BUF_DELTA, rows * h);
    struct kv_layer_kv kv = take_layer_kv(m, t->n_tokens, s);
    embed(m, job, x);
    for (uint32_t l = 0; l < sh->n_layers && rc == 0; l++) {
        size_t known = job->first_row * n_kv * sizeof(float);
        if (known) {
            memcpy(kv.k_raw, job->prefix[l].k_raw, known);
            memcpy(kv.k, job->prefix[l].k, known);
            memcpy(kv.v, job->prefix[l].v, known);
        }
        p.layer = l;
        project(&p, x, rows, q, &kv, s);
        if (job->observe)
            job->observe(job->self, l, x, kv_scratch_floats(s, KV_BUF_NORM, rows * h), q, &kv);
        p.q = q;
        p.out = mixed;
        p.view = (struct kv_layer_view){0};
        if ((rc = job->store(job->self, l, &kv, &p.view, e))) break;
        if (job->tape) {
            tape(&job->tape->layers[l], m, rows, x, q, &p.view);
            p.out = mixed = job->tape->layers[l].mixed;
            up = job->tape->layers[l].gateup;
            job->tape->holds = l;
        }
        if ((rc = attention(&p, e))) break;
        add_mixed(&p, mixed, rows, x, s);
        if (job->tape) memcpy(job->tape->layers[l].middle, x, rows * h * sizeof *x);
        gate_up(&p, x, rows, up, s);
        kernels->swiglu(act, up, rows, sh->ffn);
        kv_product(&m->layers[l].down, act, rows, delta, s);
        add_into(x, delta, rows * h);
    }
    if (job->tape) memcpy(job->tape->x, x, rows * h * sizeof *x);
    if (rc == 0) kernels->rms_norm(job->final, x, m->final_norm, rows, h, m->rms_eps);
    free(p.masked);
    kv_paths_fini(&p.at);
    return rc;
}

// The same products of the same shapes, and attention over one span a segment as in a pass that
// reads everything coded or everything exact: the same bits.
void kv_tape_recall(const struct kv_model *m, const struct kv_tree *t, struct kv_tape *tape,
                    uint32_t layer, struct kv_scratch *s) {
    if (!tape->shared || tape->holds == layer) return;
    struct kv_tape_layer *y = &tape->layers[layer];
    struct kv_forward job = {.tree = t};
    struct layer_pass p = {.m = m, .job = &job, .layer = layer, .q = y->q, .out = y->mixed};
    struct kv_layer_kv kv = take_layer_kv(m, t->n_tokens, s);
    p.view = (struct kv_layer_view){.k_exact = y->k, .v_exact = y->v};
    kv_paths_init(&p.at, t);
    take_buffers(&p, s);
    project(&p, y->x, t->n_tokens, y->q, &kv, s);
    (void)attention(&p, NULL); // without `age` it cannot fail
    memcpy(y->middle, y->x, (size_t)t->n_tokens * m->shape.hidden * sizeof *y->x);
    add_mixed(&p, y->mixed, t->n_tokens, y->middle, s);
    gate_up(&p, y->middle, t->n_tokens, y->gateup, s);
    tape->holds = layer;
    free(p.masked);
    kv_paths_fini(&p.at);
}
