// SPDX-License-Identifier: Apache-2.0
// Uniform grids at the speed of memory: the bytes of grid_judge.c's by vectors of floats.
#include "sim/base/isa.h"
#include "sim/quant/grid_isa.h"
#include "sim/quant/lanes.h"

#ifndef KV_LANES

void KV_ISA_NAME(kv_grid_encode)(const struct kv_grid *g, const float *x, size_t n_units,
                                 uint8_t *out) {
    kv_grid_encode_judge(g, x, n_units, out);
}

void KV_ISA_NAME(kv_grid_decode)(const struct kv_grid *g, const uint8_t *in, size_t n_units,
                                 float *y) {
    kv_grid_decode_judge(g, in, n_units, y);
}

#else

// Vectors serve fp16 metadata and groups of whole vectors; everything else is the judge's.
static bool fits(const struct kv_grid *g) {
    return !g->wide && g->group % KV_LANES == 0;
}

// ---- encode ---------------------------------------------------------------------------

// Scales of several groups are made side by side: reductions, divisions and conversions of one
// group alone would be a chain of a hundred cycles.
enum { BATCH = 16 };

struct batch {
    float min[BATCH], max[BATCH]; // max|x| for SYM
    float scale[BATCH], inverse[BATCH], low[BATCH];
    uint16_t scale_half[BATCH], low_half[BATCH];
    int16_t zero[BATCH];
};

// Least and largest of up to KV_LANES groups; of a group of NaN both are 0. SYM: max|x| alone.
KV_TEMPLATE void extremes(enum kv_grid_rule rule, const float *x, uint32_t n, uint32_t group,
                          float *min, float *max) {
    const bool sym = rule == KV_GRID_SYM;
    vf low[KV_LANES], high[KV_LANES];
    for (uint32_t j = 0; j < KV_LANES; j++) {
        low[j] = vf_set(sym ? 0.0f : INFINITY);
        high[j] = vf_set(sym ? 0.0f : -INFINITY);
        if (j >= n) continue;
        for (uint32_t i = 0; i < group; i += KV_LANES, x += KV_LANES) {
            vf v = vf_load(x);
            if (sym)
                high[j] = vf_max(vf_abs(v), high[j]);
            else
                low[j] = vf_min(v, low[j]), high[j] = vf_max(v, high[j]);
        }
    }
    vf most = vf_reduce_rows(high, true);
    if (!sym) {
        vf least = vf_reduce_rows(low, false);
        uint32_t some = vf_at_least(most, least);
        vf_store(min, vf_where(some, least, vf_set(0.0f)));
        most = vf_where(some, most, vf_set(0.0f));
    }
    vf_store(max, most);
}

KV_TEMPLATE vf saturated(vf a) {
    return vf_max(vf_min(a, vf_set(65504.0f)), vf_set(-65504.0f));
}

KV_TEMPLATE void measure(const struct kv_grid *g, enum kv_grid_rule rule, const float *x,
                         uint32_t n, struct batch *b) {
    for (uint32_t j = 0; j < n; j += KV_LANES)
        extremes(rule, x + (size_t)j * g->group, n - j < KV_LANES ? n - j : KV_LANES, g->group,
                 b->min + j, b->max + j);
    const vf levels = vf_set(g->levels), zero = vf_set(0.0f);
    for (uint32_t j = 0; j < n; j += KV_LANES) {
        vf step = vf_load(b->max + j);
        if (rule == KV_GRID_ASYM) {
            vf_put_halves(b->low_half + j, saturated(vf_add(vf_load(b->min + j), zero)));
            vf low = vf_get_halves(b->low_half + j);
            vf_store(b->low + j, low);
            step = vf_sub(step, low);
        }
        if (rule >= KV_GRID_ZP) {
            vf clip = vf_set(g->clip), min = vf_mul(vf_load(b->min + j), clip);
            vf_store(b->min + j, min);
            step = vf_max(vf_sub(vf_mul(step, clip), min), vf_set(g->scale_min));
            step = vf_max(vf_div(vf_abs(min), vf_set(32000.0f)), vf_div(step, levels));
        } else
            step = vf_add(vf_div(step, levels), zero);
        vf_put_halves(b->scale_half + j, saturated(step));
        vf scale = vf_get_halves(b->scale_half + j);
        vf_store(b->scale + j, scale);
        vf_store(b->inverse + j, vf_div(vf_set(1.0f), scale));
        if (rule >= KV_GRID_ZP) {
            vf z = vf_round(vf_div(vf_load(b->min + j), scale));
            vf_store(b->low + j, vf_max(vf_min(z, vf_set(32767.0f)), vf_set(-32767.0f)));
        }
    }
}

