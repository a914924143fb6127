// SPDX-License-Identifier: Apache-2.0
// 16-bit floats, in plain C: the judge that faster paths must equal.
#include "sim/base/half.h"

static uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

uint16_t kv_f32_to_f16(float x) {
    uint32_t u = bits_of(x), sign = (u >> 16) & 0x8000u, a = u & 0x7FFFFFFFu;
    if (a > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00u | ((a >> 13) & 0x1FFu)); // NaN, payload kept
    if (a >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);      // rounds to infinity
    if (a < 0x38800000u) { // subnormal half: adding 0.5 aligns the rounding to its last place
        uint32_t r = bits_of(float_of(a) + 0.5f) - 0x3F000000u;
        return (uint16_t)(sign | r);
    }
    uint32_t odd = (a >> 13) & 1u;
    return (uint16_t)(sign | ((a - 0x38000000u + 0xFFFu + odd) >> 13));
}

float kv_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, a = h & 0x7FFFu;
    if (a >= 0x7C00u) return float_of(sign | 0x7F800000u | (a & 0x3FFu) << 13);
    if (a >= 0x0400u) return float_of(sign | ((a << 13) + 0x38000000u));
    float x = (float)a * 0x1p-24f;
    return sign ? -x : x;
}

uint16_t kv_f32_to_bf16(float x) {
    uint32_t u = bits_of(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

float kv_bf16_to_f32(uint16_t h) {
    return float_of((uint32_t)h << 16);
}
