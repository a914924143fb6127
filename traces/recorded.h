// SPDX-License-Identifier: Apache-2.0
// Recorded keys and values as a cache would be handed them.
#ifndef KV_TRACES_RECORDED_H
#define KV_TRACES_RECORDED_H

#include "traces/trace.h"

// Turns a key of a layer in place by RoPE, as the recorded model does: sign -1 turns back (formats
// that code before RoPE).
void kv_recorded_turn(const struct kv_trace_info *in, uint32_t layer, float *key, size_t position,
                      double sign);

// One layer's keys or values of all rows of an item, x[n_tokens][n_kv_heads][head_dim]; raw: keys
// as they were before RoPE.
void kv_recorded_rows(const struct kv_trace_info *in, const struct kv_trace_item *it,
                      uint32_t layer, enum kv_side side, bool raw, float *x);

#endif
