// SPDX-License-Identifier: Apache-2.0
// The rate of float32 and bf16 products on a GPU, the ceiling of what engine/ does: the best of
// three large square ones, and those of a layer's shapes in pieces of as many rows as the engine's.
//
// usage: kvsim-cuda-rate [ROWS N K]...      prints TFLOP/s, a multiplication and an addition two
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

static void need(int code, const char *what) {
    if (code == 0) return;
    fprintf(stderr, "kvsim-cuda-rate: %s failed with %d\n", what, code);
    exit(1);
}

// Numbers like activations': a chip that multiplies zeros draws less and clocks higher.
__global__ static void fill(uint32_t *x, size_t n, bool bf16) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        uint32_t r = (uint32_t)i * 2654435761u, draw = (r ^ r >> 15) * 2246822519u;
        float f = (float)(draw >> 8) / 16777216.0f - 0.5f;
        uint32_t u = __float_as_uint(f);
        x[i] = bf16 ? (u & 0xFFFF0000u) | u >> 16 : u;
    }
}

static double rate(cublasHandle_t blas, bool bf16, int rows, int n, int k, int times) {
    void *x, *w;
    float *y, one = 1, zero = 0;
    float ms = 0;
    cudaEvent_t from, to;
    need(cudaMalloc(&x, 4ull * rows * k) || cudaMalloc(&w, 4ull * n * k) ||
             cudaMalloc(&y, 4ull * rows * n),
         "allocation");
    fill<<<1024, 256>>>((uint32_t *)x, (size_t)rows * k, bf16);
    fill<<<1024, 256>>>((uint32_t *)w, (size_t)n * k, bf16);
    need(cudaGetLastError(), "a kernel");
    need(cudaEventCreate(&from) || cudaEventCreate(&to), "cudaEventCreate");
    for (int i = 0; i <= times; i++) {
        if (i == 1) cudaEventRecord(from);
        if (bf16)
            need(cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, n, rows, k, &one, w, CUDA_R_16BF, k, x,
                              CUDA_R_16BF, k, &zero, y, CUDA_R_32F, n, CUBLAS_COMPUTE_32F,
                              CUBLAS_GEMM_DEFAULT),
                 "cublasGemmEx");
        else
            need(cublasSgemm(blas, CUBLAS_OP_T, CUBLAS_OP_N, n, rows, k, &one, (float *)w, k,
                             (float *)x, k, &zero, y, n),
                 "cublasSgemm");
    }
    cudaEventRecord(to);
    need(cudaEventSynchronize(to), "a product");
    cudaEventElapsedTime(&ms, from, to);
    cudaEventDestroy(from), cudaEventDestroy(to);
    cudaFree(x), cudaFree(w), cudaFree(y);
    return 2e-9 * rows * n * k * times / ms;
}

int main(int argc, char **argv) {
    cublasHandle_t blas;
    need(cublasCreate(&blas), "cublasCreate");
    for (int bf16 = 0; bf16 < 2; bf16++) {
        double best = 0;
        for (int i = 0; i < 3; i++) {
            double r = rate(blas, bf16, 8192, 8192, 8192, 5);
            best = r > best ? r : best;
        }
        printf("%s 8192 8192 8192 %.2f\n", bf16 ? "bf16" : "f32", best);
    }
    for (int i = 1; i + 2 < argc; i += 3) {
        int rows = atoi(argv[i]), n = atoi(argv[i + 1]), k = atoi(argv[i + 2]);
        printf("f32 %d %d %d %.2f\n", rows, n, k, rate(blas, false, rows, n, k, 20));
    }
    return 0;
}
