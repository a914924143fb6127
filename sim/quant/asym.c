// SPDX-License-Identifier: Apache-2.0
// Format asym: uniform grid from the group's minimum to its maximum, float minimum.
#include "sim/base/memory.h"
#include "sim/quant/grid.h"
#include "sim/quant/own.h"

static const struct kv_param params[] = {
    {"group", KV_TEXT, "head", 0, 0, NULL, "values",
     "what shares a scale: head, layer (all KV heads of a token) or a number that divides the "
     "head"},
    {"scale", KV_CHOICE, "fp16", 0, 0, "fp16/fp32", NULL, "how scale and minimum are stored"},
    {0}};

static int asym_open(struct kv_format *f, const struct kv_format_setting *s,
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
            struct kv_grid *g = &self->grid[side][w];
            *g = kv_grid_of(KV_GRID_ASYM, f->width_bits[w], kv_unit_values(f, side), group);
            g->wide = kv_number(args, "scale") == 1;
        }
    return 0;
}

const struct kv_format_type kv_format_type_asym = {
    .name = "asym",
    .summary = "asymmetric grid: code x scale + minimum, 2^b levels from min to max",
    .citation = "Liu et al. 2024 (KIVI), arXiv:2402.02750, section 3.1, grouped along the head",
    .tag = "exact",
    .layout = "per group fp16 scale, fp16 minimum; then codes, b bits each, lowest first",
    .formula = "b + 32/group",
    .rounding = "min rounded to fp16, scale (max - min) / (2^b - 1) to fp16, (x - min) / scale in "
                "float32, half to even",
    .guards =
        "NaN codes as min; infinities saturate; a constant group has scale 0 and decodes to min; "
        "scale and min saturate at 65504",
    .params = params,
    .stable = true,
    .open = asym_open,
    .size = kv_gridded_size,
    .encode = kv_gridded_encode,
    .decode = kv_gridded_decode,
    .codes = kv_gridded_codes,
    .fields = kv_gridded_fields,
    .plain = kv_gridded_plain,
    .close = kv_free_self,
};
