// SPDX-License-Identifier: Apache-2.0
// Products of a recorded gradient and a coding error, in fixed lanes: the order of the sums, and so
// their bits, is the same wherever they are made, and compilers can use vectors.
#ifndef KV_TRACES_PRODUCTS_H
#define KV_TRACES_PRODUCTS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { KV_SUM_LANES = 8 };

static inline float kv_sum_lanes(const float x[KV_SUM_LANES]) {
    return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7]));
}

static inline float kv_wide_bf16(uint16_t h) { // bf16 is float32's upper half
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// Of a gradient g[d] in bf16 and an error e[d]: g . e, sum of (g_i e_i)^2, |g|^2.
struct kv_products {
    float dot, squares, gradient;
};
static inline struct kv_products kv_gradient_products(const uint16_t *g, const float *e, size_t d) {
    float dot[KV_SUM_LANES] = {0}, squares[KV_SUM_LANES] = {0}, gradient[KV_SUM_LANES] = {0};
    for (size_t i = 0; i + KV_SUM_LANES <= d; i += KV_SUM_LANES)
        for (size_t j = 0; j < KV_SUM_LANES; j++) {
            float x = kv_wide_bf16(g[i + j]), product = x * e[i + j];
            dot[j] += product;
            squares[j] += product * product;
            gradient[j] += x * x;
        }
    for (size_t i = d / KV_SUM_LANES * KV_SUM_LANES; i < d; i++) {
        float x = kv_wide_bf16(g[i]), product = x * e[i];
        dot[0] += product;
        squares[0] += product * product;
        gradient[0] += x * x;
    }
    return (struct kv_products){kv_sum_lanes(dot), kv_sum_lanes(squares), kv_sum_lanes(gradient)};
}

// |x|^2
static inline float kv_square(const float *x, size_t d) {
    float s[KV_SUM_LANES] = {0};
    for (size_t i = 0; i + KV_SUM_LANES <= d; i += KV_SUM_LANES)
        for (size_t j = 0; j < KV_SUM_LANES; j++) s[j] += x[i + j] * x[i + j];
    for (size_t i = d / KV_SUM_LANES * KV_SUM_LANES; i < d; i++) s[0] += x[i] * x[i];
    return kv_sum_lanes(s);
}

// sum of m_i x_i^2: where all m are 1, the bits of kv_square
static inline float kv_square_by_channel(const float *m, const float *x, size_t d) {
    float s[KV_SUM_LANES] = {0};
    for (size_t i = 0; i + KV_SUM_LANES <= d; i += KV_SUM_LANES)
        for (size_t j = 0; j < KV_SUM_LANES; j++) s[j] += m[i + j] * (x[i + j] * x[i + j]);
    for (size_t i = d / KV_SUM_LANES * KV_SUM_LANES; i < d; i++) s[0] += m[i] * (x[i] * x[i]);
    return kv_sum_lanes(s);
}

// sum of (x_i y_i)^2
static inline float kv_weighted_square(const float *x, const float *y, size_t d) {
    float s[KV_SUM_LANES] = {0};
    size_t i = 0;
    for (; i + KV_SUM_LANES <= d; i += KV_SUM_LANES)
        for (size_t j = 0; j < KV_SUM_LANES; j++) {
            float product = x[i + j] * y[i + j];
            s[j] += product * product;
        }
    for (; i < d; i++) {
        float product = x[i] * y[i];
        s[0] += product * product;
    }
    return kv_sum_lanes(s);
}

#endif
