// SPDX-License-Identifier: Apache-2.0
// Attention over packed widths on a GPU: the cache's layout and the fused kernel that reads it.
#ifndef KV_ATTENTION_CUH
#define KV_ATTENTION_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DIM = 64 }; // of a head whose cells each have a width of their own (cells.cuh)
enum { PAGE = 64, TILE = 16, MAX_CLASSES = 16, MAX_CELLS = 64, MAX_DIM = 256 };
enum { WARPS = 8, MAX_SPLITS = 320 }; // of a block of attention; blocks a head
enum { JOINED = 4 };                 // splits a warp joins at once
enum { STAGES = 3 };                 // tiles a warp has under way

// What follows from a head's dimension.
template <int HEAD> struct head_of {
    static_assert(HEAD % 16 == 0 && HEAD >= 64 && HEAD <= MAX_DIM && HEAD / 16 != 7,
                  "a half warp takes half of a token's words");
    static constexpr int stage_bytes = 2 * TILE * HEAD * 2; // of a tile at 16 bits
    static constexpr int warps = HEAD <= 128 ? WARPS : WARPS / 2; // whose stages fit
    static constexpr int pieces = (HEAD + 31) / 32; // pieces of 32 channels, of which a sum is kept
    static constexpr int out = HEAD <= 64 ? 2 : HEAD <= 128 ? 4 : 8; // channels of a lane, in order
};

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
    int new_class, new_slot; // where the step's token goes
};

__host__ __device__ static inline int words_of(int bits, int dim = DIM) {
    return dim * bits / 32;
}
static inline int side_bytes(int bits, int dim) {
    return PAGE * words_of(bits, dim) * 4 + (bits < 16 ? PAGE * 2 : 0);
}
__host__ __device__ static inline int pages_of(int tokens) {
    return (tokens + PAGE - 1) / PAGE;
}
__host__ __device__ static inline int tiles_of(int tokens) {
    return (tokens + TILE - 1) / TILE;
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

// Code i of a word of at most 8 bits a code, as 1 + code / 2^bits: the code becomes the upper bits of
// a float's mantissa, which takes a shift and a mask and no conversion.
template <int BITS> __device__ static inline float mantissa_of(uint32_t word, int i) {
    const int up = 23 - BITS - BITS * i;
    const uint32_t moved = up >= 0 ? word << (up & 31) : word >> (-up & 31);
    return __uint_as_float((moved & (((1u << (BITS % 32)) - 1) << (23 - BITS))) | 0x3F800000u);
}
template <int BITS> __device__ static inline float number_of(uint32_t word, int i) {
    if (BITS == 16)
        return __half2float(__ushort_as_half((unsigned short)(i ? word >> 16 : word & 0xFFFF)));
    return mantissa_of<BITS>(word, i);
}
// What stands for zero among those numbers, and the distance of two codes.
template <int BITS> __device__ static constexpr float zero_of() {
    return BITS == 16 ? 0.0f : 1.5f;
}
template <int BITS> __device__ static constexpr float step_of() {
    return BITS == 16 ? 1.0f : 1.0f / (float)(1 << (BITS % 32));
}

// What a warp carries through its tiles. o: its lane's channels, from out times lane on; max is the
// same in all lanes, sum in parts by lane % TILE.
template <int HEAD, int GROUP> struct running {
    float max[GROUP], sum[GROUP], o[GROUP][head_of<HEAD>::out];
};

// One tile in a warp's shared memory: keys [words][TILE], values [TILE][words], then the scales.
// Copies run ahead of the arithmetic; loops stay loops, because at batch 1 a kernel's code is cold
// and fetching it costs more than running it.
template <int HEAD, int KEY_BITS, int VALUE_BITS> struct tile_words {
    static constexpr int key_words = HEAD * KEY_BITS / 32, value_words = HEAD * VALUE_BITS / 32;
    static constexpr int values_at = TILE * key_words * 4;
    static constexpr int scales_at = values_at + TILE * value_words * 4;

    __device__ static inline void copy16(uint8_t *to, const void *from) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                         (unsigned)__cvta_generic_to_shared(to)),
                     "l"(from));
    }
    __device__ static inline void start(uint8_t *to, const width_class &c, int layer, int kv_heads,
                                        int head, int tile) {
        const int lane = threadIdx.x % 32, first = tile % (PAGE / TILE) * TILE;
        const uint8_t *block = block_of(c, layer, kv_heads, head, tile / (PAGE / TILE));
        const uint32_t *k = (const uint32_t *)block;
        const uint32_t *v = (const uint32_t *)(block + c.value_at);
#pragma unroll 1
        for (int i = lane; i < key_words * TILE / 4; i += 32)
            copy16(to + i * 16, k + i / (TILE / 4) * PAGE + first + i % (TILE / 4) * 4);
#pragma unroll 1
        for (int i = lane; i < value_words * TILE / 4; i += 32)
            copy16(to + values_at + i * 16, v + first * value_words + i * 4);
        const __half *scale = (const __half *)(lane < 2 ? k + PAGE * key_words
                                                        : v + PAGE * value_words);
        if ((lane < 2 && KEY_BITS < 16) || (lane / 2 == 1 && VALUE_BITS < 16))
            copy16(to + scales_at + lane * 16, scale + first + lane % 2 * 8);
    }
};

