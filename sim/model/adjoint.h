// SPDX-License-Identifier: Apache-2.0
// The backward pass over a token tree: gradients of a scalar with respect to every cached key and
// value.
//
//     kv_forward with .tape;   kv_adjoint_seed(...) once an item;
//     for each draw: kv_adjoint_draw(...) labels;
//     kv_adjoint(...)                                hands out dK and dV, layer by layer
//
// The scalar is sum over scored positions of log p(label). With labels drawn from the model's own
// distribution, E[(g . e)^2] = e^T F e, F the Fisher information of the cached values, and half of
// it is the KL divergence that an error e causes, to second order (Amari 1998; design section 6).
#ifndef KV_MODEL_ADJOINT_H
#define KV_MODEL_ADJOINT_H

#include "sim/model/forward.h"

// One scored position: the row whose distribution is judged and how often (the branch point once a
// choice).
struct kv_scored {
    uint32_t row, count;
};

// What all draws of an item share: sum over the vocabulary of p_v W_v, [n_scored][hidden], and the
// cumulative distributions from which labels are drawn.
struct kv_adjoint_seed {
    size_t n_scored, n_labels;
    const struct kv_scored *scored;
    float *mean_row; // [n_scored][hidden]
    uint32_t *label; // [n_draws][n_labels], labels of a position together
    size_t n_draws;
};
// final: [n_tokens][hidden] after the last norm. Labels of draw r at position i depend on (seed, r,
// i) only. Free with kv_adjoint_seed_fini.
void kv_adjoint_seed(const struct kv_model *m, const float *final, const struct kv_scored *scored,
                     size_t n_scored, uint64_t seed, size_t n_draws, struct kv_scratch *s,
                     struct kv_adjoint_seed *out);
void kv_adjoint_seed_fini(struct kv_adjoint_seed *seed);
// d_final[n_tokens][hidden] of one draw: for each position, sum of W[label] - count * mean row.
void kv_adjoint_draw(const struct kv_model *m, const struct kv_adjoint_seed *seed, size_t draw,
                     size_t n_tokens, float *d_final);

struct kv_adjoint {
    const struct kv_tree *tree;
    struct kv_tape *tape; // a thrifty one recalls layer after layer, once for all draws
    // Whose reads count in the gradients handed out (design: the read mode). A position p of a
    // row's path counts if p < counted[row]; NULL = all (mode inline, own step coded). The chain
    // itself is never cut.
    const uint32_t *counted;
    size_t n_draws;
    const float *d_final; // [n_draws][n_tokens][hidden]
    // Gets one draw's gradients of one layer, last layer first: dk after RoPE, dv,
    // [n_tokens][n_kv_heads * head_dim]; and d_evict[n_tokens][n_kv_heads], the scalar's change to
    // first order in attention's output when later queries no longer see a token: sum over them of
    // a / (1 - a) (o
    // - v) . dL/do.
    void (*take)(void *self, size_t draw, uint32_t layer, const float *dk, const float *dv,
                 const float *d_evict);
    void *self;
};
void kv_adjoint(const struct kv_model *m, const struct kv_adjoint *job, struct kv_scratch *s);

#endif
