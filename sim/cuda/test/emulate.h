// SPDX-License-Identifier: Apache-2.0
// As much of CUDA and cuBLAS as the engine uses, on one CPU thread, so that its kernels are tested
// where there is no GPU: blocks one after another, a block's threads as fibres that take turns at
// barriers and shuffles. Products are plain loops. Slow, and right.
#ifndef KV_CUDA_TEST_EMULATE_H
#define KV_CUDA_TEST_EMULATE_H

#define KV_EMULATED

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <vector>

#define __global__ static
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct float4 {
    float x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

// ---- a block of threads ---------------------------------------------------------------

struct KvFibres {
    enum State { READY, WAITING, DONE };
    struct Fibre {
        ucontext_t
            at; // where it begins; from then on it goes by jumps, which ask nothing of the kernel
        jmp_buf paused;
        bool begun;
        State state;
        std::vector<char> stack;
    };
    jmp_buf scheduler;
    std::vector<Fibre> all;
    unsigned now = 0;
    union {
        float f;
        double d;
    } lane[1024];
    void (*body)(void *) = nullptr;
    void *self = nullptr;
};
static KvFibres kv_fibres;
static dim3 threadIdx, blockIdx, blockDim, gridDim;
static std::vector<float> kv_emulated_memory;
#define KV_SHARED_FLOATS(name) float *name = kv_emulated_memory.data()

static inline void kv_pause(KvFibres::State as) {
    KvFibres::Fibre &f = kv_fibres.all[kv_fibres.now];
    f.state = as;
    if (!_setjmp(f.paused)) _longjmp(kv_fibres.scheduler, 1);
}
static inline void __syncthreads() {
    kv_pause(KvFibres::WAITING);
}
static inline void __syncwarp() {
    kv_pause(KvFibres::READY);
}
// Lanes of a warp go in step from pause to pause, since they take the same path.
static inline float __shfl_xor_sync(unsigned, float v, int mask) {
    unsigned i = threadIdx.x;
    kv_fibres.lane[i].f = v;
    kv_pause(KvFibres::READY);
    float got = kv_fibres.lane[i ^ (unsigned)mask].f;
    kv_pause(KvFibres::READY);
    return got;
}
static inline double __shfl_xor_sync(unsigned, double v, int mask) {
    unsigned i = threadIdx.x;
    kv_fibres.lane[i].d = v;
    kv_pause(KvFibres::READY);
    double got = kv_fibres.lane[i ^ (unsigned)mask].d;
    kv_pause(KvFibres::READY);
    return got;
}

static void kv_fibre_main() {
    kv_fibres.body(kv_fibres.self);
    kv_pause(KvFibres::DONE);
}

static inline void kv_resume(KvFibres::Fibre &f) {
    if (_setjmp(kv_fibres.scheduler)) return;
    if (f.begun) _longjmp(f.paused, 1);
    f.begun = true;
    setcontext(&f.at);
}

static inline void kv_run_block(unsigned threads) {
    KvFibres &k = kv_fibres;
    if (k.all.size() < threads) k.all.resize(threads);
    for (unsigned i = 0; i < threads; i++) {
        KvFibres::Fibre &f = k.all[i];
        if (f.stack.empty()) f.stack.resize(256 << 10);
        getcontext(&f.at);
        f.at.uc_stack.ss_sp = f.stack.data();
        f.at.uc_stack.ss_size = f.stack.size();
        f.at.uc_link = nullptr;
        f.begun = false;
        f.state = KvFibres::READY;
        makecontext(&f.at, kv_fibre_main, 0);
    }
    for (;;) {
        unsigned ran = 0, waiting = 0;
        for (unsigned i = 0; i < threads; i++) {
            if (k.all[i].state == KvFibres::WAITING) waiting++;
            if (k.all[i].state != KvFibres::READY) continue;
            k.now = i;
            threadIdx = dim3(i);
            kv_resume(k.all[i]);
            ran++;
        }
        if (ran) continue;
        if (!waiting) return;
        for (unsigned i = 0; i < threads; i++)
            if (k.all[i].state == KvFibres::WAITING) k.all[i].state = KvFibres::READY;
    }
}

template <class F> static void kv_emulate(dim3 grid, dim3 block, size_t bytes, F body) {
    kv_emulated_memory.assign(bytes / sizeof(float) + 1, NAN);
    kv_fibres.self = &body;
    kv_fibres.body = [](void *self) { (*static_cast<F *>(self))(); };
    gridDim = grid, blockDim = block;
    for (unsigned y = 0; y < grid.y; y++)
        for (unsigned x = 0; x < grid.x; x++) {
            blockIdx = dim3(x, y);
            kv_run_block(block.x);
        }
}
#define KV_LAUNCH(kernel, grid, block, bytes, stream, ...)                                         \
    (void)(stream), kv_emulate(grid, block, bytes, [&] { kernel(__VA_ARGS__); })

// ---- memory and streams: everything is the host's, and happens at once ----------------

typedef int cudaError_t;
typedef struct KvStream *cudaStream_t;
enum { cudaSuccess, cudaErrorMemoryAllocation };
enum { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum { cudaStreamNonBlocking, cudaDeviceScheduleBlockingSync };
struct cudaDeviceProp {
    char name[64];
    int major, minor;
};
static inline const char *cudaGetErrorString(cudaError_t) {
    return "out of memory";
}
static inline cudaError_t cudaMalloc(void **p, size_t n) {
    *p = malloc(n);
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
static inline cudaError_t cudaMallocHost(void **p, size_t n) {
    return cudaMalloc(p, n);
}
static inline cudaError_t cudaFree(void *p) {
    free(p);
    return cudaSuccess;
}
static inline cudaError_t cudaFreeHost(void *p) {
    return cudaFree(p);
}
template <class T> static inline cudaError_t cudaMalloc(T **p, size_t n) {
    return cudaMalloc((void **)p, n);
}
static inline cudaError_t cudaMemcpy(void *to, const void *from, size_t n, int) {
    memcpy(to, from, n);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, int, cudaStream_t) {
    return cudaMemcpy(to, from, n, 0);
}
static inline cudaError_t cudaMemsetAsync(void *to, int byte, size_t n, cudaStream_t) {
    memset(to, byte, n);
    return cudaSuccess;
}
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, int) {
    *s = nullptr;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t) {
    return cudaSuccess;
}
static inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return cudaSuccess;
}
static inline cudaError_t cudaDeviceSynchronize() {
    return cudaSuccess;
}
static inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
static inline cudaError_t cudaSetDevice(int) {
    return cudaSuccess;
}
static inline cudaError_t cudaSetDeviceFlags(int) {
    return cudaSuccess;
}
static inline cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    *free = *total = (size_t)1 << 40;
    return cudaSuccess;
}
static inline cudaError_t cudaGetDeviceCount(int *n) {
    *n = 1;
    return cudaSuccess;
}
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    *p = {"no GPU: kernels emulated", 9, 0};
    return cudaSuccess;
}

