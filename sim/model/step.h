// SPDX-License-Identifier: Apache-2.0
// One decode step of many sequences at once: a row each, over the weights together, over what each
// has stored by itself.
//
//     kv_step(model, &(struct kv_step){.n = n, .rows = rows, .store = hold, .final = final}, s,
//     &e);
//
// A row's bits depend on its own token, position and stored vectors alone: products go row by row
// (kv_scratch_row_by_row), so that a sequence gives the same tokens whatever runs beside it.
#ifndef KV_MODEL_STEP_H
#define KV_MODEL_STEP_H

#include "sim/model/forward.h"

// A sequence's newest token and where it stands.
struct kv_step_row {
    uint32_t id, position;
    void *self; // of `store`
};

// What a row has in a layer before it attends: [hidden], [n_heads * d], [n_kv_heads * d].
struct kv_step_kv {
    const float *input; // the layer's normalised input
    const float *q;     // after RoPE, unscaled
    const float *k_raw, *k, *v;
};

// What a row's query reads of positions [0, position], its own among them.
struct kv_step_view {
    // Keys transposed, [n_kv_heads * d][ld]: of position t in column t. ld holds position + 1
    // columns rounded up to KV_STEP_COLUMNS, and as many again; all of them finite.
    const float *k_t;
    size_t ld;
    const float *v;         // [position + 1][n_kv_heads * d]
    const uint8_t *evicted; // [n_kv_heads][ld] non-zero: not seen but by its own query; or NULL
};
enum { KV_STEP_COLUMNS = 64 };

struct kv_step {
    size_t n;
    const struct kv_step_row *rows;
    // Takes a row's K and V of a layer and says what its query reads.
    int (*store)(void *row_self, uint32_t layer, const struct kv_step_kv *kv,
                 struct kv_step_view *view, struct kv_error *e);
    float *final; // out: [n][hidden] after the last norm
    // Out, or NULL: [n] variance of a row's attention weights in the last layer, mean over heads
    // (as struct kv_attention_stats has it).
    float *variance;
};

// Errors: those of `store`; a token that the model does not know; a position beyond its context.
KV_MUST_CHECK int kv_step(const struct kv_model *m, const struct kv_step *step,
                          struct kv_scratch *s, struct kv_error *e);

#endif
