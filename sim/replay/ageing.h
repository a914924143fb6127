// SPDX-License-Identifier: Apache-2.0
// Cells that are lowered as a sequence grows: asks a policy's `revise`, keeps what it changed in
// the layer at hand, and codes stored vectors again.
//
//     y->ages = kv_ages_new(&shape, n_context);
//     for each layer:
//         kv_ages_begin(y->ages);
//         at each multiple of KV_REVISE_TOKENS: kv_ages_ask(y, layer, position, cells, &e);
//     for (i = 0; i < ages->n; i++) kv_age_code(format, layer, KV_KEY, &ages->at[i], ...);
#ifndef KV_REPLAY_AGEING_H
#define KV_REPLAY_AGEING_H

#include "sim/quant/code.h"

struct kv_layered;

// What one revision of a layer changed.
struct kv_age {
    uint32_t position;    // before the query there attends: rows [0, position) were asked about
    const uint8_t *cells; // [position][n_kv_heads][2] the new width, KV_FLOAT32 where the old one
                          // stays
};

// Those of one layer, ascending; a revision that changes nothing is none.
struct kv_ages {
    size_t n;
    struct kv_age *at;
    uint8_t *changes;                 // room for the cells of all
    uint8_t *stored, *answer, *again; // [n_context][n_kv_heads][2]
};

struct kv_ages *kv_ages_new(const struct kv_shape *s, uint32_t n_context);
void kv_ages_free(struct kv_ages *a); // NULL is fine
void kv_ages_begin(struct kv_ages *a);

// Whether a sequence's layer is revised before the query at `row` of the tree attends.
bool kv_ages_at(const struct kv_layered *y, uint32_t row);

// Asks about rows [0, position) of a layer, whose widths stand in cells[n_tokens][n_layers]
// [n_kv_heads][2] and are lowered there. Errors: the policy's own; an answer that is not the same
// or narrower; an audit that failed.
KV_MUST_CHECK int kv_ages_ask(struct kv_layered *y, uint32_t layer, uint32_t position,
                              uint8_t *cells, struct kv_error *e);

// Codes again, from the decoded values, what a revision changed: rows [from, position) of
// stored[..][n_kv_heads * head_dim]. memory, histogram: kv_code_rows'.
KV_MUST_CHECK int kv_age_code(const struct kv_format *f, uint32_t layer, enum kv_side side,
                              const struct kv_age *a, size_t from, float *stored, void *memory,
                              uint64_t *histogram, struct kv_error *e);

#endif