// Any group: a true division, both clamps, NaN as 0.
KV_TEMPLATE void quantize(const struct kv_grid *g, enum kv_grid_rule rule, const float *x,
                          float scale, float low, uint8_t *p, const uint8_t *end) {
    const uint32_t step = g->bits * KV_LANES / 8;
    for (uint32_t i = 0; i < g->group; i += KV_LANES, p += step) {
        vf v = vf_load(x + i);
        if (rule == KV_GRID_ASYM) v = vf_sub(v, vf_set(low));
        v = scale > 0.0f ? vf_no_nan(vf_div(v, vf_set(scale))) : vf_set(0.0f);
        if (rule == KV_GRID_ZP_AFTER) v = vf_round(v);
        if (rule >= KV_GRID_ZP) v = vf_sub(v, vf_set(low));
        v = vf_min(vf_max(v, vf_set(g->lo)), vf_set(g->hi));
        lanes_put(p, end, vi_bytes(vi_add(vi_round(v), vi_set((int)g->offset))), g->bits);
    }
}

// SYM and ASYM with a scale in fp16's normal range: no infinity is about (the scale would be
// saturated), quotients exceed the top level by 2^-11 at most, which rounding takes back, and NaN
// converts to INT_MIN, whose low byte is code 0. Only ASYM's lower end needs its clamp, where the
// minimum was rounded up.
KV_TEMPLATE void quantize_usual(const struct kv_grid *g, enum kv_grid_rule rule, unsigned bits,
                                const float *x, float scale_, float inverse_, float low_,
                                uint8_t *p, const uint8_t *end) {
    const vf scale = vf_set(scale_), inverse = vf_set(inverse_), low = vf_set(low_);
    const vi offset = vi_set((int)g->offset);
    const uint32_t step = bits * KV_LANES / 8;
    for (uint32_t i = 0; i < g->group; i += KV_LANES, p += step) {
        vf v = vf_load(x + i);
        if (rule == KV_GRID_ASYM) v = vf_sub(v, low);
        v = vf_quotient(v, scale, inverse);
        if (rule == KV_GRID_ASYM) v = vf_max(v, vf_set(0.0f));
        vi c = vi_round(v);
        if (rule == KV_GRID_SYM) c = vi_add(c, offset);
        lanes_put(p, end, vi_bytes(c), bits);
    }
}

// The same for widths 2, 4 and 8, four vectors at a time: of one group, or of two groups of 32.
KV_TEMPLATE void quantize_wide(const struct kv_grid *g, enum kv_grid_rule rule, unsigned bits,
                               const float *x, const struct batch *b, uint32_t j, uint32_t run,
                               uint8_t *p) {
#if KV_LANES == 16
    const vi offset = vi_set((int)g->offset);
    for (uint32_t i = 0; i < run * g->group; i += 64, p += 8 * bits) {
        vi c[4];
        for (uint32_t k = 0; k < 4; k++) {
            uint32_t of = run == 2 ? j + k / 2 : j;
            const vf scale = vf_set(b->scale[of]), inverse = vf_set(b->inverse[of]);
            vf v = vf_load(x + i + 16 * k);
            if (rule == KV_GRID_ASYM) v = vf_sub(v, vf_set(b->low[of]));
            v = vf_quotient(v, scale, inverse);
            if (rule == KV_GRID_ASYM) v = vf_max(v, vf_set(0.0f));
            c[k] = vi_round(v);
            if (rule == KV_GRID_SYM) c[k] = vi_and(vi_add(c[k], offset), vi_set(255));
        }
        lanes_put4(p, c, bits);
    }
#else
    (void)g, (void)rule, (void)bits, (void)x, (void)b, (void)j, (void)run, (void)p;
#endif
}

