// SPDX-License-Identifier: Apache-2.0
// What a GPU can do at most, and how much of it the products of `--compute cublas` reach: copies on the
// device and over the bus, float32 products that stay there, the engine's of bf16 pieces with their error, and products that
// come from the host and go back, through the library as kvsim loads it. `make bench` runs it where there is a GPU.
// Usage: kvsim-cuda-limits LIBRARY
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "sim/cuda/engine/lane.cuh"

extern "C" {
#include "sim/model/accelerator.h"
}
#include "sim/test/figure.h"

enum { ROWS = 1024, OUT = 3072, IN = 576, SIDE = 4096, PASSES = 20 };

static void check(bool good, const char *what) {
    if (good) return;
    std::fprintf(stderr, "kvsim-cuda-limits: %s failed\n", what);
    std::exit(1);
}

static double now_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// Seconds of one call, the best of several after one that warms.
template <typename Call> static double best_s(Call call) {
    double best = 1e30;
    for (int pass = 0; pass <= PASSES; pass++) {
        double start = now_s();
        call();
        check(cudaDeviceSynchronize() == cudaSuccess, "a call");
        double took = now_s() - start;
        if (pass && took < best) best = took;
    }
    return best;
}

// Relative RMS error of a sample of x w^T, against sums in double precision.
static double error_of(const std::vector<float> &x, const std::vector<float> &w, size_t rows, size_t n,
                       size_t k, const float *on_device) {
    std::vector<float> y(rows * n);
    check(cudaMemcpy(y.data(), on_device, y.size() * sizeof(float), cudaMemcpyDeviceToHost) == cudaSuccess,
          "a copy");
    double error = 0, all = 0;
    for (size_t r = 0; r < rows; r += rows / 16)
        for (size_t c = 0; c < n; c += n / 64) {
            double sum = 0;
            for (size_t i = 0; i < k; i++) sum += (double)x[r * k + i] * w[c * k + i];
            error += (y[r * n + c] - sum) * (y[r * n + c] - sum), all += sum * sum;
        }
    return std::sqrt(error / all);
}

// The engine's float32 products of bf16 pieces beside cuBLAS's own, at the shapes of a layer of SmolLM2-135M
// and, longest, of Qwen2.5-0.5B.
static void pieces() {
    const size_t rows = 8192, shapes[][2] = {{960, 576}, {3072, 576}, {576, 1536}, {896, 4864}};
    std::mt19937 draw(1);
    std::normal_distribution<float> normal;
    KvLane lane;
    for (auto &shape : shapes) {
        const size_t n = shape[0], k = shape[1];
        std::vector<float> x(rows * k), w(n * k);
        for (float &v : x) v = normal(draw);
        for (float &v : w) v = normal(draw);
        KvBuffer<float> weights, input, output;
        KvBuffer<__nv_bfloat16> cut;
        const KvWeights plain = {weights.take(w.data(), w.size(), lane.stream), nullptr, nullptr},
                        held = {nullptr, nullptr, cut.room(w.size() * KV_PIECES)};
        input.take(x.data(), x.size(), lane.stream);
        kv_cut_all(weights.room(w.size()), n, k, false, cut.room(w.size() * KV_PIECES), lane.stream);
        float *y = output.room(rows * n);
        double rate[2], error[2];
        for (int i = 0; i < 2; i++) {
            rate[i] = 2e-9 * rows * n * k / best_s([&] {
                          lane.product(i ? held : plain, input.room(x.size()), rows, n, k, y, rows);
                      });
            error[i] = error_of(x, w, rows, n, k, y);
        }
        std::printf("%zu x %zu x %zu: float32 products %.0f GFLOP/s, error %.1e; of bf16 pieces, cutting "
                    "included, %.0f GFLOP/s, error %.1e\n",
                    rows, n, k, rate[0], error[0], rate[1], error[1]);
        bench_figure(rate[1], "GFLOP/s", "cuBLAS's float32 product of that shape", rate[0],
                     "GPU: product of bf16 pieces, %zu x %zu x %zu", rows, n, k);
    }
}

