// SPDX-License-Identifier: Apache-2.0
// Asking a policy that decides by layers: row after row of a layer, with the features of each row's
// own attention over the keys that were stored before it, and with what its coding would cost.
//
//     struct kv_layered y;
//     kv_layered_init(&y, spec, &view, n_tokens);  y.tree = &tree;
//     for each layer: kv_layered_layer(&y, &(struct kv_layer_pass){.layer = l, ...}, cells, &e);
//     kv_layered_fini(&y);
#ifndef KV_REPLAY_LAYERED_H
#define KV_REPLAY_LAYERED_H

#include "sim/model/forward.h"
#include "sim/replay/ageing.h"
#include "sim/replay/replay.h"

struct kv_layered {
    const struct kv_replay_spec *spec; // whose format codes
    const struct kv_replay_spec *by;   // whose policy decides: spec or one that it wraps
    const struct kv_item *view;        // what that policy may see of the item
    const struct kv_tree *tree;
    const char *item;    // its id, for messages; NULL where it has none
    uint32_t exact_rows; // leading rows whose features read keys before coding: a prompt that
                         // attended exactly
    bool audit;          // one row and one revision a layer are asked again, with all scrambled
                         // that they may not know
    void *memory;        // of kv_code_rows
    float *stored;       // [n_tokens][n_kv] keys as earlier rows left them
    float *trial, *error, *scores, *features;
    uint8_t *context_state, *state, *spare_state;
    size_t state_bytes;
    // Of a policy that revises, else NULL: all cells as each was coded first, [n_tokens][...], and
    // how those of the layer that was decided last are lowered later.
    uint8_t *first;
    struct kv_ages *ages;
};

// What a layer has in its hands; arrays over all rows of the tree, [n_tokens][...].
struct kv_layer_pass {
    uint32_t layer;
    const float *q;        // [n_heads * head_dim] after RoPE, or NULL where features are given
    const float *features; // [n_kv_heads][KV_N_CELL_FEATURES], or NULL
    const float *input;    // [hidden] the layer's normalised input
    const float *k, *v;    // [n_kv_heads * head_dim], keys after RoPE
};

// Whether a spec's policy, if it decides by layers, can do so in this mode with this format.
// Errors: mode requant, closed feedback, formats whose scales are shared by heads or tokens, that
// keep a window exact or code keys before RoPE.
KV_MUST_CHECK int kv_layered_answers(const struct kv_replay_spec *spec, enum kv_mode mode,
                                     bool closed, struct kv_error *e);

// The tree is set before the first layer is decided.
void kv_layered_init(struct kv_layered *y, const struct kv_replay_spec *spec,
                     const struct kv_item *view, uint32_t n_tokens);
void kv_layered_fini(struct kv_layered *y);

// Decides a layer: fills cells[n_tokens][n_layers][n_kv_heads][2] of it with the widths at the end,
// and y->first and y->ages where the policy revises. Errors: the policy's own; an answer that no
// width of the format is; a revision that is not narrower; an audit that failed.
KV_MUST_CHECK int kv_layered_layer(struct kv_layered *y, const struct kv_layer_pass *p,
                                   uint8_t *cells, struct kv_error *e);

// The answers from recorded features instead of a run's: cells[n_tokens][...]. Errors: a trace that
// keeps none (--keep cells).
KV_MUST_CHECK int kv_layered_recorded(const struct kv_replay *r, size_t spec, size_t item,
                                      const struct kv_item *view, uint8_t *cells,
                                      struct kv_error *e);

#endif
