// SPDX-License-Identifier: Apache-2.0
// The table of shard tensors; traces/format.md says the same in words.
#include "traces/layout.h"

const char *const kv_keep_names[] = {"final", "kv", "q", "hidden", "sens", "grad", "cells", NULL};

uint64_t kv_layers_of(const struct kv_trace_info *in) {
    return in->shape.n_layers;
}
static uint64_t heads(const struct kv_trace_info *in) {
    return in->shape.n_heads;
}
static uint64_t kv_heads(const struct kv_trace_info *in) {
    return in->shape.n_kv_heads;
}
static uint64_t dim(const struct kv_trace_info *in) {
    return in->shape.head_dim;
}
static uint64_t hidden(const struct kv_trace_info *in) {
    return in->shape.hidden;
}
static uint64_t features(const struct kv_trace_info *in) {
    return (void)in, KV_N_FEATURES;
}
static uint64_t draws(const struct kv_trace_info *in) {
    return in->adjoint.draws;
}
static uint64_t cell_features(const struct kv_trace_info *in) {
    return (void)in, KV_N_CELL_FEATURES;
}
static uint64_t sides(const struct kv_trace_info *in) {
    return (void)in, 2;
}

#define FIELD(f) offsetof(struct kv_trace_item, f)
const struct kv_column_spec kv_trace_columns[] = {
    {"choice.score", "F64", KV_AXIS_SCORE, 0, FIELD(score), 0, {0}},
    {"item.key", "U64", KV_AXIS_ITEM, 0, FIELD(key), 0, {0}},
    {"item.gold", "I32", KV_AXIS_ITEM, 0, FIELD(gold), 0, {0}},
    {"item.n_tokens", "U32", KV_AXIS_ITEM, 0, FIELD(n_tokens), 0, {0}},
    {"item.n_context", "U32", KV_AXIS_ITEM, 0, FIELD(n_context), 0, {0}},
    {"item.n_choices", "U32", KV_AXIS_ITEM, 0, FIELD(n_choices), 0, {0}},
    {"item.n_final", "U32", KV_AXIS_ITEM, 0, FIELD(n_final), 0, {0}},
    {"choice.first", "U32", KV_AXIS_EDGE, 0, FIELD(first), 0, {0}},
    {"choice.chars", "U32", KV_AXIS_CHOICE, 0, FIELD(chars), 0, {0}},
    {"choice.bytes", "U32", KV_AXIS_CHOICE, 0, FIELD(bytes), 0, {0}},
    {"token.id", "U32", KV_AXIS_TOKEN, 0, FIELD(ids), 0, {0}},
    {"token.features", "F32", KV_AXIS_TOKEN, 0, FIELD(features), 1, {features}},
    {"token.next_logprob", "F32", KV_AXIS_TOKEN, 0, FIELD(next_logprob), 0, {0}},
    {"final.row", "U32", KV_AXIS_FINAL, 0, FIELD(final_rows), 0, {0}},
    {"final.state", "F32", KV_AXIS_FINAL, KV_KEEP_FINAL, FIELD(final), 1, {hidden}},
    {"sensitivity",
     "F32",
     KV_AXIS_TOKEN,
     KV_KEEP_SENS,
     FIELD(sens),
     3,
     {kv_layers_of, kv_heads, sides}},
    {"sensitivity.spread",
     "F32",
     KV_AXIS_TOKEN,
     KV_KEEP_SENS,
     FIELD(sens_spread),
     3,
     {kv_layers_of, kv_heads, sides}},
    {"sensitivity.evict",
     "F32",
     KV_AXIS_TOKEN,
     KV_KEEP_SENS,
     FIELD(evict),
     2,
     {kv_layers_of, kv_heads}},
    {"channel.gradient",
     "F32",
     KV_AXIS_WHOLE,
     KV_KEEP_SENS | KV_KEEP_CELLS,
     FIELD(channel_gradient),
     4,
     {kv_layers_of, kv_heads, sides, dim}},
    {"cells.numerator",
     "F32",
     KV_AXIS_TOKEN,
     KV_KEEP_CELLS,
     FIELD(cells_numerator),
     3,
     {kv_layers_of, kv_heads, sides}},
    {"cells.attention",
     "F32",
     KV_AXIS_TOKEN,
     KV_KEEP_CELLS,
     FIELD(cells_attention),
     3,
     {kv_layers_of, kv_heads, cell_features}},
    {"token.surprisal", "F32", KV_AXIS_TOKEN, KV_KEEP_CELLS, FIELD(surprisal), 0, {0}},
    {"k", "F16", KV_AXIS_TOKEN, KV_KEEP_KV, FIELD(k), 3, {kv_layers_of, kv_heads, dim}},
    {"v", "F16", KV_AXIS_TOKEN, KV_KEEP_KV, FIELD(v), 3, {kv_layers_of, kv_heads, dim}},
    {"q", "F16", KV_AXIS_TOKEN, KV_KEEP_Q, FIELD(q), 3, {kv_layers_of, heads, dim}},
    {"k.gradient",
     "BF16",
     KV_AXIS_TOKEN,
     KV_KEEP_GRAD,
     FIELD(k_grad),
     4,
     {draws, kv_layers_of, kv_heads, dim}},
    {"v.gradient",
     "BF16",
     KV_AXIS_TOKEN,
     KV_KEEP_GRAD,
     FIELD(v_grad),
     4,
     {draws, kv_layers_of, kv_heads, dim}},
    {"hidden", "F16", KV_AXIS_TOKEN, KV_KEEP_HIDDEN, FIELD(hidden), 2, {kv_layers_of, hidden}},
    {"cells.input",
     "F16",
     KV_AXIS_TOKEN,
     KV_KEEP_CELLS,
     FIELD(cells_input),
     2,
     {kv_layers_of, hidden}},
    {"token.kind", "U8", KV_AXIS_TOKEN, 0, FIELD(kinds), 0, {0}},
    {0}};

const struct kv_feature_rule kv_feature_rules[] = {
    {KV_RARITY_NATS, "rarity",
     "-log((c + 1) / (N + V + 1)), running counts over the file's contexts, V the distinct tokens "
     "seen"},
    {KV_ATTN_FUTURE, "attn_future",
     "a context's token: from the context, and from the choices on the average; a choice's token: "
     "from its own choice"},
    {0}};

uint64_t kv_axis_rows(const struct kv_trace_item *item, enum kv_axis axis) {
    switch (axis) {
    case KV_AXIS_EDGE:
        return (uint64_t)item->n_choices + 1;
    case KV_AXIS_CHOICE:
        return item->n_choices;
    case KV_AXIS_SCORE:
        return item->n_choices ? item->n_choices : 1;
    case KV_AXIS_TOKEN:
        return item->n_tokens;
    case KV_AXIS_FINAL:
        return item->n_final;
    default:
        return 1;
    }
}

uint64_t kv_column_row_bytes(const struct kv_column_spec *c, const struct kv_trace_info *in) {
    uint64_t n = kv_dtype_bytes(c->dtype);
    for (uint32_t i = 0; i < c->n_dims; i++) n *= c->dim[i](in);
    return n;
}
