// SPDX-License-Identifier: Apache-2.0
// Sums and a small net, written so that a compiler lays them across lanes.
#include "sim/base/isa.h"
#include "sim/cache/controller_isa.h"

enum { LANES = 16 };

float KV_ISA_NAME(kv_dot)(const float *a, const float *b, size_t n) {
    float lane[4][LANES] = {{0}}, sum = 0;
    size_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (size_t k = 0; k < 4; k++)
            for (size_t j = 0; j < LANES; j++)
                lane[k][j] += a[i + k * LANES + j] * b[i + k * LANES + j];
    for (size_t j = 0; j < LANES; j++) sum += lane[0][j] + lane[1][j] + lane[2][j] + lane[3][j];
    for (; i < n; i++) sum += a[i] * b[i];
    return sum;
}

float KV_ISA_NAME(kv_error)(const float *m, const float *x, const float *y, size_t n) {
    float lane[LANES] = {0}, sum = 0;
    for (size_t i = 0; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            float e = x[i + j] - y[i + j];
            lane[j] += m[i + j] * e * e;
        }
    for (size_t j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}

void KV_ISA_NAME(kv_range)(const float *x, size_t n, float range[2]) {
    float low[LANES], high[LANES];
    for (size_t j = 0; j < LANES; j++) low[j] = high[j] = x[j];
    for (size_t i = LANES; i < n; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
            high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
        }
    range[0] = low[0];
    range[1] = high[0];
    for (size_t j = 1; j < LANES; j++) {
        range[0] = low[j] < range[0] ? low[j] : range[0];
        range[1] = high[j] > range[1] ? high[j] : range[1];
    }
}

// Sixteen numbers, which a compiler keeps in one register or several.
typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t ints __attribute__((vector_size(LANES * sizeof(float))));
enum { VECTORS = KV_NET_WIDTH / LANES };

// x / (1 + exp(-x)) in place, with exp by 2^n times the Taylor polynomial of degree 6: relative
// error below 1e-6, which a choice among six widths does not see.
static inline void silu(vec *x) {
    vec z = -*x;
    ints over = z > 87.0f, under = z < -87.0f;
    z = (vec)(((ints)(z - z + 87.0f) & over) | ((ints)(z - z - 87.0f) & under) |
              ((ints)z & ~over & ~under));
    // The bits of 1.5 2^23 + n hold n to nearest in the lowest ones.
    const float shift = 12582912.0f;
    vec rounded = z * 1.44269504f + shift, n = rounded - shift;
    vec r = z - n * 0.693359375f + n * 2.12194440e-4f;
    vec y = r * (1.0f / 720) + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    ints two = (__builtin_convertvector(n, ints) + 127) << 23;
    *x = *x / (1.0f + y * (vec)two);
}

// y += columns of w times x, by two chains for each vector.
static inline void multiply(const float *w, const float *x, size_t n, vec *y) {
    vec odd[VECTORS] = {{0}};
    for (size_t i = 0; i < n; i += 2)
        for (size_t k = 0; k < VECTORS; k++) {
            vec a, b;
            memcpy(&a, w + i * KV_NET_WIDTH + k * LANES, sizeof a);
            memcpy(&b, w + (i + 1) * KV_NET_WIDTH + k * LANES, sizeof b);
            y[k] += a * x[i];
            odd[k] += b * x[i + 1];
        }
    for (size_t k = 0; k < VECTORS; k++) y[k] += odd[k];
}

float KV_ISA_NAME(kv_net)(const struct kv_width_net *net, const float *constant, const float *x) {
    vec a[VECTORS], b[VECTORS], third[VECTORS], total = {0};
    float hidden[KV_NET_WIDTH], sum = net->third_bias;
    memcpy(a, constant, sizeof a);
    memcpy(b, net->second_bias, sizeof b);
    memcpy(third, net->third, sizeof third);
    multiply(net->first[0], x, KV_N_CELL_FEATURES, a);
    for (size_t k = 0; k < VECTORS; k++) silu(&a[k]);
    memcpy(hidden, a, sizeof hidden);
    multiply(net->second[0], hidden, KV_NET_WIDTH, b);
    for (size_t k = 0; k < VECTORS; k++) {
        silu(&b[k]);
        total += b[k] * third[k];
    }
    for (size_t j = 0; j < LANES; j++) sum += total[j];
    return sum;
}
