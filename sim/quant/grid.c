// SPDX-License-Identifier: Apache-2.0
// Uniform grids: the choice of the fastest path, and the formats made of one grid a width.
#include "sim/quant/grid.h"
#include "sim/base/cpu.h"
#include "sim/base/isa.h"
#include "sim/quant/grid_isa.h"
#include "sim/quant/own.h"
#include "sim/quant/pack.h"
#include "sim/quant/plain.h"

#include <stdlib.h>

KV_ISA_TABLE(kv_grid_encode_fn *, encode_at, kv_grid_encode)
KV_ISA_TABLE(kv_grid_decode_fn *, decode_at, kv_grid_decode)

void kv_grid_encode(const struct kv_grid *g, const float *x, size_t n_units, uint8_t *out) {
    encode_at[kv_cpu_level()](g, x, n_units, out);
}

void kv_grid_decode(const struct kv_grid *g, const uint8_t *in, size_t n_units, float *y) {
    decode_at[kv_cpu_level()](g, in, n_units, y);
}

// ---- formats made of one grid a width -------------------------------------------------

int kv_grid_group(struct kv_format *f, const char *text, uint32_t *group, struct kv_error *e) {
    uint32_t dim = f->setting.shape.head_dim;
    if (strcmp(text, "head") == 0) {
        *group = dim;
        return 0;
    }
    if (strcmp(text, "layer") == 0) {
        f->scope = KV_SCOPE_TOKEN;
        f->unit_heads = f->setting.shape.n_kv_heads;
        *group = f->unit_heads * dim;
        if (*group > KV_MAX_UNIT)
            return kv_fail(e, KV_EFAIL, f->type->name,
                           "group=layer would share a scale among %u "
                           "values; at most %d are",
                           *group, KV_MAX_UNIT);
        return 0;
    }
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (end == text || *end || n == 0 || n > dim || dim % n != 0)
        return kv_fail(
            e, KV_EUSAGE, f->type->name,
            "group=%s: group must be head, layer or a number that divides the head of %u "
            "values",
            text, dim);
    *group = (uint32_t)n;
    return 0;
}

struct kv_unit_size kv_gridded_size(const struct kv_format *f, enum kv_side side, uint32_t width) {
    const struct kv_gridded *s = f->self;
    if (f->width_bits[width] < 16) return kv_grid_size(&s->grid[side][width]);
    uint32_t n = kv_unit_values(f, side);
    return kv_half_size(n);
}

void kv_gridded_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                       size_t n_units, uint8_t *out) {
    const struct kv_gridded *s = f->self;
    if (f->width_bits[b->width] < 16)
        kv_grid_encode(&s->grid[b->side][b->width], x, n_units, out);
    else
        kv_put_halves(x, n_units * kv_unit_values(f, b->side), out);
}

void kv_gridded_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                       size_t n_units, float *y) {
    const struct kv_gridded *s = f->self;
    if (f->width_bits[b->width] < 16)
        kv_grid_decode(&s->grid[b->side][b->width], codes, n_units, y);
    else
        kv_get_halves(codes, n_units * kv_unit_values(f, b->side), y);
}

void kv_gridded_codes(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                      size_t n_units, uint8_t *q) {
    const struct kv_gridded *s = f->self;
    const struct kv_grid *g = &s->grid[b->side][b->width];
    struct kv_unit_size size = kv_grid_size(g);
    for (size_t u = 0; u < n_units; u++, codes += size.bytes, q += g->values)
        kv_unpack(codes + size.meta_bits / 8, g->values, g->bits, q);
}

void kv_grid_take_meta(const struct kv_grid *g, kv_field_fn *take, void *self) {
    uint32_t n = g->values / g->group, step = 8 * kv_grid_meta_bytes(g), bits = g->wide ? 32 : 16;
    const char *type = g->wide ? "fp32" : "fp16";
    kv_take_groups(take, self, "scale", type, bits, n, 0, step, g->group);
    if (g->rule == KV_GRID_ASYM)
        kv_take_groups(take, self, "minimum", type, bits, n, bits, step, g->group);
    else if (g->rule != KV_GRID_SYM)
        kv_take_groups(take, self, "zero point", "int16", 16, n, bits, step, g->group);
}

void kv_gridded_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                       kv_field_fn *take, void *self) {
    const struct kv_grid *g = &((const struct kv_gridded *)f->self)->grid[side][width];
    kv_grid_take_meta(g, take, self);
    kv_take_codes(take, self, "uint", g->bits, g->values, kv_grid_size(g).meta_bits);
}

void kv_gridded_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                      struct kv_plain_width *to) {
    const struct kv_grid *g = &((const struct kv_gridded *)f->self)->grid[side][width];
    to->rule = KV_PLAIN_GRID;
    to->group = g->group;
    to->grid_rule = g->rule;
    to->wide = g->wide;
    to->offset = g->offset;
    to->levels = g->levels;
    to->lo = g->lo;
    to->hi = g->hi;
    to->clip = g->clip;
    to->scale_min = g->scale_min;
}
