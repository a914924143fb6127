// SPDX-License-Identifier: Apache-2.0
// ggml's block types at the speed of memory: the bytes of ggml_judge.c's by vectors.
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

enum { N = KV_GGML_BLOCK, VECTORS = KV_GGML_BLOCK / KV_LANES };

// What differs between the types with uniform steps: d = extreme / divisor, code = trunc(x / d +
// shift), at most top.
struct rule {
    float divisor, shift, top;
    bool ranged, fifth; // has a minimum; has a fifth bit
};
static const struct rule rules[] = {[KV_Q8_0] = {.divisor = 127.0f},
                                    [KV_Q4_0] = {-8.0f, 8.5f, 15.0f, false, false},
                                    [KV_Q4_1] = {15.0f, 0.5f, 15.0f, true, false},
                                    [KV_Q5_0] = {-16.0f, 16.5f, 31.0f, false, true},
                                    [KV_Q5_1] = {31.0f, 0.5f, 31.0f, true, true},
                                    [KV_IQ4_NL] = {.divisor = -127.0f}};

// ---- encode
// --------------------------------------------------------------------------------------

// Scales of KV_LANES blocks, made side by side.
struct scales {
    float inverse[KV_LANES], low[KV_LANES];
    uint16_t scale_half[KV_LANES], low_half[KV_LANES];
    uint32_t usual; // a bit a block; the judge takes the others
};

// Unusual: scales whose inverse is not finite; both extremes equally far from zero, where the first
// one gives the sign; a minimum of zero, which may be either zero.
KV_TEMPLATE void measure(enum kv_ggml_type type, const float *x, uint32_t n, struct scales *s) {
    vf low[KV_LANES], high[KV_LANES];
    const struct rule rule = rules[type];
    for (uint32_t j = 0; j < KV_LANES; j++) {
        low[j] = type == KV_Q8_0 ? vf_set(0.0f) : vf_set(INFINITY);
        high[j] = type == KV_Q8_0 ? vf_set(0.0f) : vf_set(-INFINITY);
        if (j >= n) continue;
        for (uint32_t i = 0; i < N; i += KV_LANES) {
            vf v = vf_load(x + j * N + i);
            if (type == KV_Q8_0)
                high[j] = vf_max(vf_abs(v), high[j]);
            else
                low[j] = vf_min(v, low[j]), high[j] = vf_max(v, high[j]);
        }
    }
    vf max = vf_reduce_rows(high, true), min = vf_reduce_rows(low, false), extreme = max;
    uint32_t odd = 0;
    if (rule.ranged) {
        extreme = vf_sub(max, min);
        odd = vf_equal(min, vf_set(0.0f));
        vf_store(s->low, min);
        vf_put_halves(s->low_half, min);
    } else if (type != KV_Q8_0) {
        vf below = vf_sub(vf_set(0.0f), min);
        odd = vf_equal(max, below);
        extreme = vf_where(vf_at_least(max, below), max, min);
    }
    vf scale = vf_div(extreme, vf_set(rule.divisor)), size = vf_abs(scale);
    vf_put_halves(s->scale_half, scale);
    vf_store(s->inverse, vf_div(vf_set(1.0f), scale));
    s->usual = vf_at_least(size, vf_set(0x1p-126f)) & vf_at_least(vf_set(0x1p126f), size) & ~odd;
}

KV_TEMPLATE void put_q8(const float *x, float inverse, uint8_t *q) {
    const vf id = vf_set(inverse), nearly = vf_set(0x1.fffffep-2f);
    for (uint32_t i = 0; i < N; i += KV_LANES) { // half away from zero: add just below 1/2, cut
        vf v = vf_mul(vf_load(x + i), id);
        bytes_store(q + i, vi_bytes(vi_trunc(vf_add(v, vf_copysign(nearly, v)))));
    }
}

KV_TEMPLATE void put_halves(const vi c[VECTORS], uint8_t *q) { // (i, i + 16) to a byte
    for (uint32_t k = 0; k < VECTORS / 2; k++)
        bytes_store(q + k * KV_LANES,
                    vi_bytes(vi_or(vi_and(c[k], vi_set(15)), vi_shl(c[k + VECTORS / 2], 4))));
}

KV_TEMPLATE void put_codes(enum kv_ggml_type type, const float *x, float inverse, float low,
                           uint8_t *out) {
    const struct rule rule = rules[type];
    vi c[VECTORS];
    uint32_t high = 0;
    for (uint32_t k = 0; k < VECTORS; k++) {
        vf v = vf_load(x + k * KV_LANES);
        if (rule.ranged) v = vf_sub(v, vf_set(low));
        v = vf_add(vf_mul(v, vf_set(inverse)), vf_set(rule.shift));
        c[k] = vi_trunc(vf_min(vf_set(rule.top), v)); // NaN passes and becomes code 0
        if (rule.fifth) high |= vi_bits(c[k], 4) << (k * KV_LANES);
    }
    if (rule.fifth) {
        memcpy(out, &high, 4);
        out += 4;
    }
    put_halves(c, out);
}

