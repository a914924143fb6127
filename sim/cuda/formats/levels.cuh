// SPDX-License-Identifier: Apache-2.0
// Formats of uneven levels and outliers on a team: nf4.c, turbo.c, fp8.c, qaq.c value by value, and
// the rotation of rotate.isa.c.
#ifndef KV_CUDA_FORMATS_LEVELS_CUH
#define KV_CUDA_FORMATS_LEVELS_CUH

#include "sim/cuda/formats/grids.cuh"

// Butterflies from the widest to the narrowest, in place: the pairs and sums of kv_rotate.
template <class T>
KV_BOTH void kv_turn_about(const T &t, float *x, uint32_t n, uint32_t size, float scale) {
    for (uint32_t half = size / 2; half > 0; half /= 2) {
        t.sync();
        for (uint32_t p = t.lane(); p < n / 2; p += t.size()) {
            uint32_t low = p & (half - 1), i = 2 * (p - low) + low;
            float a = x[i], b = x[i + half];
            x[i] = half == 1 ? (a + b) * scale : a + b;
            x[i + half] = half == 1 ? (a - b) * scale : a - b;
        }
    }
    t.sync();
}

KV_BOTH uint32_t kv_level_of(const kv_plain_width &w, float x) { // kv_book_code
    uint32_t code = 0;
    x = x == x ? x : 0.0f;
    for (uint32_t i = 0; i + 1 < w.n_levels; i++) code += x > w.middle[i];
    return code;
}

template <class T>
KV_BOTH void kv_levels_unit(const T &t, const kv_plain_width &w, float *x, uint8_t *code,
                            uint8_t *out) {
    for (uint32_t at = 0, k = 0; at < w.values; at += w.group, k++) {
        float largest = kv_largest(t, x + at, w.group, 1);
        largest = largest > 65504.0f ? 65504.0f : largest;
        float scale = kv_halved(largest);
        if (out && t.lane() == 0) kv_put_16(out + 2 * k, kv_to_half(largest));
        for (uint32_t i = at + t.lane(); i < at + w.group; i += t.size()) {
            uint32_t c = kv_level_of(w, scale == 0.0f ? 0.0f : x[i] / scale);
            code[i] = (uint8_t)c;
            x[i] = w.level[c] * scale;
        }
    }
}

template <class T> KV_BOTH void kv_flip(const T &t, float *x, uint32_t n) {
    for (uint32_t i = t.lane(); i < n; i += t.size())
        if ((i + 1) * 0x9E3779B1u >> 31) x[i] = -x[i];
}

template <class T>
KV_BOTH void kv_norm_unit(const T &t, const kv_plain_width &w, float *x, uint8_t *code,
                          uint8_t *out) {
    const uint32_t n = w.values;
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) sum += (double)kv_held(x[i]) * (double)kv_held(x[i]);
    t.sync();
    float exact = kv_held((float)sqrt(sum)), norm = kv_halved(exact);
    if (out && t.lane() == 0) kv_put_16(out, kv_to_half(exact));
    for (uint32_t i = t.lane(); i < n; i += t.size()) {
        float v = norm == 0.0f ? 0.0f : kv_held(x[i]) / norm;
        x[i] = (i + 1) * 0x9E3779B1u >> 31 ? -v : v;
    }
    kv_turn_about(t, x, n, n, w.levels);
    for (uint32_t i = t.lane(); i < n; i += t.size()) {
        code[i] = (uint8_t)kv_level_of(w, x[i]);
        x[i] = w.level[code[i]];
    }
    kv_turn_about(t, x, n, n, w.levels);
    kv_flip(t, x, n);
    for (uint32_t i = t.lane(); i < n; i += t.size()) x[i] *= norm;
}

// ---- 8-bit floats ------------------------------------------------------------------------------

KV_BOTH uint32_t kv_put_small(const kv_plain_width &w, float x) {
    uint32_t cut = 23 - w.fraction_bits, sign = kv_bits(x) >> 31;
    float a = fabsf(x);
    a = a > w.largest ? w.largest : a;
    uint32_t u = kv_bits(a);
    u += (1u << (cut - 1)) - 1 + (u >> cut & 1); // half to even
    uint32_t normal = (u >> cut) - ((127 - w.bias) << w.fraction_bits);
    bool small = a < w.step * (float)(1u << w.fraction_bits);
    uint32_t code = kv_nan(x) ? 0x7F : small ? (uint32_t)rintf(a / w.step) : normal;
    return (code | (sign ? 0x80 : 0)) & 0xFFu;
}

