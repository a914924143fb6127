// SPDX-License-Identifier: Apache-2.0
// The launch that codes all branches of a batch, and what the device holds for it.
#include "sim/cuda/formats/rows.cuh"

#include <stdlib.h>

enum { THREADS = 256, ROOM = 200 * 1024 }; // shared memory that one block may have

struct KvFormats {
    kv_plain_format *plain; // on the device
    float *turns;
    float *zeros; // [rows][n_kv_heads][zero_floats], grown as batches ask
    size_t has_zeros;
    uint32_t n_layers, head_dim, n_positions, kv_dim, n_kv_heads, unit_values, centred, zero_floats;
};

// The threads of a block, in teams of a warp; blockIdx.y of gridDim.y shares a branch.
struct KvBlock {
    KV_MEMBER uint32_t thread() const { return own(0); }
    KV_MEMBER uint32_t threads() const { return own(1); }
    KV_MEMBER uint32_t part() const { return own(2); }
    KV_MEMBER uint32_t parts() const { return own(3); }
    KV_MEMBER uint32_t team_index() const { return own(0) / 32; }
    KV_MEMBER uint32_t teams() const { return own(1) / 32; }
    KV_MEMBER KvWarp team() const { return KvWarp(); }
    KV_MEMBER void sync() const {
#ifdef __CUDA_ARCH__
        __syncthreads();
#endif
    }
    KV_MEMBER void count(uint32_t *n) const {
#ifdef __CUDA_ARCH__
        atomicAdd(n, 1u);
#endif
    }
    KV_MEMBER void add(unsigned long long *n, uint32_t by) const {
#ifdef __CUDA_ARCH__
        atomicAdd(n, (unsigned long long)by);
#endif
    }

  private:
    KV_MEMBER uint32_t own(int what) const {
#ifdef __CUDA_ARCH__
        return what == 0   ? threadIdx.x
               : what == 1 ? blockDim.x
               : what == 2 ? blockIdx.y
                           : gridDim.y;
#else
        return (uint32_t)what & 0u;
#endif
    }
};

__global__ static void code_branches(KvFormats held, KvCode job, const KvBranch *branches) {
    extern __shared__ float memory[];
    const KvBranch branch = branches[blockIdx.x];
    const float *turns =
        held.turns ? held.turns + (size_t)job.layer * held.n_positions * held.head_dim : nullptr;
    kv_code_branch(KvBlock(), job, held.plain + branch.format, turns, branch, held.unit_values,
                   held.centred != 0, memory);
}

int kv_cuda_hold_formats(KvFormats **out, const kv_plain_format *plain, uint32_t n,
                         const float *turns, uint32_t n_positions) {
    KvFormats *h = (KvFormats *)calloc(1, sizeof *h);
    if (!h) return cudaErrorMemoryAllocation;
    h->n_layers = plain->n_layers;
    h->head_dim = plain->head_dim;
    h->kv_dim = plain->n_kv_heads * plain->head_dim;
    h->n_positions = n_positions;
    h->n_kv_heads = plain->n_kv_heads;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t values = kv_team_floats(&plain[i]), zeros = kv_zero_floats(&plain[i]);
        h->unit_values = values > h->unit_values ? values : h->unit_values;
        h->zero_floats = zeros > h->zero_floats ? zeros : h->zero_floats;
        h->centred |= plain[i].centred[0] | plain[i].centred[1] | plain[i].tensor;
    }
    size_t bytes = (size_t)h->n_layers * n_positions * h->head_dim * sizeof *turns;
    cudaError_t rc = cudaMalloc(&h->plain, n * sizeof *plain);
    if (!rc) rc = cudaMemcpy(h->plain, plain, n * sizeof *plain, cudaMemcpyHostToDevice);
    if (!rc && turns) rc = cudaMalloc(&h->turns, bytes);
    if (!rc && turns) rc = cudaMemcpy(h->turns, turns, bytes, cudaMemcpyHostToDevice);
    if (!rc)
        rc = cudaFuncSetAttribute(code_branches, cudaFuncAttributeMaxDynamicSharedMemorySize, ROOM);
    if (rc) {
        kv_cuda_free_formats(h);
        return rc;
    }
    *out = h;
    return 0;
}

void kv_cuda_free_formats(KvFormats *h) {
    if (!h) return;
    cudaFree(h->plain);
    cudaFree(h->turns);
    cudaFree(h->zeros);
    free(h);
}

static int make_zeros(KvFormats *h, const KvCode *job) {
    size_t n = (size_t)job->rows * h->n_kv_heads * h->zero_floats;
    if (h->zero_floats == 0 || n <= h->has_zeros) return 0;
    cudaFree(h->zeros);
    h->zeros = nullptr, h->has_zeros = 0;
    cudaError_t rc = cudaMalloc(&h->zeros, n * sizeof *h->zeros);
    if (rc == 0) h->has_zeros = n;
    return rc;
}

// As many teams as share a block's memory, and as many blocks a branch as have something to do.
int kv_cuda_code_rows(KvFormats *h, const KvCode *asked, const KvBranch *branches,
                      uint32_t n_branches, cudaStream_t stream) {
    uint32_t teams = THREADS / 32;
    const bool tallied = asked->tally != nullptr;
    if (n_branches == 0) return 0;
    int rc = h->zero_floats && asked->rows == 0 ? cudaErrorInvalidValue : make_zeros(h, asked);
    if (rc) return rc;
    KvCode job = *asked;
    job.zeros = h->zeros;
    while (teams > 1 &&
           kv_rows_room(h->kv_dim, h->unit_values, teams, h->centred, tallied) > ROOM / 3)
        teams /= 2;
    uint32_t rows = job.longest ? job.longest : 512, parts = (rows + 127) / 128;
    size_t room = kv_rows_room(h->kv_dim, h->unit_values, teams, h->centred, tallied);
    code_branches<<<dim3(n_branches, parts < 64 ? parts : 64), 32 * teams, room, stream>>>(
        *h, job, branches);
    return cudaGetLastError();
}

int kv_cuda_code(KvFormats *held, uint32_t layer, int side, const float *x, float *y,
                 const uint8_t *cells, const KvBranch *branches, uint32_t n_branches,
                 cudaStream_t stream) {
    KvCode job = {};
    job.layer = layer;
    job.side = side;
    job.x = x;
    job.y = y;
    job.cells = cells;
    return kv_cuda_code_rows(held, &job, branches, n_branches, stream);
}
