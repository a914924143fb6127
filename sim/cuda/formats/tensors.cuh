// SPDX-License-Identifier: Apache-2.0
// Formats that look at a whole K or V of a layer, by a block of threads: zipcache.c and hqq.c value
// by value. What their sums run over in order, they run over in order here.
#ifndef KV_CUDA_FORMATS_TENSORS_CUH
#define KV_CUDA_FORMATS_TENSORS_CUH

#include "sim/cuda/formats/place.cuh"
#include "sim/quant/power.h"

// Tokens [row, row + n) of a branch are one tensor.
struct KvTensor {
    uint32_t row, n;
};

template <class B>
KV_BOTH void kv_tally(const B &b, const KvRows &r, const KvRoom &room, uint32_t w, uint32_t code) {
    if (room.tally && r.f->has_codes && r.f->width_bits[w] <= 8)
        b.count(&room.tally[256 * w + code]);
}

// ---- zipcache ----------------------------------------------------------------------------------

struct KvPair {
    float scale, min;
};

KV_BOTH KvPair kv_pair(float min, float max, uint32_t bits) {
    KvPair p;
    p.min = kv_halved(min);
    p.scale = kv_halved((max - p.min) / (float)((1u << bits) - 1));
    return p;
}

KV_BOTH uint32_t kv_pair_code(const KvPair &p, float x, uint32_t bits) {
    float top = (float)((1u << bits) - 1), q = p.scale > 0.0f ? rintf((x - p.min) / p.scale) : 0.0f;
    return (uint32_t)(q < 0.0f ? 0.0f : q > top ? top : q);
}

KV_BOTH float kv_evened(float x, float by) { // a channel of no height codes as zeros
    return by > 0.0f ? kv_held(x) / by : 0.0f;
}

// Keys: a thread a channel, over all tokens of each width.
template <class B>
KV_BOTH void kv_channels_keys(const B &b, const KvRows &r, const KvRoom &room, const KvTensor &t) {
    const uint32_t d = r.f->head_dim;
    for (uint32_t k = b.thread(); k < r.kv_dim; k += b.threads())
        for (uint32_t w = 0; w < r.f->n_widths; w++) {
            const uint32_t bits = r.f->width_bits[w];
            float min = INFINITY, max = -INFINITY;
            for (uint32_t i = t.row; bits < 16 && i < t.row + t.n; i++) {
                if (kv_cell(r, i, k / d) != w) continue;
                float x = kv_held(r.x[(size_t)i * r.kv_dim + k]);
                min = x < min ? x : min;
                max = x > max ? x : max;
            }
            const KvPair p = kv_pair(min, max, bits);
            for (uint32_t i = t.row; i < t.row + t.n; i++) {
                if (kv_cell(r, i, k / d) != w) continue;
                size_t at = (size_t)i * r.kv_dim + k;
                if (bits == 16) {
                    r.y[at] = kv_halved(r.x[at]);
                    continue;
                }
                uint32_t code = kv_pair_code(p, kv_held(r.x[at]), bits);
                r.y[at] = (float)code * p.scale + p.min;
                kv_tally(b, r, room, w, code);
            }
        }
}

template <class B>
KV_BOTH void kv_channel_peaks(const B &b, const KvRows &r, const KvTensor &t, float *scale) {
    const uint32_t d = r.f->head_dim;
    for (uint32_t k = b.thread(); k < r.kv_dim; k += b.threads()) {
        float peak = 0.0f;
        for (uint32_t i = t.row; i < t.row + t.n; i++) {
            uint32_t w = kv_cell(r, i, k / d);
            if (w >= r.f->n_widths || r.f->width_bits[w] == 16) continue;
            float a = fabsf(kv_held(r.x[(size_t)i * r.kv_dim + k]));
            peak = a > peak ? a : peak;
        }
        scale[k] = kv_halved(sqrtf(peak));
    }
    b.sync();
}

// One row of a set joins the next cell of each head. at[head]: its token; the tensor's end: none.
template <class B>
KV_BOTH void kv_channels_row(const B &b, const KvRows &r, const KvRoom &room, const uint32_t *at,
                             uint32_t end, uint32_t w) {
    const uint32_t d = r.f->head_dim, bits = r.f->width_bits[w];
    auto team = b.team();
    uint32_t least = kv_rank(INFINITY), most = kv_rank(-INFINITY);
    for (uint32_t k = team.lane(); bits < 16 && k < r.kv_dim; k += team.size()) {
        if (at[k / d] >= end) continue;
        uint32_t rank = kv_rank(kv_evened(r.x[(size_t)at[k / d] * r.kv_dim + k], room.centre[k]));
        least = rank < least ? rank : least;
        most = rank > most ? rank : most;
    }
    const KvPair p = kv_pair(kv_of_rank(team.least(least)), kv_of_rank(team.most(most)), bits);
    for (uint32_t k = team.lane(); k < r.kv_dim; k += team.size()) {
        if (at[k / d] >= end) continue;
        size_t i = (size_t)at[k / d] * r.kv_dim + k;
        if (bits == 16) {
            r.y[i] = kv_halved(r.x[i]);
            continue;
        }
        uint32_t code = kv_pair_code(p, kv_evened(r.x[i], room.centre[k]), bits);
        float v = (float)code * p.scale + p.min;
        r.y[i] = v * room.centre[k];
        kv_tally(b, r, room, w, code);
    }
}