KV_BOTH float kv_get_small(const kv_plain_width &w, uint32_t code) {
    float a = kv_float((code & 0x7F) << (23 - w.fraction_bits));
    a *= w.bias == 7 ? 0x1p120f : 0x1p112f;
    if ((code & 0x7F) == 0x7F) a = NAN;
    return code & 0x80 ? -a : a;
}

template <class T>
KV_BOTH void kv_small_unit(const T &t, const kv_plain_width &w, float *x, uint8_t *code,
                           uint8_t *out) {
    float scale = 1.0f;
    if (w.scaled) {
        float largest = kv_largest(t, x, w.values, 1) / w.largest;
        largest = largest > 65504.0f ? 65504.0f : largest;
        scale = kv_halved(largest);
        if (out && t.lane() == 0) kv_put_16(out, kv_to_half(largest));
    }
    for (uint32_t i = t.lane(); i < w.values; i += t.size()) {
        code[i] = (uint8_t)kv_put_small(w, scale == 0.0f   ? 0.0f
                                           : scale == 1.0f ? x[i]
                                                           : x[i] / scale);
        x[i] = kv_get_small(w, code[i]) * scale;
    }
}

// ---- outliers ----------------------------------------------------------------------------------

// The next extreme of what is not taken: the first of equals; NaN comes last. code[i]: taken.
template <class T>
KV_BOTH uint32_t kv_extreme(const T &t, const float *x, uint32_t n, bool lowest,
                            const uint8_t *taken) {
    uint32_t best = 0, at = n, last = 0; // a rank of 0 is a NaN's alone
    for (uint32_t i = t.lane(); i < n; i += t.size()) {
        if (taken[i]) continue;
        last = i;
        uint32_t r = kv_nan(x[i]) ? 0 : lowest ? ~kv_rank(x[i] + 0.0f) : kv_rank(x[i] + 0.0f);
        if (r > best) best = r, at = i;
    }
    uint32_t of_all = t.most(best);
    last = t.most(last);
    return of_all ? t.least(best == of_all ? at : n) : last;
}

template <class T>
KV_BOTH void kv_outliers_unit(const T &t, const kv_plain_width &w, float *x, uint8_t *code,
                              uint8_t *out) {
    const uint32_t n = w.values;
    for (uint32_t i = t.lane(); i < n; i += t.size()) code[i] = 0;
    t.sync();
    for (uint32_t k = 0; k < w.low + w.high; k++) {
        uint32_t i = kv_extreme(t, x, n, k < w.low, code);
        t.sync();
        if (t.lane() == 0) {
            code[i] = 1;
            if (out) {
                uint8_t *p = out + 4 + k * (w.index_bytes + 2);
                p[0] = (uint8_t)i;
                if (w.index_bytes == 2) p[1] = (uint8_t)(i >> 8);
                kv_put_16(p + w.index_bytes, kv_to_half(kv_held(x[i])));
            }
        }
        t.sync();
    }
    uint32_t least = kv_rank(INFINITY), most = kv_rank(-INFINITY), inliers = 0;
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) { // in order, by every lane
        if (code[i] || kv_nan(x[i])) continue;
        float v = kv_held(x[i]);
        uint32_t r = kv_rank(v);
        least = r < least ? r : least;
        most = r > most ? r : most;
        sum += (double)v;
        inliers++;
    }
    t.sync();
    float wide = inliers ? kv_of_rank(most) - kv_of_rank(least) : 0.0f;
    float step = wide / (float)(1u << w.bits), centre = inliers ? (float)(sum / inliers) : 0.0f;
    if (out && t.lane() == 0) {
        kv_put_16(out, kv_to_half(step));
        kv_put_16(out + 2, kv_to_half(centre));
    }
    float scale = kv_halved(step), mean = kv_halved(centre), half = (float)(1u << (w.bits - 1));
    for (uint32_t i = t.lane(); i < n; i += t.size()) {
        bool taken = code[i];
        float v = x[i], q = taken || kv_nan(v) || scale == 0.0f ? 0.0f : rintf((v - mean) / scale);
        q = q < -half ? -half : q > half - 1.0f ? half - 1.0f : q;
        code[i] = (uint8_t)(q + half);
        x[i] = taken ? kv_halved(kv_held(v)) : (float)((int)code[i] - (int)half) * scale + mean;
    }
}

#endif
