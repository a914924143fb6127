// SPDX-License-Identifier: Apache-2.0
// Format sym: symmetric uniform grid about zero, with the 8-level variant of the reproduction.
#include "sim/base/memory.h"
#include "sim/quant/grid.h"
#include "sim/quant/own.h"

static const struct kv_param params[] = {
    {"group", KV_TEXT, "head", 0, 0, NULL, "values",
     "what shares a scale: head, layer (all KV heads of a token) or a number that divides the "
     "head"},
    {"levels", KV_CHOICE, "full", 0, 0, "full/max3", NULL,
     "full: 2^b - 1 levels; max3: width 4 has scale max/3 and codes -4..3, other widths are full"},
    {"scale", KV_CHOICE, "fp16", 0, 0, "fp16/fp32", NULL, "how the scale is stored"},
    {0}};

static int sym_open(struct kv_format *f, const struct kv_format_setting *s,
                    const struct kv_args *args, struct kv_error *e) {
    (void)s;
    static const uint8_t bits[] = {2, 3, 4, 5, 6, 8, 16};
    struct kv_gridded *self = f->self = kv_alloc(1, sizeof *self);
    uint32_t group;
    int rc = kv_grid_group(f, kv_arg(args, "group")->text, &group, e);
    if (rc) return rc;
    kv_set_widths(f, bits, sizeof bits);
    for (int side = 0; side < 2; side++)
        for (size_t w = 0; f->width_bits[w] < 16; w++) {
            struct kv_grid g =
                kv_grid_of(KV_GRID_SYM, f->width_bits[w], kv_unit_values(f, side), group);
            g.wide = kv_number(args, "scale") == 1;
            if (g.bits == 4 && kv_number(args, "levels") == 1)
                g.levels = 3.0f, g.lo = -4.0f, g.hi = 3.0f;
            self->grid[side][w] = g;
        }
    return 0;
}

const struct kv_format_type kv_format_type_sym = {
    .name = "sym",
    .summary = "symmetric grid: code x scale, 2^b - 1 levels about zero",
    .citation = "Jacob et al. 2018, arXiv:1712.05877, section 2, with zero point 0; levels=max3 as "
                "found behind the static 4-bit of arXiv:2604.04722",
    .tag = "exact",
    .layout = "per group fp16 scale; then codes + 2^(b-1), b bits each, lowest first",
    .formula = "b + 16/group",
    .rounding = "x / scale in float32, half to even; scale max|x| / (2^(b-1) - 1) rounded to fp16",
    .guards =
        "NaN codes as 0; infinities saturate; scale 0 (max|x| below 2^-25 levels) decodes to 0; "
        "scale saturates at 65504",
    .params = params,
    .stable = true,
    .open = sym_open,
    .size = kv_gridded_size,
    .encode = kv_gridded_encode,
    .decode = kv_gridded_decode,
    .codes = kv_gridded_codes,
    .fields = kv_gridded_fields,
    .plain = kv_gridded_plain,
    .close = kv_free_self,
};
