// SPDX-License-Identifier: Apache-2.0
// Format asym-zp: uniform grid whose zero point is an integer, in KVTuner's and RotateKV's ways.
#include "sim/base/memory.h"
#include "sim/quant/grid.h"
#include "sim/quant/own.h"

static const struct kv_param params[] = {
    {"clip", KV_FLOAT, "1", 0.5, 1, NULL, NULL, "minimum and maximum are shrunk by this ratio"},
    {"group", KV_TEXT, "head", 0, 0, NULL, "values",
     "what shares a scale: head, layer (all KV heads of a token) or a number that divides the "
     "head"},
    {"way", KV_CHOICE, "kvtuner", 0, 0, "kvtuner/rotatekv", NULL,
     "kvtuner: the zero point is subtracted before rounding; rotatekv: after"},
    {0}};

static int zp_open(struct kv_format *f, const struct kv_format_setting *s,
                   const struct kv_args *args, struct kv_error *e) {
    (void)s;
    static const uint8_t bits[] = {2, 3, 4, 5, 6, 8, 16};
    struct kv_gridded *self = f->self = kv_alloc(1, sizeof *self);
    uint32_t group;
    int rc = kv_grid_group(f, kv_arg(args, "group")->text, &group, e);
    if (rc) return rc;
    kv_set_widths(f, bits, sizeof bits);
    f->order = KV_ORDER_HF;
    for (int side = 0; side < 2; side++)
        for (size_t w = 0; f->width_bits[w] < 16; w++) {
            struct kv_grid *g = &self->grid[side][w];
            *g = kv_grid_of(kv_number(args, "way") == 1 ? KV_GRID_ZP_AFTER : KV_GRID_ZP,
                            f->width_bits[w], kv_unit_values(f, side), group);
            g->clip = (float)kv_number(args, "clip");
            g->scale_min = 1e-5f;
        }
    return 0;
}

const struct kv_format_type kv_format_type_asym_zp = {
    .name = "asym-zp",
    .summary = "asymmetric grid with an integer zero point: (code + zero) x scale",
    .citation = "Li et al. 2025 (KVTuner), arXiv:2502.04420, per-token asymmetric; way=rotatekv: "
                "Su et al. 2025, arXiv:2501.16383",
    .tag = "faithful",
    .layout = "per group fp16 scale, int16 zero point; then codes, b bits each, lowest first",
    .formula = "b + 32/group",
    .rounding = "half to even: zero = min / scale; code = x / scale - zero (rotatekv: x / scale "
                "rounded, then minus zero), clamped",
    .guards = "the range counts as at least 1e-5 (KVTuner); NaN codes as 0; infinities saturate; "
              "the scale is at least |min| / 32000, so that the zero point fits 16 bits",
    .params = params,
    .open = zp_open,
    .size = kv_gridded_size,
    .encode = kv_gridded_encode,
    .decode = kv_gridded_decode,
    .codes = kv_gridded_codes,
    .fields = kv_gridded_fields,
    .plain = kv_gridded_plain,
    .close = kv_free_self,
};
