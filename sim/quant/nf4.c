// SPDX-License-Identifier: Apache-2.0
// Format nf4: 16 levels at the quantiles of a normal distribution, scaled by the largest value.
#include "sim/base/memory.h"
#include "sim/quant/book.h"
#include "sim/quant/grid.h"
#include "sim/quant/own.h"
#include "sim/quant/pack.h"
#include "sim/quant/plain.h"

// Appendix E of the QLoRA paper.
static const float normal_float[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

static const struct kv_param params[] = {
    {"group", KV_TEXT, "head", 0, 0, NULL, "values",
     "what shares a scale: head, layer (all KV heads of a token) or a number that divides the "
     "head"},
    {0}};

struct nf4 {
    struct kv_book book;
    uint32_t group;
};

static int nf4_open(struct kv_format *f, const struct kv_format_setting *s,
                    const struct kv_args *args, struct kv_error *e) {
    (void)s;
    static const uint8_t bits[] = {4, 16};
    struct nf4 *self = f->self = kv_alloc(1, sizeof *self);
    self->book = kv_book_of(normal_float, 16);
    kv_set_widths(f, bits, 2);
    return kv_grid_group(f, kv_arg(args, "group")->text, &self->group, e);
}

static struct kv_unit_size nf4_size(const struct kv_format *f, enum kv_side side, uint32_t width) {
    const struct nf4 *self = f->self;
    uint32_t n = kv_unit_values(f, side), meta = n / self->group * 2;
    if (f->width_bits[width] == 16) return kv_half_size(n);
    return (struct kv_unit_size){.values = n,
                                 .code_bits = 4 * n,
                                 .meta_bits = 8 * meta,
                                 .bytes = meta + (uint32_t)kv_packed_bytes(n, 4)};
}

static void nf4_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                       size_t n_units, uint8_t *out) {
    const struct nf4 *self = f->self;
    const struct kv_unit_size size = nf4_size(f, b->side, b->width);
    uint8_t code[KV_MAX_UNIT];
    if (f->width_bits[b->width] == 16) {
        kv_put_halves(x, n_units * size.values, out);
        return;
    }
    for (size_t u = 0; u < n_units; u++, x += size.values, out += size.bytes) {
        for (uint32_t at = 0, k = 0; at < size.values; at += self->group, k++) {
            float largest = 0.0f;
            for (uint32_t i = at; i < at + self->group; i++)
                if (fabsf(x[i]) > largest) largest = fabsf(x[i]);
            kv_put_half(out + 2 * k, largest > 65504.0f ? 65504.0f : largest);
            float scale = kv_get_half(out + 2 * k);
            for (uint32_t i = at; i < at + self->group; i++)
                code[i] = kv_book_code(&self->book, scale == 0.0f ? 0.0f : x[i] / scale);
        }
        kv_pack(code, size.values, 4, out + size.meta_bits / 8);
    }
}

static void nf4_codes(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                      size_t n_units, uint8_t *q) {
    const struct kv_unit_size size = nf4_size(f, b->side, b->width);
    for (size_t u = 0; u < n_units; u++, codes += size.bytes, q += size.values)
        kv_unpack(codes + size.meta_bits / 8, size.values, 4, q);
}

static void nf4_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                       size_t n_units, float *y) {
    const struct nf4 *self = f->self;
    const struct kv_unit_size size = nf4_size(f, b->side, b->width);
    uint8_t code[KV_MAX_UNIT];
    if (f->width_bits[b->width] == 16) {
        kv_get_halves(codes, n_units * size.values, y);
        return;
    }
    for (size_t u = 0; u < n_units; u++, codes += size.bytes, y += size.values) {
        kv_unpack(codes + size.meta_bits / 8, size.values, 4, code);
        for (uint32_t i = 0; i < size.values; i++)
            y[i] = self->book.level[code[i]] * kv_get_half(codes + 2 * (i / self->group));
    }
}

static void nf4_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                       kv_field_fn *take, void *self) {
    const struct nf4 *n = f->self;
    const struct kv_unit_size size = nf4_size(f, side, width);
    kv_take_groups(take, self, "scale", "fp16", 16, size.values / n->group, 0, 16, n->group);
    kv_take_codes(take, self, "uint", 4, size.values, size.meta_bits);
}

static void nf4_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                      struct kv_plain_width *to) {
    const struct nf4 *self = f->self;
    (void)side, (void)width;
    to->rule = KV_PLAIN_LEVELS;
    to->group = self->group;
    to->n_levels = self->book.n;
    memcpy(to->level, self->book.level, sizeof to->level);
    memcpy(to->middle, self->book.middle, sizeof to->middle);
}

const struct kv_format_type kv_format_type_nf4 = {
    .name = "nf4",
    .summary = "NormalFloat: 16 levels at the quantiles of a normal distribution, by max|x|",
    .citation = "Dettmers et al. 2023 (QLoRA), arXiv:2305.14314, section 3 and appendix E",
    .tag = "faithful",
    .layout = "per group fp16 max|x|; then codes, 4 bits each, lowest first",
    .formula = "4 + 16/group",
    .rounding = "nearest level of x / scale in float32, halfway to the lower; scale max|x| rounded "
                "to fp16 (QLoRA: float32)",
    .guards = "NaN codes as 0; infinities saturate; scale 0 decodes to 0; scale saturates at 65504",
    .params = params,
    .stable = true,
    .open = nf4_open,
    .size = nf4_size,
    .encode = nf4_encode,
    .decode = nf4_decode,
    .codes = nf4_codes,
    .fields = nf4_fields,
    .plain = nf4_plain,
    .close = kv_free_self,
};
