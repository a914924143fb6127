// SPDX-License-Identifier: Apache-2.0
// ggml's block types at the speed of memory: the bytes of ggml_blocks.c's judge by vectors.
#include "sim/base/isa.h"
#include "sim/quant/ggml_blocks.h"
#include "sim/quant/lanes.h"

#ifndef KV_LANES

void KV_ISA_NAME(kv_ggml_encode)(enum kv_ggml_type type, const float *x, size_t n_blocks,
                                 uint8_t *out) {
    kv_ggml_encode_judge(type, x, n_blocks, out);
}

void KV_ISA_NAME(kv_ggml_decode)(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks,
                                 float *y) {
    kv_ggml_decode_judge(type, in, n_blocks, y);
}

#else

#include <math.h>

enum { BATCH = 16, VECTORS = KV_GGML_BLOCK / KV_LANES, HALF = VECTORS / 2 };

// ---- encode
// --------------------------------------------------------------------------------------

// Scales of 16 blocks side by side, as one block's alone would be a long chain.
struct batch {
    float min[BATCH], max[BATCH], d[BATCH], inverse[BATCH];
    uint16_t d_half[BATCH], min_half[BATCH];
};

KV_TEMPLATE void extremes(const float *x, uint32_t n, struct batch *b) {
    vf low[BATCH], high[BATCH];
    for (uint32_t j = 0; j < n; j++, x += KV_GGML_BLOCK) {
        low[j] = vf_set(INFINITY), high[j] = vf_set(-INFINITY);
        for (int i = 0; i < VECTORS; i++) {
            vf v = vf_load(x + KV_LANES * i);
            low[j] = vf_min(v, low[j]);
            high[j] = vf_max(v, high[j]);
        }
    }
    for (uint32_t j = n; j < BATCH; j++) low[j] = high[j] = vf_set(1.0f);
    vf_hmin_16(low, b->min);
    vf_hmax_16(high, b->max);
}

KV_TEMPLATE bool ranged(enum kv_ggml_type type) {
    return type == KV_Q4_1 || type == KV_Q5_1;
}

KV_TEMPLATE float levels_of(enum kv_ggml_type type) { // what the range or signed maximum is cut by
    switch (type) {
    case KV_Q8_0:
        return 127.0f;
    case KV_Q4_0:
        return -8.0f;
    case KV_Q4_1:
        return 15.0f;
    case KV_Q5_0:
        return -16.0f;
    case KV_Q5_1:
        return 31.0f;
    default:
        return -127.0f;
    }
}

KV_TEMPLATE void scales(enum kv_ggml_type type, struct batch *b) {
    for (uint32_t j = 0; j < BATCH; j += KV_LANES) {
        vf min = vf_load(b->min + j), max = vf_load(b->max + j), d;
        vf magnitude = vf_max(max, vf_sub(vf_set(0.0f), min));
        if (type == KV_Q8_0)
            d = magnitude;
        else if (ranged(type))
            d = vf_sub(max, min);
        else // magnitude with the sign of the larger end
            d = vf_copysign(magnitude, vf_add(max, min));
        d = vf_div(d, vf_set(levels_of(type)));
        vf_store(b->d + j, d);
        vf_store(b->inverse + j, vf_div(vf_set(1.0f), d));
        vf_put_halves(b->d_half + j, d);
        vf_put_halves(b->min_half + j, min);
    }
}

// Blocks where order decides or arithmetic leaves the usual range: left to the judge. These are
// ends of equal magnitude (which came first?), a minimum of zero (which zero?), scales so small
// that their inverse is infinite, infinities, and blocks of nothing but NaN.
KV_TEMPLATE bool unusual(enum kv_ggml_type type, const struct batch *b, uint32_t j) {
    if (!(fabsf(b->d[j]) >= 0x1p-100f && fabsf(b->d[j]) <= 0x1p100f) || b->min[j] > b->max[j])
        return true;
    if (ranged(type)) return b->min[j] == 0.0f;
    return type != KV_Q8_0 && b->max[j] == -b->min[j];
}

