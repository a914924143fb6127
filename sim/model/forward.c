// SPDX-License-Identifier: Apache-2.0
// The forward pass over a tree: embeddings, layers, the last norm; and the matrix products of all.
#include "sim/model/forward.h"

#include <stdlib.h>

#include "sim/base/blas.h"
#include "sim/base/guard.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/model/accelerator.h"
#include "sim/model/kernels.h"
#include "sim/model/layer.h"
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

// ---- parts of the pass ----------------------------------------------------------------

static void embed(const struct kv_model *m, const struct kv_forward *job, float *x) {
    size_t h = m->shape.hidden;
    for (uint32_t row = job->first_row; row < job->tree->n_tokens; row++, x += h) {
        size_t at = (size_t)job->tree->ids[row] * h;
        for (size_t i = 0; i < h; i++)
            x[i] = m->embed.f32 ? m->embed.f32[at + i] : kv_bf16_to_f32(m->embed.bf16[at + i]);
        for (size_t i = 0; i < h && m->embed_scale != 1; i++) x[i] *= m->embed_scale;
        if (job->disturb > 0)
            for (size_t i = 0; i < h; i++)
                x[i] *= (float)(1 + job->disturb * (2 * kv_draw(job->disturb_seed, row, i) - 1));
    }
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

static void keep(struct kv_tape_layer *t, const struct kv_model *m, size_t rows, const float *x,
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
    int rc = check_tree(m, t, e);
    if (rc) return rc;
    size_t rows = t->n_tokens - job->first_row, h = sh->hidden,
           n_kv = (size_t)sh->n_kv_heads * sh->head_dim, n_q = (size_t)sh->n_heads * sh->head_dim;
    struct kv_layer_pass p = {.m = m, .job = job};
    kv_layer_pass_init(&p, s);
    float *x = kv_scratch_floats(s, KV_BUF_X, rows * h);
    float *q = kv_scratch_floats(s, KV_BUF_Q, rows * n_q),
          *mixed = kv_scratch_floats(s, KV_BUF_MIXED, rows * n_q);
    float *up = kv_scratch_floats(s, KV_BUF_GATEUP, rows * 2 * sh->ffn);
    struct kv_layer_kv kv = kv_layer_take_kv(m, t->n_tokens, s);
    embed(m, job, x);
    for (uint32_t l = 0; l < sh->n_layers && rc == 0; l++) {
        size_t known = job->first_row * n_kv * sizeof(float);
        if (known) {
            memcpy(kv.k_raw, job->prefix[l].k_raw, known);
            memcpy(kv.k, job->prefix[l].k, known);
            memcpy(kv.v, job->prefix[l].v, known);
        }
        p.layer = l;
        p.tape = job->tape ? &job->tape->layers[l] : NULL;
        kv_layer_project(&p, x, rows, q, &kv, s);
        if (job->observe)
            job->observe(job->self, l, x, kv_scratch_floats(s, KV_BUF_NORM, rows * h), q, &kv);
        p.q = q;
        p.out = mixed;
        p.view = (struct kv_layer_view){0};
        if ((rc = job->store(job->self, l, &kv, &p.view, e))) break;
        if (p.tape) {
            keep(p.tape, m, rows, x, q, &p.view);
            p.out = mixed = p.tape->mixed;
            up = p.tape->gateup;
            job->tape->holds = l;
        }
        if ((rc = kv_layer_attend(&p, e))) break;
        kv_layer_add_mixed(&p, mixed, rows, x, s);
        if (p.tape) memcpy(p.tape->middle, x, rows * h * sizeof *x);
        kv_layer_gate_up(&p, x, rows, up, s);
        kv_layer_add_down(&p, up, rows, x, s);
    }
    if (job->tape) memcpy(job->tape->x, x, rows * h * sizeof *x);
    if (rc == 0) kv_kernels()->rms_norm(job->final, x, m->final_norm, rows, h, m->rms_eps);
    kv_layer_pass_fini(&p);
    return rc;
}
