// SPDX-License-Identifier: Apache-2.0
// Halves to floats, and keys turned back to what they were before RoPE.
#include "traces/recorded.h"

#include "sim/base/half.h"

size_t kv_recorded_position(const struct kv_trace_item *it, size_t row) {
    if (row < it->n_context) return row;
    uint32_t c = 0;
    while (c + 1 < it->n_choices && row >= it->first[c + 1]) c++;
    return it->n_context + row - it->first[c];
}

void kv_recorded_turn(const struct kv_trace_info *in, float *x, size_t position, double sign) {
    size_t half = in->shape.head_dim / 2;
    for (size_t i = 0; i < half; i++) {
        double angle =
            sign * (double)position * pow((double)in->rope_base, -(double)i / (double)half);
        size_t a = in->order == KV_ORDER_GGML ? 2 * i : i,
               b = in->order == KV_ORDER_GGML ? a + 1 : a + half;
        float c = (float)cos(angle), s = (float)sin(angle), xa = x[a], xb = x[b];
        x[a] = xa * c - xb * s;
        x[b] = xa * s + xb * c;
    }
}

void kv_recorded_rows(const struct kv_trace_info *in, const struct kv_trace_item *it,
                      uint32_t layer, enum kv_side side, bool raw, float *x) {
    const struct kv_shape *s = &in->shape;
    size_t d = s->head_dim, width = (size_t)s->n_kv_heads * d;
    const uint16_t *half = side == KV_VALUE ? it->v : it->k;
    for (size_t row = 0; row < it->n_tokens; row++, x += width) {
        kv_f16_to_f32_n(half + (row * s->n_layers + layer) * width, x, width);
        for (size_t h = 0; raw && side == KV_KEY && h < s->n_kv_heads; h++)
            kv_recorded_turn(in, x + h * d, kv_recorded_position(it, row), -1);
    }
}
