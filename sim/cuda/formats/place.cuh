// SPDX-License-Identifier: Apache-2.0
// Where the rows of a branch and their cells lie, and the way of a unit from them and back: the
// gathering half of sim/quant/code.c.
#ifndef KV_CUDA_FORMATS_PLACE_CUH
#define KV_CUDA_FORMATS_PLACE_CUH

#include "sim/cuda/formats/formats.cuh"
#include "sim/cuda/formats/unit.cuh"

// What a block of threads works with. Room: kv_rows_room.
struct KvRoom {
    float *centre;   // [n_kv_heads][head_dim], where a side is centred
    uint32_t *tally; // [n_widths][256] codes made, where they are counted
    float *x;        // of this team's unit
    uint8_t *code;   //
    float *first;    // x of the first team; from team to team `stride`
    uint32_t stride; //
};

KV_BOTH size_t kv_rows_room(size_t kv_dim, size_t unit_values, size_t teams, bool centred,
                            bool tallied) {
    size_t room = teams * (unit_values * 4 + (unit_values + 15) / 16 * 16);
    return room + (centred ? 4 * kv_dim : 0) + (tallied ? 4 * 256 * KV_MAX_WIDTHS : 0);
}

// One branch's place in the batch.
struct KvRows {
    const kv_plain_format *f;
    const float *turns;                               // of the layer: [positions][head_dim / 2][2]
    uint32_t layer, side, kv_dim, start, n, from, to; // rows [from, to) are coded
    const float *x, *opening;
    float *y;
    uint32_t n_opening, row;
    const uint8_t *cells; // of row 0, KV head 0
    uint32_t token_cells; // from token to token; from head to head 2
    float *zeros;         // KvCode
    uint32_t *bad;
};

KV_BOTH KvRows kv_rows_of(const KvCode &job, const kv_plain_format *f, const float *turns,
                          const KvBranch &b) {
    KvRows r;
    r.f = f;
    r.turns = turns;
    r.layer = job.layer;
    r.side = (uint32_t)job.side;
    r.kv_dim = f->n_kv_heads * f->head_dim;
    r.start = b.start;
    r.n = b.n;
    r.row = b.row;
    r.x = job.x + (size_t)b.row * r.kv_dim;
    r.y = job.y + (size_t)b.row * r.kv_dim;
    r.opening = (job.opening ? job.opening : job.x) + (size_t)b.opening_row * r.kv_dim;
    r.n_opening = b.n_opening;
    r.token_cells = f->n_layers * f->n_kv_heads * 2;
    r.cells = job.cells + (size_t)b.row * r.token_cells + job.layer * f->n_kv_heads * 2 + r.side;
    r.bad = job.bad;
    r.zeros = job.zeros;
    uint32_t base = b.start > f->sinks ? b.start : f->sinks, end = b.start + b.n;
    uint32_t flush = f->tensor && b.start > 0 ? f->gathers : f->flush[r.side];
    if (end < base) end = base;
    end = base + (end - base) / flush * flush;
    r.from = base - b.start < b.n ? base - b.start : b.n;
    r.to = end - b.start < b.n ? end - b.start : b.n;
    if (r.to < r.from) r.to = r.from;
    return r;
}

KV_BOTH uint32_t kv_cell(const KvRows &r, uint32_t row, uint32_t head) {
    return r.cells[(size_t)row * r.token_cells + 2 * head];
}

// The first of a block's teams that meets a decision that cannot be coded says where: row + 1.
KV_BOTH void kv_refuse(const KvRows &r, uint32_t row) {
    if (r.bad && !*r.bad) *r.bad = r.row + row + 1;
}

template <class T>
KV_BOTH void kv_exact_cell(const T &t, const KvRows &r, uint32_t row, uint32_t head, uint32_t n,
                           bool untouched) {
    size_t at = (size_t)row * r.kv_dim + head * r.f->head_dim;
    for (uint32_t i = t.lane(); i < n; i += t.size())
        r.y[at + i] = untouched ? r.x[at + i] : kv_halved(r.x[at + i]);
}

template <class B>
KV_BOTH void kv_exact_rows(const B &b, const KvRows &r, uint32_t from, uint32_t to) {
    const uint32_t heads = r.f->n_kv_heads, d = r.f->head_dim;
    auto t = b.team();
    uint32_t step = b.teams() * b.parts();
    for (uint32_t i = from * heads + b.part() * b.teams() + b.team_index(); i < to * heads;
         i += step) {
        uint32_t c = kv_cell(r, i / heads, i % heads);
        if (c >= r.f->n_widths && c < KV_FLOAT32) kv_refuse(r, i / heads);
        kv_exact_cell(t, r, i / heads, i % heads, d, c == KV_FLOAT32);
    }
}