// Sums x over the N / OUT neighbouring lanes that hold the same channels for other tokens; each lane
// is left with OUT channels, in order.
template <int N, int OUT> __device__ static inline void halve(float *x, int lane) {
    if constexpr (N > OUT) {
        constexpr int apart = N / OUT / 2;
        const bool upper = lane & apart;
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            float given = upper ? x[i] : x[i + N / 2], kept = upper ? x[i + N / 2] : x[i];
            x[i] = kept + __shfl_xor_sync(~0u, given, apart);
        }
        halve<N / 2, OUT>(x, lane);
    }
}

// Tiles first, first + step, ... of one class, by one warp. q: [GROUP][HEAD] in shared memory,
// scaled; q_sum: [GROUP][pieces]; stage: [STAGES][stage_bytes]. Keys: a half warp takes the first half of a
// token's words, the other one the rest. Values: a load takes words of several tokens where a
// lane's channels are fewer than a word's codes, and several neighbouring words of one where they
// are more; lanes beyond a head of 80 or 96 read what lies there, and nobody asks them.
template <int HEAD, int KEY_BITS, int VALUE_BITS, int GROUP>
__device__ static void attend_class(const width_class &c, int layer, int kv_heads, int head,
                                    int first, int end, int step, const float *q,
                                    const float *q_sum, uint8_t *stage, running<HEAD, GROUP> &r) {
    typedef tile_words<HEAD, KEY_BITS, VALUE_BITS> words;
    constexpr int STAGE_BYTES = head_of<HEAD>::stage_bytes, OUT = head_of<HEAD>::out;
    constexpr int key_codes = 32 / KEY_BITS, value_codes = 32 / VALUE_BITS;
    constexpr int together = value_codes > OUT ? value_codes / OUT : 1; // tokens of a warp's load
    constexpr int side_by_side = value_codes < OUT ? OUT / value_codes : 1; // words of a lane
    constexpr int n_acc = value_codes * side_by_side;
    constexpr int half_words = (words::key_words + 1) / 2;
    constexpr int key_turns = 8 / key_codes ? 8 / key_codes : 1;
    constexpr bool last_lane_word = together * words::value_words >= 32 * side_by_side;
    const int lane = threadIdx.x % 32, half = lane / TILE;
    if (first >= end) return;
    const float *q_half = q + half * half_words * key_codes;
    float acc[GROUP][n_acc], bias[GROUP], fade[GROUP], q_total[GROUP];
    for (int g = 0; g < GROUP; g++) {
        q_total[g] = 0;
        for (int i = 0; i < head_of<HEAD>::pieces; i++)
            q_total[g] += q_sum[g * head_of<HEAD>::pieces + i];
        for (int i = 0; i < n_acc; i++) acc[g][i] = 0;
        bias[g] = 0;
        fade[g] = 1;
    }
    __syncwarp(); // the class before has left the stages
#pragma unroll 1
    for (int s = 0; s < STAGES - 1; s++) {
        if (first + s * step < end)
            words::start(stage + s * STAGE_BYTES, c, layer, kv_heads, head, first + s * step);
        asm volatile("cp.async.commit_group;");
    }
    int slot = 0;
#pragma unroll 1
    for (int tile = first; tile < end; tile += step) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        __syncwarp();
        const uint8_t *now = stage + slot * STAGE_BYTES;
        const int ahead = tile + (STAGES - 1) * step;
        if (ahead < end)
            words::start(stage + (slot ? slot - 1 : STAGES - 1) * STAGE_BYTES, c, layer, kv_heads,
                         head, ahead);
        asm volatile("cp.async.commit_group;");
        slot = slot + 1 < STAGES ? slot + 1 : 0;
        const uint32_t *key = (const uint32_t *)now + half * half_words * TILE + lane % TILE;
        const __half *scale = (const __half *)(now + words::scales_at) + lane % TILE;
        float score[GROUP];
        for (int g = 0; g < GROUP; g++) score[g] = 0;
        // The halves of a warp take words in another order where those that they take at a time
        // would meet in a bank.
#pragma unroll key_turns
        for (int n = 0; n < half_words; n++) {
            const int w = half_words % 2 ? n : n ^ half;
            if (words::key_words % 2 && half && n == half_words - 1) break;
            const uint32_t word = key[w * TILE];
#pragma unroll
            for (int i = 0; i < key_codes; i += 2) {
                const float k[2] = {number_of<KEY_BITS>(word, i), number_of<KEY_BITS>(word, i + 1)};
                for (int g = 0; g < GROUP; g++) {
                    const float2 with = *(const float2 *)(q_half + g * HEAD + w * key_codes + i);
                    score[g] += k[0] * with.x;
                    score[g] += k[1] * with.y;
                }
            }
        }
        const bool in = lane % TILE < c.tokens - tile * TILE;
        float top[GROUP];
        bool raised = false;
        for (int g = 0; g < GROUP; g++) {
            float s = score[g] + __shfl_xor_sync(~0u, score[g], TILE);
            if (KEY_BITS < 16) {
                s -= zero_of<KEY_BITS>() * q_total[g];
                s *= __half2float(scale[0]) / step_of<KEY_BITS>();
            }
            top[g] = score[g] = in ? s : -INFINITY;
        }
#pragma unroll
        for (int i = TILE / 2; i; i >>= 1)
            for (int g = 0; g < GROUP; g++)
                top[g] = fmaxf(top[g], __shfl_xor_sync(~0u, top[g], i));
        for (int g = 0; g < GROUP; g++) raised |= top[g] > r.max[g];
        if (raised)
            for (int g = 0; g < GROUP; g++) {
                top[g] = fmaxf(top[g], r.max[g]);
                const float keep = __expf(r.max[g] - top[g]);
                r.max[g] = top[g];
                r.sum[g] *= keep;
                fade[g] *= keep;
                bias[g] *= keep;
                for (int i = 0; i < n_acc; i++) acc[g][i] *= keep;
            }
        for (int g = 0; g < GROUP; g++) {
            const float e = __expf(score[g] - r.max[g]);
            r.sum[g] += e;
            score[g] = VALUE_BITS < 16 && in ? e * __half2float(scale[TILE]) : e;
        }
        const int of_lane = lane / together * side_by_side;
        const uint32_t *value =
            (const uint32_t *)(now + words::values_at) + lane % together * words::value_words +
            (last_lane_word || of_lane < words::value_words ? of_lane : 0);
#pragma unroll(8 / n_acc ? 8 / n_acc : 1)
        for (int t = 0; t < TILE; t += together) {
            struct __align__(4 * side_by_side) { uint32_t at[side_by_side]; } word;
            word = *(const decltype(word) *)(value + t * words::value_words);
            float p[GROUP];
            for (int g = 0; g < GROUP; g++) {
                p[g] = __shfl_sync(~0u, score[g], t + lane % together);
                if (VALUE_BITS < 16) bias[g] += p[g];
            }
#pragma unroll
            for (int i = 0; i < n_acc; i++) {
                float v = number_of<VALUE_BITS>(word.at[i / value_codes], i % value_codes);
                for (int g = 0; g < GROUP; g++) acc[g][i] += v * p[g];
            }
        }
    }
    // The tokens of a load are summed over neighbouring lanes, each of which keeps its channels.
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
#pragma unroll
        for (int i = 0; i < n_acc; i++)
            acc[g][i] = (acc[g][i] - zero_of<VALUE_BITS>() * bias[g]) / step_of<VALUE_BITS>();
        halve<n_acc, OUT>(acc[g], lane);
        for (int i = 0; i < OUT; i++) r.o[g][i] = r.o[g][i] * fade[g] + acc[g][i];
    }
}

