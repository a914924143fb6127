// SPDX-License-Identifier: Apache-2.0
// Searches for numbers that are not finite, block by block so that compilers make vectors of them.
#include "sim/base/finite.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 256 };
static const uint32_t f32_exponent = 0x7F800000;
static const uint16_t f16_exponent = 0x7C00, bf16_exponent = 0x7F80;

static bool is_odd(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & f32_exponent) == f32_exponent;
}

size_t kv_find_not_finite(const float *x, size_t n) {
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        uint32_t any = 0;
        for (size_t k = 0; k < BLOCK; k++) any |= is_odd(x[i + k]);
        if (any) break;
    }
    while (i < n && !is_odd(x[i])) i++;
    return i;
}

size_t kv_find_not_finite_f64(const double *x, size_t n) {
    size_t i = 0;
    while (i < n && isfinite(x[i])) i++;
    return i;
}

// A half of either kind is odd when all bits of its exponent are set.
static size_t find_half(const uint16_t *x, size_t n, uint16_t exponent) {
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        unsigned any = 0;
        for (size_t k = 0; k < BLOCK; k++) any |= (x[i + k] & exponent) == exponent;
        if (any) break;
    }
    while (i < n && (x[i] & exponent) != exponent) i++;
    return i;
}

size_t kv_find_not_finite_f16(const uint16_t *x, size_t n) {
    return find_half(x, n, f16_exponent);
}
size_t kv_find_not_finite_bf16(const uint16_t *x, size_t n) {
    return find_half(x, n, bf16_exponent);
}
