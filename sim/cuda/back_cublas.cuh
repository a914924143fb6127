// SPDX-License-Identifier: Apache-2.0
// What the backward pass runs on where there is a GPU: a thread's stream, its memory by slot,
// cuBLAS. Included by products.cu, which has the lanes and the held matrices.
#ifndef KV_CUDA_BACK_CUBLAS_CUH
#define KV_CUDA_BACK_CUBLAS_CUH

#include "sim/cuda/back.cuh"

template <class F> __global__ void back_each(size_t n, F f) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        f(i);
}

template <class F> __global__ void back_teams(size_t n, F f) {
    size_t team = blockIdx.x * (size_t)(blockDim.x / 32) + threadIdx.x / 32;
    if (team < n) f(KvWarp(), team);
}

// Memory by slot, grown as items ask, and page-locked memory that copies pass through; a thread
// keeps them.
struct BackRooms {
    float *at[KV_BACK_SLOTS] = {};
    size_t has[KV_BACK_SLOTS] = {};
    float *staged = nullptr, *got = nullptr;
    size_t stage = 0, used = 0, room_of_got = 0; // used: floats on their way since the last wait
    ~BackRooms() {
        for (float *p : at) cudaFree(p);
        cudaFreeHost(staged), cudaFreeHost(got);
    }
};

struct CublasBack {
    using Team = KvWarp;
    cudaStream_t stream;
    cublasHandle_t handle;
    BackRooms &rooms;
    const float *(*find)(const float *);
    const char *what = nullptr; // the first that failed
    cudaError_t first = cudaSuccess;

    bool note(cudaError_t rc) {
        if (rc != cudaSuccess && !what) what = cudaGetErrorString(rc), first = rc;
        return rc == cudaSuccess;
    }
    int failed() const { return what != nullptr; }
    // Out of memory, which is forgotten by the device at once.
    bool full() const {
        if (first == cudaErrorMemoryAllocation) cudaGetLastError();
        return first == cudaErrorMemoryAllocation;
    }

    float *room(int slot, size_t n) {
        if (n > rooms.has[slot]) {
            wait();
            cudaFree(rooms.at[slot]);
            rooms.at[slot] = nullptr, rooms.has[slot] = 0;
            n += n / 4;
            if (note(cudaMalloc(reinterpret_cast<void **>(&rooms.at[slot]), n * sizeof(float))))
                rooms.has[slot] = n;
        }
        return rooms.at[slot];
    }
    bool wait() {
        rooms.used = 0;
        return note(cudaStreamSynchronize(stream));
    }
    bool lock(float **at, size_t *has, size_t n) {
        if (n <= *has) return true;
        cudaFreeHost(*at);
        *at = nullptr, *has = 0;
        if (!note(cudaMallocHost(reinterpret_cast<void **>(at), n * sizeof(float)))) return false;
        *has = n;
        return true;
    }
    float *up(int slot, const float *host, size_t n) {
        enum { STAGE = 8 << 20 }; // floats
        float *to = room(slot, n);
        if (!what && rooms.used + n > rooms.stage)
            if (wait())
                lock(&rooms.staged, &rooms.stage, n > STAGE ? n : static_cast<size_t>(STAGE));
        if (what) return to;
        float *from = rooms.staged + rooms.used;
        rooms.used += n;
        memcpy(from, host, n * sizeof(float));
        note(cudaMemcpyAsync(to, from, n * sizeof(float), cudaMemcpyHostToDevice, stream));
        return to;
    }
    uint32_t *place(const uint32_t *position, const uint32_t *begin, const uint32_t *counted,
                    size_t n) {
        auto *to = reinterpret_cast<uint32_t *>(room(KV_SLOT_PLACE, 3 * n));
        const uint32_t *from[] = {position, begin, counted};
        for (int i = 0; i < 3 && !what; i++)
            if (from[i])
                note(cudaMemcpyAsync(to + i * n, from[i], 4 * n, cudaMemcpyHostToDevice, stream));
        return to;
    }
    const float *down(const float *a, size_t n, const float *b, size_t m) {
        if (what) return nullptr;
        if (!lock(&rooms.got, &rooms.room_of_got, n + m)) return nullptr;
        note(cudaMemcpyAsync(rooms.got, a, n * sizeof(float), cudaMemcpyDeviceToHost, stream));
        note(cudaMemcpyAsync(rooms.got + n, b, m * sizeof(float), cudaMemcpyDeviceToHost, stream));
        return wait() ? rooms.got : nullptr;
    }
    void zero(float *to, size_t n) {
        if (!what) note(cudaMemsetAsync(to, 0, n * sizeof(float), stream));
    }
    template <class F> void each(size_t n, F f) {
        if (what || n == 0) return;
        size_t blocks = (n + 255) / 256;
        back_each<<<static_cast<unsigned>(blocks < 65536 ? blocks : 65536), 256, 0, stream>>>(n, f);
        note(cudaGetLastError());
    }
    template <class F> void teams(size_t n, F f) {
        if (what || n == 0) return;
        back_teams<<<static_cast<unsigned>((n + 7) / 8), 256, 0, stream>>>(n, f);
        note(cudaGetLastError());
    }
    void multiplied(cublasStatus_t rc) {
        if (rc != CUBLAS_STATUS_SUCCESS && !what) what = cublasGetStatusString(rc);
    }
    // dx[rows][n] = dy[rows][k] w[k][n].
    void product(size_t rows, size_t n, size_t k, const float *dy, const float *w, float *dx) {
        const float one = 1, zero_ = 0, *held_w = find(w);
        if (!held_w && !what) what = "the matrix was never handed over";
        if (what) return;
        multiplied(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, static_cast<int>(n),
                               static_cast<int>(rows), static_cast<int>(k), &one, held_w,
                               static_cast<int>(n), dy, static_cast<int>(k), &zero_, dx,
                               static_cast<int>(n)));
    }
    // c[m][n] = alpha op(a) op(b) + beta c, row-major, `count` of them.
    void batched(size_t count, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha,
                 const float *a, KvSteps sa, size_t lda, const float *b, KvSteps sb, size_t ldb,
                 float beta, float *c, KvSteps sc, size_t ldc) {
        auto **list = reinterpret_cast<const float **>(room(KV_SLOT_POINTERS, 6 * count));
        each(count, [=] __host__ __device__(size_t i) {
            list[i] = a + sa.c + i / sa.n * sa.a + i % sa.n * sa.b + i % sa.n / sa.group * sa.e;
            list[count + i] =
                b + sb.c + i / sb.n * sb.a + i % sb.n * sb.b + i % sb.n / sb.group * sb.e;
            list[2 * count + i] =
                c + sc.c + i / sc.n * sc.a + i % sc.n * sc.b + i % sc.n / sc.group * sc.e;
        });
        if (what) return;
        // Row-major products are column-major ones of what is turned over, in the other order.
        multiplied(cublasSgemmBatched(
            handle, tb ? CUBLAS_OP_T : CUBLAS_OP_N, ta ? CUBLAS_OP_T : CUBLAS_OP_N,
            static_cast<int>(n), static_cast<int>(m), static_cast<int>(k), &alpha, list + count,
            static_cast<int>(ldb), list, static_cast<int>(lda), &beta,
            const_cast<float **>(list + 2 * count), static_cast<int>(ldc),
            static_cast<int>(count)));
    }
};

#endif
