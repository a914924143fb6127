// SPDX-License-Identifier: Apache-2.0
// Scores: final states against the recorded ones, over the whole vocabulary, a block a row. With
// d = logit - reference logit and p the reference probabilities, KL = log sum p e^d - sum p d (sim/model/head.c), so that
// equal logits give exactly 0.
#ifndef KV_CUDA_ENGINE_HEAD_CUH
#define KV_CUDA_ENGINE_HEAD_CUH

#include "sim/cuda/engine/rows.cuh"

#ifdef KV_EMULATED
enum { KV_HEAD_THREADS = 64 };
#else
enum { KV_HEAD_THREADS = 512 };
#endif

// The states that one slot compares with references [first, first + gridDim.x): the last norm of a
// computed row, the reference itself, or zeros.
__global__ void kv_final_rows(const uint32_t *scored, const float *x, const float *reference,
                              const float *gain, uint32_t n_references, uint32_t n, float eps,
                              uint32_t first, float *state) {
    __shared__ float room[33];
    const uint32_t at = first + blockIdx.x, row = at < n_references ? scored[at] : KV_ENGINE_NO_ROW;
    float *to = state + (size_t)blockIdx.x * n;
    if (row < KV_ENGINE_RECORDED)
        kv_norm_row(x + (size_t)row * n, gain, n, eps, room, to);
    else
        for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
            to[i] = row == KV_ENGINE_RECORDED ? reference[(size_t)at * n + i] : 0.0f;
}

// Where the largest logit stands that a block's threads met, each its first; the first of equals.
__device__ inline float kv_block_first_largest(float most, float at, float *room) {
    return -kv_block_most(kv_block_most(most, room) == most ? -at : -INFINITY, room);
}

// log of the sum of exp(logit), and the sum of the probabilities as rounded; NAN where a state or a
// logit is not finite. likeliest: the token.
__global__ void kv_reference_sums(const float *logits, const float *state, uint32_t vocab,
                                  uint32_t hidden, double *log_z, double *sum_p,
                                  float *likeliest) {
    __shared__ float room[33];
    __shared__ double wide[33];
    const float *l = logits + (size_t)blockIdx.x * vocab, *h = state + (size_t)blockIdx.x * hidden;
    float top = -INFINITY, at = 0, bad = 0;
    for (uint32_t i = threadIdx.x; i < hidden; i += blockDim.x) bad += !isfinite(h[i]);
    for (uint32_t i = threadIdx.x; i < vocab; i += blockDim.x) {
        if (l[i] > top) top = l[i], at = (float)i;
        bad += !isfinite(l[i]);
    }
    at = kv_block_first_largest(top, at, room);
    top = kv_block_most(top, room);
    bad = kv_block_sum(bad, room);
    float part = 0;
    for (uint32_t i = threadIdx.x; i < vocab; i += blockDim.x) part += expf(l[i] - top);
    double z = (double)top + log(kv_block_sum((double)part, wide));
    if (bad > 0) z = NAN;
    float p = 0;
    for (uint32_t i = threadIdx.x; i < vocab; i += blockDim.x) p += expf(l[i] - (float)z);
    double sum = kv_block_sum((double)p, wide);
    if (threadIdx.x) return;
    log_z[blockIdx.x] = z;
    sum_p[blockIdx.x] = sum;
    likeliest[blockIdx.x] = at;
}

__global__ void kv_compare(const float *logits, const float *state, const float *reference,
                           const double *log_z, const double *sum_p, const float *likeliest,
                           uint32_t vocab, uint32_t hidden, double *kl_nats, double *log_ratio,
                           uint32_t *tops, uint32_t *ref_tops) {
    __shared__ float room[33];
    __shared__ double wide[33];
    const size_t row = blockIdx.x;
    const float *l = logits + row * vocab, *r = reference + row * vocab, *h = state + row * hidden;
    const float z = (float)log_z[row];
    float top = -INFINITY, most = -INFINITY, at = 0, bad = 0;
    for (uint32_t i = threadIdx.x; i < hidden; i += blockDim.x) bad += !isfinite(h[i]);
    for (uint32_t i = threadIdx.x; i < vocab; i += blockDim.x) {
        top = fmaxf(top, l[i] - r[i]);
        if (l[i] > most) most = l[i], at = (float)i;
        bad += !isfinite(l[i]);
    }
    at = kv_block_first_largest(most, at, room);
    top = kv_block_most(top, room);
    bad = kv_block_sum(bad, room);
    float pe = 0, pd = 0;
    for (uint32_t i = threadIdx.x; i < vocab; i += blockDim.x) {
        float p = expf(r[i] - z), d = l[i] - r[i];
        pe += p * expf(d - top);
        pd += p * d;
    }
    double all_pe = kv_block_sum((double)pe, wide), all_pd = kv_block_sum((double)pd, wide);
    if (threadIdx.x) return;
    tops[row] = (uint32_t)at;
    ref_tops[row] = (uint32_t)likeliest[row];
    double ratio = (double)top + log(all_pe / sum_p[row]), kl = ratio - all_pd / sum_p[row];
    if (bad > 0 || isnan(log_z[row])) ratio = kl = NAN;
    log_ratio[row] = ratio;
    kl_nats[row] = kl < 0 ? 0 : kl;
}

// Log-probs of targets among references [first, first + n): of the reference, and of what is
// compared with it (NULL: of the reference alone).
__global__ void kv_targets(const kv_engine_target *targets, uint32_t n_targets, uint32_t first,
                           uint32_t n, const float *logits, const float *reference,
                           const double *log_z, const double *log_ratio, uint32_t vocab,
                           double *logprob) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n_targets || targets[i].reference < first || targets[i].reference >= first + n) return;
    const uint32_t row = targets[i].reference - first;
    const size_t at = (size_t)row * vocab + targets[i].id;
    double p = (double)reference[at] - log_z[row];
    if (logits) p += (double)logits[at] - (double)reference[at] - log_ratio[row];
    logprob[i] = p;
}

#endif