// Values: a team a width, row after row.
template <class B>
KV_BOTH void kv_channels_values(const B &b, const KvRows &r, const KvRoom &room,
                                const KvTensor &t) {
    const uint32_t heads = r.f->n_kv_heads, end = t.row + t.n;
    uint32_t *at = (uint32_t *)room.x;
    auto team = b.team();
    kv_channel_peaks(b, r, t, room.centre);
    for (uint32_t w = b.team_index(); w < r.f->n_widths; w += b.teams())
        for (bool some = true, first = true; some; first = false) {
            uint32_t found = 0;
            for (uint32_t h = team.lane(); h < heads; h += team.size()) {
                uint32_t i = first ? t.row : at[h] < end ? at[h] + 1 : end;
                while (i < end && kv_cell(r, i, h) != w) i++;
                at[h] = i;
                found |= i < end;
            }
            team.sync();
            some = team.most(found) != 0;
            if (some) kv_channels_row(b, r, room, at, end, w);
            team.sync();
        }
    b.sync(); // the peaks are the next tensor's
}

// ---- hqq ---------------------------------------------------------------------------------------

// A tensor's cells of one width, which a cell's groups lie in y: in the format's order, rotated.
struct KvRefined {
    const kv_plain_width *w;
    uint32_t width, groups; // of a cell
    float top;
};

KV_BOTH float *kv_zeros_of(const KvRows &r, const KvRefined &s, uint32_t row, uint32_t head) {
    return r.zeros + ((size_t)(r.row + row) * r.f->n_kv_heads + head) * 2 * s.groups;
}

KV_BOTH float kv_refined_code(float x, float inverse, float zero, float top) {
    float q = rintf(x * inverse + zero);
    return q < 0.0f ? 0.0f : q > top ? top : q;
}

// Puts a cell's values where they will be read back, and makes the first step and zero.
template <class T>
KV_BOTH void kv_refined_begin(const T &t, const KvRows &r, const KvRoom &room, const KvRefined &s,
                              uint32_t row, uint32_t head) {
    const kv_plain_width &w = *s.w;
    const uint32_t d = w.values;
    kv_move(t, r, room, row, head, false, false);
    t.sync();
    for (uint32_t k = 0; k < w.n_rotations; k++)
        kv_turn_about(t, room.x, d, w.rotation[k], w.rotation_scale[k]);
    float *y = r.y + (size_t)row * r.kv_dim + head * d, *zeros = kv_zeros_of(r, s, row, head);
    for (uint32_t i = t.lane(); i < d; i += t.size()) room.x[i] = y[i] = kv_held(room.x[i]);
    t.sync();
    for (uint32_t g = t.lane(); g < s.groups; g += t.size()) {
        float min = INFINITY, max = -INFINITY;
        for (uint32_t i = g * w.group; i < (g + 1) * w.group; i++) {
            min = room.x[i] < min ? room.x[i] : min;
            max = room.x[i] > max ? room.x[i] : max;
        }
        float inverse = max - min <= 1e-4f ? 1.0f : s.top / (max - min);
        inverse = inverse > 2e4f ? 2e4f : inverse;
        zeros[2 * g] = inverse;
        zeros[2 * g + 1] = -min * inverse;
    }
    t.sync();
}

// What each value of a cell leaves: |error| and its part of the new zero, to x and its second half.
template <class T>
KV_BOTH void kv_refined_leave(const T &t, const KvRows &r, const KvRefined &s, uint32_t row,
                              uint32_t head, float *error, float *part) {
    const uint32_t d = s.w->values;
    const float *y = r.y + (size_t)row * r.kv_dim + head * d, *zeros = kv_zeros_of(r, s, row, head);
    for (uint32_t i = t.lane(); i < d; i += t.size()) {
        float inverse = zeros[2 * (i / s.w->group)], zero = zeros[2 * (i / s.w->group) + 1];
        float q = kv_refined_code(y[i], inverse, zero, s.top), e = y[i] - (q - zero) / inverse;
        error[i] = fabsf(e);
        part[i] = q - (y[i] - kv_shrink(e)) * inverse;
    }
}

template <class T>
KV_BOTH void kv_refined_zeros(const T &t, const KvRows &r, const KvRefined &s, uint32_t row,
                              uint32_t head, const float *part) {
    float *zeros = kv_zeros_of(r, s, row, head);
    for (uint32_t g = t.lane(); g < s.groups; g += t.size()) {
        double sum = 0.0;
        for (uint32_t i = g * s.w->group; i < (g + 1) * s.w->group; i++) sum += (double)part[i];
        zeros[2 * g + 1] = (float)(sum / (double)s.w->group);
    }
}

