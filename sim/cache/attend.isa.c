// SPDX-License-Identifier: Apache-2.0
// Attention kernels over packed pages: the scalar judge, and SIMD sets of 8 and 16 lanes.
#include "sim/base/isa.h"
#include "sim/cache/attend_isa.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if !defined(__AVX2__)

#include "sim/base/half.h"

// Code i of a little-endian stream of words.
static float code_at(const uint32_t *word, size_t stride, uint32_t i, unsigned bits) {
    uint32_t per_word = 32 / bits;
    return (float)(word[i / per_word * stride] >> bits * (i % per_word) & ((1u << bits) - 1));
}

// One decoded value: channel c of token t, keys or values.
static float value_at(const struct kv_side_layout *l, enum kv_side side, const uint8_t *block,
                      uint32_t dim, uint32_t t, uint32_t c) {
    bool key = side == KV_KEY;
    if (l->bits == 16) {
        const uint16_t *x = (const uint16_t *)block;
        return kv_f16_to_f32(key ? x[(t / KV_KEY_TILE * dim + c) * KV_KEY_TILE + t % KV_KEY_TILE]
                                 : x[t * dim + c]);
    }
    const uint32_t *x = (const uint32_t *)block;
    float code = key ? code_at(x + t / KV_KEY_TILE * l->words * KV_KEY_TILE + t % KV_KEY_TILE,
                               KV_KEY_TILE, c, l->bits)
                     : code_at(x + t * l->words, 1, c, l->bits);
    uint32_t g = c / (dim / l->n_groups);
    float scale = kv_f16_to_f32(((const uint16_t *)(block + l->scale_at))[g * KV_PAGE_TOKENS + t]);
    float min = l->has_min
                    ? kv_f16_to_f32(((const uint16_t *)(block + l->min_at))[g * KV_PAGE_TOKENS + t])
                    : 0;
    if (l->centred) code -= (float)(1u << (l->bits - 1));
    return code * scale + min;
}

// The judge: decodes a value at a time and sums in float, token by token.
void KV_ISA_NAME(kv_attend)(const struct kv_attend_job *j) {
    for (uint32_t h = 0; h < j->heads; h++) {
        const float *q = j->query + h * j->dim;
        float *out = j->out + h * j->dim;
        for (uint32_t t = 0; t < j->n; t++) {
            const uint8_t *page = j->pages[t / KV_PAGE_TOKENS];
            uint32_t slot = t % KV_PAGE_TOKENS;
            float score = 0;
            for (uint32_t c = 0; c < j->dim; c++)
                score += q[c] *
                         value_at(j->layout[KV_KEY], KV_KEY, page + j->at[KV_KEY], j->dim, slot, c);
            float top = fmaxf(score, j->max[h]);
            float keep = expf(j->max[h] - top), p = expf(score - top);
            j->max[h] = top;
            j->sum[h] = j->sum[h] * keep + p;
            for (uint32_t c = 0; c < j->dim; c++)
                out[c] = out[c] * keep + p * value_at(j->layout[KV_VALUE], KV_VALUE,
                                                      page + j->at[KV_VALUE], j->dim, slot, c);
        }
    }
}

#elif !defined(__AVX512F__)

enum { MAX_HEADS = 3, DIM = 64, PAIRS = DIM / 2, HALF = KV_PAGE_TOKENS / 2 };

#define LANES 8
#define REGISTERS 12 // accumulators that fit beside codes and factors
#define TARGET
#define FN(name) name##_8
typedef __m256i vi;
typedef __m256 vf;
#define v_set(x) _mm256_set1_ps(x)
#define v_seti(x) _mm256_set1_epi32(x)
#define v_load(p) _mm256_loadu_si256((const __m256i *)(p))
#define v_store(p, x) _mm256_storeu_si256((__m256i *)(p), x)
#define v_loadf(p) _mm256_loadu_ps(p)
#define v_storef(p, x) _mm256_storeu_ps(p, x)
#define v_halves(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))
#define v_and(a, b) _mm256_and_si256(a, b)
#define v_srl(a, n) _mm256_srli_epi32(a, n)
#define v_add(a, b) _mm256_add_epi32(a, b)
#define v_dot(acc, a, b) _mm256_add_epi32(acc, _mm256_madd_epi16(a, b))
#define v_float(a) _mm256_cvtepi32_ps(a)
#define v_int(a) _mm256_cvtps_epi32(a)
#define v_mul(a, b) _mm256_mul_ps(a, b)
#define v_addf(a, b) _mm256_add_ps(a, b)
#define v_sub(a, b) _mm256_sub_ps(a, b)
#define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define v_max(a, b) _mm256_max_ps(a, b)
#define v_round(a) _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_scale2(y, n)                                                                             \
    _mm256_castsi256_ps(                                                                           \
        _mm256_add_epi32(_mm256_castps_si256(y), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)))