// ---- means that a sequence holds (centre.c)
// ------------------------------------------------------

// The other channel of a channel's pair, and which of the two it is.
KV_BOTH void kv_pair_of(uint32_t order, uint32_t d, uint32_t c, uint32_t *a, uint32_t *b) {
    *a = order == 0 ? c & ~1u : c < d / 2 ? c : c - d / 2;
    *b = order == 0 ? *a + 1 : *a + d / 2;
}

// One channel of a head turned by a position; sign -1: turned back. x: the head's channels.
KV_BOTH float kv_turned(const KvRows &r, const float *x, uint32_t c, uint32_t position,
                        float sign) {
    uint32_t a, b;
    kv_pair_of(r.f->model_order, r.f->head_dim, c, &a, &b);
    uint32_t i = r.f->model_order == 0 ? a / 2 : a;
    const float *turn = r.turns + ((size_t)position * (r.f->head_dim / 2) + i) * 2;
    float co = turn[0], s = sign * turn[1], xa = x[a], xb = x[b];
    return c == a ? xa * co - xb * s : xa * s + xb * co;
}

template <class B> KV_BOTH void kv_find_centre(const B &b, const KvRows &r, float *centre) {
    const uint32_t d = r.f->head_dim, from = r.f->sinks;
    uint32_t to = from + r.f->centre_tokens;
    if (to > r.n_opening) to = r.n_opening;
    for (uint32_t k = b.thread(); k < r.kv_dim; k += b.threads()) {
        double sum = 0.0;
        for (uint32_t t = from; t < to; t++) {
            const float *x = r.opening + (size_t)t * r.kv_dim + k / d * d;
            sum += (double)(r.f->centre_turns ? kv_turned(r, x, k % d, t, -1.0f) : x[k % d]);
        }
        centre[k] = kv_halved(to > from ? (float)(sum / (double)(to - from)) : 0.0f);
    }
    b.sync();
}

KV_BOTH float kv_centre_of(const KvRows &r, const float *centre, uint32_t head, uint32_t c,
                           uint32_t position) {
    const float *x = centre + head * r.f->head_dim;
    return r.f->centre_turns ? kv_turned(r, x, c, position, 1.0f) : x[c];
}

// ---- units -------------------------------------------------------------------------------------

// Which of the model's channels is channel c of the format's order.
KV_BOTH uint32_t kv_channel(uint32_t model_order, uint32_t d, uint32_t c) {
    uint32_t half = d / 2;
    if (model_order == 0) return c < half ? 2 * c : 2 * (c - half) + 1;
    return c & 1 ? c / 2 + half : c / 2;
}

// Moves a unit to x, or from x to the rows of y, in the format's order of channels.
template <class T>
KV_BOTH void kv_move(const T &t, const KvRows &r, const KvRoom &room, uint32_t row, uint32_t head,
                     bool centred, bool back) {
    const kv_plain_format &f = *r.f;
    const uint32_t d = f.head_dim, run = f.unit_heads * d;
    const bool permuted = r.side == 0 && f.order != f.model_order;
    for (uint32_t k = 0; k < f.unit_tokens[r.side]; k++) {
        size_t at = (size_t)(row + k) * r.kv_dim + head * d;
        float *x = room.x + k * run;
        for (uint32_t i = t.lane(); i < run; i += t.size()) {
            uint32_t h = 0, c = i, to = i;
            if (permuted || centred) {
                h = i / d, c = i % d;
                if (permuted) c = kv_channel(f.model_order, d, c);
                to = h * d + c;
            }
            float m = centred ? kv_centre_of(r, room.centre, head + h, c, r.start + row + k) : 0.0f;
            if (!back)
                x[i] = centred ? r.x[at + to] - m : r.x[at + to];
            else
                r.y[at + to] = centred ? x[i] + m : x[i];
        }
    }
}

// The width that a unit's cells agree on; KV_EVICT when all are evicted; below it and no width of
// the format: refused.
template <class T>
KV_BOTH uint32_t kv_unit_width(const T &t, const KvRows &r, uint32_t row, uint32_t head) {
    const kv_plain_format &f = *r.f;
    const uint32_t n = f.unit_tokens[r.side] * f.unit_heads;
    uint32_t least = KV_EVICT, most = 0;
    if (n == 1) return kv_cell(r, row, head);
    for (uint32_t i = t.lane(); i < n; i += t.size()) {
        uint32_t c = kv_cell(r, row + i / f.unit_heads, head + i % f.unit_heads);
        if (c == KV_EVICT) continue;
        least = c < least ? c : least;
        most = c > most ? c : most;
    }
    least = t.least(least);
    most = t.most(most);
    return least == KV_EVICT ? KV_EVICT : least == most ? least : KV_FLOAT32 - 1;
}

#endif
