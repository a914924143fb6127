// SPDX-License-Identifier: Apache-2.0
// Whether numbers are finite: asked before they meet any arithmetic, since a maximum, a clamp or a
// fast exponential may turn NaN into a number that looks like one.
#ifndef KV_BASE_FINITE_H
#define KV_BASE_FINITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Index of the first of x[n] that is NaN or infinite; n when all are finite.
size_t kv_find_not_finite(const float *x, size_t n);
size_t kv_find_not_finite_f64(const double *x, size_t n);
size_t kv_find_not_finite_f16(const uint16_t *x, size_t n);
size_t kv_find_not_finite_bf16(const uint16_t *x, size_t n);

static inline bool kv_all_finite(const float *x, size_t n) {
    return kv_find_not_finite(x, n) == n;
}

// x, and 0 where rounding made it less; NaN stays NaN, which fmax would make 0.
static inline double kv_not_negative(double x) {
    return x < 0 ? 0 : x;
}

#endif
