// SPDX-License-Identifier: Apache-2.0
// The kernels of a decode step on a GPU: fused attention over packed widths, products, filling.
#ifndef KV_KERNELS_CUH
#define KV_KERNELS_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DIM = 64, PAGE = 64, MAX_CLASSES = 16, WARPS = 4, MAX_GROUP = 3, MAX_CELLS = 64 };

#define CHECK(call)                                                                                \
    do {                                                                                           \
        cudaError_t rc_ = (call);                                                                  \
        if (rc_ != cudaSuccess) {                                                                  \
            fprintf(stderr, "kvsim-cuda: %s: %s\n", #call, cudaGetErrorString(rc_));               \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

// ---- the cache
// ----------------------------------------------------------------------------------

// Tokens of one pair of widths: [layer][KV head][stride pages] blocks of 64 tokens each. Keys:
// words[words a token][64 tokens], values: words[64 tokens][words a token], each followed by 64
// fp16 scales below 16 bits. Codes are code + 2^(bits - 1), as in format sym.
struct width_class {
    int key_bits, value_bits;
    int tokens, stride;
    int value_at, block_bytes;
    uint8_t *base;
};

struct layout {
    int n;
    width_class at[MAX_CLASSES];
    int total_pages;         // of one head, all classes
    int new_class, new_slot; // where the step's token goes
};

__host__ __device__ static inline int words_of(int bits) {
    return DIM * bits / 32;
}
static int side_bytes(int bits) {
    return PAGE * words_of(bits) * 4 + (bits < 16 ? PAGE * 2 : 0);
}
__host__ __device__ static inline int pages_of(int tokens) {
    return (tokens + PAGE - 1) / PAGE;
}
__host__ __device__ static inline uint8_t *block_of(const width_class &c, int layer, int kv_heads,
                                                    int head, int page) {
    return c.base + ((size_t)(layer * kv_heads + head) * c.stride + page) * c.block_bytes;
}

// ---- attention
// -----------------------------------------------------------------------------------

__device__ static inline float warp_max(float x) {
    for (int i = 16; i; i >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
    return x;
}
__device__ static inline float warp_sum(float x) {
    for (int i = 16; i; i >>= 1) x += __shfl_xor_sync(~0u, x, i);
    return x;
}

// Code i of a word as a number about zero; for 16 bits one of its two halves.
template <int BITS> __device__ static inline float code_of(uint32_t word, int i) {
    if (BITS == 16)
        return __half2float(__ushort_as_half((unsigned short)(i ? word >> 16 : word & 0xFFFF)));
    int code = (int)(word >> (BITS * i) & ((1u << (BITS % 32)) - 1));
    return (float)(code - (1 << (BITS - 1)));
}

// What a warp carries through its pages.
template <int GROUP> struct running { float max[GROUP], sum[GROUP]; };

// This warp's pages of one class. q: [GROUP][DIM] in shared memory, scaled; p: [GROUP][PAGE] of
// this warp; out: [GROUP][DIM] of this warp, rescaled as the maximum rises.
template <int KEY_BITS, int VALUE_BITS, int GROUP>
__device__ static void attend_class(const width_class &c, int layer, int kv_heads, int head,
                                    int first, int end, const float *q, float *p, float *out,
                                    running<GROUP> &r) {
    constexpr int key_words = DIM * KEY_BITS / 32, value_words = DIM * VALUE_BITS / 32;
    constexpr int key_codes = 32 / KEY_BITS, value_codes = 32 / VALUE_BITS;
    constexpr int together = 32 / value_words; // tokens of a warp's load
    const int lane = threadIdx.x % 32;
    float acc[GROUP][value_codes];
    for (int g = 0; g < GROUP; g++)
        for (int i = 0; i < value_codes; i++) acc[g][i] = 0;
    float fade[GROUP]; // of what `out` holds from classes before
    for (int g = 0; g < GROUP; g++) fade[g] = 1;
    for (int page = first; page < end; page += WARPS) {
        const uint8_t *block = block_of(c, layer, kv_heads, head, page);
        const uint32_t *keys = (const uint32_t *)block;
        const uint32_t *values = (const uint32_t *)(block + c.value_at);
        const __half *key_scale = (const __half *)(keys + PAGE * key_words);
        const __half *value_scale = (const __half *)(values + PAGE * value_words);
        int n = min(PAGE, c.tokens - page * PAGE);
        float score[2][GROUP];
        for (int half = 0; half < 2; half++) {
            for (int g = 0; g < GROUP; g++) score[half][g] = 0;
#pragma unroll 8
            for (int w = 0; w < key_words; w++) {
                uint32_t word = keys[w * PAGE + half * 32 + lane];
#pragma unroll
                for (int i = 0; i < key_codes; i++) {
                    float k = code_of<KEY_BITS>(word, i);
                    for (int g = 0; g < GROUP; g++)
                        score[half][g] += k * q[g * DIM + w * key_codes + i];
                }
            }
        }
        for (int g = 0; g < GROUP; g++) {
            for (int half = 0; half < 2; half++) {
                int t = half * 32 + lane;
                if (KEY_BITS < 16) score[half][g] *= __half2float(key_scale[t]);
                if (t >= n) score[half][g] = -INFINITY;
            }
            float top = fmaxf(r.max[g], warp_max(fmaxf(score[0][g], score[1][g])));
            float keep = __expf(r.max[g] - top), total = 0;
            for (int half = 0; half < 2; half++) {
                int t = half * 32 + lane;
                float e = t < n ? __expf(score[half][g] - top) : 0;
                total += e;
                p[g * PAGE + t] = VALUE_BITS < 16 ? e * __half2float(value_scale[t]) : e;
            }
            r.sum[g] = r.sum[g] * keep + warp_sum(total);
            r.max[g] = top;
            fade[g] *= keep;
            for (int i = 0; i < value_codes; i++) acc[g][i] *= keep;
        }
        __syncwarp();
#pragma unroll 8
        for (int t = 0; t < PAGE; t += together) {
            int token = t + lane / value_words;
            uint32_t word = values[token * value_words + lane % value_words];
#pragma unroll
            for (int i = 0; i < value_codes; i++) {
                float v = code_of<VALUE_BITS>(word, i);
                for (int g = 0; g < GROUP; g++) acc[g][i] += v * p[g * PAGE + token];
            }
        }
        __syncwarp();
    }
    for (int g = 0; g < GROUP; g++) {
        for (int i = 0; i < value_codes; i++)
            for (int far = value_words; far < 32; far <<= 1)
                acc[g][i] += __shfl_xor_sync(~0u, acc[g][i], far);
        if (first >= end) continue;
        __syncwarp();
        if (lane < value_words)
            for (int i = 0; i < value_codes; i++) {
                float *o = &out[g * DIM + lane * value_codes + i];
                *o = *o * fade[g] + acc[g][i];
            }
    }
}

template <int KEY_BITS, int GROUP>
__device__ static void attend_values(const width_class &c, int layer, int kv_heads, int head,
                                     int first, int end, const float *q, float *p, float *out,
                                     running<GROUP> &r) {
    switch (c.value_bits) {
    case 2:
        attend_class<KEY_BITS, 2>(c, layer, kv_heads, head, first, end, q, p, out, r);
        break;
    case 4:
        attend_class<KEY_BITS, 4>(c, layer, kv_heads, head, first, end, q, p, out, r);
        break;
    case 8:
        attend_class<KEY_BITS, 8>(c, layer, kv_heads, head, first, end, q, p, out, r);
        break;
    default:
        attend_class<KEY_BITS, 16>(c, layer, kv_heads, head, first, end, q, p, out, r);
    }
}

template <int GROUP>
__device__ static void attend_any(const width_class &c, int layer, int kv_heads, int head,
                                  int first, int end, const float *q, float *p, float *out,
                                  running<GROUP> &r) {
    switch (c.key_bits) {
    case 2:
        attend_values<2>(c, layer, kv_heads, head, first, end, q, p, out, r);
        break;
    case 4:
        attend_values<4>(c, layer, kv_heads, head, first, end, q, p, out, r);
        break;
    case 8:
        attend_values<8>(c, layer, kv_heads, head, first, end, q, p, out, r);
        break;
    default:
        attend_values<16>(c, layer, kv_heads, head, first, end, q, p, out, r);
    }
}

// RoPE in half-split order: channel i turns with i + 32.
__device__ static inline float rotated(const float *x, int i, const float *cosine,
                                       const float *sine) {
    int j = i % (DIM / 2);
    return i < DIM / 2 ? x[i] * cosine[j] - x[i + DIM / 2] * sine[j]
                       : x[i] * cosine[j] + x[i - DIM / 2] * sine[j];
}

// Codes the new token's key (threads 0..63) and value (64..127) of one head and stores them.
__device__ static void append(const width_class &c, uint8_t *block, int slot, const float *k,
                              const float *v, const float *cosine, const float *sine) {
    __shared__ float largest[2][2];
    __shared__ uint16_t code[2][DIM];
    int side = threadIdx.x / DIM, i = threadIdx.x % DIM, bits = side ? c.value_bits : c.key_bits;
    float x = side ? v[i] : rotated(k, i, cosine, sine);
    float top = warp_max(fabsf(x));
    if (i % 32 == 0) largest[side][i / 32] = top;
    __syncthreads();
    top = fmaxf(largest[side][0], largest[side][1]);
    int words = words_of(bits), levels = (1 << (bits - 1)) - 1;
    uint32_t *stream = (uint32_t *)(block + (side ? c.value_at : 0));
    __half scale = __float2half_rn(__fdiv_rn(top, (float)levels));
    if (bits == 16) {
        code[side][i] = __half_as_ushort(__float2half_rn(x));
    } else {
        float s = __half2float(scale), r = s > 0 ? rintf(__fdiv_rn(x, s)) : 0;
        r = fminf(fmaxf(r, (float)-levels), (float)levels);
        code[side][i] = (uint16_t)((int)r + (1 << (bits - 1)));
        if (i == 0) ((__half *)(stream + PAGE * words))[slot] = scale;
    }
    __syncthreads();
    if (i < words) {
        uint32_t word = 0;
        int per_word = 32 / bits;
        for (int n = 0; n < per_word; n++)
            word |= (uint32_t)code[side][i * per_word + n] << (bits * n);
        stream[side ? slot * words + i : i * PAGE + slot] = word;
    }
    __syncthreads();
}

// Grid (splits, KV heads). qkv: [heads + 2 kv_heads][DIM]. partial: [kv_heads][splits][GROUP]
// [DIM + 2]; arrived: [kv_heads], zero. out: [heads][DIM].
template <int GROUP>
__global__ void attend(layout l, int layer, int kv_heads, const float *qkv, const float *cosine,
                       const float *sine, float *partial, int *arrived, float *out) {
    __shared__ float q[GROUP * DIM], p[WARPS][GROUP * PAGE], o[WARPS][GROUP * DIM];
    __shared__ float maxes[WARPS][GROUP], sums[WARPS][GROUP];
    __shared__ bool last;
    int head = blockIdx.y, split = blockIdx.x, splits = gridDim.x;
    int warp = threadIdx.x / 32, heads = GROUP * kv_heads;
    for (int i = threadIdx.x; i < GROUP * DIM; i += blockDim.x)
        q[i] = rotated(qkv + (head * GROUP + i / DIM) * DIM, i % DIM, cosine, sine) * 0.125f;
    for (int i = threadIdx.x; i < WARPS * GROUP * DIM; i += blockDim.x) (&o[0][0])[i] = 0;
    int first = (int)((long)l.total_pages * split / splits);
    int end = (int)((long)l.total_pages * (split + 1) / splits);
    running<GROUP> r;
    for (int g = 0; g < GROUP; g++) {
        r.max[g] = -INFINITY;
        r.sum[g] = 0;
    }
    for (int i = 0, before = 0; i < l.n; i++) {
        const width_class &c = l.at[i];
        int pages = pages_of(c.tokens), from = max(first - before, 0),
            to = min(end - before, pages);
        int page = l.new_slot / PAGE;
        if (i == l.new_class && from <= page && page < to)
            append(c, block_of(c, layer, kv_heads, head, page), l.new_slot % PAGE,
                   qkv + (heads + head) * DIM, qkv + (heads + kv_heads + head) * DIM, cosine, sine);
        else
            __syncthreads(); // q and o are complete
        if (from < to)
            attend_any<GROUP>(c, layer, kv_heads, head, from + warp, to, q, p[warp], o[warp], r);
        before += pages;
    }
    if (threadIdx.x % 32 == 0)
        for (int g = 0; g < GROUP; g++) {
            maxes[warp][g] = r.max[g];
            sums[warp][g] = r.sum[g];
        }
    __syncthreads();
    float *mine = partial + (size_t)(head * splits + split) * GROUP * (DIM + 2);
    for (int i = threadIdx.x; i < GROUP * DIM; i += blockDim.x) {
        int g = i / DIM;
        float top = -INFINITY, sum = 0, x = 0;
        for (int w = 0; w < WARPS; w++) top = fmaxf(top, maxes[w][g]);
        for (int w = 0; w < WARPS; w++) {
            float weight = maxes[w][g] == -INFINITY ? 0 : __expf(maxes[w][g] - top);
            sum += weight * sums[w][g];
            x += weight * o[w][i];
        }
        mine[g * (DIM + 2) + i % DIM] = x;
        if (i % DIM == 0) {
            mine[g * (DIM + 2) + DIM] = top;
            mine[g * (DIM + 2) + DIM + 1] = sum;
        }
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(&arrived[head], 1) == splits - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    for (int i = threadIdx.x; i < GROUP * DIM; i += blockDim.x) {
        int g = i / DIM;
        const volatile float *all = partial + ((size_t)head * splits * GROUP + g) * (DIM + 2);
        size_t step = (size_t)GROUP * (DIM + 2);
        float top = -INFINITY, sum = 0, x = 0;
        for (int s = 0; s < splits; s++) top = fmaxf(top, all[s * step + DIM]);
        for (int s = 0; s < splits; s++) {
            float part = all[s * step + DIM];
            float weight = part == -INFINITY ? 0 : __expf(part - top);
            sum += weight * all[s * step + DIM + 1];
            x += weight * all[s * step + i % DIM];
        }
        out[head * GROUP * DIM + i] = x / sum;
    }
    if (threadIdx.x == 0) arrived[head] = 0;
}

// ---- products
// ------------------------------------------------------------------------------------

enum product_kind { PLAIN, ADD, GATE }; // y = Wx; y += Wx; y = silu(Wx) times (W x of up rows)

// y[rows] from W [rows (twice for GATE)][cols] in bf16 and x [cols], normed first when `norm`.
template <int KIND>
__global__ void product(const __nv_bfloat16 *w, const float *x, float *y, int rows, int cols,
                        bool norm) {
    extern __shared__ float in[];
    __shared__ float part[32];
    float squares = 0;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) {
        in[i] = x[i];
        squares += in[i] * in[i];
    }
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = squares;
    __syncthreads();
    float total = 0;
    for (int i = 0; i < (int)blockDim.x / 32; i++) total += part[i];
    float scale = norm ? rsqrtf(total / cols + 1e-5f) : 1;
    int warps = blockDim.x / 32, lane = threadIdx.x % 32;
    for (int r = blockIdx.x * warps + threadIdx.x / 32; r < rows; r += gridDim.x * warps) {
        float sum[2] = {0, 0};
        for (int up = 0; up < (KIND == GATE ? 2 : 1); up++) {
            const uint4 *row = (const uint4 *)(w + ((size_t)r + (size_t)up * rows) * cols);
#pragma unroll 4
            for (int i = lane; i < cols / 8; i += 32) {
                uint4 v = __ldg(row + i);
                const uint32_t pair[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    sum[up] += __uint_as_float(pair[k] << 16) * in[i * 8 + 2 * k];
                    sum[up] += __uint_as_float(pair[k] & 0xFFFF0000u) * in[i * 8 + 2 * k + 1];
                }
            }
        }
        float a = warp_sum(sum[0]) * scale, b = warp_sum(sum[1]) * scale;
        if (lane) continue;
        if (KIND == PLAIN) y[r] = a;
        if (KIND == ADD) y[r] += a;
        if (KIND == GATE) y[r] = a / (1 + __expf(-a)) * b;
    }
}

// ---- filling, reading, nothing
// -------------------------------------------------------------------

__device__ static inline uint32_t mixed(uint64_t x) { // SplitMix64's finalizer
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return (uint32_t)(x >> 32);
}

__global__ void fill_weights(__nv_bfloat16 *w, size_t n, uint64_t seed, float amplitude) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        w[i] = __float2bfloat16(((float)mixed(seed + i * 0x9E3779B97F4A7C15ull) * 0x1p-31f - 1) *
                                amplitude);
}

// Codes of one side of every block, then its scales.
__global__ void fill_blocks(uint8_t *base, size_t n_blocks, int block_bytes, int at, int bits,
                            uint64_t seed) {
    size_t words = (size_t)PAGE * (DIM * bits / 32);
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n_blocks * words;
         i += (size_t)gridDim.x * blockDim.x) {
        uint32_t r = mixed(seed + i * 0x9E3779B97F4A7C15ull);
        if (bits == 16) {
            __half a = __float2half_rn((float)(r & 0xFFFF) * 0x1p-15f - 1);
            __half b = __float2half_rn((float)(r >> 16) * 0x1p-15f - 1);
            r = __half_as_ushort(a) | (uint32_t)__half_as_ushort(b) << 16;
        }
        uint8_t *side = base + i / words * block_bytes + at;
        ((uint32_t *)side)[i % words] = r;
        if (bits < 16 && i % words < PAGE)
            ((__half *)(side + words * 4))[i % words] =
                __float2half_rn(1.0f / (1 << (bits - 1)) * (1 + (r >> 24) * 0x1p-9f));
    }
}

__global__ void read_all(const uint4 *x, size_t n, uint32_t *sum) {
    uint32_t s = 0;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        uint4 v = __ldcs(x + i);
        s ^= v.x ^ v.y ^ v.z ^ v.w;
    }
    if (s == 0x12345678u) *sum = s; // practically never; keeps the loads
}

__global__ void nothing() {}

#endif
