// SPDX-License-Identifier: Apache-2.0
// What the backward pass needs of the forward pass: kept whole, or computed again layer by layer.
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/model/layer.h"

// Floats of each member of a layer, in the order in which they lie: the layer's own, then what
// layers of a thrifty tape share. What a model's norms do not need has none.
enum {
    X,
    K,
    V,
    MIDDLE,
    Q,
    MIXED,
    GATEUP,
    Q_RAW,
    K_RAW,
    ATTN_DELTA,
    FFN_DELTA,
    N_MEMBERS,
    SHARED = MIDDLE
};

static void member_floats(const struct kv_model *m, size_t n, size_t floats[N_MEMBERS]) {
    const struct kv_shape *s = &m->shape;
    const struct kv_layer_weights *w = &m->layers[0]; // all layers have the same norms
    size_t n_kv = n * s->n_kv_heads * s->head_dim, n_q = n * s->n_heads * s->head_dim,
           h = n * s->hidden;
    memcpy(floats,
           (size_t[N_MEMBERS]){[X] = h,
                               [K] = n_kv,
                               [V] = n_kv,
                               [MIDDLE] = h,
                               [Q] = n_q,
                               [MIXED] = n_q,
                               [GATEUP] = 2 * n * s->ffn,
                               [Q_RAW] = w->q_norm ? n_q : 0,
                               [K_RAW] = w->k_norm ? n_kv : 0,
                               [ATTN_DELTA] = w->attn_post_norm ? h : 0,
                               [FFN_DELTA] = w->ffn_post_norm ? h : 0},
           N_MEMBERS * sizeof *floats);
}

static size_t sum(const size_t *x, size_t from, size_t to) {
    size_t s = 0;
    for (size_t i = from; i < to; i++) s += x[i];
    return s;
}

size_t kv_tape_bytes(const struct kv_model *m, size_t n_tokens, bool thrifty) {
    size_t floats[N_MEMBERS], n_layers = m->shape.n_layers;
    member_floats(m, n_tokens, floats);
    return sizeof(float) *
           (n_layers * sum(floats, 0, SHARED) +
            (thrifty ? 1 : n_layers) * sum(floats, SHARED, N_MEMBERS) + n_tokens * m->shape.hidden);
}

struct kv_tape *kv_tape_new(const struct kv_model *m, size_t n, size_t most_bytes) {
    const struct kv_shape *s = &m->shape;
    size_t floats[N_MEMBERS];
    bool thrifty = kv_tape_bytes(m, n, false) > most_bytes;
    struct kv_tape *t = kv_alloc(1, sizeof *t);
    member_floats(m, n, floats);
    t->n_layers = t->holds = s->n_layers;
    t->layers = kv_alloc(s->n_layers, sizeof *t->layers);
    t->x = kv_alloc(n * s->hidden, sizeof(float));
    if (thrifty) t->shared = kv_alloc(sum(floats, SHARED, N_MEMBERS), sizeof(float));
    for (size_t l = 0; l < s->n_layers; l++) {
        float *at = kv_alloc(sum(floats, 0, thrifty ? SHARED : N_MEMBERS), sizeof(float));
        struct kv_tape_layer *y = &t->layers[l];
        float **const members[N_MEMBERS] = {&y->x,     &y->k,          &y->v,        &y->middle,
                                            &y->q,     &y->mixed,      &y->gateup,   &y->q_raw,
                                            &y->k_raw, &y->attn_delta, &y->ffn_delta};
        for (size_t i = 0; i < N_MEMBERS; i++) {
            if (i == SHARED && thrifty) at = t->shared;
            *members[i] = floats[i] ? at : NULL;
            at += floats[i];
        }
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

// The same products of the same shapes, and attention over one span a segment as in a pass that
// reads everything coded or everything exact: the same bits.
void kv_tape_recall(const struct kv_model *m, const struct kv_tree *t, struct kv_tape *tape,
                    uint32_t layer, struct kv_scratch *s) {
    if (!tape->shared || tape->holds == layer) return;
    struct kv_tape_layer *y = &tape->layers[layer];
    struct kv_forward job = {.tree = t};
    struct kv_layer_run p = {
        .m = m, .job = &job, .layer = layer, .tape = y, .q = y->q, .out = y->mixed};
    struct kv_layer_kv kv = kv_layer_take_kv(m, t->n_tokens, s);
    p.view = (struct kv_layer_view){.k_exact = y->k, .v_exact = y->v};
    kv_layer_run_init(&p, s);
    struct kv_error e = {0};
    int rc = kv_layer_project(&p, y->x, t->n_tokens, y->q, &kv, s, &e);
    if (rc == 0) rc = kv_layer_attend(&p, &e);
    memcpy(y->middle, y->x, (size_t)t->n_tokens * m->shape.hidden * sizeof *y->x);
    if (rc == 0) rc = kv_layer_add_mixed(&p, y->mixed, t->n_tokens, y->middle, s, &e);
    if (rc) kv_raise(rc, e.where, "%s", e.msg); // interrupted
    kv_layer_gate_up(&p, y->middle, t->n_tokens, y->gateup, s);
    if (y->ffn_delta) kv_layer_down(&p, y->gateup, t->n_tokens, y->ffn_delta, s);
    tape->holds = layer;
    kv_layer_run_fini(&p);
}