template <int HEAD, int KEY_BITS, int GROUP>
__device__ static void attend_values(const width_class &c, int layer, int kv_heads, int head,
                                     int first, int end, int step, const float *q,
                                     const float *q_sum, uint8_t *stage, running<HEAD, GROUP> &r) {
    switch (c.value_bits) {
    case 2:
        attend_class<HEAD, KEY_BITS, 2>(c, layer, kv_heads, head, first, end, step, q, q_sum, stage, r);
        break;
    case 4:
        attend_class<HEAD, KEY_BITS, 4>(c, layer, kv_heads, head, first, end, step, q, q_sum, stage, r);
        break;
    case 8:
        attend_class<HEAD, KEY_BITS, 8>(c, layer, kv_heads, head, first, end, step, q, q_sum, stage, r);
        break;
    default:
        attend_class<HEAD, KEY_BITS, 16>(c, layer, kv_heads, head, first, end, step, q, q_sum, stage, r);
    }
}

template <int HEAD, int GROUP>
__device__ static void attend_any(const width_class &c, int layer, int kv_heads, int head,
                                  int first, int end, int step, const float *q,
                                  const float *q_sum, uint8_t *stage, running<HEAD, GROUP> &r) {
    switch (c.key_bits) {
    case 2:
        attend_values<HEAD, 2>(c, layer, kv_heads, head, first, end, step, q, q_sum, stage, r);
        break;
    case 4:
        attend_values<HEAD, 4>(c, layer, kv_heads, head, first, end, step, q, q_sum, stage, r);
        break;
    case 8:
        attend_values<HEAD, 8>(c, layer, kv_heads, head, first, end, step, q, q_sum, stage, r);
        break;
    default:
        attend_values<HEAD, 16>(c, layer, kv_heads, head, first, end, step, q, q_sum, stage, r);
    }
}