KV_TEMPLATE void encode(enum kv_ggml_type type, const float *x, size_t n_blocks, uint8_t *out) {
    const bool ranged = rules[type].ranged;
    const uint32_t bytes = kv_ggml_traits[type].bytes, meta = ranged ? 4 : 2;
    struct scales s;
    for (size_t first = 0; first < n_blocks; first += KV_LANES) {
        uint32_t n = n_blocks - first < KV_LANES ? (uint32_t)(n_blocks - first) : KV_LANES;
        measure(type, x, n, &s);
        for (uint32_t j = 0; j < n; j++, x += N, out += bytes) {
            if (!(s.usual >> j & 1)) {
                kv_ggml_encode_judge(type, x, 1, out);
                continue;
            }
            memcpy(out, &s.scale_half[j], 2);
            if (ranged) memcpy(out + 2, &s.low_half[j], 2);
            if (type == KV_Q8_0)
                put_q8(x, s.inverse[j], out + meta);
            else
                put_codes(type, x, s.inverse[j], s.low[j], out + meta);
        }
    }
}

// The nearest of 16 levels: bucket k = [8.5 k - 128, 8.5 k - 119.5) holds at most one middle
// between neighbours and none near its ends; the code is the number of middles below the bucket,
// plus one if x is not below the bucket's own.
static const float nl_below[32] = {0, 0, 1,  1,  1,  2,  2,  3,  3,  4,  4,  5,  6,  6,  7,  8,
                                   9, 9, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15, 15, 15, 15};
static const float nl_middle[32] = {
    INFINITY, -115.5f,  INFINITY, INFINITY, -93.5f,   INFINITY, -74.0f,   INFINITY,
    -57.0f,   INFINITY, -42.0f,   -28.5f,   INFINITY, -16.0f,   -4.5f,    7.0f,
    INFINITY, 19.0f,    31.5f,    INFINITY, 45.5f,    INFINITY, 61.0f,    INFINITY,
    79.0f,    INFINITY, 101.0f,   INFINITY, INFINITY, INFINITY, INFINITY, INFINITY};
static const float nl_level[32] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

// Lanes are blocks here, so that sums run in the judge's order.
KV_TEMPLATE void encode_nl(const float *x, uint32_t n, struct scales *s,
                           uint32_t words[4][KV_LANES]) {
    vf column[N], sum_qx = vf_set(0.0f), sum_q2 = vf_set(0.0f);
    vi packed[4] = {vi_set(0), vi_set(0), vi_set(0), vi_set(0)};
    for (uint32_t i = 0; i < N; i += KV_LANES) {
        for (uint32_t j = 0; j < KV_LANES; j++)
            column[i + j] = j < n ? vf_load(x + j * N + i) : vf_set(0.0f);
        vf_transpose(column + i);
    }
    const vf id = vf_load(s->inverse);
    for (uint32_t i = 0; i < N; i++) {
        vf v = column[i], t = vf_mul(id, v);
        vi bucket = vi_trunc(vf_mul(vf_add(t, vf_set(128.0f)), vf_set(1.0f / 8.5f)));
        vi code = vi_trunc(vf_lookup(nl_below, bucket));
        code = vi_count(code, t, vf_lookup(nl_middle, bucket));
        vf q = vf_lookup(nl_level, code), wq = vf_mul(vf_mul(v, v), q);
        sum_qx = vf_add(sum_qx, vf_mul(wq, v));
        sum_q2 = vf_add(sum_q2, vf_mul(wq, q));
        uint32_t at = i % 16; // byte `at`, low half first
        packed[at / 4] =
            vi_or(packed[at / 4], vi_shl(code, (int)(8 * (at % 4) + (i < 16 ? 0 : 4))));
    }
    vf scale = vf_div(sum_qx, sum_q2); // 0 where the sum is 0 or NaN, by the mask
    vf_put_halves(s->scale_half, scale);
    uint32_t positive = ~vf_at_least(vf_set(0.0f), sum_q2) & vf_equal(sum_q2, sum_q2);
    for (uint32_t j = 0; j < KV_LANES; j++)
        if (!(positive >> j & 1)) s->scale_half[j] = 0;
    for (int k = 0; k < 4; k++) vi_store(words[k], packed[k]);
}

