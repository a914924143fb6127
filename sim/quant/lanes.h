// SPDX-License-Identifier: Apache-2.0
// The few vector operations that coding needs, under one name for AVX2 (8 lanes) and AVX-512 (16).
//
// Included by *.isa.c only. KV_LANES is not defined where there are no vectors; the judge runs
// there. Everything here is exact or rounds once, as the scalar judge does, so that bytes agree.
#ifndef KV_QUANT_LANES_H
#define KV_QUANT_LANES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

// Kernels are templates: inlined with a constant rule and width wherever they are called.
#define KV_TEMPLATE static inline __attribute__((always_inline))

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>

static inline uint16_t half_of(float x) {
    return (uint16_t)_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
}
static inline float float_of_half(uint16_t h) {
    return _cvtsh_ss(h);
}

#if defined(__AVX512F__)
#define KV_LANES 16
typedef __m512 vf;
typedef __m512i vi;

static inline vf vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf a) {
    _mm512_storeu_ps(p, a);
}
static inline vf vf_set(float x) {
    return _mm512_set1_ps(x);
}
static inline vf vf_abs(vf a) {
    return _mm512_abs_ps(a);
}
static inline vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c) { // a b + c, rounded once
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_fnma(vf a, vf b, vf c) { // c - a b, rounded once
    return _mm512_fnmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b) { // b where either is NaN
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
static inline void vf_put_halves(uint16_t *p, vf a) { // half to even
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline vf vf_get_halves(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline vf vf_no_nan(vf a) { // NaN becomes 0
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a);
}
static inline vf vf_round(vf a) { // half to even
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf vf_copysign(vf magnitude, vf sign) {
    const __m512i top = _mm512_set1_epi32((int)0x80000000u);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(top, _mm512_castps_si512(sign),
                                                         _mm512_castps_si512(magnitude), 0xCA));
}
static inline uint32_t vf_equal(vf a, vf b) { // a bit a lane
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
static inline uint32_t vf_at_least(vf a, vf b) { // a bit a lane where a >= b
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
static inline vf vf_where(uint32_t lanes, vf a, vf b) { // a in the lanes whose bit is set, else b
    return _mm512_mask_mov_ps(b, (__mmask16)lanes, a);
}
static inline void vi_store(uint32_t *p, vi a) {
    _mm512_storeu_si512(p, a);
}
static inline vi vi_set(int x) {
    return _mm512_set1_epi32(x);
}
static inline vi vi_round(vf a) { // half to even
    return _mm512_cvtps_epi32(a);
}
static inline vi vi_trunc(vf a) {
    return _mm512_cvttps_epi32(a);
}
static inline vf vf_of(vi a) {
    return _mm512_cvtepi32_ps(a);
}
static inline vi vi_add(vi a, vi b) {
    return _mm512_add_epi32(a, b);
}
static inline vi vi_or(vi a, vi b) {
    return _mm512_or_si512(a, b);
}
static inline vi vi_and(vi a, vi b) {
    return _mm512_and_si512(a, b);
}
static inline vi vi_shl(vi a, int n) {
    return _mm512_slli_epi32(a, (unsigned)n);
}
static inline vi vi_count(vi a, vf x, vf threshold) { // a + 1 where x >= threshold
    return _mm512_mask_add_epi32(a, _mm512_cmp_ps_mask(x, threshold, _CMP_GE_OQ), a,
                                 _mm512_set1_epi32(1));
}
static inline uint32_t vi_bits(vi a, int bit) { // that bit of each lane
    return _mm512_test_epi32_mask(a, _mm512_set1_epi32(1 << bit));
}
static inline vi vi_pick(uint32_t lanes, int x) { // x in the lanes whose bit is set, else 0
    return _mm512_maskz_set1_epi32((__mmask16)lanes, x);
}
static inline __m128i vi_bytes(vi a) { // the low byte of each lane
    return _mm512_cvtepi32_epi8(a);
}
static inline void bytes_store(uint8_t *p, __m128i a) { // KV_LANES bytes
    _mm_storeu_si128((__m128i *)(void *)p, a);
}
static inline vi vi_from_bytes(__m128i a) { // 16 bytes, zero-extended
    return _mm512_cvtepu8_epi32(a);
}
static inline vi vi_from_signed(__m128i a) {
    return _mm512_cvtepi8_epi32(a);
}
static inline __m128i bytes_load(const uint8_t *p) { // KV_LANES bytes
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}
static inline vf vf_lookup(const float table[32], vi index) { // by the low 5 bits
    return _mm512_permutex2var_ps(vf_load(table), index, vf_load(table + 16));
}
// Lane j of the result is the largest (or least) lane of row j, none of which is NaN: 15 steps for
// 16 rows. `rows` are used up.
KV_TEMPLATE vf vf_pick(vf a, vf b, bool largest) {
    return largest ? _mm512_max_ps(a, b) : _mm512_min_ps(a, b);
}
KV_TEMPLATE vf vf_reduce_rows(vf rows[KV_LANES], bool largest) {
    for (int i = 0; i < 8; i++) {
        vf a = rows[2 * i], b = rows[2 * i + 1];
        rows[i] = vf_pick(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b), largest);
    }
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(rows[2 * i]), b = _mm512_castps_pd(rows[2 * i + 1]);
        rows[i] = vf_pick(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                          _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)), largest);
    }
    for (int n = 2; n > 0; n--)
        for (int i = 0; i < n; i++) {
            vf a = rows[2 * i], b = rows[2 * i + 1];
            rows[i] = vf_pick(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD),
                              largest);
        }
    return rows[0];
}
// rows[i] lane j <-> rows[j] lane i.
KV_TEMPLATE void vf_transpose(vf r[KV_LANES]) {
    vf t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++) {
            __m512d a = _mm512_castps_pd(t[4 * i + k]), b = _mm512_castps_pd(t[4 * i + 2 + k]);
            r[4 * i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[4 * i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 4; k++) {
            t[8 * i + k] = _mm512_shuffle_f32x4(r[8 * i + k], r[8 * i + 4 + k], 0x88);
            t[8 * i + 4 + k] = _mm512_shuffle_f32x4(r[8 * i + k], r[8 * i + 4 + k], 0xDD);
        }
    for (int k = 0; k < 4; k++) {
        r[k] = _mm512_shuffle_f32x4(t[k], t[8 + k], 0x88);
        r[8 + k] = _mm512_shuffle_f32x4(t[k], t[8 + k], 0xDD);
        r[4 + k] = _mm512_shuffle_f32x4(t[4 + k], t[12 + k], 0x88);
        r[12 + k] = _mm512_shuffle_f32x4(t[4 + k], t[12 + k], 0xDD);
    }
}

#else
#define KV_LANES 8
typedef __m256 vf;
typedef __m256i vi;

static inline vf vf_load(const float *p) {
    return _mm256_loadu_ps(p);
}
static inline void vf_store(float *p, vf a) {
    _mm256_storeu_ps(p, a);
}
static inline vf vf_set(float x) {
    return _mm256_set1_ps(x);
}
static inline vf vf_abs(vf a) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vf vf_add(vf a, vf b) {
    return _mm256_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b) {
    return _mm256_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b) {
    return _mm256_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b) {
    return _mm256_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf vf_fnma(vf a, vf b, vf c) {
    return _mm256_fnmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b) {
    return _mm256_min_ps(a, b);
}
static inline void vf_put_halves(uint16_t *p, vf a) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline vf vf_get_halves(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline vf vf_no_nan(vf a) {
    return _mm256_and_ps(a, _mm256_cmp_ps(a, a, _CMP_ORD_Q));
}
static inline vf vf_round(vf a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf vf_copysign(vf magnitude, vf sign) {
    return _mm256_or_ps(magnitude, _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}
static inline uint32_t vf_equal(vf a, vf b) {
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}
static inline uint32_t vf_at_least(vf a, vf b) {
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ));
}
static inline vf vf_where(uint32_t lanes, vf a, vf b) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i on = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)lanes), bit), bit);
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(on));
}
static inline void vi_store(uint32_t *p, vi a) {
    _mm256_storeu_si256((__m256i *)(void *)p, a);
}
static inline vi vi_set(int x) {
    return _mm256_set1_epi32(x);
}
static inline vi vi_round(vf a) {
    return _mm256_cvtps_epi32(a);
}
static inline vi vi_trunc(vf a) {
    return _mm256_cvttps_epi32(a);
}
static inline vf vf_of(vi a) {
    return _mm256_cvtepi32_ps(a);
}
static inline vi vi_add(vi a, vi b) {
    return _mm256_add_epi32(a, b);
}
static inline vi vi_or(vi a, vi b) {
    return _mm256_or_si256(a, b);
}
static inline vi vi_and(vi a, vi b) {
    return _mm256_and_si256(a, b);
}
static inline vi vi_shl(vi a, int n) {
    return _mm256_slli_epi32(a, n);
}
static inline vi vi_count(vi a, vf x, vf threshold) { // true lanes are -1
    return _mm256_sub_epi32(a, _mm256_castps_si256(_mm256_cmp_ps(x, threshold, _CMP_GE_OQ)));
}
static inline uint32_t vi_bits(vi a, int bit) {
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_slli_epi32(a, 31 - bit)));
}
static inline vi vi_pick(uint32_t lanes, int x) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i on = _mm256_and_si256(_mm256_set1_epi32((int)lanes), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi32(on, bit), _mm256_set1_epi32(x));
}
static inline __m128i vi_bytes(vi a) {
    const __m256i low =
        _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12,
                         -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    __m256i b = _mm256_shuffle_epi8(a, low);
    return _mm_unpacklo_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
}
static inline void bytes_store(uint8_t *p, __m128i a) {
    _mm_storel_epi64((__m128i *)(void *)p, a);
}
static inline vi vi_from_bytes(__m128i a) {
    return _mm256_cvtepu8_epi32(a);
}
static inline vi vi_from_signed(__m128i a) {
    return _mm256_cvtepi8_epi32(a);
}
static inline __m128i bytes_load(const uint8_t *p) {
    return _mm_loadl_epi64((const __m128i *)(const void *)p);
}
static inline vf vf_lookup(const float table[32], vi index) {
    return _mm256_i32gather_ps(table, _mm256_and_si256(index, _mm256_set1_epi32(31)), 4);
}
KV_TEMPLATE vf vf_pick(vf a, vf b, bool largest) {
    return largest ? _mm256_max_ps(a, b) : _mm256_min_ps(a, b);
}
KV_TEMPLATE vf vf_reduce_rows(vf rows[KV_LANES], bool largest) {
    for (int i = 0; i < 4; i++) {
        vf a = rows[2 * i], b = rows[2 * i + 1];
        rows[i] = vf_pick(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), largest);
    }
    for (int i = 0; i < 2; i++) {
        __m256d a = _mm256_castps_pd(rows[2 * i]), b = _mm256_castps_pd(rows[2 * i + 1]);
        rows[i] = vf_pick(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                          _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)), largest);
    }
    return vf_pick(_mm256_permute2f128_ps(rows[0], rows[1], 0x20),
                   _mm256_permute2f128_ps(rows[0], rows[1], 0x31), largest);
}
KV_TEMPLATE void vf_transpose(vf r[KV_LANES]) {
    vf t[8];
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) {
            __m256d a = _mm256_castps_pd(t[4 * i + k]), b = _mm256_castps_pd(t[4 * i + 2 + k]);
            r[4 * i + 2 * k] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
            r[4 * i + 2 * k + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
        }
    for (int k = 0; k < 4; k++) {
        t[k] = _mm256_permute2f128_ps(r[k], r[4 + k], 0x20);
        t[4 + k] = _mm256_permute2f128_ps(r[k], r[4 + k], 0x31);
    }
    for (int k = 0; k < 8; k++) r[k] = t[k];
}
#endif