// RoPE in half-split order: channel i turns with the one half a head further.
template <int HEAD>
__device__ static inline float rotated(const float *x, int i, const float *cosine,
                                       const float *sine) {
    int j = i % (HEAD / 2);
    return i < HEAD / 2 ? x[i] * cosine[j] - x[i + HEAD / 2] * sine[j]
                        : x[i] * cosine[j] + x[i - HEAD / 2] * sine[j];
}

// Codes the new token's key and value of one head and stores them: side by side where the block has
// threads for both, else one after the other.
template <int HEAD>
__device__ static void append(const width_class &c, uint8_t *block, int slot, const float *k,
                              const float *v, const float *cosine, const float *sine) {
    constexpr int side_threads = (HEAD + 31) / 32 * 32, threads = head_of<HEAD>::warps * 32;
    constexpr int sides = 2 * side_threads <= threads ? 2 : 1, turns = side_threads / threads;
    constexpr int each = turns ? turns : 1; // channels of a thread
    __shared__ float largest[2][HEAD / 32 + 1];
    __shared__ uint16_t code[2][HEAD];
    for (int begin = 0; begin < 2; begin += sides) {
        const int side = begin + (sides == 2 ? threadIdx.x / side_threads % 2 : 0);
        const int first = sides == 2 ? threadIdx.x % side_threads : threadIdx.x;
        const bool mine = sides == 1 || threadIdx.x < 2 * side_threads;
        const int bits = side ? c.value_bits : c.key_bits;
        float x[each];
        for (int n = 0; n < each; n++) {
            const int i = first + n * threads;
            x[n] = !mine || i >= HEAD ? 0 : side ? v[i] : rotated<HEAD>(k, i, cosine, sine);
            const float top = warp_max(fabsf(x[n]));
            if (mine && i % 32 == 0) largest[side][i / 32] = top;
        }
        __syncthreads();
        float top = 0;
        for (int i = 0; i < side_threads / 32; i++) top = fmaxf(top, largest[side][i]);
        const int words = words_of(bits, HEAD), levels = (1 << (bits - 1)) - 1;
        uint32_t *stream = (uint32_t *)(block + (side ? c.value_at : 0));
        const __half scale = __float2half_rn(__fdiv_rn(top, (float)levels));
        for (int n = 0; n < each; n++) {
            const int i = first + n * threads;
            if (!mine || i >= HEAD) continue;
            if (bits == 16) {
                code[side][i] = __half_as_ushort(__float2half_rn(x[n]));
                continue;
            }
            float s = __half2float(scale), r = s > 0 ? rintf(__fdiv_rn(x[n], s)) : 0;
            r = fminf(fmaxf(r, (float)-levels), (float)levels);
            code[side][i] = (uint16_t)((int)r + (1 << (bits - 1)));
            if (i == 0) ((__half *)(stream + PAGE * words))[slot] = scale;
        }
        __syncthreads();
        if (mine && first < words) { // at most half as many as channels
            uint32_t word = 0;
            int per_word = 32 / bits;
            for (int n = 0; n < per_word; n++)
                word |= (uint32_t)code[side][first * per_word + n] << (bits * n);
            stream[side ? slot * words + first : first * PAGE + slot] = word;
        }
        __syncthreads();
    }
}

