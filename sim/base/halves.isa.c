// SPDX-License-Identifier: Apache-2.0
// fp16 arrays, with the CPU's own conversion where it has one (same bits as half.c).
#include "sim/base/isa.h"
#include "sim/base/half.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

void KV_ISA_NAME(kv_f32_to_f16_n)(const float *x, uint16_t *h, size_t n);
void KV_ISA_NAME(kv_f16_to_f32_n)(const uint16_t *h, float *x, size_t n);

void KV_ISA_NAME(kv_f32_to_f16_n)(const float *x, uint16_t *h, size_t n) {
    size_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(h + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), 0));
#endif
    for (; i < n; i++) h[i] = kv_f32_to_f16(x[i]);
}

void KV_ISA_NAME(kv_f16_to_f32_n)(const uint16_t *h, float *x, size_t n) {
    size_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(h + i))));
#endif
    for (; i < n; i++) x[i] = kv_f16_to_f32(h[i]);
}
