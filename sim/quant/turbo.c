// SPDX-License-Identifier: Apache-2.0
// Format turbo: a vector's norm, and its rotated direction on the best levels for a normal
// variable.
#include "sim/base/memory.h"
#include "sim/quant/book.h"
#include "sim/quant/pack.h"
#include "sim/quant/rotate.h"
#include "sim/quant/own.h"
#include "sim/quant/plain.h"

// Positive halves of the least-squares quantizers of a standard normal variable, 2 to 16 levels:
// Max 1960, IRE Trans. Information Theory 6(1), table I.
static const float normal_levels[4][8] = {
    {0.7980f},
    {0.4528f, 1.510f},
    {0.2451f, 0.7560f, 1.344f, 2.152f},
    {0.1284f, 0.3881f, 0.6568f, 0.9424f, 1.256f, 1.618f, 2.069f, 2.733f}};

struct turbo {
    struct kv_book book[4]; // for 1..4 bits, divided by sqrt(head)
};

static int turbo_open(struct kv_format *f, const struct kv_format_setting *s,
                      const struct kv_args *args, struct kv_error *e) {
    static const uint8_t bits[] = {1, 2, 3, 4, 16};
    (void)args;
    if (kv_rotation_size(s->shape.head_dim) != s->shape.head_dim)
        return kv_fail(e, KV_EFAIL, "format turbo",
                       "a head of %u values cannot be rotated whole; a power of two can",
                       s->shape.head_dim);
    struct turbo *self = f->self = kv_alloc(1, sizeof *self);
    const float root = sqrtf((float)s->shape.head_dim);
    for (uint32_t b = 0; b < 4; b++) {
        float level[KV_MAX_BOOK];
        uint32_t half = 1u << b;
        for (uint32_t i = 0; i < half; i++) {
            level[half + i] = normal_levels[b][i] / root;
            level[half - 1 - i] = -level[half + i];
        }
        self->book[b] = kv_book_of(level, 2 * half);
    }
    kv_set_widths(f, bits, sizeof bits);
    return 0;
}

static struct kv_unit_size turbo_size(const struct kv_format *f, enum kv_side side,
                                      uint32_t width) {
    uint32_t n = f->setting.shape.head_dim, bits = f->width_bits[width];
    (void)side;
    if (bits == 16) return kv_half_size(n);
    return (struct kv_unit_size){.values = n,
                                 .code_bits = n * bits,
                                 .meta_bits = 16,
                                 .bytes = 2 + (uint32_t)kv_packed_bytes(n, bits)};
}

// The rotation is a Walsh-Hadamard matrix after these signs, the same for every vector.
static void flip(float *x, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if ((i + 1) * 0x9E3779B1u >> 31) x[i] = -x[i];
}

static float held(float x) { // within fp16; NaN as 0
    return isnan(x) ? 0.0f : x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
}

static void turbo_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                         size_t n_units, uint8_t *out) {
    const struct turbo *self = f->self;
    const struct kv_unit_size size = turbo_size(f, b->side, b->width);
    const uint32_t n = size.values, bits = f->width_bits[b->width];
    float unit[1024];
    uint8_t code[1024];
    if (bits == 16) {
        kv_put_halves(x, n_units * n, out);
        return;
    }
    for (size_t u = 0; u < n_units; u++, x += n, out += size.bytes) {
        double sum = 0.0;
        for (uint32_t i = 0; i < n; i++) sum += (double)held(x[i]) * (double)held(x[i]);
        kv_put_half(out, held((float)sqrt(sum)));
        float norm = kv_get_half(out);
        for (uint32_t i = 0; i < n; i++) unit[i] = norm == 0.0f ? 0.0f : held(x[i]) / norm;
        flip(unit, n);
        kv_rotate(unit, n, n);
        for (uint32_t i = 0; i < n; i++) code[i] = kv_book_code(&self->book[bits - 1], unit[i]);
        kv_pack(code, n, bits, out + 2);
    }
}

static void turbo_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                         size_t n_units, float *y) {
    const struct turbo *self = f->self;
    const struct kv_unit_size size = turbo_size(f, b->side, b->width);
    const uint32_t n = size.values, bits = f->width_bits[b->width];
    uint8_t code[1024];
    if (bits == 16) {
        kv_get_halves(codes, n_units * n, y);
        return;
    }
    for (size_t u = 0; u < n_units; u++, codes += size.bytes, y += n) {
        kv_unpack(codes + 2, n, bits, code);
        for (uint32_t i = 0; i < n; i++) y[i] = self->book[bits - 1].level[code[i]];
        kv_rotate(y, n, n);
        flip(y, n);
        for (uint32_t i = 0; i < n; i++) y[i] *= kv_get_half(codes);
    }
}

static void turbo_codes(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                        size_t n_units, uint8_t *q) {
    const struct kv_unit_size size = turbo_size(f, b->side, b->width);
    for (size_t u = 0; u < n_units; u++, codes += size.bytes, q += size.values)
        kv_unpack(codes + 2, size.values, f->width_bits[b->width], q);
}

static void turbo_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                         kv_field_fn *take, void *self) {
    const struct kv_unit_size size = turbo_size(f, side, width);
    kv_take_groups(take, self, "norm", "fp16", 16, 1, 0, 16, size.values);
    kv_take_codes(take, self, "uint", f->width_bits[width], size.values, size.meta_bits);
}

static void turbo_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                        struct kv_plain_width *to) {
    const struct kv_book *book = &((const struct turbo *)f->self)->book[f->width_bits[width] - 1];
    (void)side;
    to->rule = KV_PLAIN_NORM;
    to->n_levels = book->n;
    memcpy(to->level, book->level, sizeof to->level);
    memcpy(to->middle, book->middle, sizeof to->middle);
    to->levels = 1.0f / sqrtf((float)f->setting.shape.head_dim); // its own rotation's
}

const struct kv_format_type kv_format_type_turbo = {
    .name = "turbo",
    .summary = "TurboQuant for least error: norm, and rotated direction on normal levels",
    .citation = "Zandieh et al. 2025, arXiv:2504.19874, section 3.1 (the MSE variant); levels: Max "
                "1960, IRE Trans. Information Theory 6(1)",
    .tag = "approximate",
    .layout = "per head's vector fp16 norm; then codes, b bits each, lowest first",
    .formula = "b + 16/head",
    .rounding = "x / norm in float32, signs, rotation as hadamard, nearest level, halfway to the "
                "lower; norm summed in float64, rounded to fp16",
    .guards = "NaN counts as 0; values and norm saturate at 65504; norm 0 decodes to 0. Differs "
              "from its source: Walsh-Hadamard with fixed signs instead of a random rotation, "
              "levels of the normal limit",
    .open = turbo_open,
    .size = turbo_size,
    .encode = turbo_encode,
    .decode = turbo_decode,
    .codes = turbo_codes,
    .fields = turbo_fields,
    .plain = turbo_plain,
    .close = kv_free_self,
};
