// SPDX-License-Identifier: Apache-2.0
// What a layer knows of a token when it codes the token's key and value: six numbers for each KV
// head, from the token's own attention row (enum kv_cell_feature; after an independent study of
// widths by cell).
//
//     struct kv_cell_span seen[] = {{context_keys, n_kv, n_context}, {choice_keys, n_kv,
//     n_before}}; kv_cell_features(&shape, q, k, v, seen, 2, scores, out);
#ifndef KV_MODEL_CELL_FEATURES_H
#define KV_MODEL_CELL_FEATURES_H

#include "policies/policy.h"

// Keys (after RoPE) of a run of earlier tokens: KV head h of the i-th lies at k + i * stride + h *
// head_dim. The first key of the first span is that of the oldest visible position.
struct kv_cell_span {
    const float *k;
    size_t stride, n;
};

// Leaves out the first n tokens of the spans, which a layer's window has passed.
void kv_cell_spans_skip(struct kv_cell_span *spans, size_t n_spans, size_t n);

// Fills out[n_kv_heads][KV_N_CELL_FEATURES]. q: [n_heads * head_dim] after RoPE, unscaled; k, v:
// [n_kv_heads * head_dim], the token's own. scores: room for the number of visible positions,
// itself included.
void kv_cell_features(const struct kv_shape *s, const float *q, const float *k, const float *v,
                      const struct kv_cell_span *earlier, size_t n_spans, float *scores,
                      float *out);

#endif