KV_TEMPLATE bool usual(enum kv_grid_rule rule, const struct batch *b, uint32_t j) {
    return rule < KV_GRID_ZP && b->scale[j] >= 0x1p-14f && b->scale[j] < 65504.0f;
}

KV_TEMPLATE void put_meta(enum kv_grid_rule rule, const struct batch *b, uint32_t j, uint8_t *m) {
    int16_t zero = (int16_t)(int)b->low[j];
    memcpy(m, &b->scale_half[j], 2);
    if (rule == KV_GRID_ASYM) memcpy(m + 2, &b->low_half[j], 2);
    if (rule >= KV_GRID_ZP) memcpy(m + 2, &zero, 2);
}

KV_TEMPLATE void encode(const struct kv_grid *shared, enum kv_grid_rule rule, unsigned bits,
                        const float *x, size_t n_units, uint8_t *out) {
    const struct kv_grid own = *shared, *const g = &own; // out may alias what is shared
    struct kv_unit_size size = kv_grid_size(g);
    const uint32_t per_unit = g->values / g->group, meta = size.meta_bits / 8 / per_unit;
    const uint32_t code_bytes = g->group * bits / 8;
    const uint8_t *end = out + n_units * size.bytes;
    const size_t n_groups = n_units * per_unit;
    struct batch b = {.scale = {0}};
    uint32_t k = 0; // group in its unit
    for (size_t first = 0; first < n_groups; first += BATCH) {
        uint32_t n = n_groups - first < BATCH ? (uint32_t)(n_groups - first) : BATCH;
        measure(g, rule, x, n, &b);
        for (uint32_t j = 0, run; j < n; j += run, x += (size_t)run * g->group) {
            uint8_t *m = out + (size_t)k * meta;
            uint8_t *p = out + (size_t)per_unit * meta + (size_t)k * code_bytes;
            bool common = usual(rule, &b, j);
            // Two groups of 32 fill four vectors together.
            run = g->group == 32 && j + 1 < n && k + 1 < per_unit && usual(rule, &b, j + 1) ? 2 : 1;
            if (!common || KV_LANES != 16 || (bits & (bits - 1))) run = 1;
            for (uint32_t i = 0; i < run; i++) put_meta(rule, &b, j + i, m + (size_t)i * meta);
            if (common && KV_LANES == 16 && !(bits & (bits - 1)) && run * g->group % 64 == 0)
                quantize_wide(g, rule, bits, x, &b, j, run, p);
            else if (common)
                quantize_usual(g, rule, bits, x, b.scale[j], b.inverse[j], b.low[j], p, end);
            else
                quantize(g, rule, x, b.scale[j], b.low[j], p, end);
            k += run;
            if (k == per_unit) k = 0, out += size.bytes;
        }
    }
}

KV_TEMPLATE void encode_bits(const struct kv_grid *g, enum kv_grid_rule rule, const float *x,
                             size_t n_units, uint8_t *out) {
    if (g->bits == 2)
        encode(g, rule, 2, x, n_units, out);
    else if (g->bits == 4)
        encode(g, rule, 4, x, n_units, out);
    else if (g->bits == 8)
        encode(g, rule, 8, x, n_units, out);
    else
        encode(g, rule, g->bits, x, n_units, out);
}

void KV_ISA_NAME(kv_grid_encode)(const struct kv_grid *g, const float *x, size_t n_units,
                                 uint8_t *out) {
    if (!fits(g))
        kv_grid_encode_judge(g, x, n_units, out);
    else if (g->rule == KV_GRID_SYM)
        encode_bits(g, KV_GRID_SYM, x, n_units, out);
    else if (g->rule == KV_GRID_ASYM)
        encode_bits(g, KV_GRID_ASYM, x, n_units, out);
    else if (g->rule == KV_GRID_ZP)
        encode(g, KV_GRID_ZP, g->bits, x, n_units, out);
    else
        encode(g, KV_GRID_ZP_AFTER, g->bits, x, n_units, out);
}

