// SPDX-License-Identifier: Apache-2.0
// Formats fp8_e4m3 and fp8_e5m2: 8-bit floats, with no scale or one a head.
#include "sim/base/memory.h"
#include "sim/quant/pack.h"
#include "sim/quant/own.h"
#include "sim/quant/plain.h"

#include <stdlib.h>

// A kind of 8-bit float. Neither stores infinities: values beyond `largest` saturate.
struct small_float {
    uint32_t fraction_bits, bias;
    float largest, step; // least subnormal
};
static const struct small_float e4m3 = {3, 7, 448.0f, 0x1p-9f};
static const struct small_float e5m2 = {2, 15, 57344.0f, 0x1p-16f};

enum { IS_NAN = 0x7F };

static uint8_t put(const struct small_float *k, float x) {
    uint32_t u, cut = 23 - k->fraction_bits;
    float a = fabsf(x);
    a = a > k->largest ? k->largest : a;
    memcpy(&u, &a, sizeof u);
    u += (1u << (cut - 1)) - 1 + (u >> cut & 1); // half to even
    uint32_t normal = (u >> cut) - ((127 - k->bias) << k->fraction_bits);
    bool small = a < k->step * (float)(1u << k->fraction_bits);
    uint32_t code = small ? (uint32_t)rintf(a / k->step) : normal;
    code = isnan(x) ? IS_NAN : code;
    return (uint8_t)(code | (signbit(x) ? 0x80 : 0));
}

static float get(const struct small_float *k, uint8_t code) {
    uint32_t u = (uint32_t)(code & 0x7F) << (23 - k->fraction_bits);
    float a;
    memcpy(&a, &u, sizeof a);
    a *= k->bias == 7 ? 0x1p120f : 0x1p112f; // 2^(127 - bias): exact, subnormals too
    if ((code & 0x7F) == IS_NAN) a = NAN;
    return code & 0x80 ? -a : a;
}

struct fp8 {
    const struct small_float *kind;
    bool scaled;
    float value[256];
};

static const struct kv_param params[] = {
    {"scale", KV_CHOICE, "one", 0, 0, "one/head", NULL,
     "one: values as they are (vLLM's default); head: each vector is divided by an fp16 scale, "
     "max|x| / largest"},
    {0}};

static int open_kind(struct kv_format *f, const struct small_float *kind,
                     const struct kv_args *args) {
    static const uint8_t bits[] = {8, 16};
    struct fp8 *self = f->self = kv_alloc(1, sizeof *self);
    *self = (struct fp8){.kind = kind, .scaled = kv_number(args, "scale") == 1};
    for (int c = 0; c < 256; c++) self->value[c] = get(kind, (uint8_t)c);
    kv_set_widths(f, bits, 2);
    return 0;
}

static int e4m3_open(struct kv_format *f, const struct kv_format_setting *s,
                     const struct kv_args *args, struct kv_error *e) {
    (void)s, (void)e;
    return open_kind(f, &e4m3, args);
}

static int e5m2_open(struct kv_format *f, const struct kv_format_setting *s,
                     const struct kv_args *args, struct kv_error *e) {
    (void)s, (void)e;
    return open_kind(f, &e5m2, args);
}

static struct kv_unit_size fp8_size(const struct kv_format *f, enum kv_side side, uint32_t width) {
    (void)side;
    const struct fp8 *self = f->self;
    uint32_t n = f->setting.shape.head_dim, meta = self->scaled ? 2 : 0;
    if (f->width_bits[width] == 16) return kv_half_size(n);
    return (struct kv_unit_size){
        .values = n, .code_bits = 8 * n, .meta_bits = 8 * meta, .bytes = n + meta};
}