#define v_weave_low(a, b) _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xAA)
#define v_weave_high(a, b) _mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, 0xAA)
#define v_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)

static inline float v_top(vf x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
static inline float v_total(vf x) {
    __m128 m = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_add_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_add_ss(m, _mm_movehdup_ps(m)));
}
static inline int v_totali(vi x) {
    __m128i m = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(m, _mm_shuffle_epi32(m, 0xB1)));
}
// `tokens` factors, each over the lanes that hold one token's words.
static inline __attribute__((always_inline)) vi v_spread(const int32_t *w, int tokens) {
    if (tokens == 1) return _mm256_set1_epi32(w[0]);
    return _mm256_blend_epi32(_mm256_set1_epi32(w[0]), _mm256_set1_epi32(w[1]), 0xF0);
}

#include "sim/cache/attend_simd.h"

void kv_attend_avx2(const struct kv_attend_job *j) {
    attend_packed_8(j);
}

#else

enum { MAX_HEADS = 3, DIM = 64, PAIRS = DIM / 2, HALF = KV_PAGE_TOKENS / 2 };
#define LANES 16
#define REGISTERS 24
typedef __m512i vi;
typedef __m512 vf;
#define v_set(x) _mm512_set1_ps(x)
#define v_seti(x) _mm512_set1_epi32(x)
#define v_load(p) _mm512_loadu_si512(p)
#define v_store(p, x) _mm512_storeu_si512(p, x)
#define v_loadf(p) _mm512_loadu_ps(p)
#define v_storef(p, x) _mm512_storeu_ps(p, x)
#define v_halves(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define v_and(a, b) _mm512_and_si512(a, b)
#define v_srl(a, n) _mm512_srli_epi32(a, (unsigned)(n))
#define v_add(a, b) _mm512_add_epi32(a, b)
#define v_float(a) _mm512_cvtepi32_ps(a)
#define v_int(a) _mm512_cvtps_epi32(a)
#define v_mul(a, b) _mm512_mul_ps(a, b)
#define v_addf(a, b) _mm512_add_ps(a, b)
#define v_sub(a, b) _mm512_sub_ps(a, b)
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define v_max(a, b) _mm512_max_ps(a, b)
#define v_round(a) _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_scale2(y, n) _mm512_scalef_ps(y, n)
#define v_weave_low(a, b) _mm512_mask_blend_epi16(0xAAAAAAAAu, a, _mm512_slli_epi32(b, 16))
#define v_weave_high(a, b) _mm512_mask_blend_epi16(0xAAAAAAAAu, _mm512_srli_epi32(a, 16), b)
#define v_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define v_top(x) _mm512_reduce_max_ps(x)
#define v_total(x) _mm512_reduce_add_ps(x)
#define v_totali(x) _mm512_reduce_add_epi32(x)

// `tokens` factors, each over the lanes that hold one token's words.
static inline __attribute__((always_inline)) vi v_spread(const int32_t *w, int tokens) {
    if (tokens == 1) return _mm512_set1_epi32(w[0]);
    if (tokens == 2) return _mm512_mask_set1_epi32(_mm512_set1_epi32(w[0]), 0xFF00, w[1]);
    __m512i four = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)w));
    return _mm512_permutexvar_epi32(
        _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0), four);
}

#define TARGET
#define FN(name) name##_16
#define v_dot(acc, a, b) _mm512_add_epi32(acc, _mm512_madd_epi16(a, b))
#include "sim/cache/attend_simd.h"

void kv_attend_avx512(const struct kv_attend_job *j) {
    attend_packed_16(j);
}

// The same with the fused multiply-add of 16-bit pairs.
#undef TARGET
#undef FN
#undef INLINE
#undef v_dot
#define TARGET __attribute__((target("avx512vnni")))
#define FN(name) name##_vnni
#define v_dot(acc, a, b) _mm512_dpwssd_epi32(acc, a, b)
#include "sim/cache/attend_simd.h"

TARGET void kv_attend_avx512vnni(const struct kv_attend_job *j) {
    attend_packed_vnni(j);
}

#endif
