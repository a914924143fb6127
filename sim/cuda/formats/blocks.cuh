// SPDX-License-Identifier: Apache-2.0
// ggml's block types on a team: sim/quant/ggml_judge.c value by value.
#ifndef KV_CUDA_FORMATS_BLOCKS_CUH
#define KV_CUDA_FORMATS_BLOCKS_CUH

#include "sim/cuda/formats/grids.cuh"

enum { KV_BLOCK = 32 };
enum { KV_IS_Q8_0, KV_IS_Q4_0, KV_IS_Q4_1, KV_IS_Q5_0, KV_IS_Q5_1, KV_IS_IQ4_NL }; // kv_ggml_type

KV_BOTH float kv_inverse(float d) {
    return d != 0.0f ? 1.0f / d : 0.0f;
}

// The first of the values whose key is the largest; 32 where all keys are `none`.
template <class T> KV_BOTH uint32_t kv_first_of(const T &t, const uint32_t *key, uint32_t none) {
    uint32_t most = none, at = KV_BLOCK;
    for (uint32_t i = t.lane(), k = 0; i < KV_BLOCK; i += t.size(), k++)
        if (key[k] > most) most = key[k], at = i;
    uint32_t of_all = t.most(most);
    return t.least(of_all > none && most == of_all ? at : (uint32_t)KV_BLOCK);
}

// The first of the largest magnitudes, with its sign. NaN is passed over.
template <class T> KV_BOTH float kv_signed_max(const T &t, const float *x) {
    uint32_t key[KV_BLOCK];
    for (uint32_t i = t.lane(), k = 0; i < KV_BLOCK; i += t.size(), k++) key[k] = kv_height(x[i]);
    uint32_t at = kv_first_of(t, key, 0);
    return at < KV_BLOCK ? x[at] : 0.0f;
}

// The first of the least and of the largest: the sign of a zero is its first one's.
template <class T> KV_BOTH void kv_block_range(const T &t, const float *x, float *min, float *max) {
    uint32_t low[KV_BLOCK], high[KV_BLOCK];
    for (uint32_t i = t.lane(), k = 0; i < KV_BLOCK; i += t.size(), k++) {
        float v = x[i] + 0.0f; // one zero
        low[k] = kv_nan(v) ? 0 : ~kv_rank(v);
        high[k] = kv_nan(v) ? 0 : kv_rank(v);
    }
    uint32_t a = kv_first_of(t, low, ~kv_rank(INFINITY)),
             b = kv_first_of(t, high, kv_rank(-INFINITY));
    *min = a < KV_BLOCK ? x[a] : INFINITY;
    *max = b < KV_BLOCK ? x[b] : -INFINITY;
    if (*min > *max) *min = *max = 0.0f;
}

KV_BOTH uint32_t kv_truncated(float x, float top) {
    return (uint32_t)(x > 0.0f ? (x < top ? x : top) : 0.0f);
}

// The 16 uneven levels of iq4_nl, ascending.
KV_BOTH int kv_uneven(uint32_t i) {
    const uint64_t low = 0xF6EADDCFBFAD9881ull, high = 0x7159453526190D01ull;
    return (int)(int8_t)((i < 8 ? low >> (8 * i) : high >> (8 * (i - 8))) & 255);
}

KV_BOTH uint32_t kv_nearest_uneven(float x) {
    if (!(x > (float)kv_uneven(0))) return 0;
    if (x >= (float)kv_uneven(15)) return 15;
    uint32_t low = 0, high = 15;
    while (high - low > 1) {
        uint32_t mid = (low + high) / 2;
        if (x < (float)kv_uneven(mid))
            high = mid;
        else
            low = mid;
    }
    return x - (float)kv_uneven(high - 1) < (float)kv_uneven(high) - x ? high - 1 : high;
}

// The scale, refitted by least squares with weights x^2; the sums run in order.
template <class T> KV_BOTH float kv_fit_uneven(const T &t, const float *x, uint8_t *code) {
    float largest = kv_signed_max(t, x);
    bool none = fabsf(largest) < 1e-15f;
    float id = none ? 0.0f : kv_inverse(largest / (float)kv_uneven(0));
    for (uint32_t i = t.lane(); i < KV_BLOCK; i += t.size())
        code[i] = (uint8_t)(none ? 0 : kv_nearest_uneven(id * x[i]));
    t.sync();
    if (none) return 0.0f;
    float sum_qx = 0.0f, sum_q2 = 0.0f;
    for (uint32_t i = 0; i < KV_BLOCK; i++) {
        float q = (float)kv_uneven(code[i]), w = x[i] * x[i];
        sum_qx += w * q * x[i];
        sum_q2 += w * q * q;
    }
    t.sync();
    return sum_q2 > 0.0f ? sum_qx / sum_q2 : 0.0f;
}

