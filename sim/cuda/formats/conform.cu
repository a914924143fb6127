// SPDX-License-Identifier: Apache-2.0
// kvsim-cuda-formats: the formats on this machine's GPU against those of sim/quant and the
// conformance vectors, and how fast they are beside a copy of the same bytes.
//
//     build/kvsim-cuda-formats [FOLDER]          FOLDER: sim/test/conformance, where nothing is
//     said
//
// Exit 0: every byte and every value is the same. 1: not, or no GPU.
#include "sim/cuda/formats/judge.cuh"

#define OR_END(call)                                                                               \
    do {                                                                                           \
        cudaError_t rc_ = (cudaError_t)(call);                                                     \
        if (rc_ != cudaSuccess) {                                                                  \
            fprintf(stderr, "kvsim-cuda-formats: %s: %s\n", #call, cudaGetErrorString(rc_));       \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

template <class T> struct device_array {
    T *at = nullptr;
    size_t n;
    device_array(const T *host, size_t count) : n(count) {
        OR_END(cudaMalloc(&at, (n ? n : 1) * sizeof(T)));
        if (host)
            OR_END(cudaMemcpy(at, host, n * sizeof(T), cudaMemcpyHostToDevice));
        else
            OR_END(cudaMemset(at, 0, n * sizeof(T)));
    }
    device_array(const device_array &) = delete;
    ~device_array() { cudaFree(at); }
    void read(T *host) { OR_END(cudaMemcpy(host, at, n * sizeof(T), cudaMemcpyDeviceToHost)); }
};

// A warp a unit, and its bytes.
__global__ static void code_units(const kv_plain_format *f, uint32_t side, uint32_t width, size_t n,
                                  float *x, uint8_t *code, uint8_t *bytes) {
    extern __shared__ float memory[];
    const kv_plain_width &w = f->at[side][width];
    uint8_t *own = (uint8_t *)(memory + w.values);
    for (size_t u = blockIdx.x; u < n; u += gridDim.x) {
        for (uint32_t i = threadIdx.x; i < w.values; i += 32) memory[i] = x[u * w.values + i];
        __syncwarp();
        kv_code_unit(KvWarp(), w, memory, own, bytes + u * w.bytes);
        __syncwarp();
        for (uint32_t i = threadIdx.x; i < w.values; i += 32) {
            x[u * w.values + i] = memory[i];
            code[u * w.values + i] = own[i];
        }
        __syncwarp();
    }
}

struct gpu {
    void units(const kv_plain_format &f, uint32_t side, uint32_t width, size_t n, const float *x,
               float *y, uint8_t *code, uint8_t *bytes) {
        const kv_plain_width &w = f.at[side][width];
        device_array<kv_plain_format> held(&f, 1);
        device_array<float> values(x, n * w.values);
        device_array<uint8_t> codes(nullptr, n * w.values), out(nullptr, n * w.bytes);
        OR_END(cudaFuncSetAttribute(code_units, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    64 * 1024));
        code_units<<<(unsigned)n, 32, w.values * 5 + 16>>>(held.at, side, width, n, values.at,
                                                           codes.at, out.at);
        OR_END(cudaDeviceSynchronize());
        values.read(y);
        codes.read(code);
        out.read(bytes);
    }
    void rows(const std::vector<kv_plain_format> &f, const std::vector<float> &turns,
              uint32_t positions, KvCode &job, const std::vector<KvBranch> &branches) {
        const size_t dim = (size_t)f[0].n_kv_heads * f[0].head_dim, n = job.rows * dim;
        device_array<float> x(job.x, n), opening(job.opening ? job.opening : job.x, n),
            y(nullptr, n);
        device_array<uint8_t> cells(job.cells,
                                    (size_t)job.rows * f[0].n_layers * f[0].n_kv_heads * 2);
        device_array<KvBranch> where(branches.data(), branches.size());
        device_array<uint32_t> bad(nullptr, 1);
        const size_t tallies = job.tally ? f.size() * KV_MAX_WIDTHS * 256 : 0;
        device_array<unsigned long long> tally(job.tally, tallies);
        KvFormats *held;
        OR_END(kv_cuda_hold_formats(&held, f.data(), (uint32_t)f.size(), turns.data(), positions));
        KvCode there = job;
        bool in_place = job.x == job.y; // a second coding of what was read
        there.x = x.at, there.y = in_place ? x.at : y.at, there.cells = cells.at;
        there.opening = opening.at, there.bad = bad.at;
        there.tally = job.tally ? tally.at : nullptr;
        OR_END(kv_cuda_code_rows(held, &there, where.at, (uint32_t)branches.size(), 0));
        OR_END(cudaDeviceSynchronize());
        (in_place ? x : y).read(job.y);
        bad.read(job.bad);
        if (job.tally) tally.read(job.tally);
        kv_cuda_free_formats(held);
    }
};

// ---- how fast
// ------------------------------------------------------------------------------------

template <class F> static double seconds_of(int times, F run) {
    cudaEvent_t from, to;
    float ms;
    OR_END(cudaEventCreate(&from));
    OR_END(cudaEventCreate(&to));
    run();
    OR_END(cudaEventRecord(from));
    for (int i = 0; i < times; i++) run();
    OR_END(cudaEventRecord(to));
    OR_END(cudaEventSynchronize(to));
    OR_END(cudaEventElapsedTime(&ms, from, to));
    OR_END(cudaEventDestroy(from));
    OR_END(cudaEventDestroy(to));
    return ms / 1e3 / times;
}

// A batch as the exact engine makes them: 2,400 runs of a context of 60 tokens and 4 choices of 20.
enum {
    RUNS = 2400,
    CONTEXT = 60,
    CHOICE = 20,
    RUN = CONTEXT + 4 * CHOICE,
    HEADS = 3,
    HEAD = 64,
    DIM = HEADS * HEAD
};

static void time_format(const char *text, const float *x, float *y, double copy) {
    KvOpened s(text, 1, HEADS, HEAD, KV_ORDER_GGML, 1e4, 128);
    if (!s.why.empty()) {
        fprintf(stderr, "%s\n", s.why.c_str());
        exit(1);
    }
    std::vector<uint8_t> width((size_t)RUNS * RUN * HEADS * 2);
    std::vector<KvBranch> branches;
    for (size_t i = 0; i < width.size(); i++)
        width[i] = (uint8_t)(s.plain.n_widths > 1 ? s.plain.n_widths - 2 : 0);
    for (uint32_t r = 0; r < RUNS; r++)
        for (uint32_t b = 0; b < 5; b++)
            branches.push_back(KvBranch{r * RUN + (b ? CONTEXT + (b - 1) * CHOICE : 0),
                                        b ? (uint32_t)CHOICE : (uint32_t)CONTEXT,
                                        b ? (uint32_t)CONTEXT : 0, 0, r * RUN, CONTEXT, 0});
    device_array<uint8_t> cells(width.data(), width.size());
    device_array<KvBranch> where(branches.data(), branches.size());
    device_array<unsigned long long> tally(nullptr, KV_MAX_WIDTHS * 256);
    KvFormats *held;
    OR_END(kv_cuda_hold_formats(&held, &s.plain, 1, s.turns.data(), 128));
    double t[2];
    for (int side = 0; side < 2; side++) {
        KvCode job = {};
        job.side = side, job.x = x, job.y = y, job.cells = cells.at, job.rows = RUNS * RUN;
        job.longest = CONTEXT;
        t[side] = seconds_of(s.plain.tensor ? 2 : 20, [&] {
            OR_END(kv_cuda_code_rows(held, &job, where.at, (uint32_t)branches.size(), 0));
        });
    }
    OR_END(cudaDeviceSynchronize());
    kv_cuda_free_formats(held);
    const double units = (double)RUNS * RUN * HEADS;
    printf("%-24s %10.3g %10.3g %10.2f %10.2f\n", text, units / t[0], units / t[1], copy / t[0],
           copy / t[1]);
}

static int time_all() {
    static const char *const timed[] = {"fp16",         "sym",      "asym",     "asym:group=16",
                                        "asym-zp",      "q8_0",     "q4_0",     "q4_1",
                                        "iq4_nl",       "nf4",      "fp8_e4m3", "kivi",
                                        "qaq",          "rotatekv", "turbo",    "hadamard(q4_0)",
                                        "center(asym)", "zipcache", "hqq"};
    const size_t n = (size_t)RUNS * RUN * DIM;
    std::vector<float> x(n);
    KvDice dice;
    for (size_t i = 0; i < n; i++) x[i] = dice.value(3, i);
    device_array<float> from(x.data(), n), to(nullptr, n);
    double copy = seconds_of(20, [&] {
        OR_END(cudaMemcpyAsync(to.at, from.at, n * sizeof(float), cudaMemcpyDeviceToDevice));
    });
    printf("%zu vectors of %d values; a copy of them takes %.3g s\n\n%-24s %10s %10s %10s %10s\n",
           n / HEAD, HEAD, copy, "format", "keys/s", "values/s", "of a copy", "of a copy");
    for (const char *text : timed) time_format(text, from.at, to.at, copy);
    return 0;
}

int main(int argc, char **argv) {
    gpu device;
    size_t n;
    cudaDeviceProp what;
    const uint32_t dims[] = {32, 64, 128, 96};
    OR_END(cudaGetDeviceProperties(&what, 0));
    std::string why = kv_judge_vectors(device, argc > 1 ? argv[1] : "sim/test/conformance", &n);
    if (why.empty()) {
        printf("%s: %zu conformance vectors hold\n", what.name, n);
        why = kv_judge_all_units(device, 40, 4, dims);
    }
    if (why.empty()) {
        printf("units of %d specs have the bytes and values of sim/quant\n", KV_N_JUDGED);
        why = kv_judge_all_rows(device);
    }
    if (!why.empty()) {
        fprintf(stderr, "kvsim-cuda-formats: %s\n", why.c_str());
        return 1;
    }
    printf("rows of %d specs, several in a batch, are those of kv_code_rows\n\n", KV_N_JUDGED);
    return time_all();
}
