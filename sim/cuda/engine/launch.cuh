// SPDX-License-Identifier: Apache-2.0
// What kernels and their host need of CUDA, or of the test that stands in for it (test/emulate.h).
#ifndef KV_CUDA_ENGINE_LAUNCH_CUH
#define KV_CUDA_ENGINE_LAUNCH_CUH

#ifndef KV_EMULATED // else test/emulate.h came first
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define KV_LAUNCH(kernel, grid, block, bytes, stream, ...)                                         \
    kernel<<<grid, block, bytes, stream>>>(__VA_ARGS__)
#define KV_SHARED_FLOATS(name) extern __shared__ float name[]
#endif

#include <math.h>
#include <stdint.h>

#include "sim/cuda/formats/formats.cuh"
#include "sim/cuda/formats/unit.cuh"

extern "C" {
#include "sim/model/engine.h"
}

#ifdef KV_EMULATED
int kv_cuda_hold_formats(KvFormats **held, const kv_plain_format *plain, uint32_t n,
                         const float *turns, uint32_t n_positions);
void kv_cuda_free_formats(KvFormats *held);
int kv_cuda_code_rows(KvFormats *held, const KvCode *job, const KvBranch *branches,
                      uint32_t n_branches, cudaStream_t stream);
#endif

// Sum, or the largest, over a block of whole warps; every thread gets it. room: [33].
template <class T> __device__ inline T kv_block_sum(T v, T *room) {
    for (int i = 16; i; i >>= 1) v += __shfl_xor_sync(0xFFFFFFFFu, v, i);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
    __syncthreads();
    T sum = 0;
    for (unsigned i = 0; i < blockDim.x / 32; i++) sum += room[i];
    __syncthreads();
    return sum;
}
__device__ inline float kv_block_most(float v, float *room) {
    for (int i = 16; i; i >>= 1) v = fmaxf(v, __shfl_xor_sync(0xFFFFFFFFu, v, i));
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
    __syncthreads();
    float most = room[0];
    for (unsigned i = 1; i < blockDim.x / 32; i++) most = fmaxf(most, room[i]);
    __syncthreads();
    return most;
}

#endif