// ---- bf16 and products ----------------------------------------------------------------

struct __nv_bfloat16 {
    uint16_t bits;
};
static inline __nv_bfloat16 __float2bfloat16(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return {(uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16)};
}
static inline float __bfloat162float(__nv_bfloat16 x) {
    uint32_t u = (uint32_t)x.bits << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline float kv_wide(float x) {
    return x;
}
static inline float kv_wide(__nv_bfloat16 x) {
    return __bfloat162float(x);
}

enum cublasStatus_t { CUBLAS_STATUS_SUCCESS };
struct KvBlas {};
typedef KvBlas *cublasHandle_t;
enum { CUBLAS_OP_N, CUBLAS_OP_T };
enum { CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT };
static inline const char *cublasGetStatusString(cublasStatus_t) {
    return "failed";
}
static inline cublasStatus_t cublasCreate(cublasHandle_t *h) {
    static KvBlas one;
    *h = &one;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasDestroy(cublasHandle_t) {
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t) {
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasGetVersion(cublasHandle_t, int *v) {
    *v = 0;
    return CUBLAS_STATUS_SUCCESS;
}
// Column-major C[m][n] = op(A) B, as cuBLAS has it. Sixteen sums go side by side, each in the order
// of k.
template <class T>
static void kv_gemm(int op, int m, int n, int k, const T *a, int lda, const T *b, int ldb,
                    float keep, float *c, int ldc) {
    enum { ROWS = 16 };
    std::vector<float> rows((size_t)k * ROWS);
    for (int first = 0; first < m; first += ROWS) {
        const int here = m - first < ROWS ? m - first : ROWS;
        for (int r = 0; r < here; r++)
            for (int x = 0; x < k; x++)
                rows[(size_t)x * ROWS + r] =
                    kv_wide(op == CUBLAS_OP_T ? a[(size_t)(first + r) * lda + x]
                                              : a[(size_t)x * lda + first + r]);
        for (int j = 0; j < n; j++) {
            float sum[ROWS] = {};
            for (int x = 0; x < k; x++) {
                const float y = kv_wide(b[(size_t)j * ldb + x]), *row = &rows[(size_t)x * ROWS];
                for (int r = 0; r < ROWS; r++) sum[r] += row[r] * y;
            }
            for (int r = 0; r < here; r++) {
                float *to = c + (size_t)j * ldc + first + r;
                *to = keep == 0 ? sum[r] : sum[r] + keep * *to;
            }
        }
    }
}
static inline cublasStatus_t cublasSgemm(cublasHandle_t, int op, int, int m, int n, int k,
                                         const float *, const float *a, int lda, const float *b,
                                         int ldb, const float *keep, float *c, int ldc) {
    kv_gemm(op, m, n, k, a, lda, b, ldb, *keep, c, ldc);
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasGemmEx(cublasHandle_t, int op, int, int m, int n, int k,
                                          const float *, const __nv_bfloat16 *a, int, int lda,
                                          const __nv_bfloat16 *b, int, int ldb, const float *keep,
                                          float *c, int, int ldc, int, int) {
    kv_gemm(op, m, n, k, a, lda, b, ldb, *keep, c, ldc);
    return CUBLAS_STATUS_SUCCESS;
}

#endif
