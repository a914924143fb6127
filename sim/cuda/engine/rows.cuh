// SPDX-License-Identifier: Apache-2.0
// What a layer does to a row but products and attention: embeddings, norms, RoPE, what is stored,
// the gate, residuals. A block a row.
#ifndef KV_CUDA_ENGINE_ROWS_CUH
#define KV_CUDA_ENGINE_ROWS_CUH

#include "sim/cuda/engine/launch.cuh"

#ifdef KV_EMULATED
enum { KV_ROW_THREADS = 32 };
#else
enum { KV_ROW_THREADS = 128 };
#endif

__global__ void kv_embed(const float *table, const uint32_t *ids, uint32_t hidden, float scale,
                         float *x) {
    const float *from = table + (size_t)ids[blockIdx.x] * hidden;
    float *to = x + (size_t)blockIdx.x * hidden;
    for (uint32_t i = threadIdx.x; i < hidden; i += blockDim.x) to[i] = from[i] * scale;
}

// y = x / sqrt(mean(x^2) + eps) * gain; y may be x.
__device__ inline void kv_norm_row(const float *x, const float *gain, uint32_t n, float eps,
                                   float *room, float *y) {
    float squares = 0;
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) squares += x[i] * x[i];
    float scale = 1.0f / sqrtf(kv_block_sum(squares, room) / (float)n + eps);
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i] * scale * gain[i];
}

__global__ void kv_norm(const float *x, const float *gain, uint32_t n, float eps, float *y) {
    __shared__ float room[33];
    size_t at = (size_t)blockIdx.x * n;
    kv_norm_row(x + at, gain, n, eps, room, y + at);
}

// x += delta + bias, delta through its norm where there is one (then the bias comes before it).
__global__ void kv_add(float *delta, const float *bias, const float *gain, uint32_t n, float eps,
                       float *x) {
    __shared__ float room[33];
    delta += (size_t)blockIdx.x * n;
    x += (size_t)blockIdx.x * n;
    if (bias)
        for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) delta[i] += bias[i];
    if (gain) kv_norm_row(delta, gain, n, eps, room, delta);
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) x[i] += delta[i];
}

struct KvSplit {
    uint32_t n_heads, n_kv_heads, head_dim, pairwise;
    float eps, query_scale;
    const float *bias, *q_norm, *k_norm, *cos, *sin;
    const uint32_t *position, *stored_as;
    const float *qkv;          // [rows][(n_heads + 2 n_kv_heads) head_dim]
    float *q, *k_raw, *k, *v; // q: [rows], scaled; the others: stored rows
};

// Heads of a fused product through bias, norm and RoPE to where they are read. A warp a head.
__global__ void kv_split(KvSplit s) {
    const uint32_t d = s.head_dim, half = d / 2, lane = threadIdx.x % 32,
                   heads = s.n_heads + 2 * s.n_kv_heads;
    const size_t row = blockIdx.x, stored = s.stored_as[row];
    const float *cos = s.cos + (size_t)s.position[row] * half,
                *sin = s.sin + (size_t)s.position[row] * half;
    for (uint32_t h = threadIdx.x / 32; h < heads; h += blockDim.x / 32) {
        const float *from = s.qkv + (row * heads + h) * d, *bias = s.bias ? s.bias + h * d : nullptr;
        const bool is_q = h < s.n_heads, is_k = !is_q && h < s.n_heads + s.n_kv_heads;
        const uint32_t own = is_q ? h : is_k ? h - s.n_heads : h - s.n_heads - s.n_kv_heads;
        const float *gain = is_q ? s.q_norm : is_k ? s.k_norm : nullptr;
        const size_t at = is_q ? (row * s.n_heads + own) * d : (stored * s.n_kv_heads + own) * d;
        float scale = 1;
        if (gain) {
            float squares = 0;
            for (uint32_t i = lane; i < d; i += 32) {
                float x = from[i] + (bias ? bias[i] : 0.0f);
                squares += x * x;
            }
            for (int i = 16; i; i >>= 1) squares += __shfl_xor_sync(0xFFFFFFFFu, squares, i);
            scale = 1.0f / sqrtf(squares / (float)d + s.eps);
        }
        for (uint32_t i = lane; i < half; i += 32) {
            const uint32_t a = s.pairwise ? 2 * i : i, b = s.pairwise ? 2 * i + 1 : i + half;
            float x = from[a] + (bias ? bias[a] : 0.0f), y = from[b] + (bias ? bias[b] : 0.0f);
            if (gain) x = x * scale * gain[a], y = y * scale * gain[b];
            if (!is_q && !is_k) {
                s.v[at + a] = x, s.v[at + b] = y;
                continue;
            }
            float p = x * cos[i] - y * sin[i], q = x * sin[i] + y * cos[i];
            if (is_q)
                s.q[at + a] = p * s.query_scale, s.q[at + b] = q * s.query_scale;
            else {
                s.k_raw[at + a] = x, s.k_raw[at + b] = y;
                s.k[at + a] = p, s.k[at + b] = q;
            }
        }
    }
}

