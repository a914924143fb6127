// SPDX-License-Identifier: Apache-2.0
// The forward pass over a tree: embeddings, layers, the last norm.
#include "sim/model/forward.h"

#include "sim/base/half.h"
#include "sim/model/kernels.h"
#include "sim/model/layer.h"
#include "sim/model/scratch.h"

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
    if (m->shape.head_dim % 16)
        return kv_fail(e, KV_EFAIL, "forward pass",
                       "heads have %u channels; only multiples of 16 are computed",
                       m->shape.head_dim);
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
    struct kv_layer_run p = {.m = m, .job = job};
    kv_layer_run_init(&p, s);
    float *x = kv_scratch_floats(s, KV_BUF_X, rows * h);
    float *q = kv_scratch_floats(s, KV_BUF_Q, rows * n_q),
          *mixed = kv_scratch_floats(s, KV_BUF_MIXED, rows * n_q);
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
        if ((rc = kv_layer_project(&p, x, rows, q, &kv, s, e))) break;
        if (job->observe)
            job->observe(job->self, l, x, kv_scratch_floats(s, KV_BUF_NORM, rows * h), q, &kv);
        p.q = q;
        p.out = mixed;
        p.view = (struct kv_layer_view){0};
        if ((rc = job->store(job->self, l, &kv, &p.view, e))) break;
        if (p.tape) {
            keep(p.tape, m, rows, x, q, &p.view);
            p.out = mixed = p.tape->mixed;
            job->tape->holds = l;
        }
        if ((rc = kv_layer_attend(&p, e))) break;
        if ((rc = kv_layer_add_mixed(&p, mixed, rows, x, s, e))) break;
        if (p.tape) memcpy(p.tape->middle, x, rows * h * sizeof *x);
        rc = kv_layer_feed_forward(&p, p.tape ? p.tape->gateup : NULL, rows, x, s, e);
    }
    if (job->tape) memcpy(job->tape->x, x, rows * h * sizeof *x);
    if (rc == 0) kv_kernels()->rms_norm(job->final, x, m->final_norm, rows, h, m->rms_eps);
    kv_layer_run_fini(&p);
    return rc;
}
