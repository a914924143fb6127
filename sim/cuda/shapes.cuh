// SPDX-License-Identifier: Apache-2.0
// Shapes of models, and memory for their weights.
#ifndef KV_SHAPES_CUH
#define KV_SHAPES_CUH

#include "kernels.cuh"

struct shape {
    const char *name;
    int layers, heads, kv_heads, hidden, ffn, vocab;
};

static const shape shapes[] = {
    {"135m", 30, 9, 3, 576, 1536, 49152},
    {"360m", 32, 15, 5, 960, 2560, 49152},
    {"1.7b", 24, 32, 32, 2048, 8192, 49152},
};
static const shape small_group = {"check3", 2, 6, 2, 384, 512, 512};
static const shape small_single = {"check1", 2, 4, 4, 256, 768, 512};

static size_t qkv_rows(const shape &s) {
    return (size_t)(s.heads + 2 * s.kv_heads) * DIM;
}

static __nv_bfloat16 *new_weights(size_t rows, size_t cols, uint64_t seed) {
    __nv_bfloat16 *w;
    CHECK(cudaMalloc(&w, rows * cols * sizeof *w));
    fill_weights<<<2048, 256>>>(w, rows * cols, seed << 40, sqrtf(3.0f / (float)cols));
    return w;
}

static float *new_floats(size_t n) {
    float *x;
    CHECK(cudaMalloc(&x, n * sizeof *x));
    CHECK(cudaMemset(x, 0, n * sizeof *x));
    return x;
}

#endif
