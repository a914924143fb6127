// SPDX-License-Identifier: Apache-2.0
// Halves to floats, and keys turned back to what they were before RoPE.
#include "traces/recorded.h"

#include "sim/base/half.h"

void kv_recorded_turn(const struct kv_trace_info *in, uint32_t layer, float *key, size_t position,
                      double sign) {
    size_t d = in->shape.head_dim;
    kv_turn(key, d, in->order, in->rope + layer * (d / 2), sign * (double)position);
}

void kv_recorded_rows(const struct kv_trace_info *in, const struct kv_trace_item *it,
                      uint32_t layer, enum kv_side side, bool raw, float *x) {
    const struct kv_shape *s = &in->shape;
    size_t d = s->head_dim, width = (size_t)s->n_kv_heads * d;
    const uint16_t *half = side == KV_VALUE ? it->v : it->k;
    for (size_t row = 0; row < it->n_tokens; row++, x += width) {
        kv_f16_to_f32_n(half + (row * s->n_layers + layer) * width, x, width);
        for (size_t h = 0; raw && side == KV_KEY && h < s->n_kv_heads; h++)
            kv_recorded_turn(in, layer, x + h * d, kv_trace_position(it, row), -1);
    }
}