// Bytes of a block from its codes; by one lane.
KV_BOTH void kv_block_bytes(uint32_t type, uint32_t d, uint32_t m, const uint8_t *code,
                            uint8_t *out) {
    kv_put_16(out, d);
    out += 2;
    if (type == KV_IS_Q8_0) {
        for (uint32_t i = 0; i < KV_BLOCK; i++) out[i] = (uint8_t)(code[i] - 128);
        return;
    }
    if (type == KV_IS_Q4_1 || type == KV_IS_Q5_1) {
        kv_put_16(out, m);
        out += 2;
    }
    if (type == KV_IS_Q5_0 || type == KV_IS_Q5_1) {
        uint32_t high = 0;
        for (uint32_t i = 0; i < KV_BLOCK; i++) high |= (uint32_t)(code[i] >> 4 & 1) << i;
        kv_put_32(out, high);
        out += 4;
    }
    for (uint32_t i = 0; i < KV_BLOCK / 2; i++)
        out[i] = (uint8_t)((code[i] & 15) | (code[i + 16] & 15) << 4);
}

template <class T>
KV_BOTH void kv_block_code(const T &t, uint32_t type, float *x, uint8_t *code, uint8_t *out) {
    float d, m = 0.0f;
    int middle = 0;
    if (type == KV_IS_Q8_0) {
        d = fabsf(kv_signed_max(t, x)) / 127.0f;
        float id = kv_inverse(d);
        middle = 128;
        for (uint32_t i = t.lane(); i < KV_BLOCK; i += t.size()) {
            float q = roundf(x[i] * id);
            q = kv_nan(q) ? 0.0f : q < -127.0f ? -127.0f : q > 127.0f ? 127.0f : q;
            code[i] = (uint8_t)((int)q + 128);
        }
    } else if (type == KV_IS_Q4_0 || type == KV_IS_Q5_0) {
        float half = type == KV_IS_Q4_0 ? 8.0f : 16.0f;
        d = kv_signed_max(t, x) / -half;
        float id = kv_inverse(d);
        middle = (int)half;
        for (uint32_t i = t.lane(); i < KV_BLOCK; i += t.size())
            code[i] = (uint8_t)kv_truncated(x[i] * id + (half + 0.5f), 2.0f * half - 1.0f);
    } else if (type == KV_IS_IQ4_NL) {
        d = kv_fit_uneven(t, x, code);
    } else {
        float max, top = type == KV_IS_Q4_1 ? 15.0f : 31.0f;
        kv_block_range(t, x, &m, &max);
        d = (max - m) / top;
        float id = kv_inverse(d);
        for (uint32_t i = t.lane(); i < KV_BLOCK; i += t.size())
            code[i] = (uint8_t)kv_truncated((x[i] - m) * id + 0.5f, top);
    }
    t.sync();
    if (out && t.lane() == 0) kv_block_bytes(type, kv_to_half(d), kv_to_half(m), code, out);
    bool ranged = type == KV_IS_Q4_1 || type == KV_IS_Q5_1;
    d = kv_halved(d);
    m = kv_halved(m);
    for (uint32_t i = t.lane(); i < KV_BLOCK; i += t.size()) {
        int q = type == KV_IS_IQ4_NL ? kv_uneven(code[i]) : (int)code[i] - middle;
        x[i] = ranged ? d * (float)q + m : d * (float)q;
    }
    t.sync();
}

template <class T>
KV_BOTH void kv_blocks_unit(const T &t, const kv_plain_width &w, float *x, uint8_t *code,
                            uint8_t *out) {
    uint32_t n = w.values / KV_BLOCK, bytes = w.bytes / n;
    for (uint32_t k = 0; k < n; k++)
        kv_block_code(t, w.block_type, x + k * KV_BLOCK, code + k * KV_BLOCK,
                      out ? out + k * bytes : out);
}

#endif
