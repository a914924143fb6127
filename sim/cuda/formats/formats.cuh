// SPDX-License-Identifier: Apache-2.0
// Every shipped format on a GPU: the K or V of one layer, all branches of a batch of runs in one
// launch, whatever their formats; bit for bit what kv_code_rows returns.
//
//     kv_plain_format plain[n];                       made by kv_format_plain, one a spec
//     KvFormats *held;
//     if (kv_cuda_hold_formats(&held, plain, n, turns, n_positions)) ...
//     KvCode job = {.layer = l, .side = 0, .x = k, .y = coded, .cells = cells};
//     kv_cuda_code_rows(held, &job, branches, n_branches, stream);
//     kv_cuda_free_formats(held);
//
// All pointers of a job are the device's.
#ifndef KV_CUDA_FORMATS_FORMATS_CUH
#define KV_CUDA_FORMATS_FORMATS_CUH

#include <stddef.h>
#include <stdint.h>

#include "sim/quant/plain.h"

// Rows [row, row + n) of the batch's arrays are one branch (a context, or one choice) of one run,
// whose first stands at path position `start`: 0, or the branch point of a choice.
struct KvBranch {
    uint32_t row, n, start;
    uint32_t format;                 // which of those held
    uint32_t opening_row, n_opening; // the prompt's rows, for formats that take a mean of them
    uint32_t tally;                  // which of the job's tallies its codes are added to
};

struct KvCode {
    uint32_t layer;
    int side;             // 0: keys, before RoPE where the format codes them so; 1: values
    const float *x;       // [rows][n_kv_heads * head_dim]
    const float *opening; // the same, of which openings are taken; NULL: x. (A prompt that is coded
                          // again from what was read still has the mean of what it was.)
    float *y;             // what a coded read returns; may be x
    const uint8_t *cells; // [rows][n_layers][n_kv_heads][2]: widths, KV_FLOAT32, KV_EVICT
    unsigned long long *tally; // [tallies][KV_MAX_WIDTHS][256] counts of codes are added; or NULL
    uint32_t *bad;    // becomes row + 1 where a decision is no width of its format, or cells
                      // of a unit differ in width; the host sets it to 0; or NULL
    uint32_t rows;    // of the arrays: needed where a format of hqq's kind is held
    float *zeros;     // the launch's own
    uint32_t longest; // rows of the longest branch, where known; 0: not
};

struct KvFormats;

// Floats of a team's unit in shared memory that a format asks for, a multiple of 4.
static inline uint32_t kv_team_floats(const kv_plain_format *f) {
    uint32_t most = 0;
    for (int side = 0; side < 2; side++)
        most = f->at[side][0].values > most ? f->at[side][0].values : most;
    if (f->tensor) // two values each, and what threads tell each other; or the heads' places
        most = 2 * f->head_dim + 4 > f->n_kv_heads ? 2 * f->head_dim + 4 : f->n_kv_heads;
    return (most + 3) / 4 * 4;
}

// Steps and zeros of a head's vector that such a format refines; 0: none.
static inline uint32_t kv_zero_floats(const kv_plain_format *f) {
    const kv_plain_width *w = &f->at[0][0];
    return w->rule == KV_PLAIN_REFINED ? 2 * (w->values / w->group) : 0;
}

#ifdef __CUDACC__
// turns: host memory, [n_layers][n_positions][head_dim / 2][2] of kv_plain_turns, for formats with
// centre_turns; else NULL. Non-zero: a cudaError_t.
int kv_cuda_hold_formats(KvFormats **held, const kv_plain_format *plain, uint32_t n,
                         const float *turns, uint32_t n_positions);
void kv_cuda_free_formats(KvFormats *held);
// Non-zero: a cudaError_t.
int kv_cuda_code_rows(KvFormats *held, const KvCode *job, const KvBranch *branches,
                      uint32_t n_branches, cudaStream_t stream);
// The same with nothing counted and nothing refused.
int kv_cuda_code(KvFormats *held, uint32_t layer, int side, const float *x, float *y,
                 const uint8_t *cells, const KvBranch *branches, uint32_t n_branches,
                 cudaStream_t stream);
#endif

#endif
