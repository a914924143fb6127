// SPDX-License-Identifier: Apache-2.0
// Positions, segments and columns of a token tree.
#include "sim/model/paths.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/kernels.h"

uint32_t kv_tree_choice(const struct kv_tree *t, uint32_t row) {
    uint32_t c = 0;
    if (row < t->n_context) return t->n_choices;
    while (c + 1 < t->n_choices && row >= t->first[c + 1]) c++;
    return c;
}

uint32_t kv_tree_position(const struct kv_tree *t, uint32_t row) {
    if (row < t->n_context) return row;
    return t->n_context + row - t->first[kv_tree_choice(t, row)];
}

static size_t padded(size_t n) {
    return (n + KV_TILE - 1) / KV_TILE * KV_TILE;
}

void kv_paths_init(struct kv_paths *p, const struct kv_tree *t) {
    size_t column = padded(t->n_context);
    *p = (struct kv_paths){.tree = t};
    p->position = kv_alloc(t->n_tokens, sizeof *p->position);
    p->choice = kv_alloc(t->n_tokens, sizeof *p->choice);
    p->column = kv_alloc(t->n_choices + 1, sizeof *p->column);
    for (uint32_t row = 0; row < t->n_tokens; row++) {
        p->position[row] = kv_tree_position(t, row);
        p->choice[row] = kv_tree_choice(t, row);
        if (p->position[row] >= p->longest) p->longest = p->position[row] + 1;
    }
    for (uint32_t c = 0; c < t->n_choices; c++) {
        p->column[c] = column;
        column += padded(t->first[c + 1] - t->first[c]);
    }
    p->ld = column + KV_TILE;
    p->ld_row = padded(p->longest) + KV_TILE;
}

void kv_paths_fini(struct kv_paths *p) {
    free(p->position);
    free(p->choice);
    free(p->column);
}

void kv_paths_transpose(const struct kv_paths *p, size_t width, const float *x, float *x_t) {
    const struct kv_tree *t = p->tree;
    for (uint32_t row = 0; row < t->n_tokens; row++) {
        uint32_t c = p->choice[row];
        size_t column = c == t->n_choices ? row : p->column[c] + row - t->first[c];
        for (size_t i = 0; i < width; i++) x_t[i * p->ld + column] = x[row * width + i];
    }
}
