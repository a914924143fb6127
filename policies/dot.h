// SPDX-License-Identifier: Apache-2.0
// A product of vectors in plain C, in sums that a compiler may lay across lanes.
#ifndef KV_POLICIES_DOT_H
#define KV_POLICIES_DOT_H

#include <stddef.h>

static inline float kv_dot(const float *a, const float *b, size_t n) {
    enum { LANES = 16 };
    float lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) lane[j] += a[i + j] * b[i + j];
    for (size_t j = 0; j < LANES; j++) sum += lane[j];
    for (; i < n; i++) sum += a[i] * b[i];
    return sum;
}

#endif
