// SPDX-License-Identifier: Apache-2.0
// Format hqq: a uniform grid whose float zero is refined against a heavy-tailed error.
#include "sim/base/memory.h"
#include "sim/quant/grid.h"
#include "sim/quant/own.h"
#include "sim/quant/pack.h"

static const struct kv_param params[] = {
    {"group", KV_TEXT, "head", 0, 0, NULL, "values",
     "what shares scale and zero: head, or a number that divides the head"},
    {"steps", KV_INT, "20", 0, 100, NULL, NULL, "at most so many refinements of the zero"},
    {0}};

struct hqq {
    uint32_t group, steps;
};

static int hqq_open(struct kv_format *f, const struct kv_format_setting *s,
                    const struct kv_args *args, struct kv_error *e) {
    (void)s;
    static const uint8_t bits[] = {1, 2, 3, 4, 5, 6, 8, 16};
    struct hqq *self = f->self = kv_alloc(1, sizeof *self);
    self->steps = (uint32_t)kv_number(args, "steps");
    kv_set_widths(f, bits, sizeof bits);
    f->order = KV_ORDER_HF;
    if (strcmp(kv_arg(args, "group")->text, "layer") == 0)
        return kv_fail(e, KV_EUSAGE, "format hqq",
                       "group=layer: group must be head or a number that divides the head");
    return kv_grid_group(f, kv_arg(args, "group")->text, &self->group, e);
}

static struct kv_unit_size hqq_size(const struct kv_format *f, enum kv_side side, uint32_t width) {
    const struct hqq *self = f->self;
    uint32_t n = kv_unit_values(f, side), meta = n / self->group * 4, bits = f->width_bits[width];
    if (bits == 16) return kv_half_size(n);
    return (struct kv_unit_size){.values = n,
                                 .code_bits = n * bits,
                                 .meta_bits = 8 * meta,
                                 .bytes = meta + (uint32_t)kv_packed_bytes(n, bits)};
}

static float held(float x) { // within fp16; NaN as 0
    return isnan(x) ? 0.0f : x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
}

static float code_of(float x, float inverse, float zero, float top) {
    float q = rintf(x * inverse + zero);
    return q < 0.0f ? 0.0f : q > top ? top : q;
}

// sign(e) max(|e| - |e|^(p - 1) / beta, 0) with p = 0.7: the proximal step of |e|^p.
static float shrunk(float e, double beta) {
    double a = fabs((double)e);
    double left = a > 0.0 ? a - pow(a, -0.3) / beta : 0.0;
    return left <= 0.0 ? 0.0f : e < 0.0f ? (float)-left : (float)left;
}

// Alternates between shrinking the errors and moving the zero to the mean of what is left, while
// the mean error falls (Badri and Shaji 2023; beta 10, growing by 1.01).
static float refine(const float *x, uint32_t n, float inverse, float zero, float top,
                    uint32_t steps) {
    double beta = 10.0, best = INFINITY;
    for (uint32_t k = 0; k < steps; k++, beta *= 1.01) {
        double error = 0.0, sum = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            float q = code_of(x[i], inverse, zero, top), e = x[i] - (q - zero) / inverse;
            error += fabs((double)e);
            sum += (double)(q - (x[i] - shrunk(e, beta)) * inverse);
        }
        if (!(error < best)) break;
        best = error;
        zero = (float)(sum / n);
    }
    return zero;
}

static void encode_group(const struct hqq *self, const float *raw, unsigned bits, uint8_t *meta,
                         uint8_t *code) {
    float x[KV_MAX_UNIT], min = INFINITY, max = -INFINITY, top = (float)((1u << bits) - 1);
    for (uint32_t i = 0; i < self->group; i++) {
        x[i] = held(raw[i]);
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    float inverse = max - min <= 1e-4f ? 1.0f : top / (max - min);
    inverse = inverse > 2e4f ? 2e4f : inverse;
    float zero = refine(x, self->group, inverse, -min * inverse, top, self->steps);
    kv_put_half(meta, held(1.0f / inverse));
    kv_put_half(meta + 2, held(zero));
    for (uint32_t i = 0; i < self->group; i++) code[i] = (uint8_t)code_of(x[i], inverse, zero, top);
}

static void hqq_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                       size_t n_units, uint8_t *out) {
    const struct hqq *self = f->self;
    const struct kv_unit_size size = hqq_size(f, b->side, b->width);
    const unsigned bits = f->width_bits[b->width];
    uint8_t code[KV_MAX_UNIT];
    if (bits == 16) {
        kv_put_halves(x, n_units * size.values, out);
        return;
    }
    for (size_t u = 0; u < n_units; u++, x += size.values, out += size.bytes) {
        for (uint32_t at = 0, k = 0; at < size.values; at += self->group, k++)
            encode_group(self, x + at, bits, out + 4 * k, code + at);
        kv_pack(code, size.values, bits, out + size.meta_bits / 8);
    }
}

static void hqq_codes(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                      size_t n_units, uint8_t *q) {
    const struct kv_unit_size size = hqq_size(f, b->side, b->width);
    for (size_t u = 0; u < n_units; u++, codes += size.bytes, q += size.values)
        kv_unpack(codes + size.meta_bits / 8, size.values, f->width_bits[b->width], q);
}

static void hqq_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                       size_t n_units, float *y) {
    const struct hqq *self = f->self;
    const struct kv_unit_size size = hqq_size(f, b->side, b->width);
    uint8_t code[KV_MAX_UNIT];
    if (f->width_bits[b->width] == 16) {
        kv_get_halves(codes, n_units * size.values, y);
        return;
    }
    for (size_t u = 0; u < n_units; u++, codes += size.bytes, y += size.values) {
        kv_unpack(codes + size.meta_bits / 8, size.values, f->width_bits[b->width], code);
        for (uint32_t i = 0; i < size.values; i++) {
            const uint8_t *meta = codes + 4 * (i / self->group);
            y[i] = ((float)code[i] - kv_get_half(meta + 2)) * kv_get_half(meta);
        }
    }
}

const struct kv_format_type kv_format_type_hqq = {
    .name = "hqq",
    .summary = "half-quadratic quantization: a uniform grid with a refined float zero",
    .citation = "Badri and Shaji 2023, Half-Quadratic Quantization of large language models "
                "(mobiusml.github.io/hqq_blog); for caches: arXiv:2502.15075",
    .tag = "faithful",
    .layout = "per group fp16 step, fp16 zero in steps; then codes, b bits each, lowest first",
    .formula = "b + 32/group",
    .rounding = "x (2^b - 1)/(max - min) + zero half to even with the float32 step and zero; both "
                "rounded to fp16 after coding; means of the refinement in float64",
    .guards = "NaN counts as 0; values saturate at 65504; a range up to 1e-4 takes step 1; the "
              "step is at least 1/20000; steps=0: no refinement",
    .params = params,
    .open = hqq_open,
    .size = hqq_size,
    .encode = hqq_encode,
    .decode = hqq_decode,
    .codes = hqq_codes,
    .close = kv_free_self,
};
