// SPDX-License-Identifier: Apache-2.0
// Decode steps at batch 1 on a GPU over a packed mixed-precision cache, timed for kvsim calibrate.
//
//     make cuda && build/kvsim-cuda --shape 135m --contexts 64,512,2048 --mixes 16,8,4,2 -o runs.csv
//
// Needs nvcc and the C library alone. A step is a CUDA graph: per layer a product for Q, K, V, one
// fused kernel that rotates, codes and stores the new token, attends over all widths and joins its
// parts, and three more products; then the head. Weights are bf16 with seeded values. Before any
// timing the kernels are checked on this GPU against plain loops on the CPU.
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

struct shape {
    const char *name;
    int layers, heads, kv_heads, hidden, ffn, vocab;
};

static const shape shapes[] = {
    {"135m", 30, 9, 3, 576, 1536, 49152},
    {"360m", 32, 15, 5, 960, 2560, 49152},
    {"1.7b", 24, 32, 32, 2048, 8192, 49152},
};
static const shape small_group = {"check3", 2, 6, 2, 384, 512, 512};
static const shape small_single = {"check1", 2, 4, 4, 256, 768, 512};

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
template <int GROUP> struct running {
    float max[GROUP], sum[GROUP];
};

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
    case 2: attend_class<KEY_BITS, 2>(c, layer, kv_heads, head, first, end, q, p, out, r); break;
    case 4: attend_class<KEY_BITS, 4>(c, layer, kv_heads, head, first, end, q, p, out, r); break;
    case 8: attend_class<KEY_BITS, 8>(c, layer, kv_heads, head, first, end, q, p, out, r); break;
    default: attend_class<KEY_BITS, 16>(c, layer, kv_heads, head, first, end, q, p, out, r);
    }
}

