// SPDX-License-Identifier: Apache-2.0
// Matrix times vector at batch 1: streams each weight once, so memory is what it waits for.
#include "sim/cache/gemv_isa.h"
#include "sim/base/isa.h"
#include "sim/base/half.h"

// Vectors of the level in compiler terms: what is below becomes AVX2 or AVX-512 by the flags.
#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#elif defined(__AVX2__)
#include <immintrin.h>
#define LANES 8
#else
#define LANES 4
#endif

typedef float floats __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t ints __attribute__((vector_size(LANES * 4), aligned(4)));
typedef uint32_t words __attribute__((vector_size(LANES * 4), aligned(4)));
typedef uint16_t halves __attribute__((vector_size(LANES * 2), aligned(2)));

static inline float total(floats v) {
    float s = 0;
    for (int i = 0; i < LANES; i++) s += v[i];
    return s;
}

enum { ROWS = 4, STEP = 2 }; // rows at a time share the loads of x

static inline floats load_f32(const void *w, size_t i) {
    return *(const floats *)((const float *)w + i);
}
static inline floats load_bf16(const void *w, size_t i) {
    words v = __builtin_convertvector(*(const halves *)((const uint16_t *)w + i), words) << 16;
    return (floats)v;
}

// Dot products of up to ROWS rows with x; the tail of columns goes one by one.
#define GEMV(name, load, type, to_float)                                                           \
    void KV_ISA_NAME(name)(const struct kv_weights *w, const struct kv_activation *a,              \
                           size_t first, size_t end, float *y) {                                   \
        size_t n = w->cols, body = n / (STEP * LANES) * (STEP * LANES);                            \
        for (size_t r = first; r < end; r += ROWS) {                                               \
            const type *row[ROWS];                                                                 \
            floats sum[ROWS][STEP] = {0};                                                          \
            for (size_t k = 0; k < ROWS; k++)                                                      \
                row[k] = (const type *)w->data + (r + k < end ? r + k : end - 1) * n;              \
            for (size_t i = 0; i < body; i += STEP * LANES)                                        \
                for (size_t s = 0; s < STEP; s++) {                                                \
                    floats x = load_f32(a->x, i + s * LANES);                                      \
                    for (size_t k = 0; k < ROWS; k++)                                              \
                        sum[k][s] += load(row[k], i + s * LANES) * x;                              \
                }                                                                                  \
            for (size_t k = 0; k < ROWS && r + k < end; k++) {                                     \
                float t = total(sum[k][0] + sum[k][1]);                                            \
                for (size_t i = body; i < n; i++) t += to_float(row[k][i]) * a->x[i];              \
                y[r + k] = t;                                                                      \
            }                                                                                      \
        }                                                                                          \
    }
#define SAME(x) (x)
GEMV(kv_gemv_f32, load_f32, float, SAME)
GEMV(kv_gemv_bf16, load_bf16, uint16_t, kv_bf16_to_f32)

// acc + (pairs of 16-bit integers of a) . (those of b)
static inline ints dot_pairs(ints acc, ints a, ints b) {
#if defined(__AVX512F__)
    return acc + (ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return acc + (ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    return acc + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}
static inline floats load_halves(const uint16_t *p) {
#if defined(__AVX512F__)
    return (floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__AVX2__)
    return (floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    floats v = {0};
    for (int i = 0; i < LANES; i++) v[i] = kv_f16_to_f32(p[i]);
    return v;
#endif
}

float KV_ISA_NAME(kv_integers)(int32_t *code, const float *x, size_t n, float scale) {
    if (!code) {
        float top[LANES] = {0}, largest = 0;
        for (size_t i = 0; i < n; i++) {
            float v = fabsf(x[i]);
            top[i % LANES] = v > top[i % LANES] ? v : top[i % LANES];
        }
        for (int i = 0; i < LANES; i++) largest = top[i] > largest ? top[i] : largest;
        return largest / 32767.0f;
    }
    // Adding and taking away 1.5 x 2^23 rounds to nearest in every lane.
    float inverse = scale > 0 ? 1 / scale : 0;
    for (size_t i = 0; i < n; i++) {
        float y = x[i] * inverse + 12582912.0f;
        code[i] = (int32_t)(y - 12582912.0f);
    }
    return scale;
}

static inline __attribute__((always_inline)) void gemv_packed(const struct kv_weights *w,
                                                              const struct kv_activation *a,
                                                              size_t first, size_t end, float *y,
                                                              int bits) {
    enum { PARTS = KV_ROW_TILE / LANES };
    const int half = 16 / bits;
    size_t groups = w->cols / KV_WEIGHT_GROUP, bytes = kv_group_bytes((unsigned)bits);
    const ints mask = (ints){0} + (int)(((1u << bits) - 1) * 0x10001u);
    for (size_t r = first; r < end; r += KV_ROW_TILE) {
        const uint8_t *group = (const uint8_t *)w->data + r / KV_ROW_TILE * groups * bytes;
        floats sum[PARTS] = {0};
        for (size_t g = 0; g < groups; g++, group += bytes) {
            const int32_t *pair = a->pair + g * KV_WEIGHT_GROUP / 2;
            const uint16_t *scale = (const uint16_t *)(group + bits * KV_ROW_TILE * 4);
            for (size_t p = 0; p < PARTS; p++) {
                ints acc[2] = {(ints){0} - a->sum[g] * (1 << (bits - 1)), {0}};
                for (int k = 0; k < bits; k++) {
                    words v = *(const words *)((const uint32_t *)group + (size_t)k * KV_ROW_TILE +
                                               p * LANES);
                    for (int i = 0; i < half; i++)
                        acc[i & 1] = dot_pairs(acc[i & 1], (ints)(v >> bits * i) & mask,
                                               (ints){0} + pair[k * half + i]);
                }
                sum[p] += __builtin_convertvector(acc[0] + acc[1], floats) *
                          load_halves(scale + p * LANES);
            }
        }
        for (size_t p = 0; p < PARTS; p++) *(floats *)(y + r + p * LANES) = sum[p] * a->scale;
    }
}

void KV_ISA_NAME(kv_gemv_q8)(const struct kv_weights *w, const struct kv_activation *a,
                             size_t first, size_t end, float *y) {
    gemv_packed(w, a, first, end, y, 8);
}
void KV_ISA_NAME(kv_gemv_q4)(const struct kv_weights *w, const struct kv_activation *a,
                             size_t first, size_t end, float *y) {
    gemv_packed(w, a, first, end, y, 4);
}

uint64_t KV_ISA_NAME(kv_read)(const void *p, size_t n) {
    enum { STREAM = 64 / (LANES * 4) * 4 }; // vectors of four cache lines
    const words *v = p;
    words x[STREAM] = {0};
    size_t n_vectors = n / sizeof *v;
    for (size_t i = 0; i + STREAM <= n_vectors; i += STREAM)
        for (size_t k = 0; k < STREAM; k++) x[k] ^= v[i + k];
    uint64_t sum = 0;
    for (size_t k = 0; k < STREAM; k++)
        for (int i = 0; i < LANES; i++) sum ^= (uint64_t)x[k][i] << (i % 2 * 32);
    return sum;
}
