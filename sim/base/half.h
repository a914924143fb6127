// SPDX-License-Identifier: Apache-2.0
// Half floats.
#ifndef KV_BASE_HALF_H
#define KV_BASE_HALF_H

#include "policies/policy.h"

// IEEE binary16 and bfloat16, round to nearest even; NaN stays NaN, overflow becomes infinity.
uint16_t kv_f32_to_f16(float x);
float kv_f16_to_f32(uint16_t h);
uint16_t kv_f32_to_bf16(float x);
float kv_bf16_to_f32(uint16_t h);
// Arrays of n, on the fastest path of this machine; the same bits on each. (halves.c)
void kv_f32_to_f16_n(const float *x, uint16_t *h, size_t n);
void kv_f16_to_f32_n(const uint16_t *h, float *x, size_t n);

#endif