// Grid (splits, KV heads x parts): a part attends for GROUP query heads of the `group` of a KV head;
// where they do not divide it, the last part overlaps the one before, and both write the same. Tiles
// of all classes go to the warps of a part in turn; each part that comes to the new token's tile
// stores it first, with the same bytes. qkv: [heads + 2 kv_heads][HEAD]. partial: [KV heads x
// parts][splits][GROUP][HEAD + 2]; arrived: [KV heads x parts], zero. out: [heads][HEAD].
template <int HEAD, int GROUP>
__global__ void __launch_bounds__(head_of<HEAD>::warps * 32, HEAD == 64 && GROUP <= 3 ? 2 : 1)
    attend(layout l, int layer, int kv_heads, int group, const float *qkv, const float *cosine,
           const float *sine, float *partial, int *arrived, float *out) {
    constexpr int WARPS = head_of<HEAD>::warps, STAGE_BYTES = head_of<HEAD>::stage_bytes;
    constexpr int OUT = head_of<HEAD>::out;
    extern __shared__ __align__(16) uint8_t stages[]; // [WARPS][STAGES][STAGE_BYTES]
    __shared__ __align__(16) float q[GROUP * HEAD];
    __shared__ float q_sum[GROUP * head_of<HEAD>::pieces];
    __shared__ __align__(8) float o[WARPS][GROUP][HEAD], maxes[WARPS][GROUP], sums[WARPS][GROUP];
    __shared__ float weight[MAX_SPLITS][GROUP];
    __shared__ bool last;
    const int head = blockIdx.y % kv_heads, part = blockIdx.y, split = blockIdx.x;
    const int splits = gridDim.x, heads = group * kv_heads;
    const int of = head * group + min((int)blockIdx.y / kv_heads * GROUP, group - GROUP);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = warp; i < GROUP * head_of<HEAD>::pieces; i += WARPS) {
        const int g = i / head_of<HEAD>::pieces, d = i % head_of<HEAD>::pieces * 32 + lane;
        float x = 0;
        if (d < HEAD)
            q[g * HEAD + d] = x = rotated<HEAD>(qkv + (of + g) * HEAD, d, cosine, sine) *
                                  (1 / sqrtf((float)HEAD));
        x = warp_sum(x);
        if (lane == 0) q_sum[i] = x;
    }
    running<HEAD, GROUP> r;
    for (int g = 0; g < GROUP; g++) {
        r.max[g] = -INFINITY;
        r.sum[g] = 0;
        for (int i = 0; i < OUT; i++) r.o[g][i] = 0;
    }
    const int warps = WARPS * splits, me = split * WARPS + warp;
    int before = 0; // tiles of the classes before
    for (int i = 0; i < l.new_class; i++) before += tiles_of(l.at[i].tokens);
    if ((before + l.new_slot / TILE) % warps / WARPS == split) {
        const width_class &c = l.at[l.new_class];
        append<HEAD>(c, block_of(c, layer, kv_heads, head, l.new_slot / PAGE), l.new_slot % PAGE,
               qkv + (heads + head) * HEAD, qkv + (heads + kv_heads + head) * HEAD, cosine, sine);
    }
    __syncthreads(); // q is complete
    uint8_t *stage = stages + warp * STAGES * STAGE_BYTES;
    before = 0;
    for (int i = 0; i < l.n; i++) {
        const int tiles = tiles_of(l.at[i].tokens), first = (me - before % warps + warps) % warps;
        attend_any<HEAD, GROUP>(l.at[i], layer, kv_heads, head, first, tiles, warps, q, q_sum, stage, r);
        before += tiles;
    }
    for (int g = 0; g < GROUP; g++) {
        float sum = r.sum[g];
        for (int i = TILE / 2; i; i >>= 1) sum += __shfl_xor_sync(~0u, sum, i);
        if (lane == 0) {
            maxes[warp][g] = r.max[g];
            sums[warp][g] = sum;
        }
        for (int i = 0; i < OUT && OUT * lane < HEAD; i += 2)
            *(float2 *)&o[warp][g][OUT * lane + i] = make_float2(r.o[g][i], r.o[g][i + 1]);
    }
    __syncthreads();
    float *mine = partial + (size_t)(part * splits + split) * GROUP * (HEAD + 2);
    for (int i = threadIdx.x; i < GROUP * HEAD; i += blockDim.x) {
        const int g = i / HEAD;
        float top = -INFINITY, sum = 0, x = 0;
        for (int w = 0; w < WARPS; w++) top = fmaxf(top, maxes[w][g]);
        for (int w = 0; w < WARPS; w++) {
            float part = maxes[w][g] == -INFINITY ? 0 : __expf(maxes[w][g] - top);
            sum += part * sums[w][g];
            x += part * o[w][g][i % HEAD];
        }
        mine[g * (HEAD + 2) + i % HEAD] = x;
        if (i % HEAD == 0) *(float2 *)&mine[g * (HEAD + 2) + HEAD] = make_float2(top, sum);
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(&arrived[part], 1) == splits - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    // The last block of a head joins all: weights first, then its warps share the splits.
    const float *all = partial + (size_t)part * splits * GROUP * (HEAD + 2);
    if (warp < GROUP) {
        float top = -INFINITY, sum = 0;
        for (int s = lane; s < splits; s += 32)
            top = fmaxf(top, __ldcg(&all[(s * GROUP + warp) * (HEAD + 2) + HEAD]));
        top = warp_max(top);
        for (int s = lane; s < splits; s += 32) {
            const float2 part = __ldcg((const float2 *)&all[(s * GROUP + warp) * (HEAD + 2) + HEAD]);
            const float x = part.x == -INFINITY ? 0 : __expf(part.x - top);
            weight[s][warp] = x;
            sum += x * part.y;
        }
        sum = warp_sum(sum);
        if (lane == 0) sums[0][warp] = sum;
    }
    __syncthreads();
    float2 x[GROUP][OUT / 2];
    for (int g = 0; g < GROUP; g++)
        for (int i = 0; i < OUT / 2; i++) x[g][i] = make_float2(0, 0);
    const int mine_at = OUT * lane < HEAD ? OUT * lane : 0;
    for (int s = warp; s < splits; s += JOINED * WARPS) {
        float2 part[JOINED][GROUP][OUT / 2]; // all loads are under way before the first is used
#pragma unroll
        for (int k = 0; k < JOINED; k++)
            for (int g = 0; g < GROUP; g++) {
                const int at = min(s + k * WARPS, splits - 1) * GROUP + g;
                for (int i = 0; i < OUT / 2; i++)
                    part[k][g][i] =
                        __ldcg((const float2 *)&all[at * (HEAD + 2) + mine_at + 2 * i]);
            }
#pragma unroll
        for (int k = 0; k < JOINED; k++)
            for (int g = 0; g < GROUP; g++) {
                const float w = s + k * WARPS < splits ? weight[s + k * WARPS][g] : 0;
                for (int i = 0; i < OUT / 2; i++) {
                    x[g][i].x += w * part[k][g][i].x;
                    x[g][i].y += w * part[k][g][i].y;
                }
            }
    }
    for (int g = 0; g < GROUP && OUT * lane < HEAD; g++)
        for (int i = 0; i < OUT / 2; i++) *(float2 *)&o[warp][g][OUT * lane + 2 * i] = x[g][i];
    __syncthreads();
    for (int i = threadIdx.x; i < GROUP * HEAD; i += blockDim.x) {
        float x = 0;
        for (int w = 0; w < WARPS; w++) x += o[w][i / HEAD][i % HEAD];
        out[of * HEAD + i] = x / sums[0][i / HEAD];
    }
    if (threadIdx.x == 0) arrived[part] = 0;
}

#endif