// ---- decode ---------------------------------------------------------------------------

struct read {
    vf scale, low;
    vi add;
};

KV_TEMPLATE struct read read_meta(const struct kv_grid *g, enum kv_grid_rule rule,
                                  const uint8_t *m) {
    uint16_t half[2] = {0};
    memcpy(half, m, rule == KV_GRID_SYM ? 2 : 4);
    struct read r = {vf_set(float_of_half(half[0])), vf_set(0.0f), vi_set(-(int)g->offset)};
    if (rule == KV_GRID_ASYM) r.low = vf_set(float_of_half(half[1]));
    if (rule >= KV_GRID_ZP) r.add = vi_set((int16_t)half[1]);
    return r;
}

KV_TEMPLATE vf value_of(enum kv_grid_rule rule, vi code, const struct read *r) {
    if (rule != KV_GRID_ASYM) code = vi_add(code, r->add);
    vf v = vf_mul(vf_of(code), r->scale);
    return rule == KV_GRID_ASYM ? vf_add(v, r->low) : v;
}

KV_TEMPLATE void decode(const struct kv_grid *shared, enum kv_grid_rule rule, unsigned bits,
                        const uint8_t *in, size_t n_units, float *y) {
    const struct kv_grid own = *shared, *const g = &own; // out may alias what is shared
    struct kv_unit_size size = kv_grid_size(g);
    const uint32_t n_groups = g->values / g->group, meta = size.meta_bits / 8 / n_groups;
    const uint32_t step = bits * KV_LANES / 8;
    const uint8_t *end = in + n_units * size.bytes;
    for (size_t u = 0; u < n_units; u++, in += size.bytes) {
        const uint8_t *p = in + (size_t)n_groups * meta;
        for (uint32_t k = 0; k < n_groups; k++, y += g->group) {
            const struct read r = read_meta(g, rule, in + (size_t)k * meta);
#if KV_LANES == 16
            // Up to 4 bits the values of a group are a table of 16, looked up by the low bits.
            const vi lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            const vf table = value_of(rule, vi_and(lane, vi_set((1 << bits) - 1)), &r);
            const vi two = vi_add(lane, lane);
#endif
            for (uint32_t i = 0; i < g->group; i += KV_LANES, p += step) {
                vf v;
#if KV_LANES == 16
                if (bits == 4) { // a byte a 64-bit lane: its halves to the two 32-bit lanes
                    __m512i c = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const void *)p));
                    c = _mm512_or_si512(c, _mm512_slli_epi64(c, 28));
                    v = _mm512_permutexvar_ps(c, table);
                } else if (bits == 2) {
                    int word;
                    memcpy(&word, p, 4);
                    v = _mm512_permutexvar_ps(_mm512_srlv_epi32(vi_set(word), two), table);
                } else
#endif
                    v = value_of(rule, vi_from_bytes(lanes_get(p, end, bits)), &r);
                vf_store(y + i, v);
            }
        }
    }
}

KV_TEMPLATE void decode_bits(const struct kv_grid *g, enum kv_grid_rule rule, const uint8_t *in,
                             size_t n_units, float *y) {
    if (g->bits == 2)
        decode(g, rule, 2, in, n_units, y);
    else if (g->bits == 4)
        decode(g, rule, 4, in, n_units, y);
    else if (g->bits == 8)
        decode(g, rule, 8, in, n_units, y);
    else
        decode(g, rule, g->bits, in, n_units, y);
}

void KV_ISA_NAME(kv_grid_decode)(const struct kv_grid *g, const uint8_t *in, size_t n_units,
                                 float *y) {
    if (!fits(g))
        kv_grid_decode_judge(g, in, n_units, y);
    else if (g->rule == KV_GRID_SYM)
        decode_bits(g, KV_GRID_SYM, in, n_units, y);
    else if (g->rule == KV_GRID_ASYM)
        decode_bits(g, KV_GRID_ASYM, in, n_units, y);
    else
        decode_bits(g, KV_GRID_ZP, in, n_units, y);
}

#endif
