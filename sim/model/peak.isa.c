// SPDX-License-Identifier: Apache-2.0
// Multiplies and adds in registers, once a CPU level.
#include "sim/base/isa.h"

#include <stddef.h>

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32 };
#else
enum { VECTOR_BYTES = 16 };
#endif
typedef float vector __attribute__((vector_size(VECTOR_BYTES)));

// As many sums as hide the latency of one: 4 or 5 cycles, two a cycle. Returns what keeps the
// compiler from leaving the work out.
float KV_ISA_NAME(kv_peak)(size_t rounds, float start, size_t *operations);
float KV_ISA_NAME(kv_peak)(size_t rounds, float start, size_t *operations) {
    enum { SUMS = 10 };
    const vector by = start + (vector){0}, more = by;
    vector a = by, b = by + 1, c = by + 2, d = by + 3, f = by + 4, g = by + 5, h = by + 6,
           i = by + 7, j = by + 8, k = by + 9;
    for (size_t r = 0; r < rounds; r++) {
        a = a * by + more, b = b * by + more, c = c * by + more, d = d * by + more;
        f = f * by + more, g = g * by + more, h = h * by + more, i = i * by + more;
        j = j * by + more, k = k * by + more;
    }
    *operations = rounds * SUMS * 2 * (VECTOR_BYTES / sizeof(float));
    const vector sum = a + b + c + d + f + g + h + i + j + k;
    return sum[0];
}
