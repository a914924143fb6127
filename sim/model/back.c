// SPDX-License-Identifier: Apache-2.0
// Writes an adjoint's job down in plain arrays for an accelerator.
#include "sim/model/back.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/accelerator.h"
#include "sim/model/layer.h"

struct handing {
    const struct kv_model *m;
    const struct kv_adjoint *job;
    struct kv_scratch *s;
    float *turn[2]; // of each RoPE
};

// [longest][d / 2][2]: cosine and sine of a position.
static float *turns_of(const struct kv_rope *r, size_t longest, size_t half) {
    float *turn = kv_alloc(2 * longest * half, sizeof *turn);
    for (size_t i = 0; i < longest * half; i++)
        turn[2 * i] = r->cos[i], turn[2 * i + 1] = r->sin[i];
    return turn;
}

static void tell_layer(void *self, uint32_t l, struct kv_back_layer *to) {
    const struct handing *h = self;
    kv_tape_recall(h->m, h->job->tree, h->job->tape, l, h->s);
    const struct kv_layer_weights *w = &h->m->layers[l];
    const struct kv_tape_layer *t = &h->job->tape->layers[l];
    *to = (struct kv_back_layer){.attn_norm = w->attn_norm,
                                 .q_norm = w->q_norm,
                                 .k_norm = w->k_norm,
                                 .attn_post_norm = w->attn_post_norm,
                                 .ffn_norm = w->ffn_norm,
                                 .ffn_post_norm = w->ffn_post_norm,
                                 .qkv = w->qkv.f32,
                                 .out = w->out.f32,
                                 .gateup = w->gateup.f32,
                                 .down = w->down.f32,
                                 .turn = h->turn[w->rope],
                                 .window = w->window,
                                 .x = t->x,
                                 .q = t->q,
                                 .k = t->k,
                                 .v = t->v,
                                 .middle = t->middle,
                                 .gateup_out = t->gateup,
                                 .q_raw = t->q_raw,
                                 .k_raw = t->k_raw,
                                 .attn_delta = t->attn_delta,
                                 .ffn_delta = t->ffn_delta};
}

int kv_back_hand_over(const struct kv_model *m, const struct kv_adjoint *job,
                      const struct kv_paths *at, struct kv_scratch *s, kv_back_fn *back, char *why,
                      size_t room) {
    const struct kv_shape *sh = &m->shape;
    const struct kv_tree *t = job->tree;
    struct handing h = {.m = m, .job = job, .s = s};
    uint32_t *begin = kv_alloc(t->n_tokens, sizeof *begin);
    for (uint32_t row = t->n_context; row < t->n_tokens; row++)
        begin[row] = t->first[at->choice[row]];
    for (size_t i = 0; i < m->n_ropes; i++)
        h.turn[i] = turns_of(&m->rope[i], at->longest, sh->head_dim / 2);
    struct kv_back_job told = {.rows = t->n_tokens,
                               .n_context = t->n_context,
                               .n_draws = (uint32_t)job->n_draws,
                               .n_positions = (uint32_t)at->longest,
                               .n_layers = sh->n_layers,
                               .n_heads = sh->n_heads,
                               .n_kv_heads = sh->n_kv_heads,
                               .head_dim = sh->head_dim,
                               .hidden = sh->hidden,
                               .ffn = sh->ffn,
                               .half_split = m->order == KV_ORDER_HF,
                               .gelu = m->activation == KV_GELU_TANH,
                               .rms_eps = m->rms_eps,
                               .query_gain = kv_query_gain(m),
                               .position = at->position,
                               .begin = begin,
                               .counted = job->counted,
                               .d_final = job->d_final,
                               .x = job->tape->x,
                               .final_norm = m->final_norm,
                               .layer = tell_layer,
                               .layer_self = &h,
                               .take = job->take,
                               .self = job->self};
    int rc = back(&told, why, room);
    for (size_t i = 0; i < m->n_ropes; i++) free(h.turn[i]);
    free(begin);
    return rc;
}
