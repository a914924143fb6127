// SPDX-License-Identifier: Apache-2.0
// The library of --compute cuda on a CPU, for tests: the engine's own sources over emulate.h.
#include "sim/cuda/engine/engine.cu"

#include "sim/cuda/formats/rows.cuh"

struct KvFormats {
    std::vector<kv_plain_format> plain;
    std::vector<float> turns;
    uint32_t n_positions, unit_values;
    bool centred;
};

int kv_cuda_hold_formats(KvFormats **held, const kv_plain_format *plain, uint32_t n,
                         const float *turns, uint32_t n_positions) {
    KvFormats *h = new KvFormats();
    h->plain.assign(plain, plain + n);
    h->n_positions = n_positions;
    if (turns) h->turns.assign(turns, turns + (size_t)plain->n_layers * n_positions * plain->head_dim);
    for (const kv_plain_format &f : h->plain)
        for (int side = 0; side < 2; side++) {
            uint32_t values = f.tensor ? f.head_dim : f.at[side][0].values;
            h->unit_values = values > h->unit_values ? values : h->unit_values;
            h->centred = h->centred || f.centred[side];
        }
    *held = h;
    return 0;
}

void kv_cuda_free_formats(KvFormats *held) {
    delete held;
}

int kv_cuda_code_rows(const KvFormats *h, const KvCode *job, const KvBranch *branches, uint32_t n,
                      cudaStream_t) {
    const uint32_t d = h->plain[0].head_dim;
    std::vector<char> memory(
        kv_rows_room(h->plain[0].n_kv_heads * d, h->unit_values, 1, h->centred, job->tally));
    const float *turns =
        h->turns.empty() ? nullptr : h->turns.data() + (size_t)job->layer * h->n_positions * d;
    for (uint32_t i = 0; i < n; i++)
        kv_code_branch(KvLoneBlock(), *job, &h->plain[branches[i].format], turns, branches[i],
                       h->unit_values, h->centred, memory.data());
    return 0;
}
