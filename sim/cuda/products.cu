// SPDX-License-Identifier: Apache-2.0
// Matrix products of recordings and exact replays on an NVIDIA GPU, by cuBLAS in float32 (no TF32):
// build/libkvsim-cublas.so, which `--compute cublas` loads. A thread has its own stream, handle and
// page-locked buffers, so that copies of one overlap products of others. For one GPU model and
// cuBLAS the same product gives the same bits.
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

extern "C" {
#include "sim/model/accelerator.h"
}
#include "sim/cuda/back_cublas.cuh"

#ifndef KV_PRODUCTS_NAME // what a run's arithmetic is called
#define KV_PRODUCTS_NAME "cublas"
#endif

namespace {

struct Held {
    const float *host;
    size_t n;
    float *device;
};
std::vector<Held> held; // by host address; changes only before products begin
char hardware[320] = "a GPU";

struct Lane {
    cudaStream_t stream = nullptr;
    cublasHandle_t handle = nullptr;
    float *in_host = nullptr, *in = nullptr, *out_host = nullptr, *out = nullptr;
    size_t in_room = 0, out_room = 0;
    ~Lane() {
        if (handle) cublasDestroy(handle);
        if (stream) cudaStreamDestroy(stream);
        cudaFreeHost(in_host), cudaFreeHost(out_host);
        cudaFree(in), cudaFree(out);
    }
};

const char *failed(cudaError_t code) {
    return code == cudaSuccess ? nullptr : cudaGetErrorString(code);
}
const char *failed(cublasStatus_t code) {
    return code == CUBLAS_STATUS_SUCCESS ? nullptr : cublasGetStatusString(code);
}
#define TRY(call)                                                                                  \
    do {                                                                                           \
        if (const char *text = failed(call)) {                                                     \
            snprintf(why, room, "%s", text);                                                       \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

int grow(float **host, float **device, size_t *has, size_t n, char *why, size_t room) {
    if (n <= *has) return 0;
    n += n / 4;
    cudaFreeHost(*host), cudaFree(*device);
    *host = *device = nullptr;
    *has = 0;
    TRY(cudaMallocHost(reinterpret_cast<void **>(host), n * sizeof(float)));
    TRY(cudaMalloc(reinterpret_cast<void **>(device), n * sizeof(float)));
    *has = n;
    return 0;
}

// Products are the first GPU's, also in a thread that ran a pass on another.
constexpr int DEVICE = 0;

int start(char *why, size_t room) {
    cudaDeviceProp p;
    int version = 0;
    TRY(cudaSetDevice(DEVICE));
    TRY(cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync)); // more threads than cores wait here
    TRY(cudaGetDeviceProperties(&p, DEVICE));
    cublasHandle_t handle;
    TRY(cublasCreate(&handle));
    TRY(cublasGetVersion(handle, &version));
    TRY(cublasDestroy(handle));
    snprintf(hardware, sizeof hardware, "%s, cuBLAS %d.%d.%d", p.name, version / 10000,
             version / 100 % 100, version % 100);
    return 0;
}

int hold(const float *w, size_t n) {
    Held h = {w, n, nullptr};
    if (cudaSetDevice(DEVICE) != cudaSuccess ||
        cudaMalloc(reinterpret_cast<void **>(&h.device), n * sizeof(float)) != cudaSuccess ||
        cudaMemcpy(h.device, w, n * sizeof(float), cudaMemcpyHostToDevice) != cudaSuccess)
        return 1;
    held.insert(std::upper_bound(held.begin(), held.end(), h,
                                 [](const Held &a, const Held &b) { return a.host < b.host; }),
                h);
    return 0;
}

const float *find(const float *w) {
    auto at = std::upper_bound(held.begin(), held.end(), w,
                               [](const float *p, const Held &h) { return p < h.host; });
    if (at == held.begin() || w >= at[-1].host + at[-1].n) return nullptr;
    return at[-1].device + (w - at[-1].host);
}

int multiply(bool transposed, size_t rows, size_t n, size_t k, const float *x, const float *w,
             float *y, char *why, size_t room) {
    thread_local Lane lane;
    const float one = 1, zero = 0, *weights = find(w);
    if (!weights) {
        snprintf(why, room, "the matrix was never handed over");
        return 1;
    }
    TRY(cudaSetDevice(DEVICE));
    if (!lane.handle) {
        TRY(cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking));
        TRY(cublasCreate(&lane.handle));
        TRY(cublasSetStream(lane.handle, lane.stream));
    }
    if (grow(&lane.in_host, &lane.in, &lane.in_room, rows * k, why, room) ||
        grow(&lane.out_host, &lane.out, &lane.out_room, rows * n, why, room))
        return 1;
    memcpy(lane.in_host, x, rows * k * sizeof(float));
    TRY(cudaMemcpyAsync(lane.in, lane.in_host, rows * k * sizeof(float), cudaMemcpyHostToDevice,
                        lane.stream));
    // Row-major y = x op(w) is column-major y^T = op(w)^T x^T.
    TRY(cublasSgemm(lane.handle, transposed ? CUBLAS_OP_T : CUBLAS_OP_N, CUBLAS_OP_N,
                    static_cast<int>(n), static_cast<int>(rows), static_cast<int>(k), &one, weights,
                    static_cast<int>(transposed ? k : n), lane.in, static_cast<int>(k), &zero,
                    lane.out, static_cast<int>(n)));
    TRY(cudaMemcpyAsync(lane.out_host, lane.out, rows * n * sizeof(float), cudaMemcpyDeviceToHost,
                        lane.stream));
    TRY(cudaStreamSynchronize(lane.stream));
    memcpy(y, lane.out_host, rows * n * sizeof(float));
    return 0;
}

#ifndef KV_EMULATED
// Out of memory for an item is not the device's end: the host goes back over it.
int back(const kv_back_job *job, char *why, size_t room) {
    thread_local Lane lane;
    thread_local BackRooms rooms;
    TRY(cudaSetDevice(DEVICE));
    if (!lane.handle) {
        TRY(cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking));
        TRY(cublasCreate(&lane.handle));
        TRY(cublasSetStream(lane.handle, lane.stream));
    }
    CublasBack on{lane.stream, lane.handle, rooms, find};
    int rc = kv_back_run(on, job);
    if (rc == 1) snprintf(why, room, "%s", on.what ? on.what : "no reason is known");
    return rc;
}
#endif

void stop(void) {
    for (const Held &h : held) cudaFree(h.device);
    held.clear();
}

const kv_accelerator cublas = {KV_ACCELERATOR_ABI, KV_PRODUCTS_NAME, hardware, 16384, start, hold,
                               multiply,           stop,             back};

} // namespace

extern "C" const struct kv_accelerator *kv_accelerator_entry(uint32_t abi) {
    return abi == KV_ACCELERATOR_ABI ? &cublas : nullptr;
}