KV_TEMPLATE void encode_bytes(const float *x, float inverse, uint8_t *out) { // q8_0
    const vf below_half = vf_set(0x1.fffffep-2f); // trunc(t + this) = t rounded half away
    for (int i = 0; i < VECTORS; i++) {
        vf t = vf_mul(vf_load(x + KV_LANES * i), vf_set(inverse));
        t = vf_add(t, vf_copysign(below_half, t));
        bytes_store(out + KV_LANES * i, vi_bytes(vi_trunc(t)));
    }
}

// Codes of a block: c[v] holds values KV_LANES v ..
KV_TEMPLATE void truncated_codes(enum kv_ggml_type type, const float *x, float inverse, float min,
                                 vi *c) {
    const bool five = type == KV_Q5_0 || type == KV_Q5_1;
    const vf top = vf_set(five ? 31.0f : 15.0f);
    const vf shift = vf_set(ranged(type) ? 0.5f : five ? 16.5f : 8.5f);
    for (int i = 0; i < VECTORS; i++) {
        vf t = vf_load(x + KV_LANES * i);
        if (ranged(type)) t = vf_sub(t, vf_set(min));
        t = vf_add(vf_mul(t, vf_set(inverse)), shift);
        c[i] = vi_trunc(vf_min(vf_max(t, vf_set(0.0f)), top));
    }
}

// Thresholds half way between neighbouring levels: the nearest level is a count of those passed.
// Near a threshold the judge's two differences are exact, so both ways agree, ties included.
KV_TEMPLATE float nonlinear_codes(const float *x, float inverse, vi *c) {
    float qx[KV_GGML_BLOCK], q2[KV_GGML_BLOCK], sum_qx = 0.0f, sum_q2 = 0.0f;
    const __m128i values = _mm_loadu_si128((const __m128i *)(const void *)kv_iq4_nl_values);
    for (int i = 0; i < VECTORS; i++) {
        vf v = vf_load(x + KV_LANES * i), t = vf_mul(vf_set(inverse), v);
        c[i] = vi_set(0);
        for (int k = 0; k < 15; k++)
            c[i] = vi_count(c[i], t,
                            vf_set(0.5f * (float)(kv_iq4_nl_values[k] + kv_iq4_nl_values[k + 1])));
        vf q = vf_of(vi_from_signed(_mm_shuffle_epi8(values, vi_bytes(c[i]))));
        vf wq = vf_mul(vf_mul(v, v), q);
        vf_store(qx + KV_LANES * i, vf_mul(wq, v));
        vf_store(q2 + KV_LANES * i, vf_mul(wq, q));
    }
    for (int i = 0; i < KV_GGML_BLOCK; i++) sum_qx += qx[i], sum_q2 += q2[i]; // the judge's order
    return sum_q2 > 0.0f ? sum_qx / sum_q2 : 0.0f;
}

KV_TEMPLATE void encode_block(enum kv_ggml_type type, const float *x, const struct batch *b,
                              uint32_t j, uint8_t *out) {
    vi c[VECTORS];
    memcpy(out, &b->d_half[j], 2);
    out += 2;
    if (type == KV_Q8_0) {
        encode_bytes(x, b->inverse[j], out);
        return;
    }
    if (ranged(type)) {
        memcpy(out, &b->min_half[j], 2);
        out += 2;
    }
    if (type == KV_IQ4_NL) {
        uint16_t d = half_of(nonlinear_codes(x, b->inverse[j], c));
        memcpy(out - 2, &d, 2);
    } else
        truncated_codes(type, x, b->inverse[j], b->min[j], c);
    if (type == KV_Q5_0 || type == KV_Q5_1) {
        uint32_t high = 0;
        for (int i = 0; i < VECTORS; i++) high |= vi_bits(c[i], 4) << (KV_LANES * i);
        memcpy(out, &high, 4);
        out += 4;
    }
    for (int i = 0; i < HALF; i++) {
        vi low = c[i];
        if (type == KV_Q5_0 || type == KV_Q5_1) low = vi_and(low, vi_set(15));
        bytes_store(out + KV_LANES * i, vi_bytes(vi_or(low, vi_shl(c[i + HALF], 4))));
    }
}

