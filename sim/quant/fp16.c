// SPDX-License-Identifier: Apache-2.0
// Formats fp16 and bf16: 16-bit floats as stored by an unquantized cache.
#include "sim/quant/pack.h"
#include "sim/quant/own.h"
#include "sim/quant/plain.h"

static int half_open(struct kv_format *f, const struct kv_format_setting *s,
                     const struct kv_args *args, struct kv_error *e) {
    (void)s, (void)args, (void)e;
    static const uint8_t bits[] = {16};
    kv_set_widths(f, bits, 1);
    return 0;
}

static struct kv_unit_size half_size(const struct kv_format *f, enum kv_side side, uint32_t width) {
    (void)side, (void)width;
    return kv_half_size(f->setting.shape.head_dim);
}

static void fp16_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                        size_t n_units, uint8_t *out) {
    (void)b;
    kv_put_halves(x, n_units * f->setting.shape.head_dim, out);
}

static void fp16_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                        size_t n_units, float *y) {
    (void)b;
    kv_get_halves(codes, n_units * f->setting.shape.head_dim, y);
}

static void fp16_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                        kv_field_fn *take, void *self) {
    (void)width;
    kv_take_codes(take, self, "fp16", 16, kv_unit_values(f, side), 0);
}

static void fp16_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                       struct kv_plain_width *to) {
    (void)f, (void)side, (void)width;
    to->rule = KV_PLAIN_HALF;
}

const struct kv_format_type kv_format_type_fp16 = {
    .name = "fp16",
    .summary = "IEEE binary16",
    .citation = "IEEE 754-2019, section 3.6",
    .tag = "exact",
    .layout = "2 bytes a value, little-endian",
    .formula = "16",
    .rounding = "half to even",
    .guards = "NaN stays NaN; above 65519 becomes infinity; subnormals kept",
    .stable = true,
    .open = half_open,
    .size = half_size,
    .encode = fp16_encode,
    .decode = fp16_decode,
    .fields = fp16_fields,
    .plain = fp16_plain,
};

static void bf16_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                        size_t n_units, uint8_t *out) {
    (void)b;
    size_t n = n_units * f->setting.shape.head_dim;
    for (size_t i = 0; i < n; i++) kv_put16(out + 2 * i, kv_f32_to_bf16(x[i]));
}

static void bf16_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                        size_t n_units, float *y) {
    (void)b;
    size_t n = n_units * f->setting.shape.head_dim;
    for (size_t i = 0; i < n; i++) y[i] = kv_bf16_to_f32(kv_get16(codes + 2 * i));
}

static void bf16_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                        kv_field_fn *take, void *self) {
    (void)width;
    kv_take_codes(take, self, "bf16", 16, kv_unit_values(f, side), 0);
}

static void bf16_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                       struct kv_plain_width *to) {
    (void)f, (void)side, (void)width;
    to->rule = KV_PLAIN_BF16;
}

const struct kv_format_type kv_format_type_bf16 = {
    .name = "bf16",
    .summary = "bfloat16: float32's upper half",
    .citation = "Kalamkar et al. 2019, arXiv:1905.12322",
    .tag = "exact",
    .layout = "2 bytes a value, little-endian",
    .formula = "16",
    .rounding = "half to even",
    .guards = "NaN stays NaN; overflow becomes infinity; subnormals kept",
    .stable = true,
    .open = half_open,
    .size = half_size,
    .encode = bf16_encode,
    .decode = bf16_decode,
    .fields = bf16_fields,
    .plain = bf16_plain,
};
