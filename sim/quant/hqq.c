// SPDX-License-Identifier: Apache-2.0
// Format hqq: a uniform grid whose float zeros are refined against a heavy-tailed error, all groups
// of a layer's K (or V) together.
#include "sim/base/memory.h"
#include "sim/quant/grid.h"
#include "sim/quant/own.h"
#include "sim/quant/pack.h"
#include "sim/quant/plain.h"
#include "sim/quant/power.h"

#include <stdlib.h>

static const struct kv_param params[] = {
    {"group", KV_TEXT, "head", 0, 0, NULL, "values",
     "what shares scale and zero: head, or a number that divides the head"},
    {"steps", KV_INT, "20", 0, 100, NULL, NULL, "at most so many refinements of the zeros"},
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
    f->scope = KV_SCOPE_TENSOR;
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

// All groups of a tensor at one width.
struct groups {
    size_t n, size;
    float top;
    float *x;              // [n][size], within fp16
    float *inverse, *zero; // [n] 1 / step; zero in steps
};

static struct groups groups_of(const float *x, size_t n, size_t size, unsigned bits) {
    struct groups g = {.n = n, .size = size, .top = (float)((1u << bits) - 1)};
    g.x = kv_alloc(n * (size + 2) + 1, sizeof *g.x);
    g.inverse = g.x + n * size;
    g.zero = g.inverse + n;
    for (size_t k = 0; k < n; k++) {
        float min = INFINITY, max = -INFINITY;
        for (size_t i = k * size; i < (k + 1) * size; i++) {
            g.x[i] = held(x[i]);
            min = g.x[i] < min ? g.x[i] : min;
            max = g.x[i] > max ? g.x[i] : max;
        }
        float inverse = max - min <= 1e-4f ? 1.0f : g.top / (max - min);
        g.inverse[k] = inverse > 2e4f ? 2e4f : inverse;
        g.zero[k] = -min * g.inverse[k];
    }
    return g;
}

// Moves each group's zero to the mean of what is left when the errors have been shrunk. Returns the
// sum of |error| over all groups with the zeros as they were.
static double move_zeros(struct groups *g) {
    double error = 0.0;
    for (size_t k = 0; k < g->n; k++) {
        float inverse = g->inverse[k], zero = g->zero[k];
        double sum = 0.0;
        for (size_t i = k * g->size; i < (k + 1) * g->size; i++) {
            float q = code_of(g->x[i], inverse, zero, g->top), e = g->x[i] - (q - zero) / inverse;
            error += fabs((double)e);
            sum += (double)(q - (g->x[i] - kv_shrink(e)) * inverse);
        }
        g->zero[k] = (float)(sum / (double)g->size);
    }
    return error;
}

// Rounds go on while the mean error of the whole tensor falls. The zeros of the last round stand,
// also of the one that did not lower it (hqq/core/optimize.py, commit e0b1d00e:
// optimize_weights_proximal_legacy, the default; its kappa is not used).
static void refine(struct groups *g, uint32_t steps) {
    double best = INFINITY;
    for (uint32_t k = 0; k < steps; k++) {
        double error = move_zeros(g);
        if (!(error < best)) break;
        best = error;
    }
}

static void put_unit(const struct groups *g, size_t first, size_t n_groups, unsigned bits,
                     uint8_t *out) {
    uint8_t code[KV_MAX_UNIT], *at = code;
    for (size_t k = first; k < first + n_groups; k++, out += 4) {
        kv_put_half(out, held(1.0f / g->inverse[k]));
        kv_put_half(out + 2, held(g->zero[k]));
        for (size_t i = k * g->size; i < (k + 1) * g->size; i++)
            *at++ = (uint8_t)code_of(g->x[i], g->inverse[k], g->zero[k], g->top);
    }
    kv_pack(code, n_groups * g->size, bits, out);
}

static void hqq_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                       size_t n_units, uint8_t *out) {
    const struct hqq *self = f->self;
    const struct kv_unit_size size = hqq_size(f, b->side, b->width);
    const unsigned bits = f->width_bits[b->width];
    if (bits == 16) {
        kv_put_halves(x, n_units * size.values, out);
        return;
    }
    size_t per_unit = size.values / self->group;
    struct groups g = groups_of(x, n_units * per_unit, self->group, bits);
    refine(&g, self->steps);
    for (size_t u = 0; u < n_units; u++, out += size.bytes)
        put_unit(&g, u * per_unit, per_unit, bits, out);
    free(g.x);
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

static void hqq_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                       kv_field_fn *take, void *self) {
    const struct hqq *q = f->self;
    const struct kv_unit_size size = hqq_size(f, side, width);
    uint32_t n = size.values / q->group;
    kv_take_groups(take, self, "step", "fp16", 16, n, 0, 32, q->group);
    kv_take_groups(take, self, "zero", "fp16", 16, n, 16, 32, q->group);
    kv_take_codes(take, self, "uint", f->width_bits[width], size.values, size.meta_bits);
}

static void hqq_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                      struct kv_plain_width *to) {
    const struct hqq *self = f->self;
    (void)side, (void)width;
    to->rule = KV_PLAIN_REFINED;
    to->group = self->group;
    to->steps = self->steps;
}

const struct kv_format_type kv_format_type_hqq = {
    .name = "hqq",
    .summary = "half-quadratic quantization: a uniform grid with a refined float zero",
    .citation =
        "Badri and Shaji 2023, Half-Quadratic Quantization of large language models "
        "(mobiusml.github.io/hqq_blog; the default solver of mobiusml/hqq, commit e0b1d00e); "
        "for caches: arXiv:2502.15075",
    .tag = "faithful",
    .layout = "per group fp16 step, fp16 zero in steps; then codes, b bits each, lowest first. The "
              "zeros of all groups of a layer's K (or V) at one width are refined together: those "
              "of the prompt; after it, of each token",
    .formula = "b + 32/group",
    .rounding = "x (2^b - 1)/(max - min) + zero half to even with the float32 step and zero, as on "
                "a CPU; both rounded to fp16 after coding; means of the refinement in float64",
    .guards = "NaN counts as 0; values saturate at 65504; a range up to 1e-4 takes step 1; the "
              "step is at least 1/20000; steps=0: no refinement",
    .params = params,
    .open = hqq_open,
    .size = hqq_size,
    .encode = hqq_encode,
    .decode = hqq_decode,
    .codes = hqq_codes,
    .fields = hqq_fields,
    .plain = hqq_plain,
    .close = kv_free_self,
    .revision = 1, // 0 grew beta, stopped each group by itself and dropped the last zero
};
