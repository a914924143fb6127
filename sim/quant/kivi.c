// SPDX-License-Identifier: Apache-2.0
// Format kivi: keys by channel over runs of tokens, values by token, the newest tokens exact.
#include "sim/base/memory.h"
#include "sim/quant/grid.h"
#include "sim/quant/own.h"
#include "sim/quant/plain.h"

static const struct kv_param params[] = {
    {"group", KV_INT, "32", 1, 256, NULL, NULL,
     "tokens that share a key channel's scale, and channels that share a value's"},
    {"residual", KV_INT, "32", 1, 4096, NULL, "tokens",
     "newest tokens kept exact: keys leave them this many at a time, values one by one"},
    {0}};

static int kivi_open(struct kv_format *f, const struct kv_format_setting *s,
                     const struct kv_args *args, struct kv_error *e) {
    static const uint8_t bits[] = {2, 4, 8, 16};
    uint32_t group = (uint32_t)kv_number(args, "group"), dim = s->shape.head_dim;
    uint32_t residual = (uint32_t)kv_number(args, "residual");
    if (dim % group != 0 || group * dim > KV_MAX_UNIT)
        return kv_fail(e, KV_EUSAGE, "format kivi",
                       "group=%u: group must divide the head of %u values and cover at most %d "
                       "values of it",
                       group, dim, KV_MAX_UNIT);
    if (residual % group != 0)
        return kv_fail(e, KV_EUSAGE, "format kivi",
                       "residual=%u: it must be a multiple of the group of %u tokens", residual,
                       group);
    struct kv_gridded *self = f->self = kv_alloc(1, sizeof *self);
    kv_set_widths(f, bits, sizeof bits);
    f->scope = KV_SCOPE_GROUP;
    f->order = KV_ORDER_HF;
    f->unit_tokens[KV_KEY] = group;
    f->flush[KV_KEY] = residual;
    f->window[KV_VALUE] = residual;
    for (int side = 0; side < 2; side++)
        for (size_t w = 0; f->width_bits[w] < 16; w++)
            self->grid[side][w] =
                kv_grid_of(KV_GRID_ASYM, f->width_bits[w], kv_unit_values(f, side), group);
    return 0;
}

// A key unit [tokens][dim] as its channels [dim][tokens], which are the groups of its grid.
static void by_channel(const float *x, size_t tokens, size_t dim, float *out) {
    for (size_t c = 0; c < dim; c++)
        for (size_t t = 0; t < tokens; t++) out[c * tokens + t] = x[t * dim + c];
}

static void kivi_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                        size_t n_units, uint8_t *out) {
    if (b->side == KV_VALUE || f->width_bits[b->width] == 16) {
        kv_gridded_encode(f, b, x, n_units, out);
        return;
    }
    float turned[KV_MAX_UNIT];
    size_t tokens = f->unit_tokens[KV_KEY], dim = f->setting.shape.head_dim;
    size_t bytes = kv_gridded_size(f, b->side, b->width).bytes;
    for (size_t u = 0; u < n_units; u++, x += tokens * dim, out += bytes) {
        by_channel(x, tokens, dim, turned);
        kv_gridded_encode(f, b, turned, 1, out);
    }
}

static void kivi_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                        size_t n_units, float *y) {
    if (b->side == KV_VALUE || f->width_bits[b->width] == 16) {
        kv_gridded_decode(f, b, codes, n_units, y);
        return;
    }
    float turned[KV_MAX_UNIT];
    size_t tokens = f->unit_tokens[KV_KEY], dim = f->setting.shape.head_dim;
    size_t bytes = kv_gridded_size(f, b->side, b->width).bytes;
    for (size_t u = 0; u < n_units; u++, y += tokens * dim, codes += bytes) {
        kv_gridded_decode(f, b, codes, 1, turned);
        by_channel(turned, dim, tokens, y);
    }
}

// A key's grid sees channel after channel: values that lie a head's width apart.
static void kivi_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                        kv_field_fn *take, void *self) {
    const struct kv_grid *g = &((const struct kv_gridded *)f->self)->grid[side][width];
    if (side == KV_VALUE) {
        kv_gridded_fields(f, side, width, take, self);
        return;
    }
    uint32_t tokens = f->unit_tokens[KV_KEY], dim = f->setting.shape.head_dim;
    struct kv_field of = {.type = "fp16", .bits = 16, .n = dim, .step = 32};
    of.next = 1, of.covers = tokens, of.apart = dim;
    of.what = "scale";
    take(self, &of);
    of.what = "minimum", of.at = 16;
    take(self, &of);
    struct kv_field code = {.what = "code", .type = "uint", .bits = g->bits, .n = tokens};
    code.step = g->bits, code.next = dim, code.covers = code.apart = 1;
    for (uint32_t c = 0; c < dim; c++) {
        code.at = kv_grid_size(g).meta_bits + c * tokens * g->bits;
        code.value = c;
        take(self, &code);
    }
}

static void kivi_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                       struct kv_plain_width *to) {
    kv_gridded_plain(f, side, width, to);
    to->by_channel = side == KV_KEY;
}

const struct kv_format_type kv_format_type_kivi = {
    .name = "kivi",
    .summary = "KIVI: keys by channel over groups of tokens, values by token, newest tokens exact",
    .citation = "Liu et al. 2024, arXiv:2402.02750, section 3 and algorithm 1",
    .tag = "faithful",
    .layout = "key unit: group tokens of a head: per channel fp16 scale, fp16 minimum; then codes "
              "channel after channel. Values as asym",
    .formula = "b + 32/group behind the window, 16 inside",
    .rounding = "as asym: min and scale (max - min) / (2^b - 1) in fp16, (x - min) / scale half to "
                "even",
    .guards = "NaN codes as min; infinities saturate; a constant channel has scale 0 and decodes "
              "to min (KIVI's code gives NaN there)",
    .params = params,
    .stable = true,
    .open = kivi_open,
    .size = kv_gridded_size,
    .encode = kivi_encode,
    .decode = kivi_decode,
    .codes = kv_gridded_codes,
    .fields = kivi_fields,
    .plain = kivi_plain,
    .close = kv_free_self,
    .published_mode = KV_PUBLISHED_PREFILL,
};
