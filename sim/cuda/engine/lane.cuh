// SPDX-License-Identifier: Apache-2.0
// A stream of work on one GPU with memory of its own: what a batch needs, kept from batch to batch.
#ifndef KV_CUDA_ENGINE_LANE_CUH
#define KV_CUDA_ENGINE_LANE_CUH

#include "sim/cuda/engine/pieces.cuh"

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

// A matrix of weights [n][k]: as float32, as bf16, or as bf16 pieces (pieces.cuh).
struct KvWeights {
    const float *f32 = nullptr;
    const __nv_bfloat16 *bf16 = nullptr, *pieces = nullptr;
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
    struct { // of cells that are decided on the way
        KvBuffer<kv_engine_decision> decisions;
        KvBuffer<kv_cells_memory> memory;
        KvBuffer<uint8_t> widths;
        KvBuffer<uint32_t> no_number;
        KvBuffer<float> known, coded_k, coded_v, error, fact, seen, scan;
    } decided;
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
        const char *names[] = {"copies", "rows", "products", "decisions", "codes", "attention", "scores"};
        for (int i = 0; i < PHASES; i++) fprintf(stderr, "%s %.3f s\n", names[i], spent[i]);
#endif
        kv_cuda_free_formats(formats);
        if (blas) cublasDestroy(blas);
        if (stream) cudaStreamDestroy(stream);
    }

    // Built with -DKV_TIMED, each phase is waited for and its seconds are said at the end.
    enum Phase { COPIES, ROWS, PRODUCTS, DECISIONS, CODES, ATTENTION, SCORES, PHASES };
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

    // y[rows][n] = x[rows][k] w[n][k]^T, `step` rows at a time (rows is a multiple): the same product
    // always has the same shape.
    void product(const KvWeights &w, const float *from, size_t rows, size_t n, size_t k, float *y,
                 size_t step) {
        const float one = 1, zero = 0;
        for (size_t at = 0; at < rows; at += step) {
            const float *x = from + at * k;
            float *to = y + at * n;
            if (w.f32)
                kv_try(cublasSgemm(blas, CUBLAS_OP_T, CUBLAS_OP_N, (int)n, (int)step, (int)k, &one, w.f32,
                                   (int)k, x, (int)k, &zero, to, (int)n));
            else if (w.bf16)
                product_bf16(w.bf16, narrowed(x, step, k, false), n, step, k, k, 0, to);
            else {
                const size_t wide = KV_PIECES * k, chunk = KV_PIECES * kv_chunk(k);
                const __nv_bfloat16 *cut = narrowed(x, step, k, true);
                for (size_t c = 0; c < wide; c += chunk)
                    product_bf16(w.pieces + c, cut + c, n, step, chunk, wide, c > 0, to);
            }
        }
    }

  private:
    // y = x w^T + keep y over k columns of rows `pitch` apart, summed in float32.
    void product_bf16(const __nv_bfloat16 *w, const __nv_bfloat16 *x, size_t n, size_t rows, size_t k,
                      size_t pitch, float keep, float *y) {
        const float one = 1;
        kv_try(cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, (int)n, (int)rows, (int)k, &one, w, CUDA_R_16BF,
                            (int)pitch, x, CUDA_R_16BF, (int)pitch, &keep, y, CUDA_R_32F, (int)n,
                            CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    }
    const __nv_bfloat16 *narrowed(const float *from, size_t rows, size_t k, bool pieces) {
        __nv_bfloat16 *to = narrow.room(rows * k * (pieces ? KV_PIECES : 1));
        if (pieces)
            kv_cut_all(from, rows, k, true, to, stream);
        else
            kv_narrow_all(from, rows * k, to, stream);
        return to;
    }
};

#endif
