// SPDX-License-Identifier: Apache-2.0
// Format rotatekv: keys before RoPE rotated over grouped heads, values over one; integer zero
// point.
#include "sim/base/memory.h"
#include "sim/quant/grid.h"
#include "sim/quant/own.h"
#include "sim/quant/rotate.h"
#include "sim/quant/plain.h"

static const struct kv_param params[] = {
    {"clip", KV_FLOAT, "0.8", 0.5, 1, NULL, NULL,
     "at 2 bits minimum and maximum are shrunk by this ratio"},
    {"group", KV_TEXT, "head", 0, 0, NULL, "values",
     "what shares a scale: head, or a number that divides the head"},
    {"heads", KV_INT, "1", 1, 64, NULL, NULL,
     "KV heads that a key rotation mixes: a power of two that divides their number"},
    {0}};

// The grids see one head at a time whatever `heads` is: a unit is then several of them.
struct rotatekv {
    struct kv_gridded gridded; // must come first: kv_gridded_* read f->self
    size_t rotation[2];
};

static int rotatekv_open(struct kv_format *f, const struct kv_format_setting *s,
                         const struct kv_args *args, struct kv_error *e) {
    static const uint8_t bits[] = {2, 3, 4, 8, 16};
    uint32_t heads = (uint32_t)kv_number(args, "heads"), dim = s->shape.head_dim, group;
    if (s->shape.n_kv_heads % heads != 0 || (heads & (heads - 1)) != 0 || heads * dim > KV_MAX_UNIT)
        return kv_fail(e, KV_EUSAGE, "format rotatekv",
                       "heads=%u: it must be a power of two that divides the %u KV heads and makes "
                       "at most %d values",
                       heads, s->shape.n_kv_heads, KV_MAX_UNIT);
    if (strcmp(kv_arg(args, "group")->text, "layer") == 0)
        return kv_fail(e, KV_EUSAGE, "format rotatekv",
                       "group=layer: group must be head or a number that divides the head");
    struct rotatekv *self = f->self = kv_alloc(1, sizeof *self);
    int rc = kv_grid_group(f, kv_arg(args, "group")->text, &group, e);
    if (rc) return rc;
    kv_set_widths(f, bits, sizeof bits);
    f->keys_before_rope = true;
    f->order = KV_ORDER_HF;
    f->unit_heads = heads;
    if (heads > 1) f->scope = KV_SCOPE_TOKEN;
    self->rotation[KV_KEY] = heads * kv_rotation_size(dim);
    if (dim != kv_rotation_size(dim)) self->rotation[KV_KEY] = kv_rotation_size(dim);
    self->rotation[KV_VALUE] = kv_rotation_size(dim);
    for (int side = 0; side < 2; side++)
        for (size_t w = 0; f->width_bits[w] < 16; w++) {
            struct kv_grid *g = &self->gridded.grid[side][w];
            *g = kv_grid_of(KV_GRID_ZP_AFTER, f->width_bits[w], kv_unit_values(f, side), group);
            g->scale_min = 1e-5f;
            if (f->width_bits[w] == 2) g->clip = (float)kv_number(args, "clip");
        }
    return 0;
}

static void rotatekv_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                            size_t n_units, uint8_t *out) {
    const struct rotatekv *self = f->self;
    if (f->width_bits[b->width] == 16) {
        kv_gridded_encode(f, b, x, n_units, out);
        return;
    }
    float turned[KV_MAX_UNIT];
    struct kv_unit_size size = kv_gridded_size(f, b->side, b->width);
    size_t chunk = KV_MAX_UNIT / size.values;
    for (size_t u = 0; u < n_units; u += chunk, out += chunk * size.bytes) {
        size_t here = n_units - u < chunk ? n_units - u : chunk, n = here * size.values;
        memcpy(turned, x + u * size.values, n * sizeof *turned);
        kv_rotate(turned, n, self->rotation[b->side]);
        kv_gridded_encode(f, b, turned, here, out);
    }
}

static void rotatekv_decode(const struct kv_format *f, const struct kv_block *b,
                            const uint8_t *codes, size_t n_units, float *y) {
    const struct rotatekv *self = f->self;
    kv_gridded_decode(f, b, codes, n_units, y);
    if (f->width_bits[b->width] < 16)
        kv_rotate(y, n_units * kv_unit_values(f, b->side), self->rotation[b->side]);
}

static void rotatekv_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                           struct kv_plain_width *to) {
    kv_gridded_plain(f, side, width, to);
    kv_plain_rotation(to, ((const struct rotatekv *)f->self)->rotation[side]);
}

const struct kv_format_type kv_format_type_rotatekv = {
    .name = "rotatekv",
    .summary = "RotateKV: keys before RoPE rotated over grouped heads, then asym-zp",
    .citation = "Su et al. 2025, arXiv:2501.16383, section 4",
    .tag = "approximate",
    .layout = "as asym-zp: per group fp16 scale, int16 zero point; then codes, b bits each",
    .formula = "b + 32/group",
    .rounding =
        "rotation in float32 as hadamard; x / scale half to even, then minus the zero point",
    .guards = "as asym-zp. Differs from its source: no channel order from calibration, groups of a "
              "head instead of 128, divisor 2^b - 1 at 3 bits; its pivot tokens are a policy's "
              "matter. Width 16: fp16 before RoPE",
    .params = params,
    .open = rotatekv_open,
    .size = kv_gridded_size,
    .encode = rotatekv_encode,
    .decode = rotatekv_decode,
    .codes = kv_gridded_codes,
    .fields = kv_gridded_fields,
    .plain = rotatekv_plain,
    .close = kv_free_self,
    .published_mode = KV_PUBLISHED_INLINE,
};
