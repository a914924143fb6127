// SPDX-License-Identifier: Apache-2.0
// The product kernels of gemv.isa.c by CPU level, and the layout they share.
#ifndef KV_CACHE_GEMV_ISA_H
#define KV_CACHE_GEMV_ISA_H

#include "sim/cache/gemv.h"

#define KV_ROW_TILE 16
#define KV_WEIGHT_GROUP 32

static inline size_t kv_group_bytes(unsigned bits) {
    return bits * KV_ROW_TILE * 4 + KV_ROW_TILE * 2;
}

typedef void kv_gemv_fn(const struct kv_weights *w, const struct kv_activation *a, size_t first,
                        size_t end, float *y);
kv_gemv_fn kv_gemv_f32_base, kv_gemv_f32_avx2, kv_gemv_f32_avx512;
kv_gemv_fn kv_gemv_bf16_base, kv_gemv_bf16_avx2, kv_gemv_bf16_avx512;
kv_gemv_fn kv_gemv_q8_base, kv_gemv_q8_avx2, kv_gemv_q8_avx512;
kv_gemv_fn kv_gemv_q4_base, kv_gemv_q4_avx2, kv_gemv_q4_avx512;

// Largest |x| / 32767 when code is NULL; else code = x / scale to nearest, and returns scale.
#define KV_INTEGERS 256
typedef float kv_integers_fn(int32_t *code, const float *x, size_t n, float scale);
kv_integers_fn kv_integers_base, kv_integers_avx2, kv_integers_avx512;

// Reads n bytes (a multiple of 64) and returns their exclusive or: a streaming read and nothing
// else, for the bandwidth beside the kernels.
typedef uint64_t kv_read_fn(const void *p, size_t n);
kv_read_fn kv_read_base, kv_read_avx2, kv_read_avx512;

#endif
