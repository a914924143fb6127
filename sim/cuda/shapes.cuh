// SPDX-License-Identifier: Apache-2.0
// Shapes of models, and memory for their weights.
#ifndef KV_SHAPES_CUH
#define KV_SHAPES_CUH

#include "kernels.cuh"

struct shape {
    const char *name;
    int layers, heads, kv_heads, hidden, ffn, vocab, head_dim;
};

static const shape shapes[] = {
    {"135m", 30, 9, 3, 576, 1536, 49152, 64},
    {"360m", 32, 15, 5, 960, 2560, 49152, 64},
    {"1.7b", 24, 32, 32, 2048, 8192, 49152, 64},
    {"qwen2.5-0.5b", 24, 14, 2, 896, 4864, 151936, 64},
    {"qwen2.5-1.5b", 28, 12, 2, 1536, 8960, 151936, 128},
    {"gemma-3-270m", 18, 4, 1, 640, 2048, 262144, 256},
};
static const shape small_group = {"check3", 2, 6, 2, 384, 512, 512, 64};
static const shape small_single = {"check1", 2, 4, 4, 256, 768, 512, 64};
// Each kernel of attention, in one part and in several, even and overlapping.
static const shape small_shapes[] = {
    small_group,
    small_single,
    {"check7", 2, 14, 2, 448, 512, 512, 64},
    {"check80", 2, 4, 2, 320, 512, 512, 80},
    {"check80single", 2, 2, 2, 256, 512, 512, 80},
    {"check96", 2, 3, 1, 288, 512, 512, 96},
    {"check96single", 2, 3, 3, 288, 512, 512, 96},
    {"check128", 2, 12, 2, 512, 512, 512, 128},
    {"check128single", 2, 2, 2, 256, 512, 512, 128},
    {"check256", 2, 4, 1, 512, 512, 512, 256},
    {"check256single", 2, 1, 1, 256, 512, 512, 256},
};

static size_t qkv_rows(const shape &s) {
    return (size_t)(s.heads + 2 * s.kv_heads) * s.head_dim;
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