// One round over all cells of the width. The error is summed by one team, in order: cells are
// taken as many at a time as there are teams.
template <class B>
KV_BOTH double kv_refined_round(const B &b, const KvRows &r, const KvRoom &room, const KvTensor &t,
                                const KvRefined &s) {
    const uint32_t heads = r.f->n_kv_heads, d = s.w->values, cells = t.n * heads;
    auto team = b.team();
    double error = 0.0;
    for (uint32_t first = 0; first < cells; first += b.teams()) {
        const uint32_t i = first + b.team_index(), row = t.row + i / heads, head = i % heads;
        const bool mine = i < cells && kv_cell(r, row, head) == s.width;
        if (mine) kv_refined_leave(team, r, s, row, head, room.x, room.x + d);
        b.sync();
        if (mine) kv_refined_zeros(team, r, s, row, head, room.x + d);
        for (uint32_t k = 0; b.team_index() == 0 && k < b.teams() && first + k < cells; k++) {
            const uint32_t c = first + k;
            if (kv_cell(r, t.row + c / heads, c % heads) != s.width) continue;
            const float *left = room.first + k * room.stride;
            for (uint32_t j = 0; j < d; j++) error += (double)left[j];
        }
        b.sync();
    }
    double *told = (double *)(room.first + 2 * d);
    if (b.thread() == 0) *told = error;
    b.sync();
    error = *told;
    b.sync();
    return error;
}

template <class B>
KV_BOTH void kv_refined_end(const B &b, const KvRows &r, const KvRoom &room, const KvRefined &s,
                            uint32_t row, uint32_t head) {
    const kv_plain_width &w = *s.w;
    auto t = b.team();
    const float *y = r.y + (size_t)row * r.kv_dim + head * w.values,
                *zeros = kv_zeros_of(r, s, row, head);
    for (uint32_t i = t.lane(); i < w.values; i += t.size()) {
        float inverse = zeros[2 * (i / w.group)], zero = zeros[2 * (i / w.group) + 1];
        uint32_t code = (uint32_t)kv_refined_code(y[i], inverse, zero, s.top);
        room.x[i] = ((float)code - kv_halved(kv_held(zero))) * kv_halved(kv_held(1.0f / inverse));
        kv_tally(b, r, room, s.width, code);
    }
    t.sync();
    for (uint32_t k = w.n_rotations; k > 0; k--)
        kv_turn_about(t, room.x, w.values, w.rotation[k - 1], w.rotation_scale[k - 1]);
    kv_move(t, r, room, row, head, false, true);
    t.sync();
}

template <class B>
KV_BOTH void kv_refined_width(const B &b, const KvRows &r, const KvRoom &room, const KvTensor &t,
                              uint32_t width) {
    const kv_plain_width &w = r.f->at[r.side][width];
    const uint32_t heads = r.f->n_kv_heads, cells = t.n * heads;
    KvRefined s;
    s.w = &w;
    s.width = width;
    s.groups = w.values / w.group;
    s.top = (float)((1u << w.bits) - 1);
    auto team = b.team();
    for (uint32_t i = b.team_index(); i < cells; i += b.teams()) {
        uint32_t row = t.row + i / heads, head = i % heads;
        if (kv_cell(r, row, head) != width) continue;
        if (w.bits == 16)
            kv_exact_cell(team, r, row, head, w.values, false);
        else
            kv_refined_begin(team, r, room, s, row, head);
    }
    if (w.bits == 16) return;
    b.sync();
    double best = INFINITY;
    for (uint32_t k = 0; k < w.steps; k++) {
        double error = kv_refined_round(b, r, room, t, s);
        if (!(error < best)) break;
        best = error;
    }
    for (uint32_t i = b.team_index(); i < cells; i += b.teams())
        if (kv_cell(r, t.row + i / heads, i % heads) == width)
            kv_refined_end(b, r, room, s, t.row + i / heads, i % heads);
    b.sync();
}

// ---- both
// ----------------------------------------------------------------------------------------

// Rows [from, to) of a branch: cells that hold no width of the format first, as they are exact.
template <class B> KV_BOTH void kv_code_tensors(const B &b, const KvRows &r, const KvRoom &room) {
    if (b.part() > 0) return; // a tensor is one block's
    auto team = b.team();
    const uint32_t heads = r.f->n_kv_heads, n = r.start > 0 ? r.f->gathers : r.to - r.from;
    for (uint32_t i = r.from * heads + b.team_index(); i < r.to * heads; i += b.teams()) {
        uint32_t c = kv_cell(r, i / heads, i % heads);
        if (c < r.f->n_widths) continue;
        if (c < KV_FLOAT32) kv_refuse(r, i / heads);
        kv_exact_cell(team, r, i / heads, i % heads, r.f->head_dim, c == KV_FLOAT32);
    }
    for (KvTensor t = {r.from, n}; t.row < r.to; t.row += n)
        if (r.f->at[r.side][0].rule == KV_PLAIN_REFINED)
            for (uint32_t w = 0; w < r.f->n_widths; w++) kv_refined_width(b, r, room, t, w);
        else if (r.side == 0)
            kv_channels_keys(b, r, room, t);
        else
            kv_channels_values(b, r, room, t);
}

#endif