static void fp8_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                       size_t n_units, uint8_t *out) {
    const struct fp8 *self = f->self;
    size_t n = f->setting.shape.head_dim;
    if (f->width_bits[b->width] == 16) {
        kv_put_halves(x, n_units * n, out);
        return;
    }
    for (size_t u = 0; u < n_units; u++, x += n, out += n) {
        float scale = 1.0f, largest = 0.0f;
        if (self->scaled) {
            for (size_t i = 0; i < n; i++)
                if (fabsf(x[i]) > largest) largest = fabsf(x[i]);
            largest /= self->kind->largest;
            kv_put_half(out, largest > 65504.0f ? 65504.0f : largest);
            scale = kv_get_half(out);
            out += 2;
        }
        for (size_t i = 0; i < n; i++)
            out[i] = put(self->kind, scale == 0.0f ? 0.0f : scale == 1.0f ? x[i] : x[i] / scale);
    }
}

static void fp8_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                       size_t n_units, float *y) {
    const struct fp8 *self = f->self;
    size_t n = f->setting.shape.head_dim;
    if (f->width_bits[b->width] == 16) {
        kv_get_halves(codes, n_units * n, y);
        return;
    }
    for (size_t u = 0; u < n_units; u++, codes += n, y += n) {
        float scale = 1.0f;
        if (self->scaled) scale = kv_get_half(codes), codes += 2;
        for (size_t i = 0; i < n; i++) y[i] = self->value[codes[i]] * scale;
    }
}

static void fp8_codes(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                      size_t n_units, uint8_t *q) {
    struct kv_unit_size size = fp8_size(f, b->side, b->width);
    for (size_t u = 0; u < n_units; u++, codes += size.bytes, q += size.values)
        memcpy(q, codes + size.meta_bits / 8, size.values);
}

static void fp8_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                       kv_field_fn *take, void *self) {
    const struct fp8 *own = f->self;
    const struct kv_unit_size size = fp8_size(f, side, width);
    if (own->scaled) kv_take_groups(take, self, "scale", "fp16", 16, 1, 0, 16, size.values);
    kv_take_codes(take, self, own->kind->bias == 7 ? "e4m3" : "e5m2", 8, size.values,
                  size.meta_bits);
}

static void fp8_close(struct kv_format *f) {
    free(f->self);
}

static void fp8_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                      struct kv_plain_width *to) {
    const struct fp8 *self = f->self;
    (void)side, (void)width;
    to->rule = KV_PLAIN_SMALL;
    to->fraction_bits = self->kind->fraction_bits;
    to->bias = self->kind->bias;
    to->largest = self->kind->largest;
    to->step = self->kind->step;
    to->scaled = self->scaled;
}

#define KIND(NAME, SUMMARY, GUARDS)                                                                \
    const struct kv_format_type kv_format_type_fp8_##NAME = {                                      \
        .name = "fp8_" #NAME,                                                                      \
        .summary = SUMMARY,                                                                        \
        .citation = "Micikevicius et al. 2022, arXiv:2209.05433, table 1; scales as vLLM's fp8 "   \
                    "cache",                                                                       \
        .tag = "exact",                                                                            \
        .layout = "a byte a value; scale=head: fp16 scale first",                                  \
        .formula = "8; scale=head: 8 + 16/head",                                                   \
        .rounding = "half to even; scale=head: x / scale in float32 first",                        \
        .guards = GUARDS,                                                                          \
        .params = params,                                                                          \
        .stable = true,                                                                            \
        .open = NAME##_open,                                                                       \
        .size = fp8_size,                                                                          \
        .encode = fp8_encode,                                                                      \
        .decode = fp8_decode,                                                                      \
        .codes = fp8_codes,                                                                        \
        .fields = fp8_fields,                                                                      \
        .plain = fp8_plain,                                                                        \
        .close = fp8_close,                                                                        \
    };

KIND(e4m3, "8-bit float: 4 bits of exponent, 3 of fraction",
     "NaN stays NaN; infinities and values beyond 448 saturate; subnormals kept down to 2^-9")
KIND(e5m2, "8-bit float: 5 bits of exponent, 2 of fraction",
     "NaN stays NaN; infinities and values beyond 57344 saturate; subnormals kept down to 2^-16")
