// SPDX-License-Identifier: Apache-2.0
// Uniform grids: the arithmetic that sym, asym, asym-zp, kivi and their relatives share.
//
// A unit of `values` floats is cut into groups; each group has a scale (and a minimum or a zero
// point) and one code a value. Bytes of a unit: metadata group after group, then one bit stream of
// all codes. With h(x) = x rounded to fp16 (saturated at +-65504) and r(x) = round half to even:
//
//     SYM   s = h(max|x| / levels)                  code = clamp(r(x / s), lo, hi) + 2^(b-1)
//     ASYM  m = h(min x), s = h((max x - m) / top)  code = clamp(r((x - m) / s), 0, top)
//     ZP    s = h(...), z = r(min x / s) integer    code = clamp(r(x / s - z), 0, top)
//
// with top = 2^b - 1. A scale of 0 codes and decodes to 0 (SYM) or to m (ASYM). NaN never widens a
// range and is coded as 0 (SYM, ZP) or m (ASYM); infinities saturate.
#ifndef KV_QUANT_GRID_JUDGE_H
#define KV_QUANT_GRID_JUDGE_H

#include "sim/quant/format.h"

enum kv_grid_rule {
    KV_GRID_SYM,
    KV_GRID_ASYM,
    KV_GRID_ZP,      // z subtracted before rounding (KVTuner)
    KV_GRID_ZP_AFTER // x / s rounded, then z subtracted (RotateKV)
};

struct kv_grid {
    enum kv_grid_rule rule;
    uint32_t bits, values, group;
    bool wide;       // scale and minimum as float32 instead of fp16
    float levels;    // what the range is divided by
    float lo, hi;    // clamp of the rounded quotient
    float clip;      // the range is shrunk by this ratio first (ZP; 1 = not at all)
    float scale_min; // least range that makes a scale (ZP)
    uint32_t offset; // added to a rounded quotient to make it a stored code
};

// The grid of a rule at a width (2..8) over groups of `group` values, fp16 metadata, no clipping.
struct kv_grid kv_grid_of(enum kv_grid_rule rule, uint32_t bits, uint32_t values, uint32_t group);
struct kv_unit_size kv_grid_size(const struct kv_grid *g);
uint32_t kv_grid_meta_bytes(const struct kv_grid *g); // of one group

// x: n_units times `values` floats; out: n_units times kv_grid_size().bytes. Any group.
// Thread-safe.
void kv_grid_encode_judge(const struct kv_grid *g, const float *x, size_t n_units, uint8_t *out);
void kv_grid_decode_judge(const struct kv_grid *g, const uint8_t *in, size_t n_units, float *y);

#endif
