// SPDX-License-Identifier: Apache-2.0
// The tensors of a shard, in the order they lie in it: one table for the writer and the reader.
#ifndef KV_TRACES_LAYOUT_H
#define KV_TRACES_LAYOUT_H

#include "sim/model/safetensors.h"
#include "traces/trace.h"

// What an item contributes rows to.
enum kv_axis {
    KV_AXIS_ITEM,  // one number, in the item itself
    KV_AXIS_WHOLE, // one row of many, that the item points to
    KV_AXIS_EDGE,
    KV_AXIS_CHOICE,
    KV_AXIS_SCORE,
    KV_AXIS_TOKEN,
    KV_AXIS_FINAL,
    KV_N_AXES
};

struct kv_column_spec {
    const char *name, *dtype;
    enum kv_axis axis;
    uint32_t keep; // enum kv_keep bits, any of which keeps it; 0 = always
    size_t field; // offset in struct kv_trace_item: a pointer, or for KV_AXIS_ITEM the value itself
    uint32_t n_dims;
    uint64_t (*dim[4])(const struct kv_trace_info *in); // dimensions after the first
};
uint64_t kv_layers_of(const struct kv_trace_info *in); // the dimension that counts layers
extern const struct kv_column_spec kv_trace_columns[]; // ends with {0}; wider elements first

// Features whose rule has changed since the first recordings, and the rule that holds now. A
// manifest's semantics say by which one it was recorded, under `key`.
struct kv_feature_rule {
    enum kv_feature feature;
    const char *key, *rule;
};
extern const struct kv_feature_rule kv_feature_rules[]; // ends with a NULL key

// Rows an item has along an axis: 1, 1, n_choices + 1, n_choices, max(1, n_choices), n_tokens,
// n_final.
uint64_t kv_axis_rows(const struct kv_trace_item *item, enum kv_axis axis);
// Bytes of one row of a column.
uint64_t kv_column_row_bytes(const struct kv_column_spec *c, const struct kv_trace_info *in);

#endif