// a / b for b of at most 11 significant bits (an fp16 scale) and inverse = 1 / b rounded: the
// quotient of a real division at the price of three products. q = a inverse is within 1.5 units of
// its last place; a - q b is exact, as it has few bits; and no quotient by an 11-bit number lies
// nearer than 2^-12 units to a rounding boundary, so that the corrected q rounds as a / b does
// (after Markstein, IBM J. Res. Dev. 34(1), 1990). Infinite a gives NaN: not for those.
static inline vf vf_quotient(vf a, vf b, vf inverse) {
    vf q = vf_mul(a, inverse);
    return vf_fma(vf_fnma(q, b, a), inverse, q);
}

// Eight codes of one byte to b bytes and back (pext and pdep do any width in one step). Eight bytes
// are moved where the buffer has them, else exactly b.
static inline void put_bits(uint8_t *p, const uint8_t *end, uint64_t codes, uint64_t mask,
                            unsigned bits) {
    uint64_t word = _pext_u64(codes, mask);
    if (p + 8 <= end)
        memcpy(p, &word, 8);
    else
        memcpy(p, &word, bits);
}
static inline uint64_t get_bits(const uint8_t *p, const uint8_t *end, uint64_t mask,
                                unsigned bits) {
    uint64_t word = 0;
    if (p + 8 <= end)
        memcpy(&word, p, 8);
    else
        memcpy(&word, p, bits);
    return _pdep_u64(word, mask);
}
// KV_LANES codes, a byte each, to their packed bytes. Widths 2, 4 and 8 write just those; others
// may write up to 8 bytes at a time, never past end.
static inline void lanes_put(uint8_t *p, const uint8_t *end, __m128i codes, unsigned bits) {
    if (bits == 8) {
        bytes_store(p, codes);
        return;
    }
    if (bits == 4 || bits == 2) { // neighbours: c0 + 2^b c1, then again for width 2
        const __m128i pair = _mm_set1_epi16(bits == 4 ? 0x1001 : 0x0401);
        codes = _mm_maddubs_epi16(codes, pair);
        if (bits == 2) codes = _mm_madd_epi16(codes, _mm_set1_epi32(0x00100001));
        if (bits == 2) codes = _mm_packus_epi32(codes, codes);
        codes = _mm_packus_epi16(codes, codes);
        uint64_t word = (uint64_t)_mm_cvtsi128_si64(codes);
        memcpy(p, &word, KV_LANES / 8 * bits);
        return;
    }
    const uint64_t mask = (1u << bits) * 0x0101010101010101u - 0x0101010101010101u;
    put_bits(p, end, (uint64_t)_mm_cvtsi128_si64(codes), mask, bits);
    if (KV_LANES == 16) put_bits(p + bits, end, (uint64_t)_mm_extract_epi64(codes, 1), mask, bits);
}
#if KV_LANES == 16
// 64 codes below 256 at once, widths 2, 4 and 8. Packing interleaves 128-bit lanes, undone at last.
static inline void lanes_put4(uint8_t *p, const vi c[4], unsigned bits) {
    const __m512i dwords = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i q =
        _mm512_packus_epi16(_mm512_packus_epi32(c[0], c[1]), _mm512_packus_epi32(c[2], c[3]));
    if (bits == 8) {
        _mm512_storeu_si512(p, _mm512_permutexvar_epi32(dwords, q));
        return;
    }
    q = _mm512_maddubs_epi16(q, _mm512_set1_epi16(bits == 4 ? 0x1001 : 0x0401));
    if (bits == 4) {
        __m256i h = _mm512_cvtepi16_epi8(q);
        const __m256i order =
            _mm256_setr_epi16(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm256_storeu_si256((__m256i *)(void *)p, _mm256_permutexvar_epi16(order, h));
        return;
    }
    q = _mm512_madd_epi16(q, _mm512_set1_epi32(0x00100001));
    const __m128i bytes = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm_storeu_si128((__m128i *)(void *)p, _mm_shuffle_epi8(_mm512_cvtepi32_epi8(q), bytes));
}
#endif
// The other way.
static inline __m128i lanes_get(const uint8_t *p, const uint8_t *end, unsigned bits) {
    if (bits == 8) return bytes_load(p);
    const uint64_t mask = (1u << bits) * 0x0101010101010101u - 0x0101010101010101u;
    __m128i low = _mm_cvtsi64_si128((long long)get_bits(p, end, mask, bits));
    if (KV_LANES == 8) return low;
    return _mm_unpacklo_epi64(low,
                              _mm_cvtsi64_si128((long long)get_bits(p + bits, end, mask, bits)));
}
#endif // vectors

#endif
