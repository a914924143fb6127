// SPDX-License-Identifier: Apache-2.0
// Recorded keys and values as a cache would be handed them.
#ifndef KV_TRACES_RECORDED_H
#define KV_TRACES_RECORDED_H

#include "traces/trace.h"

// Position of a row in its sequence.
size_t kv_recorded_position(const struct kv_trace_item *it, size_t row);

// RoPE of a key in place, from the trace's base: sign -1 turns back (formats that code before
// RoPE).
void kv_recorded_turn(const struct kv_trace_info *in, float *key, size_t position, double sign);

// One layer's keys or values of all rows of an item, x[n_tokens][n_kv_heads][head_dim]; raw: keys
// as they were before RoPE.
void kv_recorded_rows(const struct kv_trace_info *in, const struct kv_trace_item *it,
                      uint32_t layer, enum kv_side side, bool raw, float *x);

#endif
