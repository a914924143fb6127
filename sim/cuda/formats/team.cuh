// SPDX-License-Identifier: Apache-2.0
// Threads that code a unit together, or one that does it alone: the formats are written once for
// both, so that a test without a GPU runs the very lines that a GPU runs.
//
//     for (uint32_t i = t.lane(); i < n; i += t.size()) ...
//     most = t.most(mine);                  of all lanes; exact, whatever the order
//     t.sync();                             what lanes wrote to shared memory is seen by all
//
// No line here may be contracted (nvcc -fmad=false, g++ -ffp-contract=off): codes are the CPU's.
#ifndef KV_CUDA_FORMATS_TEAM_CUH
#define KV_CUDA_FORMATS_TEAM_CUH

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define KV_BOTH __host__ __device__ static inline
#define KV_MEMBER __host__ __device__ inline
#else
#define KV_BOTH static inline
#define KV_MEMBER inline
#endif

struct KvAlone {
    KV_MEMBER uint32_t lane() const { return 0; }
    KV_MEMBER uint32_t size() const { return 1; }
    KV_MEMBER void sync() const {}
    KV_MEMBER uint32_t most(uint32_t v) const { return v; }
    KV_MEMBER uint32_t least(uint32_t v) const { return v; }
    KV_MEMBER float sum(float v) const { return v; } // in an order that is always the same
};

#ifdef __CUDACC__
struct KvWarp {
    KV_MEMBER uint32_t lane() const {
#ifdef __CUDA_ARCH__
        return threadIdx.x & 31;
#else
        return 0;
#endif
    }
    KV_MEMBER uint32_t size() const {
        return 32;
    }
    KV_MEMBER void sync() const {
#ifdef __CUDA_ARCH__
        __syncwarp();
#endif
    }
    KV_MEMBER uint32_t most(uint32_t v) const {
#ifdef __CUDA_ARCH__
        return __reduce_max_sync(0xFFFFFFFFu, v);
#else
        return v;
#endif
    }
    KV_MEMBER uint32_t least(uint32_t v) const {
#ifdef __CUDA_ARCH__
        return __reduce_min_sync(0xFFFFFFFFu, v);
#else
        return v;
#endif
    }
    KV_MEMBER float sum(float v) const {
#ifdef __CUDA_ARCH__
        for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, step);
#endif
        return v;
    }
};
#endif

// ---- numbers ---------------------------------------------------------------------------------

KV_BOTH uint32_t kv_bits(float x) {
#ifdef __CUDA_ARCH__
    return __float_as_uint(x);
#else
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
#endif
}

KV_BOTH float kv_float(uint32_t u) {
#ifdef __CUDA_ARCH__
    return __uint_as_float(u);
#else
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
#endif
}

KV_BOTH bool kv_nan(float x) {
    return x != x;
}

// Floats as integers that stand in the same order; those of NaN are not asked for.
KV_BOTH uint32_t kv_rank(float x) {
    uint32_t u = kv_bits(x);
    return u >> 31 ? ~u : u | 0x80000000u;
}

KV_BOTH float kv_of_rank(uint32_t r) {
    return kv_float(r >> 31 ? r & 0x7FFFFFFFu : ~r);
}

// |x| as an integer; NaN counts as 0.
KV_BOTH uint32_t kv_height(float x) {
    uint32_t a = kv_bits(x) & 0x7FFFFFFFu;
    return a > 0x7F800000u ? 0 : a;
}

// sim/base/half.c.
KV_BOTH uint32_t kv_to_half(float x) {
    uint32_t u = kv_bits(x), sign = (u >> 16) & 0x8000u, a = u & 0x7FFFFFFFu;
    if (a > 0x7F800000u) return sign | 0x7E00u | ((a >> 13) & 0x1FFu);
    if (a >= 0x477FF000u) return sign | 0x7C00u;
    if (a < 0x38800000u) return sign | (kv_bits(kv_float(a) + 0.5f) - 0x3F000000u);
    return sign | ((a - 0x38000000u + 0xFFFu + ((a >> 13) & 1u)) >> 13);
}

KV_BOTH float kv_of_half(uint32_t h) {
    uint32_t sign = (h & 0x8000u) << 16, a = h & 0x7FFFu;
    if (a >= 0x7C00u) return kv_float(sign | 0x7F800000u | (a & 0x3FFu) << 13);
    if (a >= 0x0400u) return kv_float(sign | ((a << 13) + 0x38000000u));
    float x = (float)a * 0x1p-24f;
    return sign ? -x : x;
}

// Through fp16 and back.
KV_BOTH float kv_halved(float x) {
#ifdef __CUDA_ARCH__
    if (!kv_nan(x)) return __half2float(__float2half_rn(x));
#endif
    return kv_of_half(kv_to_half(x));
}

KV_BOTH float kv_held(float x) { // within fp16; NaN as 0
    return kv_nan(x) ? 0.0f : x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
}

// ---- bytes of a unit, where somebody wants them ------------------------------------------------

KV_BOTH void kv_put_16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

KV_BOTH void kv_put_32(uint8_t *p, uint32_t v) {
    kv_put_16(p, v & 0xFFFFu);
    kv_put_16(p + 2, v >> 16);
}

#endif
