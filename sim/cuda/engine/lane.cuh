// SPDX-License-Identifier: Apache-2.0
// A stream of work on one GPU with memory of its own: what a batch needs, kept from batch to batch.
#ifndef KV_CUDA_ENGINE_LANE_CUH
#define KV_CUDA_ENGINE_LANE_CUH

#include "sim/cuda/engine/launch.cuh"

#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

inline void kv_try(cudaError_t code) {
    if (code != cudaSuccess) throw std::runtime_error(cudaGetErrorString(code));
}
inline void kv_try(cublasStatus_t code) {
    if (code != CUBLAS_STATUS_SUCCESS) throw std::runtime_error(cublasGetStatusString(code));
}

// Device memory that grows.
template <class T> class KvBuffer {
  public:
    KvBuffer() = default;
    KvBuffer(const KvBuffer &) = delete;
    KvBuffer &operator=(const KvBuffer &) = delete;
    ~KvBuffer() { cudaFree(at_); }
    T *room(size_t n) {
        if (n > n_) {
            cudaFree(at_);
            at_ = nullptr, n_ = 0;
            kv_try(cudaMalloc((void **)&at_, n * sizeof(T)));
            n_ = n;
        }
        return at_;
    }
    T *take(const T *from, size_t n, cudaStream_t stream) {
        T *to = room(n ? n : 1);
        if (n) kv_try(cudaMemcpyAsync(to, from, n * sizeof(T), cudaMemcpyHostToDevice, stream));
        return to;
    }
    T *zeros(size_t n, cudaStream_t stream) {
        T *to = room(n ? n : 1);
        kv_try(cudaMemsetAsync(to, 0, (n ? n : 1) * sizeof(T), stream));
        return to;
    }

  private:
    T *at_ = nullptr;
    size_t n_ = 0;
};

// A matrix of weights, float32 or bf16.
struct KvWeights {
    const float *f32 = nullptr;
    const __nv_bfloat16 *bf16 = nullptr;
};

struct KvLane {
    cudaStream_t stream = nullptr;
    cublasHandle_t blas = nullptr;
    KvFormats *formats = nullptr;
    KvBuffer<uint32_t> ids, position, stored_as, upto, run, copied, scored, bad, top;
    KvBuffer<uint8_t> flags, cells, not_finite;
    KvBuffer<kv_engine_branch> branches;
    KvBuffer<kv_engine_tile> tiles;
    KvBuffer<kv_engine_target> targets;
    KvBuffer<unsigned long long> tally;
    KvBuffer<float> x, norm, qkv, q, k_raw, k, v, k_exact, v_exact, k_coded, v_coded, mixed, delta,
        gateup, act, references, state, reference_logits, logits, likeliest;
    KvBuffer<double> log_z, sum_p, kl, log_ratio, logprob;
    KvBuffer<__nv_bfloat16> narrow;

    KvLane() {
        kv_try(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        kv_try(cublasCreate(&blas));
        kv_try(cublasSetStream(blas, stream));
    }
    KvLane(const KvLane &) = delete;
    KvLane &operator=(const KvLane &) = delete;
    ~KvLane() {
#ifdef KV_TIMED
        const char *names[] = {"copies", "rows", "products", "codes", "attention", "scores"};
        for (int i = 0; i < PHASES; i++) fprintf(stderr, "%s %.3f s\n", names[i], spent[i]);
#endif
        kv_cuda_free_formats(formats);
        if (blas) cublasDestroy(blas);
        if (stream) cudaStreamDestroy(stream);
    }

    // Built with -DKV_TIMED, each phase is waited for and its seconds are said at the end.
    enum Phase { COPIES, ROWS, PRODUCTS, CODES, ATTENTION, SCORES, PHASES };
#ifdef KV_TIMED
    double spent[PHASES] = {}, since = now();
    static double now() {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
            .count();
    }
    void begin() { since = now(); }
    void phase(Phase p) {
        kv_try(cudaStreamSynchronize(stream));
        double t = now();
        spent[p] += t - since;
        since = t;
    }
#else
    void begin() {}
    void phase(Phase) {}
#endif

    void hold(const kv_plain_format *plain, uint32_t n, const float *turns, uint32_t n_positions) {
        kv_cuda_free_formats(formats);
        formats = nullptr;
        kv_try((cudaError_t)kv_cuda_hold_formats(&formats, plain, n, turns, n_positions));
    }

    // y[rows][n] = x[rows][k] w[n][k]^T in pieces of `piece` rows (rows is a multiple): the same
    // product always has the same shape.
    void product(const KvWeights &w, const float *from, size_t rows, size_t n, size_t k, float *y,
                 size_t piece) {
        const float one = 1, zero = 0;
        for (size_t at = 0; at < rows; at += piece)
            if (w.f32)
                kv_try(cublasSgemm(blas, CUBLAS_OP_T, CUBLAS_OP_N, (int)n, (int)piece, (int)k, &one,
                                   w.f32, (int)k, from + at * k, (int)k, &zero, y + at * n, (int)n));
            else
                kv_try(cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, (int)n, (int)piece, (int)k, &one,
                                    w.bf16, CUDA_R_16BF, (int)k, narrowed(from + at * k, piece * k),
                                    CUDA_R_16BF, (int)k, &zero, y + at * n, CUDA_R_32F, (int)n,
                                    CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    }

  private:
    const __nv_bfloat16 *narrowed(const float *from, size_t n);
};

__global__ void kv_narrow(const float *x, size_t n, __nv_bfloat16 *y) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        y[i] = __float2bfloat16(x[i]);
}

// Rounds n numbers to bf16.
inline void kv_narrow_all(const float *from, size_t n, __nv_bfloat16 *to, cudaStream_t stream) {
#ifdef KV_EMULATED // a thread costs more than its numbers there
    const dim3 grid(1);
#else
    const dim3 grid(1024);
#endif
    KV_LAUNCH(kv_narrow, grid, dim3(256), 0, stream, from, n, to);
}

inline const __nv_bfloat16 *KvLane::narrowed(const float *from, size_t n) {
    __nv_bfloat16 *to = narrow.room(n);
    kv_narrow_all(from, n, to, stream);
    return to;
}

#endif
