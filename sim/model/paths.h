// SPDX-License-Identifier: Apache-2.0
// Where the rows of a token tree stand: positions, segments, and columns of transposed keys or
// values (for forward and backward passes and attention replay).
#ifndef KV_MODEL_PATHS_H
#define KV_MODEL_PATHS_H

#include "sim/model/forward.h"

struct kv_paths {
    const struct kv_tree *tree;
    uint32_t *position, *choice; // [n_tokens]; choice is n_choices in the context
    size_t *column;              // [n_choices] where a choice's columns begin; the context's is 0
    size_t ld;                   // columns of a transposed array: segments padded to KV_TILE each
    size_t ld_row;               // room for a row of weights over the longest path, padded
    size_t longest;              // tokens
};
void kv_paths_init(struct kv_paths *p, const struct kv_tree *tree);
void kv_paths_fini(struct kv_paths *p);
// The row at a position of the path that goes on into a choice, or n_choices: stays in the context.
static inline size_t kv_paths_row(const struct kv_paths *p, uint32_t choice, size_t position) {
    const struct kv_tree *t = p->tree;
    return position < t->n_context ? position : t->first[choice] + position - t->n_context;
}
// x_t[i * ld + column of row] = x[row * width + i].
void kv_paths_transpose(const struct kv_paths *p, size_t width, const float *x, float *x_t);

#endif
