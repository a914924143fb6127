// SPDX-License-Identifier: Apache-2.0
// What can be asked of an open format, whichever it is.
#include "sim/quant/own.h"

#include <stdlib.h>

struct kv_unit_size kv_format_size(const struct kv_format *f, enum kv_side side, uint32_t width) {
    return f->type->size(f, side, width);
}

void kv_format_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                      size_t n_units, uint8_t *out) {
    f->type->encode(f, b, x, n_units, out);
}

void kv_format_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                      size_t n_units, float *y) {
    f->type->decode(f, b, codes, n_units, y);
}

uint32_t kv_unit_values(const struct kv_format *f, enum kv_side side) {
    return f->unit_tokens[side] * f->unit_heads * f->setting.shape.head_dim;
}

void kv_reorder(const float *x, float *y, size_t d, enum kv_order from, enum kv_order to) {
    size_t half = d / 2;
    if (from == to)
        memcpy(y, x, d * sizeof *y);
    else if (to == KV_ORDER_HF)
        for (size_t i = 0; i < half; i++) y[i] = x[2 * i], y[i + half] = x[2 * i + 1];
    else
        for (size_t i = 0; i < half; i++) y[2 * i] = x[i], y[2 * i + 1] = x[i + half];
}

void kv_turn(float *x, size_t d, enum kv_order order, const double *angle, double position) {
    size_t half = d / 2;
    for (size_t i = 0; i < half; i++) {
        size_t a = order == KV_ORDER_GGML ? 2 * i : i,
               b = order == KV_ORDER_GGML ? a + 1 : a + half;
        double by = position * angle[i];
        float c = (float)cos(by), s = (float)sin(by), xa = x[a], xb = x[b];
        x[a] = xa * c - xb * s;
        x[b] = xa * s + xb * c;
    }
}

void kv_wrap(struct kv_format *f) {
    const struct kv_format *in = f->inner;
    kv_set_widths(f, in->width_bits, in->n_widths);
    f->scope = in->scope;
    f->unit_heads = in->unit_heads;
    f->order = in->order;
    f->keys_before_rope = in->keys_before_rope;
    f->gathers = in->gathers;
    f->sinks = in->sinks;
    for (int side = 0; side < 2; side++) {
        f->unit_tokens[side] = in->unit_tokens[side];
        f->window[side] = in->window[side];
        f->flush[side] = in->flush[side];
    }
}

struct kv_unit_size kv_wrapped_size(const struct kv_format *f, enum kv_side side, uint32_t width) {
    return kv_format_size(f->inner, side, width);
}

void kv_wrapped_codes(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                      size_t n_units, uint8_t *q) {
    if (f->inner->type->codes) f->inner->type->codes(f->inner, b, codes, n_units, q);
}

void kv_set_widths(struct kv_format *f, const uint8_t *bits, size_t n) {
    memcpy(f->width_bits, bits, n);
    f->n_widths = n;
}

struct kv_unit_size kv_half_size(uint32_t values) {
    return (struct kv_unit_size){.values = values, .code_bits = 16 * values, .bytes = 2 * values};
}

void kv_free_self(struct kv_format *f) {
    free(f->self);
}
