// SPDX-License-Identifier: Apache-2.0
// The library of --compute cuda on a CPU, for tests: the engine's own sources over emulate.h.
#include "sim/cuda/engine/engine.cu"

#include "sim/cuda/formats/rows.cuh"

struct KvFormats {
    std::vector<kv_plain_format> plain;
    std::vector<float> turns, zeros;
    uint32_t n_positions, unit_values, zero_floats;
    bool centred;
};

int kv_cuda_hold_formats(KvFormats **held, const kv_plain_format *plain, uint32_t n,
                         const float *turns, uint32_t n_positions) {
    KvFormats *h = new KvFormats();
    h->plain.assign(plain, plain + n);
    h->n_positions = n_positions;
    if (turns)
        h->turns.assign(turns, turns + (size_t)plain->n_layers * n_positions * plain->head_dim);
    for (const kv_plain_format &f : h->plain) {
        uint32_t values = kv_team_floats(&f), zeros = kv_zero_floats(&f);
        h->unit_values = values > h->unit_values ? values : h->unit_values;
        h->zero_floats = zeros > h->zero_floats ? zeros : h->zero_floats;
        h->centred = h->centred || f.centred[0] || f.centred[1] || f.tensor;
    }
    *held = h;
    return 0;
}

void kv_cuda_free_formats(KvFormats *held) {
    delete held;
}

int kv_cuda_code_rows(KvFormats *h, const KvCode *asked, const KvBranch *branches, uint32_t n,
                      cudaStream_t) {
    const uint32_t d = h->plain[0].head_dim, heads = h->plain[0].n_kv_heads;
    std::vector<double> memory(
        kv_rows_room(heads * d, h->unit_values, 1, h->centred, asked->tally) / sizeof(double) + 1);
    const float *turns =
        h->turns.empty() ? nullptr : h->turns.data() + (size_t)asked->layer * h->n_positions * d;
    KvCode job = *asked;
    h->zeros.resize((size_t)job.rows * heads * h->zero_floats);
    job.zeros = h->zeros.data();
    for (uint32_t i = 0; i < n; i++)
        kv_code_branch(KvLoneBlock(), job, &h->plain[branches[i].format], turns, branches[i],
                       h->unit_values, h->centred, memory.data());
    return 0;
}

// ---- products alone, for what the engine leaves to the caller --------------------------

extern "C" {
#include "sim/model/accelerator.h"
}

namespace {

int start_products(char *, size_t) {
    return 0;
}
int hold_products(const float *, size_t) {
    return 0;
}
int multiply(bool transposed, size_t rows, size_t n, size_t k, const float *x, const float *w, float *y,
             char *, size_t) {
    kv_gemm(transposed ? CUBLAS_OP_T : CUBLAS_OP_N, (int)n, (int)rows, (int)k, w, (int)(transposed ? k : n), x,
            (int)k, 0, y, (int)n);
    return 0;
}
void stop_products() {}

const kv_accelerator products = {KV_ACCELERATOR_ABI, "cuda", hardware, 1024, start_products, hold_products,
                                 multiply, stop_products, nullptr};

} // namespace

extern "C" const struct kv_accelerator *kv_accelerator_entry(uint32_t abi) {
    return abi == KV_ACCELERATOR_ABI ? &products : nullptr;
}