int main(int argc, char **argv) {
    int devices = 0;
    if (argc != 2 || cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::fprintf(stderr, argc == 2 ? "kvsim-cuda-limits: no CUDA device is here\n"
                                       : "usage: kvsim-cuda-limits LIBRARY\n");
        return argc == 2 ? 1 : 2;
    }
    const size_t bytes = (size_t)512 << 20, n = (size_t)SIDE * SIDE;
    char *a, *b, *host;
    check(cudaMalloc(&a, bytes) == cudaSuccess && cudaMalloc(&b, bytes) == cudaSuccess &&
              cudaMallocHost(&host, bytes) == cudaSuccess,
          "taking memory");
    check(cudaMemset(a, 0, bytes) == cudaSuccess && cudaMemset(b, 0, bytes) == cudaSuccess,
          "clearing memory");
    std::memset(host, 0, bytes);
    // A copy reads and writes: both count.
    double device = 2e-9 * bytes / best_s([&] { cudaMemcpy(b, a, bytes, cudaMemcpyDeviceToDevice); });
    double bus = 1e-9 * bytes / best_s([&] { cudaMemcpy(a, host, bytes, cudaMemcpyHostToDevice); });

    cublasHandle_t handle;
    const float one = 1, zero = 0;
    float *x = (float *)a, *y = (float *)b, *z = x + n;
    check(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS, "cuBLAS");
    double sgemm = 2e-9 * SIDE * n / best_s([&] {
                       check(cublasSgemm(handle, CUBLAS_OP_T, CUBLAS_OP_N, SIDE, SIDE, SIDE, &one, x,
                                         SIDE, y, SIDE, &zero, z, SIDE) == CUBLAS_STATUS_SUCCESS,
                             "a product");
                   });
    double shaped = 2e-9 * ROWS * OUT * IN / best_s([&] {
                        check(cublasSgemm(handle, CUBLAS_OP_T, CUBLAS_OP_N, OUT, ROWS, IN, &one, x,
                                          IN, y, IN, &zero, z, OUT) == CUBLAS_STATUS_SUCCESS,
                              "a product");
                    });
    std::printf("copy on the device %.0f GB/s, from pinned host memory %.1f GB/s; float32 products "
                "%.0f GFLOP/s, of %d x %d x %d %.0f GFLOP/s\n",
                device, bus, sgemm, ROWS, OUT, IN, shaped);
    bench_figure(bus, "GB/s", "a copy on the device", device, "GPU: copy from the host");
    bench_figure(shaped, "GFLOP/s", "a product of 4096^3", sgemm, "GPU: product of %d x %d x %d",
                 ROWS, OUT, IN);

    pieces();
    void *library = dlopen(argv[1], RTLD_NOW);
    kv_accelerator_entry_fn *entry = nullptr;
    void *symbol = library ? dlsym(library, "kv_accelerator_entry") : nullptr;
    std::memcpy(&entry, &symbol, sizeof entry);
    const struct kv_accelerator *how = entry ? entry(KV_ACCELERATOR_ABI) : nullptr;
    char why[256] = "it cannot be loaded";
    if (!how || how->start(why, sizeof why)) {
        std::fprintf(stderr, "kvsim-cuda-limits: %s: %s\n", argv[1], why);
        return 1;
    }
    std::vector<float> w((size_t)OUT * IN, 1), in((size_t)ROWS * IN, 1), out((size_t)ROWS * OUT);
    check(how->hold(w.data(), w.size()) == 0, "holding weights");
    double there_and_back = 2e-9 * ROWS * OUT * IN / best_s([&] {
                                check(how->multiply(true, ROWS, OUT, IN, in.data(), w.data(),
                                                    out.data(), why, sizeof why) == 0,
                                      "a product of the library");
                            });
    std::printf("the same from the host and back, by %s: %.0f GFLOP/s\n", how->name, there_and_back);
    bench_figure(there_and_back, "GFLOP/s", "the same on the device", shaped,
                 "GPU: --compute %s, there and back", how->name);
    how->stop();
    return 0;
}
