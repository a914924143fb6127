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

// x / (1 + exp(-x)), with exp by 2^n times the Taylor polynomial of degree 6: relative error below
// 1e-6, which a choice among six widths does not see.
static inline float silu(float x) {
    float z = -x > 87.0f ? 87.0f : -x < -87.0f ? -87.0f : -x;
    float n = (float)(int)(z * 1.44269504f + (z < 0 ? -0.5f : 0.5f));
    float r = z - n * 0.693359375f + n * 2.12194440e-4f;
    float y =
        1 + r * (1 + r * (0.5f +
                          r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
    union {
        int i;
        float f;
    } two = {.i = ((int)n + 127) * (1 << 23)};
    return x / (1 + y * two.f);
}

float KV_ISA_NAME(kv_net)(const struct kv_net *net, const float *constant, const float *x) {
    float a[KV_NET_WIDTH], b[KV_NET_WIDTH];
    memcpy(a, constant, sizeof a);
    for (size_t i = 0; i < KV_N_CELL_FEATURES; i++)
        for (size_t j = 0; j < KV_NET_WIDTH; j++) a[j] += net->first[i][j] * x[i];
    for (size_t j = 0; j < KV_NET_WIDTH; j++) a[j] = silu(a[j]);
    memcpy(b, net->second_bias, sizeof b);
    for (size_t i = 0; i < KV_NET_WIDTH; i++)
        for (size_t j = 0; j < KV_NET_WIDTH; j++) b[j] += net->second[i][j] * a[i];
    for (size_t j = 0; j < KV_NET_WIDTH; j++) b[j] = silu(b[j]) * net->third[j];
    float lane[LANES] = {0}, sum = net->third_bias;
    for (size_t i = 0; i < KV_NET_WIDTH; i += LANES)
        for (size_t j = 0; j < LANES; j++) lane[j] += b[i + j];
    for (size_t j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}
