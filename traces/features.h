// SPDX-License-Identifier: Apache-2.0
// A token's features from a forward pass: what a recording keeps and a replay with closed feedback
// reads off the run itself. All fill features[n_tokens][KV_N_FEATURES] of one item.
#ifndef KV_TRACES_FEATURES_H
#define KV_TRACES_FEATURES_H

#include "sim/model/forward.h"

// Adds one layer's share of the range feature `which` (KV_KEY_RANGE, KV_VALUE_RANGE; zero before
// the first layer) for rows [first, n): x is [n][n_kv_heads * head_dim], as it is read.
void kv_add_ranges(const struct kv_shape *s, const float *x, size_t first, size_t n,
                   enum kv_feature which, float *features);

// Entropy and confidence at some rows, from their final states: state(row) is at
// final + (row - first) * hidden. At most kv_head_rows rows share a product; recording and replay
// ask for scored rows and for the others apart, so that they meet products of the same shapes.
void kv_predicted_features(const struct kv_model *m, struct kv_scratch *s, const float *final,
                           uint32_t first, const uint32_t *rows, size_t n_rows, float *features);

#endif
