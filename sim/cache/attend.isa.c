// SPDX-License-Identifier: Apache-2.0
// Attention kernels over packed pages: the scalar judge, and SIMD sets of 8 and 16 lanes.
#include "sim/base/isa.h"
#include "sim/cache/attend_isa.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

enum {
    MAX_DIM = 256,
    MAX_GROUPS = MAX_DIM / 16,
    MAX_HEADS = 3, // that a kernel serves at once
    MAX_BATCHES = 3,
    ALL_HEADS = MAX_HEADS * MAX_BATCHES, // that share one reading of the pages
    HALF = KV_PAGE_TOKENS / 2,
    ROW_ROOM = KV_SPAN_TOKENS + 16,
    PAGES_ROOM = KV_SPAN_TOKENS / KV_PAGE_TOKENS + 2 * KV_PORT_WIDTHS,
    SOON_TOKENS = 256,
    AHEAD = 4 // pages: one is read in half the time that memory takes to answer
};

#if !defined(__AVX2__)

#include "sim/base/half.h"

#include "sim/quant/pack.h"

// One decoded cell: keys or values of slot t.
static void decode_cell(const struct kv_side_layout *l, enum kv_side side, const uint8_t *block,
                        uint32_t dim, uint32_t t, float *x) {
    uint8_t unit[2 * MAX_DIM + 64], code[MAX_DIM];
    kv_cell_load(l, side, block, t, unit, dim);
    if (l->bits == 16) {
        kv_get_halves(unit, dim, x);
        return;
    }
    kv_unpack(unit + l->meta_bytes, dim, l->bits, code);
    for (uint32_t c = 0; c < dim; c++) {
        const uint8_t *meta = unit + c / (dim / l->n_groups) * (l->has_min ? 4 : 2);
        float y = (float)code[c] - (l->centred ? (float)(1u << (l->bits - 1)) : 0);
        x[c] = y * kv_get_half(meta) + (l->has_min ? kv_get_half(meta + 2) : 0);
    }
}

// The judge: decodes a vector at a time and sums in float, slot by slot.
void KV_ISA_NAME(kv_attend)(const struct kv_attend_job *j) {
    static _Thread_local float score[KV_SPAN_TOKENS];
    uint32_t n = j->end - j->first;
    for (uint32_t h = 0; h < j->heads; h++) {
        float out[MAX_DIM] = {0}, x[MAX_DIM], max = -INFINITY, sum = 0, weighted = 0;
        const float *q = j->query + h * j->dim;
        for (int side = 0; side < 2; side++) {
            for (size_t p = 0; p < KV_PORT_WIDTHS; p++) {
                const struct kv_side_layout *l = &j->layouts[side][p];
                const struct kv_cell_run *run = &j->span->runs[side][p];
                for (uint32_t slot = 0; slot < run->n; slot++) {
                    uint32_t token = *kv_slot_token(run, slot) - j->first;
                    if (token >= n) continue; // those before the first wrap
                    decode_cell(l, (enum kv_side)side,
                                run->pages[slot / KV_PAGE_TOKENS].data + KV_PAGE_HEAD +
                                    j->member * l->bytes,
                                j->dim, slot % KV_PAGE_TOKENS, x);
                    if (side == KV_KEY) score[token] = 0;
                    for (uint32_t c = 0; c < j->dim; c++)
                        if (side == KV_KEY)
                            score[token] += q[c] * x[c];
                        else
                            out[c] += score[token] * x[c];
                }
            }
            if (side == KV_VALUE) continue;
            if (j->oldest) j->oldest[h] = score[0];
            for (uint32_t t = 0; t < n; t++) max = fmaxf(max, score[t]);
            for (uint32_t t = 0; t < n; t++) {
                float below = score[t] - max;
                score[t] = expf(below);
                sum += score[t];
                weighted += score[t] * below;
            }
        }
        kv_attend_join(j, h, max, sum, weighted, out);
    }
}

#elif !defined(__AVX512F__)

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
#define v_prefetch_far(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#define v_sll(a, n) _mm256_slli_epi32(a, n)
#define v_srlv(a, n) _mm256_srlv_epi32(a, n)
#define v_permute(i, a) _mm256_permutevar8x32_epi32(a, i)
#define v_iota() _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0)
#define v_merge(mask, a, b) _mm256_or_si256(_mm256_and_si256(mask, a), b) // b has none of the mask
#define v_srl16(a, n) _mm256_srli_epi16(a, n)
#define v_sra(a, n) _mm256_srai_epi32(a, n)
#define v_table(p) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(p)))
#define v_look(table, at) _mm256_shuffle_epi8(table, at)

// One sum after the other: the compiler would make a tree of them, which registers do not hold.
static inline vi v_dot(vi acc, vi a, vi b) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
    __asm__("" : "+x"(acc));
    return acc;
}
// a0 b0 a1 b1 ...
static inline void v_interleave(vi a, vi b, int32_t *out) {
    vi low = _mm256_unpacklo_epi32(a, b), high = _mm256_unpackhi_epi32(a, b);
    v_store(out, _mm256_permute2x128_si256(low, high, 0x20));
    v_store(out + 8, _mm256_permute2x128_si256(low, high, 0x31));
}

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
#include "sim/cache/attend_simd.h"

void kv_attend_avx2(const struct kv_attend_job *j) {
    attend_packed_8(j);
}

#else

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
#define v_prefetch_far(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#define v_top(x) _mm512_reduce_max_ps(x)
#define v_total(x) _mm512_reduce_add_ps(x)
#define v_totali(x) _mm512_reduce_add_epi32(x)

#define v_sll(a, n) _mm512_slli_epi32(a, (unsigned)(n))
#define v_srlv(a, n) _mm512_srlv_epi32(a, n)
#define v_permute(i, a) _mm512_permutexvar_epi32(i, a)
#define v_iota() _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define v_merge(mask, a, b) _mm512_ternarylogic_epi32(mask, a, b, 0xEA)
#define v_srl16(a, n) _mm512_srli_epi16(a, (unsigned)(n))
#define v_sra(a, n) _mm512_srai_epi32(a, (unsigned)(n))
#define v_table(p) _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(p)))
#define v_look(table, at) _mm512_shuffle_epi8(table, at)

// a0 b0 a1 b1 ...
static inline void v_interleave(vi a, vi b, int32_t *out) {
    const vi low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const vi high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    v_store(out, _mm512_permutex2var_epi32(a, low, b));
    v_store(out + 16, _mm512_permutex2var_epi32(a, high, b));
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