KV_TEMPLATE void encode(enum kv_ggml_type type, const float *x, size_t n_blocks, uint8_t *out) {
    const size_t bytes = kv_ggml_traits[type].bytes;
    struct batch b;
    for (size_t first = 0; first < n_blocks; first += BATCH) {
        uint32_t n = n_blocks - first < BATCH ? (uint32_t)(n_blocks - first) : BATCH;
        extremes(x, n, &b);
        scales(type, &b);
        for (uint32_t j = 0; j < n; j++, x += KV_GGML_BLOCK, out += bytes)
            if (unusual(type, &b, j))
                kv_ggml_encode_judge(type, x, 1, out);
            else
                encode_block(type, x, &b, j, out);
    }
}

void KV_ISA_NAME(kv_ggml_encode)(enum kv_ggml_type type, const float *x, size_t n_blocks,
                                 uint8_t *out) {
    if (type == KV_Q8_0) encode(KV_Q8_0, x, n_blocks, out);
    if (type == KV_Q4_0) encode(KV_Q4_0, x, n_blocks, out);
    if (type == KV_Q4_1) encode(KV_Q4_1, x, n_blocks, out);
    if (type == KV_Q5_0) encode(KV_Q5_0, x, n_blocks, out);
    if (type == KV_Q5_1) encode(KV_Q5_1, x, n_blocks, out);
    if (type == KV_IQ4_NL) encode(KV_IQ4_NL, x, n_blocks, out);
}

// ---- decode
// --------------------------------------------------------------------------------------

KV_TEMPLATE void decode(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks, float *y) {
    const bool five = type == KV_Q5_0 || type == KV_Q5_1;
    const vi middle = vi_set(type == KV_Q4_0 ? -8 : type == KV_Q5_0 ? -16 : 0);
    const __m128i values = _mm_loadu_si128((const __m128i *)(const void *)kv_iq4_nl_values);
    const __m128i low_half = _mm_set1_epi8(15);
    for (size_t k = 0; k < n_blocks; k++, y += KV_GGML_BLOCK) {
        uint16_t half[2];
        memcpy(half, in, ranged(type) ? 4 : 2);
        in += ranged(type) ? 4 : 2;
        const vf d = vf_set(float_of_half(half[0]));
        const vf m = ranged(type) ? vf_set(float_of_half(half[1])) : d;
        if (type == KV_Q8_0) {
            for (int i = 0; i < VECTORS; i++, in += KV_LANES)
                vf_store(y + KV_LANES * i, vf_mul(d, vf_of(vi_from_signed(bytes_load(in)))));
            continue;
        }
        uint32_t high = 0;
        if (five) memcpy(&high, in, 4), in += 4;
        for (int i = 0; i < VECTORS; i++) {
            __m128i c = bytes_load(in + KV_LANES * (i % HALF));
            c = _mm_and_si128(i < HALF ? c : _mm_srli_epi16(c, 4), low_half);
            vi q =
                type == KV_IQ4_NL ? vi_from_signed(_mm_shuffle_epi8(values, c)) : vi_from_bytes(c);
            if (five) q = vi_or(q, vi_pick(high >> (KV_LANES * i), 16));
            if (type == KV_Q4_0 || type == KV_Q5_0) q = vi_add(q, middle);
            vf v = vf_mul(d, vf_of(q));
            vf_store(y + KV_LANES * i, ranged(type) ? vf_add(v, m) : v);
        }
        in += 16;
    }
}

void KV_ISA_NAME(kv_ggml_decode)(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks,
                                 float *y) {
    if (type == KV_Q8_0) decode(KV_Q8_0, in, n_blocks, y);
    if (type == KV_Q4_0) decode(KV_Q4_0, in, n_blocks, y);
    if (type == KV_Q4_1) decode(KV_Q4_1, in, n_blocks, y);
    if (type == KV_Q5_0) decode(KV_Q5_0, in, n_blocks, y);
    if (type == KV_Q5_1) decode(KV_Q5_1, in, n_blocks, y);
    if (type == KV_IQ4_NL) decode(KV_IQ4_NL, in, n_blocks, y);
}

#endif
