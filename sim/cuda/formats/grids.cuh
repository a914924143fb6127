// SPDX-License-Identifier: Apache-2.0
// Uniform grids on a team: sim/quant/grid_judge.c value by value. x becomes what is read back.
#ifndef KV_CUDA_FORMATS_GRIDS_CUH
#define KV_CUDA_FORMATS_GRIDS_CUH

#include "sim/cuda/formats/team.cuh"
#include "sim/quant/plain.h"

enum { KV_RULE_SYM, KV_RULE_ASYM, KV_RULE_ZP, KV_RULE_ZP_AFTER }; // enum kv_grid_rule

// A scale or minimum as the decoder reads it; its bytes to `to` where they are wanted.
KV_BOTH float kv_grid_number(const kv_plain_width &w, float x, uint8_t *to) {
    if (w.wide) {
        x = x > 0x1.fffffep127f ? 0x1.fffffep127f : x < -0x1.fffffep127f ? -0x1.fffffep127f : x;
        if (to) kv_put_32(to, kv_bits(x));
        return x;
    }
    x = x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
    if (to) kv_put_16(to, kv_to_half(x));
    return kv_halved(x);
}

KV_BOTH uint32_t kv_grid_code(const kv_plain_width &w, float quotient) {
    float q = kv_nan(quotient) ? 0.0f : quotient;
    q = q < w.lo ? w.lo : q > w.hi ? w.hi : q;
    return (uint32_t)((int)rintf(q) + (int)w.offset);
}

// Least and largest of n values that lie `step` apart; of nothing but NaN both are 0.
template <class T>
KV_BOTH void kv_range(const T &t, const float *x, uint32_t n, uint32_t step, float *min,
                      float *max) {
    uint32_t least = kv_rank(INFINITY), most = kv_rank(-INFINITY);
    for (uint32_t i = t.lane(); i < n; i += t.size()) {
        float v = x[i * step];
        if (kv_nan(v)) continue;
        uint32_t r = kv_rank(v);
        least = r < least ? r : least;
        most = r > most ? r : most;
    }
    *min = kv_of_rank(t.least(least));
    *max = kv_of_rank(t.most(most));
    if (*min > *max) *min = *max = 0.0f;
}

template <class T> KV_BOTH float kv_largest(const T &t, const float *x, uint32_t n, uint32_t step) {
    uint32_t most = 0;
    for (uint32_t i = t.lane(); i < n; i += t.size()) {
        uint32_t a = kv_height(x[i * step]);
        most = a > most ? a : most;
    }
    return kv_float(t.most(most));
}

template <class T>
KV_BOTH void kv_grid_group(const T &t, const kv_plain_width &w, float *x, uint32_t step,
                           uint8_t *code, uint8_t *meta) {
    uint8_t *first = meta && t.lane() == 0 ? meta : nullptr,
            *second = first ? first + (w.wide ? 4 : 2) : nullptr;
    if (w.grid_rule == KV_RULE_SYM) {
        float scale = kv_grid_number(w, kv_largest(t, x, w.group, step) / w.levels, first);
        for (uint32_t i = t.lane(); i < w.group; i += t.size()) {
            uint32_t c = scale == 0.0f ? w.offset : kv_grid_code(w, x[i * step] / scale);
            code[i] = (uint8_t)c;
            x[i * step] = (float)((int)c - (int)w.offset) * scale;
        }
        return;
    }
    float min, max;
    kv_range(t, x, w.group, step, &min, &max);
    if (w.grid_rule == KV_RULE_ASYM) {
        float low = kv_grid_number(w, min + 0.0f, second);
        float scale = kv_grid_number(w, (max - low) / w.levels + 0.0f, first);
        for (uint32_t i = t.lane(); i < w.group; i += t.size()) {
            uint32_t c = scale <= 0.0f ? 0 : kv_grid_code(w, (x[i * step] - low) / scale);
            code[i] = (uint8_t)c;
            x[i * step] = (float)c * scale + low;
        }
        return;
    }
    min *= w.clip;
    max *= w.clip;
    float range = max - min, far = fabsf(min) / 32000.0f;
    if (!(range >= w.scale_min)) range = w.scale_min;
    float fine = range / w.levels;
    float scale = kv_grid_number(w, fine < far ? far : fine, first), zero = rintf(min / scale);
    zero = zero < -32767.0f ? -32767.0f : zero > 32767.0f ? 32767.0f : zero;
    if (second) kv_put_16(second, (uint32_t)(int)zero & 0xFFFFu);
    for (uint32_t i = t.lane(); i < w.group; i += t.size()) {
        float v = x[i * step], q = kv_nan(v) ? 0.0f : v / scale;
        uint32_t c = kv_grid_code(w, (w.grid_rule == KV_RULE_ZP ? q : rintf(q)) - zero);
        code[i] = (uint8_t)c;
        x[i * step] = (float)((int)c + (int)zero) * scale;
    }
}

template <class T>
KV_BOTH void kv_grid_unit(const T &t, const kv_plain_width &w, float *x, uint8_t *code,
                          uint8_t *out) {
    uint32_t n = w.values / w.group, meta = w.meta_bytes / n;
    if (w.by_channel) { // a lane a channel: neighbours lie side by side
        for (uint32_t k = t.lane(); k < n; k += t.size())
            kv_grid_group(KvAlone(), w, x + k, n, code + k * w.group, out ? out + k * meta : out);
        return;
    }
    for (uint32_t k = 0; k < n; k++)
        kv_grid_group(t, w, x + k * w.group, 1, code + k * w.group, out ? out + k * meta : out);
}

#endif
