// SPDX-License-Identifier: Apache-2.0
// Numbers for the tensor cores, which multiply bf16 exactly and sum in float32.
//
// A float32 is the sum of three bf16, its *pieces* a1 + a2 + a3, each the rounded rest (8 of its 24 bits). Of the nine
// products of a b the six largest are kept; what is left out is below 2^-22 of a b (Henry, Tang and Heinecke 2019,
// arXiv 1904.06376). Rows are stored so that one product sums all six, small ones first:
//     x: [a3 a2 a1 a2 a1 a1]    w: [b1 b2 b3 b1 b2 b1]
// Sums of tensor cores are cut off, not rounded, and drift as they grow: a row longer than KV_CHUNK stands as chunks, each
// with its six pieces, whose sums are added in float32 as it rounds.
#ifndef KV_CUDA_ENGINE_PIECES_CUH
#define KV_CUDA_ENGINE_PIECES_CUH

#include "sim/cuda/engine/launch.cuh"

enum { KV_PIECES = 6, KV_CHUNK = 1024 };

#ifdef KV_EMULATED // a thread costs more than its numbers there
constexpr unsigned KV_STREAM_BLOCKS = 1, KV_CUT_THREADS = 1;
#else
constexpr unsigned KV_STREAM_BLOCKS = 1024, KV_CUT_THREADS = 128;
#endif

// Columns of a chunk: the largest multiple of 8 that divides k and is no larger than KV_CHUNK; 0: none does.
inline uint32_t kv_chunk(size_t k) {
    for (uint32_t c = KV_CHUNK; c; c -= 8)
        if (k % c == 0) return c;
    return 0;
}

__global__ void kv_narrow(const float *x, size_t n, __nv_bfloat16 *y) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        y[i] = __float2bfloat16(x[i]);
}

// Rounds n numbers to bf16.
inline void kv_narrow_all(const float *from, size_t n, __nv_bfloat16 *to, cudaStream_t stream) {
    KV_LAUNCH(kv_narrow, dim3(KV_STREAM_BLOCKS), dim3(256), 0, stream, from, n, to);
}

struct alignas(8) KvFour {
    __nv_bfloat16 at[4];
};

// A block a row.
__global__ void kv_cut(const float *x, uint32_t k, uint32_t chunk, bool left, __nv_bfloat16 *y) {
    const float *from = x + (size_t)blockIdx.x * k;
    __nv_bfloat16 *row = y + (size_t)blockIdx.x * k * KV_PIECES;
    for (uint32_t i = 4 * threadIdx.x; i < k; i += 4 * blockDim.x) {
        const float4 all = *(const float4 *)(from + i);
        const float rest_of[4] = {all.x, all.y, all.z, all.w};
        KvFour a[3];
        for (int j = 0; j < 4; j++) {
            float rest = rest_of[j];
            for (int p = 0; p < 3; p++) {
                a[p].at[j] = __float2bfloat16(rest);
                rest -= __bfloat162float(a[p].at[j]);
            }
        }
        const uint32_t column = i % chunk;
        KvFour *to = (KvFour *)(row + (size_t)(i - column) * KV_PIECES + column);
        const uint32_t next = chunk / 4;
        to[0] = a[left ? 2 : 0];
        to[next] = a[1];
        to[2 * next] = a[left ? 0 : 2];
        to[3 * next] = a[left ? 1 : 0];
        to[4 * next] = a[left ? 0 : 1];
        to[5 * next] = a[0];
    }
}

// The pieces of rows of k numbers, [rows][k / chunk][6][chunk]; left: of what is multiplied by weights, else of weights.
inline void kv_cut_all(const float *from, size_t rows, size_t k, bool left, __nv_bfloat16 *to,
                       cudaStream_t stream) {
    KV_LAUNCH(kv_cut, dim3((unsigned)rows), dim3(KV_CUT_THREADS), 0, stream, from, (uint32_t)k, kv_chunk(k), left, to);
}

#endif