// Levels beside the extreme's are small sums of cubes: the range keeps those from overflow.
static void encode_nl_all(const float *x, size_t n_blocks, uint8_t *out) {
    struct scales s;
    uint32_t words[4][KV_LANES];
    for (size_t first = 0; first < n_blocks; first += KV_LANES) {
        uint32_t n = n_blocks - first < KV_LANES ? (uint32_t)(n_blocks - first) : KV_LANES;
        measure(KV_IQ4_NL, x, n, &s);
        encode_nl(x, n, &s, words);
        for (uint32_t j = 0; j < n; j++, x += N, out += sizeof(struct kv_block_iq4_nl)) {
            float size = fabsf(s.inverse[j]);
            if (!(s.usual >> j & 1) || !(size < 1e16f && size > 1e-8f)) {
                kv_ggml_encode_judge(KV_IQ4_NL, x, 1, out);
                continue;
            }
            memcpy(out, &s.scale_half[j], 2);
            for (int k = 0; k < 4; k++) memcpy(out + 2 + 4 * k, &words[k][j], 4);
        }
    }
}

void KV_ISA_NAME(kv_ggml_encode)(enum kv_ggml_type type, const float *x, size_t n_blocks,
                                 uint8_t *out) {
    switch (type) {
    case KV_Q8_0:
        encode(KV_Q8_0, x, n_blocks, out);
        break;
    case KV_Q4_0:
        encode(KV_Q4_0, x, n_blocks, out);
        break;
    case KV_Q4_1:
        encode(KV_Q4_1, x, n_blocks, out);
        break;
    case KV_Q5_0:
        encode(KV_Q5_0, x, n_blocks, out);
        break;
    case KV_Q5_1:
        encode(KV_Q5_1, x, n_blocks, out);
        break;
    case KV_IQ4_NL:
        encode_nl_all(x, n_blocks, out);
        break;
    case KV_N_GGML:
        break;
    }
}

// ---- decode
// --------------------------------------------------------------------------------------

KV_TEMPLATE float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return float_of_half(h);
}

// 16 signed bytes times d, plus m where there is one.
KV_TEMPLATE void put_values(__m128i q, vf d, vf m, bool ranged, float *y) {
    for (uint32_t i = 0; i < 16; i += KV_LANES) {
        vf v = vf_mul(d, vf_of(vi_from_signed(i ? _mm_unpackhi_epi64(q, q) : q)));
        vf_store(y + i, ranged ? vf_add(v, m) : v);
    }
}

KV_TEMPLATE void decode(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks, float *y) {
    const bool ranged = rules[type].ranged, fifth = rules[type].fifth;
    const uint32_t bytes = kv_ggml_traits[type].bytes;
    const __m128i low_half = _mm_set1_epi8(15), middle = _mm_set1_epi8(fifth ? 16 : 8);
    const __m128i levels = _mm_loadu_si128((const __m128i *)(const void *)kv_iq4_nl_values);
    const __m128i bit = _mm_set1_epi64x((long long)0x8040201008040201u);
    const __m128i spread = _mm_set_epi8(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    for (size_t k = 0; k < n_blocks; k++, in += bytes, y += N) {
        const uint8_t *p = in + (ranged ? 4 : 2);
        const vf d = vf_set(half_at(in)), m = vf_set(ranged ? half_at(in + 2) : 0.0f);
        __m128i half[2];
        if (type == KV_Q8_0) {
            for (int h = 0; h < 2; h++)
                half[h] = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * h));
        } else {
            uint32_t high = 0;
            if (fifth) {
                memcpy(&high, p, 4);
                p += 4;
            }
            __m128i q = _mm_loadu_si128((const __m128i *)(const void *)p);
            half[0] = _mm_and_si128(q, low_half);
            half[1] = _mm_and_si128(_mm_srli_epi16(q, 4), low_half);
            for (int h = 0; h < 2; h++) {
                if (fifth) { // a mask bit to each byte: 16 where it is set
                    __m128i b =
                        _mm_shuffle_epi8(_mm_cvtsi32_si128((int)(high >> (16 * h))), spread);
                    b = _mm_cmpeq_epi8(_mm_and_si128(b, bit), bit);
                    half[h] = _mm_or_si128(half[h], _mm_and_si128(b, _mm_set1_epi8(16)));
                }
                if (type == KV_IQ4_NL)
                    half[h] = _mm_shuffle_epi8(levels, half[h]);
                else if (!ranged)
                    half[h] = _mm_sub_epi8(half[h], middle);
            }
        }
        put_values(half[0], d, m, ranged, y);
        put_values(half[1], d, m, ranged, y + 16);
    }
}

void KV_ISA_NAME(kv_ggml_decode)(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks,
                                 float *y) {
    switch (type) {
    case KV_Q8_0:
        decode(KV_Q8_0, in, n_blocks, y);
        break;
    case KV_Q4_0:
        decode(KV_Q4_0, in, n_blocks, y);
        break;
    case KV_Q4_1:
        decode(KV_Q4_1, in, n_blocks, y);
        break;
    case KV_Q5_0:
        decode(KV_Q5_0, in, n_blocks, y);
        break;
    case KV_Q5_1:
        decode(KV_Q5_1, in, n_blocks, y);
        break;
    case KV_IQ4_NL:
        decode(KV_IQ4_NL, in, n_blocks, y);
        break;
    case KV_N_GGML:
        break;
    }
}

#endif