template <int GROUP>
__device__ static void attend_any(const width_class &c, int layer, int kv_heads, int head,
                                  int first, int end, const float *q, float *p, float *out,
                                  running<GROUP> &r) {
    switch (c.key_bits) {
    case 2: attend_values<2>(c, layer, kv_heads, head, first, end, q, p, out, r); break;
    case 4: attend_values<4>(c, layer, kv_heads, head, first, end, q, p, out, r); break;
    case 8: attend_values<8>(c, layer, kv_heads, head, first, end, q, p, out, r); break;
    default: attend_values<16>(c, layer, kv_heads, head, first, end, q, p, out, r);
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
        int pages = pages_of(c.tokens), from = max(first - before, 0), to = min(end - before, pages);
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

// ---- a model on the GPU
// --------------------------------------------------------------------------

struct model {
    shape s;
    __nv_bfloat16 *qkv, *out, *gateup, *down, *head; // of all layers
    float *x0, *x, *qkv_row, *context, *ffn, *logits, *partial, *cosine, *sine;
    int *arrived;
    int max_splits, processors;
    cudaStream_t stream;
};

static size_t qkv_rows(const shape &s) {
    return (size_t)(s.heads + 2 * s.kv_heads) * DIM;
}

static __nv_bfloat16 *new_weights(size_t rows, size_t cols, uint64_t seed) {
    __nv_bfloat16 *w;
    CHECK(cudaMalloc(&w, rows * cols * sizeof *w));
    fill_weights<<<2048, 256>>>(w, rows * cols, seed << 40, sqrtf(3.0f / (float)cols));
    return w;
}

static float *new_floats(size_t n) {
    float *x;
    CHECK(cudaMalloc(&x, n * sizeof *x));
    CHECK(cudaMemset(x, 0, n * sizeof *x));
    return x;
}

static void model_init(model *m, const shape &s) {
    memset(m, 0, sizeof *m);
    m->s = s;
    size_t layers = s.layers, heads = (size_t)s.heads * DIM;
    m->qkv = new_weights(layers * qkv_rows(s), s.hidden, 1);
    m->out = new_weights(layers * s.hidden, heads, 2);
    m->gateup = new_weights(layers * 2 * s.ffn, s.hidden, 3);
    m->down = new_weights(layers * s.hidden, s.ffn, 4);
    m->head = new_weights(s.vocab, s.hidden, 5);
    m->x0 = new_floats(s.hidden);
    m->x = new_floats(s.hidden);
    m->qkv_row = new_floats(qkv_rows(s));
    m->context = new_floats(heads);
    m->ffn = new_floats(s.ffn);
    m->logits = new_floats(s.vocab);
    m->cosine = new_floats(DIM / 2);
    m->sine = new_floats(DIM / 2);
    CHECK(cudaDeviceGetAttribute(&m->processors, cudaDevAttrMultiProcessorCount, 0));
    m->max_splits = 4 * m->processors;
    m->partial = new_floats((size_t)s.kv_heads * m->max_splits * MAX_GROUP * (DIM + 2));
    CHECK(cudaMalloc(&m->arrived, s.kv_heads * sizeof(int)));
    CHECK(cudaMemset(m->arrived, 0, s.kv_heads * sizeof(int)));
    float *x = (float *)malloc(s.hidden * sizeof *x);
    for (int i = 0; i < s.hidden; i++) x[i] = sinf((float)i * 1.7f + 0.3f);
    CHECK(cudaMemcpy(m->x0, x, s.hidden * sizeof *x, cudaMemcpyHostToDevice));
    free(x);
    CHECK(cudaStreamCreate(&m->stream));
    CHECK(cudaDeviceSynchronize());
}

static void model_fini(model *m) {
    void *owned[] = {m->qkv, m->out,     m->gateup, m->down,   m->head,    m->x0,     m->x,
                     m->qkv_row, m->context, m->ffn, m->logits, m->partial, m->cosine, m->sine,
                     m->arrived};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) CHECK(cudaFree(owned[i]));
    CHECK(cudaStreamDestroy(m->stream));
}

static void set_position(model *m, int position) {
    float c[DIM / 2], s[DIM / 2];
    for (int i = 0; i < DIM / 2; i++) {
        double angle = position * pow(10000.0, -2.0 * i / DIM);
        c[i] = (float)cos(angle);
        s[i] = (float)sin(angle);
    }
    CHECK(cudaMemcpy(m->cosine, c, sizeof c, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(m->sine, s, sizeof s, cudaMemcpyHostToDevice));
}

template <int KIND>
static void launch_product(const model *m, const __nv_bfloat16 *w, const float *x, float *y,
                           int rows, int cols, bool norm) {
    const int threads = 256;
    int blocks = (rows + threads / 32 - 1) / (threads / 32), most = 8 * m->processors;
    product<KIND><<<blocks < most ? blocks : most, threads, cols * sizeof(float), m->stream>>>(
        w, x, y, rows, cols, norm);
}

static void launch_attention(const model *m, const layout &l, int layer) {
    const shape &s = m->s;
    int splits = (l.total_pages + WARPS - 1) / WARPS;
    // Enough blocks for every processor, not more than its pages need.
    int most = (4 * m->processors + s.kv_heads - 1) / s.kv_heads;
    if (splits > most) splits = most;
    dim3 grid(splits, s.kv_heads);
    if (s.heads == 3 * s.kv_heads)
        attend<3><<<grid, WARPS * 32, 0, m->stream>>>(l, layer, s.kv_heads, m->qkv_row, m->cosine,
                                                      m->sine, m->partial, m->arrived, m->context);
    else
        attend<1><<<grid, WARPS * 32, 0, m->stream>>>(l, layer, s.kv_heads, m->qkv_row, m->cosine,
                                                      m->sine, m->partial, m->arrived, m->context);
}

enum { WITH_ATTENTION = 1, WITH_LAYERS = 2, WITH_HEAD = 4, WHOLE = 7 };

// Puts the kernels of a step on the stream; `what` leaves some out, for the parts' times.
static void launch_step(const model *m, const layout &l, int what) {
    const shape &s = m->s;
    int heads = s.heads * DIM, rows = (int)qkv_rows(s);
    CHECK(cudaMemcpyAsync(m->x, m->x0, s.hidden * sizeof(float), cudaMemcpyDeviceToDevice,
                          m->stream));
    for (int i = 0; i < s.layers; i++) {
        size_t at = i;
        if (what & WITH_LAYERS)
            launch_product<PLAIN>(m, m->qkv + at * rows * s.hidden, m->x, m->qkv_row, rows,
                                  s.hidden, true);
        if (what & WITH_ATTENTION) launch_attention(m, l, i);
        if (!(what & WITH_LAYERS)) continue;
        launch_product<ADD>(m, m->out + at * s.hidden * heads, m->context, m->x, s.hidden, heads,
                            false);
        launch_product<GATE>(m, m->gateup + at * 2 * s.ffn * s.hidden, m->x, m->ffn, s.ffn,
                             s.hidden, true);
        launch_product<ADD>(m, m->down + at * s.hidden * s.ffn, m->ffn, m->x, s.hidden, s.ffn,
                            false);
    }
    if (what & WITH_HEAD)
        launch_product<PLAIN>(m, m->head, m->x, m->logits, s.vocab, s.hidden, true);
    CHECK(cudaGetLastError());
}

static cudaGraphExec_t capture(const model *m, const layout &l, int what) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaStreamBeginCapture(m->stream, cudaStreamCaptureModeThreadLocal));
    launch_step(m, l, what);
    CHECK(cudaStreamEndCapture(m->stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    return exec;
}

// ---- mixes
// ---------------------------------------------------------------------------------------

struct mix {
    char text[128];
    int n, bits[MAX_CLASSES][2];
    double share[MAX_CLASSES];
};

static bool is_width(long b) {
    return b == 2 || b == 4 || b == 8 || b == 16;
}

// "8", "k8v4" or parts with shares: "k4v2=0.5/8=0.5", as kvsim spells them.
static bool parse_mix(mix *m, const char *text) {
    memset(m, 0, sizeof *m);
    snprintf(m->text, sizeof m->text, "%s", text);
    double total = 0;
    for (const char *at = text; *at;) {
        char *end;
        if (m->n == MAX_CLASSES) return false;
        bool apart = *at == 'k';
        long k = strtol(at + apart, &end, 10), v = k;
        if (apart) {
            if (*end != 'v') return false;
            v = strtol(end + 1, &end, 10);
        }
        double share = *end == '=' ? strtod(end + 1, &end) : NAN;
        if (!is_width(k) || !is_width(v) || (*end && *end != '/')) return false;
        m->bits[m->n][0] = (int)k;
        m->bits[m->n][1] = (int)v;
        m->share[m->n++] = share;
        at = *end ? end + 1 : end;
    }
    for (int i = 0; i < m->n; i++) {
        if (isnan(m->share[i])) m->share[i] = 1.0 / m->n;
        total += m->share[i];
    }
    return m->n > 0 && fabs(total - 1) < 1e-3;
}

// Memory for a mix at up to `tokens`, filled with random codes.
static void layout_init(layout *l, const mix *m, const shape &s, int tokens) {
    memset(l, 0, sizeof *l);
    l->n = m->n;
    for (int i = 0; i < m->n; i++) {
        width_class *c = &l->at[i];
        c->key_bits = m->bits[i][0];
        c->value_bits = m->bits[i][1];
        c->stride = pages_of((int)ceil(m->share[i] * tokens) + 1);
        c->value_at = (side_bytes(c->key_bits) + 127) / 128 * 128;
        c->block_bytes = (c->value_at + side_bytes(c->value_bits) + 127) / 128 * 128;
        size_t blocks = (size_t)s.layers * s.kv_heads * c->stride;
        CHECK(cudaMalloc(&c->base, blocks * c->block_bytes));
        fill_blocks<<<2048, 256>>>(c->base, blocks, c->block_bytes, 0, c->key_bits, 11 + i);
        fill_blocks<<<2048, 256>>>(c->base, blocks, c->block_bytes, c->value_at, c->value_bits,
                                   77 + i);
    }
    CHECK(cudaDeviceSynchronize());
}

// Sets how many tokens each class holds at a context; the last token of the largest is the new one.
static void layout_set(layout *l, const mix *m, int tokens) {
    double before = 0;
    l->total_pages = 0;
    l->new_class = 0;
    for (int i = 0; i < m->n; i++) {
        double after = i + 1 == m->n ? 1 : before + m->share[i];
        l->at[i].tokens = (int)(lround(after * tokens) - lround(before * tokens));
        before = after;
        l->total_pages += pages_of(l->at[i].tokens);
        if (l->at[i].tokens > l->at[l->new_class].tokens) l->new_class = i;
    }
    l->new_slot = l->at[l->new_class].tokens - 1;
}

static double layout_bytes(const layout *l, const shape &s) {
    double bytes = 0;
    for (int i = 0; i < l->n; i++)
        bytes += (double)l->at[i].tokens *
                 (side_bytes(l->at[i].key_bits) + side_bytes(l->at[i].value_bits)) / PAGE;
    return bytes * s.layers * s.kv_heads;
}

static void layout_fini(layout *l) {
    for (int i = 0; i < l->n; i++) CHECK(cudaFree(l->at[i].base));
}

// ---- the judge: plain loops on the CPU
// ------------------------------------------------------------

static float bf16_at(const __nv_bfloat16 *w, size_t i) {
    uint16_t h;
    memcpy(&h, w + i, sizeof h);
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static void *fetched(const void *device, size_t bytes) {
    void *host = malloc(bytes);
    CHECK(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
    return host;
}

static void judge_product(const __nv_bfloat16 *w, const double *x, double *y, int rows, int cols,
                          bool norm) {
    double squares = 0;
    for (int i = 0; i < cols; i++) squares += x[i] * x[i];
    double scale = norm ? 1 / sqrt(squares / cols + 1e-5) : 1;
    for (int r = 0; r < rows; r++) {
        y[r] = 0;
        for (int i = 0; i < cols; i++) y[r] += bf16_at(w, (size_t)r * cols + i) * x[i] * scale;
    }
}

// One decoded value; t is the token's index in its class. *step: the distance of two codes.
static double judge_value(const width_class &c, const uint8_t *host, const shape &s, int layer,
                          int head, int t, int side, int channel, double *step) {
    const uint8_t *block =
        host + ((size_t)(layer * s.kv_heads + head) * c.stride + t / PAGE) * c.block_bytes;
    int bits = side ? c.value_bits : c.key_bits, words = words_of(bits), per_word = 32 / bits;
    const uint32_t *stream = (const uint32_t *)(block + (side ? c.value_at : 0));
    int slot = t % PAGE, w = channel / per_word;
    uint32_t word = stream[side ? slot * words + w : w * PAGE + slot];
    uint32_t code = bits == 16 ? (word >> (16 * (channel % 2)) & 0xFFFF)
                               : (word >> (bits * (channel % per_word)) & ((1u << bits) - 1));
    __half_raw raw;
    raw.x = bits == 16 ? (unsigned short)code
                       : ((const uint16_t *)(stream + PAGE * words))[slot];
    double number = (double)__half2float(__half(raw));
    *step = bits == 16 ? fabs(number) * 0x1p-10 + 1e-7 : number;
    return bits == 16 ? number : number * ((int)code - (1 << (bits - 1)));
}

struct judged {
    double coded;     // worst distance of a stored value from the exact one, in steps
    double attention; // worst error of attention, of the largest value
    double logits;    // worst error of a logit, of the largest
};

// Runs one step on the GPU and the same on the CPU, reading the cache the GPU left.
static judged judge_step(const shape &s, const char *text, int tokens) {
    model m;
    layout l;
    mix x;
    judged worst = {0, 0, 0};
    model_init(&m, s);
    if (!parse_mix(&x, text)) exit(2);
    layout_init(&l, &x, s, tokens);
    layout_set(&l, &x, tokens);
    set_position(&m, tokens - 1);
    cudaGraphExec_t graph = capture(&m, l, WHOLE);
    CHECK(cudaMemset(m.logits, 0xFF, s.vocab * sizeof(float))); // NaN where nothing is written
    for (int i = 0; i < 3; i++) CHECK(cudaGraphLaunch(graph, m.stream)); // counters reset themselves
    CHECK(cudaStreamSynchronize(m.stream));
    int heads = s.heads * DIM, group = s.heads / s.kv_heads, rows = (int)qkv_rows(s);
    __nv_bfloat16 *qkv = (__nv_bfloat16 *)fetched(m.qkv, (size_t)s.layers * rows * s.hidden * 2);
    __nv_bfloat16 *out = (__nv_bfloat16 *)fetched(m.out, (size_t)s.layers * s.hidden * heads * 2);
    __nv_bfloat16 *gateup =
        (__nv_bfloat16 *)fetched(m.gateup, (size_t)s.layers * 2 * s.ffn * s.hidden * 2);
    __nv_bfloat16 *down = (__nv_bfloat16 *)fetched(m.down, (size_t)s.layers * s.hidden * s.ffn * 2);
    __nv_bfloat16 *head_w = (__nv_bfloat16 *)fetched(m.head, (size_t)s.vocab * s.hidden * 2);
    float *x0 = (float *)fetched(m.x0, s.hidden * 4), *logits = (float *)fetched(m.logits, s.vocab * 4);
    float *cosine = (float *)fetched(m.cosine, DIM * 2), *sine = (float *)fetched(m.sine, DIM * 2);
    float *last_context = (float *)fetched(m.context, heads * 4);
    uint8_t *host[MAX_CLASSES];
    for (int i = 0; i < l.n; i++)
        host[i] = (uint8_t *)fetched(l.at[i].base, (size_t)s.layers * s.kv_heads * l.at[i].stride *
                                                       l.at[i].block_bytes);
    size_t widest = 2 * (size_t)s.ffn + rows + heads + s.vocab;
    double *h = (double *)calloc(s.hidden, 8), *y = (double *)calloc(widest, 8);
    double *ctx = (double *)calloc(heads, 8), *f = (double *)calloc(widest, 8);
    double *p = (double *)calloc(tokens, 8);
    for (int i = 0; i < s.hidden; i++) h[i] = x0[i];
    for (int layer = 0; layer < s.layers; layer++) {
        judge_product(qkv + (size_t)layer * rows * s.hidden, h, y, rows, s.hidden, true);
        for (int n = 0; n < s.heads + s.kv_heads; n++)
            for (int i = 0; i < DIM / 2; i++) {
                double a = y[n * DIM + i], b = y[n * DIM + i + DIM / 2];
                y[n * DIM + i] = a * cosine[i] - b * sine[i];
                y[n * DIM + i + DIM / 2] = b * cosine[i] + a * sine[i];
            }
        double step, largest = 0;
        for (int n = 0; n < s.kv_heads; n++)
            for (int side = 0; side < 2; side++)
                for (int i = 0; i < DIM; i++) {
                    double exact = y[(s.heads + side * s.kv_heads + n) * DIM + i];
                    double v = judge_value(l.at[l.new_class], host[l.new_class], s, layer, n,
                                           l.new_slot, side, i, &step);
                    worst.coded = fmax(worst.coded, (fabs(v - exact) - 1e-4) / step);
                }
        for (int n = 0; n < s.heads; n++) {
            double top = -INFINITY, sum = 0;
            int t = 0, head = n / group;
            for (int c = 0; c < l.n; c++)
                for (int i = 0; i < l.at[c].tokens; i++, t++) {
                    p[t] = 0;
                    for (int d = 0; d < DIM; d++)
                        p[t] += y[n * DIM + d] *
                                judge_value(l.at[c], host[c], s, layer, head, i, 0, d, &step) / 8;
                    top = fmax(top, p[t]);
                }
            for (int i = 0; i < tokens; i++) sum += p[i] = exp(p[i] - top);
            for (int d = 0; d < DIM; d++) {
                ctx[n * DIM + d] = 0;
                t = 0;
                for (int c = 0; c < l.n; c++)
                    for (int i = 0; i < l.at[c].tokens; i++, t++) {
                        double v = judge_value(l.at[c], host[c], s, layer, head, i, 1, d, &step);
                        ctx[n * DIM + d] += p[t] / sum * v;
                        largest = fmax(largest, fabs(v));
                    }
            }
        }
        for (int i = 0; i < heads && layer + 1 == s.layers; i++) {
            double wrong = fabs(ctx[i] - last_context[i]) / largest;
            worst.attention = wrong >= 0 ? fmax(worst.attention, wrong) : INFINITY;
        }
        judge_product(out + (size_t)layer * s.hidden * heads, ctx, f, s.hidden, heads, false);
        for (int i = 0; i < s.hidden; i++) h[i] += f[i];
        judge_product(gateup + (size_t)layer * 2 * s.ffn * s.hidden, h, y, 2 * s.ffn, s.hidden, true);
        for (int i = 0; i < s.ffn; i++) y[i] = y[i] / (1 + exp(-y[i])) * y[s.ffn + i];
        judge_product(down + (size_t)layer * s.hidden * s.ffn, y, f, s.hidden, s.ffn, false);
        for (int i = 0; i < s.hidden; i++) h[i] += f[i];
    }
    judge_product(head_w, h, y, s.vocab, s.hidden, true);
    double largest = 0;
    for (int i = 0; i < s.vocab; i++) largest = fmax(largest, fabs(y[i]));
    for (int i = 0; i < s.vocab; i++) {
        double wrong = fabs(y[i] - logits[i]) / largest;
        worst.logits = wrong >= 0 ? fmax(worst.logits, wrong) : INFINITY;
    }
    void *owned[] = {qkv, out, gateup, down, head_w, x0, logits, cosine, sine, last_context,
                     h,   y,   ctx,    f,    p};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    for (int i = 0; i < l.n; i++) free(host[i]);
    CHECK(cudaGraphExecDestroy(graph));
    layout_fini(&l);
    model_fini(&m);
    return worst;
}

// Every width on each side, mixes, and lengths around a page, for both group sizes.
static bool check_kernels() {
    static const char *const mixes[] = {"16", "8", "4", "2", "k8v4", "k4v8", "k2v16", "k16v2",
                                        "2=0.25/4=0.25/8=0.25/16=0.25", "k4v2=0.7/k8v16=0.3"};
    static const int lengths[] = {2, 63, 64, 65, 700};
    judged worst = {0, 0, 0};
    for (int g = 0; g < 2; g++)
        for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) {
            int tokens = lengths[(i + g) % 5];
            if (strchr(mixes[i], '=') && tokens < 16) tokens = 333;
            judged j = judge_step(g ? small_single : small_group, mixes[i], tokens);
            worst.coded = fmax(worst.coded, j.coded);
            worst.attention = fmax(worst.attention, j.attention);
            worst.logits = fmax(worst.logits, j.logits);
        }
    // Half a step by rounding and the last bits of k; float sums against double ones.
    bool right = worst.coded <= 0.51 && worst.attention < 2e-4 && worst.logits < 2e-3;
    fprintf(stderr,
            "checked against the CPU: codes within %.3f steps, attention within %.1e of the largest "
            "value, logits within %.1e of the largest: %s\n",
            worst.coded, worst.attention, worst.logits, right ? "right" : "WRONG");
    return right;
}

// ---- timing
// --------------------------------------------------------------------------------------

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double quantile(double *x, int n, double q) {
    qsort(x, n, sizeof *x, compare);
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? x[i] + (at - i) * (x[i + 1] - x[i]) : x[i];
}

static double timed_ns(const model *m, cudaGraphExec_t graph, cudaEvent_t begin, cudaEvent_t end) {
    float ms;
    CHECK(cudaEventRecord(begin, m->stream));
    CHECK(cudaGraphLaunch(graph, m->stream));
    CHECK(cudaEventRecord(end, m->stream));
    CHECK(cudaEventSynchronize(end));
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    return ms * 1e6;
}

static double bandwidth_bytes_per_ns(const model *m) {
    size_t bytes = (size_t)2 << 30;
    uint4 *x;
    uint32_t *sum;
    double rate[9];
    cudaEvent_t begin, end;
    CHECK(cudaMalloc(&x, bytes));
    CHECK(cudaMalloc(&sum, 4));
    CHECK(cudaMemset(x, 1, bytes));
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    for (int i = -1; i < 9; i++) {
        float ms;
        CHECK(cudaEventRecord(begin, m->stream));
        read_all<<<16 * m->processors, 512, 0, m->stream>>>(x, bytes / sizeof *x, sum);
        CHECK(cudaEventRecord(end, m->stream));
        CHECK(cudaEventSynchronize(end));
        CHECK(cudaEventElapsedTime(&ms, begin, end));
        if (i >= 0) rate[i] = (double)bytes / (ms * 1e6);
    }
    CHECK(cudaFree(x));
    CHECK(cudaFree(sum));
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    return quantile(rate, 9, 0.5);
}

// A node of a graph of empty kernels: what a launch inside a step costs.
static double launch_ns(const model *m) {
    enum { NODES = 500 };
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin, end;
    double ns[9];
    CHECK(cudaStreamBeginCapture(m->stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < NODES; i++) nothing<<<1, 32, 0, m->stream>>>();
    CHECK(cudaStreamEndCapture(m->stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    for (int i = -1; i < 9; i++) {
        double t = timed_ns(m, exec, begin, end);
        if (i >= 0) ns[i] = t / NODES;
    }
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    return quantile(ns, 9, 0.5);
}

// ---- the grid
// ------------------------------------------------------------------------------------

struct options {
    const shape *shape[8];
    mix mixes[MAX_CELLS];
    int contexts[MAX_CELLS];
    int n_shapes, n_mixes, n_contexts, rounds, steps;
    const char *output;
    char command[1024];
};

struct cell {
    cudaGraphExec_t graph;
    double *ns;
    int n;
    double bytes;
};

static void write_header(FILE *f) {
    fprintf(f, "mix,shape,layers,heads,kv_heads,head_dim,hidden,ffn,vocab,weights,synthetic,threads,"
               "context,step_ns,low_ns,high_ns,samples,disturbed,weights_ns,attend_ns,append_ns,"
               "policy_ns,head_ns,other_ns,cache_bytes,machine,engine,compiler,date,command,"
               "clock_mhz,bandwidth_bytes_per_ns,launch_ns\n");
}

static void machine_text(char *out, size_t room, double *clock_mhz) {
    cudaDeviceProp p;
    int khz = 0;
    CHECK(cudaGetDeviceProperties(&p, 0));
    cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, 0);
    *clock_mhz = khz / 1e3;
    snprintf(out, room, "%s; %d processors; %d MB L2", p.name, p.multiProcessorCount,
             p.l2CacheSize >> 20);
}

static void bench_shape(const options *o, const shape &s, FILE *f) {
    model m;
    layout l[MAX_CELLS];
    cudaEvent_t begin, end;
    model_init(&m, s);
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    int longest = o->contexts[o->n_contexts - 1], room = o->rounds * o->steps;
    cell *cells = (cell *)calloc((size_t)o->n_mixes * o->n_contexts, sizeof *cells);
    for (int i = 0; i < o->n_mixes; i++) {
        layout_init(&l[i], &o->mixes[i], s, longest);
        for (int t = 0; t < o->n_contexts; t++) {
            cell *c = &cells[i * o->n_contexts + t];
            layout_set(&l[i], &o->mixes[i], o->contexts[t]);
            c->graph = capture(&m, l[i], WHOLE);
            c->ns = (double *)calloc(room, sizeof(double));
            c->bytes = layout_bytes(&l[i], s);
        }
    }
    set_position(&m, longest - 1); // the angle does not change the time
    // What no cell changes: the step without attention, and the head alone.
    cudaGraphExec_t fixed[2] = {capture(&m, l[0], WITH_LAYERS | WITH_HEAD),
                                capture(&m, l[0], WITH_HEAD)};
    double *fixed_ns[2] = {(double *)calloc(room, 8), (double *)calloc(room, 8)};
    for (int r = 0; r < o->rounds; r++) {
        for (int k = 0; k < 2; k++) {
            timed_ns(&m, fixed[k], begin, end);
            for (int i = 0; i < o->steps; i++)
                fixed_ns[k][r * o->steps + i] = timed_ns(&m, fixed[k], begin, end);
        }
        for (int t = 0; t < o->n_contexts; t++)
            for (int i = 0; i < o->n_mixes; i++) {
                cell *c = &cells[(i + r) % o->n_mixes * o->n_contexts + t];
                timed_ns(&m, c->graph, begin, end); // warms up
                for (int k = 0; k < o->steps; k++) c->ns[c->n++] = timed_ns(&m, c->graph, begin, end);
            }
    }
    double clock_mhz, bandwidth = bandwidth_bytes_per_ns(&m), launch = launch_ns(&m);
    double bare = quantile(fixed_ns[0], room, 0.5), head = quantile(fixed_ns[1], room, 0.5);
    char machine[300], date[32];
    time_t now = time(NULL);
    machine_text(machine, sizeof machine, &clock_mhz);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    for (int i = 0; i < o->n_mixes; i++)
        for (int t = 0; t < o->n_contexts; t++) {
            cell *c = &cells[i * o->n_contexts + t];
            double step = quantile(c->ns, c->n, 0.5);
            // Attention, with the append fused into it, is what the step takes beyond the bare one.
            fprintf(f,
                    "%s,%s,%d,%d,%d,%d,%d,%d,%d,bf16,1,0,%d,%.0f,%.0f,%.0f,%d,0,%.0f,%.0f,,,%.0f,,"
                    "%.0f,%s,kvsim-cuda,nvcc %d.%d,%s,\"%s\",%.0f,%.6g,%.6g\n",
                    o->mixes[i].text, s.name, s.layers, s.heads, s.kv_heads, DIM, s.hidden, s.ffn,
                    s.vocab, o->contexts[t], step, quantile(c->ns, c->n, 0.25),
                    quantile(c->ns, c->n, 0.75), c->n, bare - head, step - bare, head, c->bytes,
                    machine, __CUDACC_VER_MAJOR__, __CUDACC_VER_MINOR__, date, o->command,
                    clock_mhz, bandwidth, launch);
        }
    fprintf(stderr, "%s: bare step %.3f ms, head %.3f ms, launch %.2f us, streaming read %.0f GB/s\n",
            s.name, bare / 1e6, head / 1e6, launch / 1e3, bandwidth);
    for (int i = 0; i < o->n_mixes * o->n_contexts; i++) {
        CHECK(cudaGraphExecDestroy(cells[i].graph));
        free(cells[i].ns);
    }
    for (int k = 0; k < 2; k++) {
        CHECK(cudaGraphExecDestroy(fixed[k]));
        free(fixed_ns[k]);
    }
    for (int i = 0; i < o->n_mixes; i++) layout_fini(&l[i]);
    free(cells);
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    model_fini(&m);
}

static int usage(const char *wrong) {
    if (wrong) fprintf(stderr, "kvsim-cuda: %s\n", wrong);
    fprintf(stderr, "usage: kvsim-cuda [--shape LIST] [--contexts LIST] [--mixes LIST] [--rounds N] "
                    "[--steps N] [-o FILE.csv]\n"
                    "       checks the kernels, then times decode steps; without -o: stdout\n");
    return 2;
}

static bool read_list(options *o, const char *name, const char *value) {
    char *copy = strdup(value), *state = NULL;
    bool good = true;
    for (char *x = strtok_r(copy, ",", &state); x && good; x = strtok_r(NULL, ",", &state)) {
        if (strcmp(name, "--shape") == 0) {
            good = false;
            for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
                if (strcmp(shapes[i].name, x) == 0 && o->n_shapes < 8) {
                    o->shape[o->n_shapes++] = &shapes[i];
                    good = true;
                }
        } else if (strcmp(name, "--contexts") == 0) {
            long n = strtol(x, NULL, 10);
            good = n >= 2 && n <= 1 << 20 && o->n_contexts < MAX_CELLS &&
                   (o->n_contexts == 0 || n > o->contexts[o->n_contexts - 1]);
            if (good) o->contexts[o->n_contexts++] = (int)n;
        } else {
            good = o->n_mixes < MAX_CELLS && parse_mix(&o->mixes[o->n_mixes], x);
            o->n_mixes += good;
        }
    }
    free(copy);
    return good;
}

int main(int argc, char **argv) {
    static options o;
    o.rounds = 5;
    o.steps = 10;
    snprintf(o.command, sizeof o.command, "kvsim-cuda");
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!value) return usage(name[0] == '-' && name[1] == '-' ? "an option lacks its value" : NULL);
        bool list = !strcmp(name, "--shape") || !strcmp(name, "--contexts") || !strcmp(name, "--mixes");
        if (list && !read_list(&o, name, value)) return usage(value);
        if (strcmp(name, "--rounds") == 0)
            o.rounds = atoi(value);
        else if (strcmp(name, "--steps") == 0)
            o.steps = atoi(value);
        else if (strcmp(name, "-o") == 0)
            o.output = value;
        else if (!list)
            return usage(name);
        size_t n = strlen(o.command);
        if (strcmp(name, "-o") != 0)
            snprintf(o.command + n, sizeof o.command - n, " %s %s", name, value);
    }
    if (o.rounds < 1 || o.steps < 1) return usage("--rounds and --steps are at least 1");
    if (!o.n_shapes) read_list(&o, "--shape", "135m");
    if (!o.n_contexts) read_list(&o, "--contexts", "64,256,512,1024,2048,4096,8192,16384");
    if (!o.n_mixes)
        read_list(&o, "--mixes", "16,8,4,2,k8v4,k4v8,k4v2,k16v4,2=0.25/4=0.25/8=0.25/16=0.25");
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        fprintf(stderr, "kvsim-cuda: no CUDA device is here\n");
        return 1;
    }
    if (!check_kernels()) return 1;
    FILE *f = o.output ? fopen(o.output, "w") : stdout;
    if (!f) {
        fprintf(stderr, "kvsim-cuda: %s cannot be written\n", o.output);
        return 1;
    }
    write_header(f);
    for (int i = 0; i < o.n_shapes; i++) bench_shape(&o, *o.shape[i], f);
    if (fflush(f) != 0 || ferror(f) || (o.output && fclose(f) != 0)) {
        fprintf(stderr, "kvsim-cuda: %s could not be written whole\n", o.output ? o.output : "stdout");
        return 1;
    }
    return 0;
}