// Prompts that runs share: stored rows copied from those of the run that computed them.
__global__ void kv_copy_rows(const uint32_t *pairs, uint32_t width, float *k_raw, float *k,
                             float *v) {
    size_t to = (size_t)pairs[2 * blockIdx.x] * width, from = (size_t)pairs[2 * blockIdx.x + 1] * width;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
        k_raw[to + i] = k_raw[from + i];
        k[to + i] = k[from + i];
        v[to + i] = v[from + i];
    }
}

// What an exact read returns.
__global__ void kv_round(const float *k, const float *v, const uint32_t *run, const uint8_t *flags,
                         uint32_t width, float *k_exact, float *v_exact) {
    size_t at = (size_t)blockIdx.x * width;
    bool raw = flags[run[blockIdx.x]] & KV_ENGINE_RAW;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
        k_exact[at + i] = raw ? k[at + i] : kv_halved(k[at + i]);
        v_exact[at + i] = raw ? v[at + i] : kv_halved(v[at + i]);
    }
}

// RoPE of coded keys that were coded before it: rows of one branch after another.
__global__ void kv_turn_branches(const kv_engine_branch *branches, uint32_t n_kv_heads,
                                 uint32_t head_dim, uint32_t pairwise, const float *cos,
                                 const float *sin, float *k) {
    const kv_engine_branch b = branches[blockIdx.x];
    const uint32_t half = head_dim / 2, pairs = n_kv_heads * half;
    for (uint32_t i = threadIdx.x; i < b.n * pairs; i += blockDim.x) {
        uint32_t row = i / pairs, h = i % pairs / half, c = i % half;
        float *x = k + ((size_t)(b.row + row) * n_kv_heads + h) * head_dim;
        uint32_t at = pairwise ? 2 * c : c, to = pairwise ? 2 * c + 1 : c + half;
        float co = cos[(size_t)(b.start + row) * half + c], si = sin[(size_t)(b.start + row) * half + c];
        float p = x[at], q = x[to];
        x[at] = p * co - q * si;
        x[to] = p * si + q * co;
    }
}

// Marks runs that read what is not finite; of those whose flags have all bits of `asked`.
__global__ void kv_check(const float *k, const float *v, const uint32_t *run, const uint8_t *flags,
                         uint32_t asked, uint32_t width, uint8_t *not_finite) {
    size_t at = (size_t)blockIdx.x * width;
    if ((flags[run[blockIdx.x]] & asked) != asked) return;
    bool bad = false;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x)
        bad |= !isfinite(k[at + i]) || !isfinite(v[at + i]);
    if (bad) not_finite[run[blockIdx.x]] = 1;
}

// act = gate(g) * up of fused rows [2 ffn].
__global__ void kv_gate(const float *gateup, const float *bias, uint32_t ffn, uint32_t gelu,
                        float *act) {
    const float *g = gateup + (size_t)blockIdx.x * 2 * ffn;
    for (uint32_t i = threadIdx.x; i < ffn; i += blockDim.x) {
        float x = g[i] + (bias ? bias[i] : 0.0f), u = g[ffn + i] + (bias ? bias[ffn + i] : 0.0f);
        float gate = gelu ? 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)))
                          : x / (1.0f + expf(-x));
        act[(size_t)blockIdx.x * ffn + i] = gate * u;
    }
}

#endif
