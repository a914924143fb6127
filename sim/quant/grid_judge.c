// SPDX-License-Identifier: Apache-2.0
// Uniform grids in plain C: the judge of the faster paths.
#include "sim/quant/grid_judge.h"
#include "sim/quant/pack.h"

struct kv_grid kv_grid_of(enum kv_grid_rule rule, uint32_t bits, uint32_t values, uint32_t group) {
    uint32_t half = 1u << (bits - 1), top = 2 * half - 1;
    struct kv_grid g = {.rule = rule,
                        .bits = bits,
                        .values = values,
                        .group = group,
                        .levels = (float)top,
                        .hi = (float)top,
                        .clip = 1.0f};
    if (rule == KV_GRID_SYM) {
        g.levels = g.hi = (float)(half - 1);
        g.lo = -g.hi;
        g.offset = half;
    }
    return g;
}

uint32_t kv_grid_meta_bytes(const struct kv_grid *g) {
    uint32_t number = g->wide ? 4 : 2;
    return g->rule == KV_GRID_SYM ? number : g->rule == KV_GRID_ASYM ? 2 * number : number + 2;
}

struct kv_unit_size kv_grid_size(const struct kv_grid *g) {
    uint32_t meta = g->values / g->group * kv_grid_meta_bytes(g);
    return (struct kv_unit_size){.values = g->values,
                                 .code_bits = g->values * g->bits,
                                 .meta_bits = 8 * meta,
                                 .bytes = meta + (uint32_t)kv_packed_bytes(g->values, g->bits)};
}

// Stores a scale or minimum and returns it as the decoder will read it.
static float put_number(const struct kv_grid *g, uint8_t *p, float x) {
    if (g->wide) {
        uint32_t u;
        x = x > 0x1.fffffep127f ? 0x1.fffffep127f : x < -0x1.fffffep127f ? -0x1.fffffep127f : x;
        memcpy(&u, &x, sizeof u);
        kv_put32(p, u);
        return x;
    }
    x = x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
    kv_put_half(p, x);
    return kv_get_half(p);
}

static float get_number(const struct kv_grid *g, const uint8_t *p) {
    if (!g->wide) return kv_get_half(p);
    uint32_t u = kv_get32(p);
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

// Clamp and store one quotient; NaN counts as 0.
static uint8_t code_of(const struct kv_grid *g, float quotient) {
    float q = isnan(quotient) ? 0.0f : quotient;
    q = q < g->lo ? g->lo : q > g->hi ? g->hi : q;
    return (uint8_t)((int)rintf(q) + (int)g->offset);
}

static void encode_sym(const struct kv_grid *g, const float *x, uint8_t *meta, uint8_t *codes) {
    float largest = 0.0f;
    for (uint32_t i = 0; i < g->group; i++) {
        float a = fabsf(x[i]);
        if (a > largest) largest = a;
    }
    float scale = put_number(g, meta, largest / g->levels);
    for (uint32_t i = 0; i < g->group; i++)
        codes[i] = scale == 0.0f ? (uint8_t)g->offset : code_of(g, x[i] / scale);
}

static void range_of(const float *x, uint32_t n, float *min, float *max) {
    *min = INFINITY, *max = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (x[i] < *min) *min = x[i];
        if (x[i] > *max) *max = x[i];
    }
    if (*min > *max) *min = *max = 0.0f; // nothing but NaN
}

static void encode_asym(const struct kv_grid *g, const float *x, uint8_t *meta, uint8_t *codes) {
    float min, max;
    range_of(x, g->group, &min, &max);
    float low =
        put_number(g, meta + (g->wide ? 4 : 2), min + 0.0f); // no -0: its order would decide bytes
    float scale = put_number(g, meta, (max - low) / g->levels + 0.0f);
    for (uint32_t i = 0; i < g->group; i++)
        codes[i] = scale <= 0.0f ? 0 : code_of(g, (x[i] - low) / scale);
}

// The zero point is an int16, so the scale grows until it fits: a constant group far from zero
// keeps its value to 1 part in 32767 instead of losing it.
static void encode_zp(const struct kv_grid *g, const float *x, uint8_t *meta, uint8_t *codes) {
    float min, max;
    range_of(x, g->group, &min, &max);
    min *= g->clip, max *= g->clip;
    float range = max - min, far = fabsf(min) / 32000.0f;
    if (!(range >= g->scale_min)) range = g->scale_min; // inf - inf is no range either
    float step = range / g->levels;
    float scale = put_number(g, meta, step < far ? far : step);
    float zero = rintf(min / scale);
    zero = zero < -32767.0f ? -32767.0f : zero > 32767.0f ? 32767.0f : zero;
    kv_put16(meta + (g->wide ? 4 : 2), (uint16_t)(int16_t)(int)zero);
    for (uint32_t i = 0; i < g->group; i++) {
        float q = isnan(x[i]) ? 0.0f : x[i] / scale;
        codes[i] = code_of(g, (g->rule == KV_GRID_ZP ? q : rintf(q)) - zero);
    }
}

void kv_grid_encode_judge(const struct kv_grid *g, const float *x, size_t n_units, uint8_t *out) {
    uint8_t codes[KV_MAX_UNIT];
    uint32_t n_groups = g->values / g->group, meta = kv_grid_meta_bytes(g);
    size_t bytes = kv_grid_size(g).bytes;
    for (size_t u = 0; u < n_units; u++, x += g->values, out += bytes) {
        for (uint32_t k = 0; k < n_groups; k++) {
            const float *xk = x + (size_t)k * g->group;
            uint8_t *mk = out + (size_t)k * meta, *ck = codes + (size_t)k * g->group;
            if (g->rule == KV_GRID_SYM)
                encode_sym(g, xk, mk, ck);
            else if (g->rule == KV_GRID_ASYM)
                encode_asym(g, xk, mk, ck);
            else
                encode_zp(g, xk, mk, ck);
        }
        kv_pack(codes, g->values, g->bits, out + (size_t)n_groups * meta);
    }
}

void kv_grid_decode_judge(const struct kv_grid *g, const uint8_t *in, size_t n_units, float *y) {
    uint8_t codes[KV_MAX_UNIT];
    uint32_t n_groups = g->values / g->group, meta = kv_grid_meta_bytes(g);
    size_t bytes = kv_grid_size(g).bytes;
    for (size_t u = 0; u < n_units; u++, in += bytes) {
        kv_unpack(in + (size_t)n_groups * meta, g->values, g->bits, codes);
        for (uint32_t k = 0; k < n_groups; k++, y += g->group) {
            const uint8_t *m = in + (size_t)k * meta, *c = codes + (size_t)k * g->group;
            const uint8_t *second = m + (g->wide ? 4 : 2);
            float scale = get_number(g, m);
            if (g->rule == KV_GRID_SYM) {
                for (uint32_t i = 0; i < g->group; i++)
                    y[i] = (float)((int)c[i] - (int)g->offset) * scale;
            } else if (g->rule == KV_GRID_ASYM) {
                float low = get_number(g, second);
                for (uint32_t i = 0; i < g->group; i++) y[i] = (float)c[i] * scale + low;
            } else {
                int zero = (int16_t)kv_get16(second);
                for (uint32_t i = 0; i < g->group; i++) y[i] = (float)((int)c[i] + zero) * scale;
            }
        }
    }
}
