// SPDX-License-Identifier: Apache-2.0
// The backward pass of sim/model/adjoint.c where the weights are: all draws of an item at once,
// attention as products of whole matrices, whose unseen parts are zero. Sums come in the device's
// own order, the same in each run.
//
// G is what it runs on: `room` (memory by slot), `up`, `down`, `product` by a held matrix,
// `batched` products, `each` and `teams` (loops over threads, over warps). Lambdas see copies.
#ifndef KV_CUDA_BACK_CUH
#define KV_CUDA_BACK_CUH

#include "sim/cuda/formats/team.cuh"
#include "sim/model/accelerator.h"

#ifdef __CUDACC__
#define KV_EACH [=] __host__ __device__
#else
#define KV_EACH [=]
#endif

static const double KV_BACK_BYTES = 0x1p30; // of the gradients of scores that one item may take

enum KvBackSlot {
    KV_SLOT_PLACE,
    KV_SLOT_DX,
    KV_SLOT_IN,
    KV_SLOT_GAIN,
    KV_SLOT_TAPE_X,
    KV_SLOT_TAPE_Q,
    KV_SLOT_TAPE_K,
    KV_SLOT_TAPE_V,
    KV_SLOT_TAPE_MIDDLE,
    KV_SLOT_TAPE_GATEUP,
    KV_SLOT_RAW,
    KV_SLOT_DELTA,
    KV_SLOT_ACT,
    KV_SLOT_GATEUP,
    KV_SLOT_NORM,
    KV_SLOT_MIXED,
    KV_SLOT_QKV,
    KV_SLOT_DQ,
    KV_SLOT_DK,
    KV_SLOT_HEADS,
    KV_SLOT_EVICT,
    KV_SLOT_WEIGHTS,
    KV_SLOT_COUNTED,
    KV_SLOT_SCORES,
    KV_SLOT_TURN,
    KV_SLOT_POINTERS,
    KV_BACK_SLOTS
};

// Where a pointer of a batch points: base + c + (i / n) a + (i % n) b + (i % n / group) e.
struct KvSteps {
    uint32_t n, group;
    size_t c, a, b, e;
};

struct KvSeen {                                 // who sees whom
    const uint32_t *position, *begin, *counted; // of rows; counted: or NULL
    uint32_t n_context, window;
    KV_MEMBER bool sees(uint32_t i, uint32_t j) const {
        uint32_t p = position[i], from = window && p >= window ? p - window + 1 : 0;
        return j <= i && (j < n_context || begin[j] == begin[i]) && position[j] >= from;
    }
    KV_MEMBER bool counts(uint32_t i, uint32_t j) const {
        return !counted || position[j] < counted[i];
    }
};

// dx += what a norm hands back; x's rows come again for each draw.
template <class G>
void kv_norm_back(G &g, float *dx, const float *dy, const float *x, const float *gain, size_t rows,
                  size_t x_rows, uint32_t n, float eps) {
    g.teams(
        rows, KV_EACH(typename G::Team t, size_t row) {
            const float *xr = x + row % x_rows * n, *dyr = dy + row * n;
            float square = 0, mix = 0;
            for (uint32_t i = t.lane(); i < n; i += t.size()) {
                square += xr[i] * xr[i];
                mix += xr[i] * dyr[i] * gain[i];
            }
            float r = 1.0f / sqrtf(t.sum(square) / (float)n + eps);
            float pull = r * r * r / (float)n * t.sum(mix);
            for (uint32_t i = t.lane(); i < n; i += t.size())
                dx[row * n + i] += r * gain[i] * dyr[i] - pull * xr[i];
        });
}

// Through the gate. gateup: [x_rows][2 n]; out: [rows][2 n].
template <class G>
void kv_gate_back(G &g, float *out, const float *dy, const float *gateup, size_t rows,
                  size_t x_rows, uint32_t n, bool gelu) {
    g.each(
        rows * n, KV_EACH(size_t k) {
            size_t row = k / n, i = k % n, at = row % x_rows * 2 * n + i;
            float x = gateup[at], up = gateup[at + n], d = dy[k], share, rise;
            if (gelu) {
                const float slope = 0.7978845608f, cube = 0.044715f;
                float u = slope * x * (1.0f + cube * x * x),
                      su = slope * (1.0f + 3.0f * cube * x * x);
                share = 1.0f / (1.0f + expf(-2.0f * u));
                rise = share + 2.0f * x * share * (1.0f - share) * su;
            } else {
                share = 1.0f / (1.0f + expf(-x));
                rise = share * (1.0f + x * (1.0f - share));
            }
            out[row * 2 * n + i] = d * up * rise;
            out[row * 2 * n + n + i] = d * x * share;
        });
}

// Heads [rows][heads][d] turned back; turn: [positions][d / 2][2]. by: what they are multiplied by
// first.
template <class G>
void kv_turn_back(G &g, float *x, size_t rows, size_t x_rows, uint32_t heads, uint32_t d,
                  const float *turn, const uint32_t *position, bool half_split, float by) {
    const uint32_t half = d / 2;
    g.each(
        rows * heads * half, KV_EACH(size_t k) {
            size_t head = k / half, i = k % half, row = head / heads;
            const float *at = turn + (position[row % x_rows] * (size_t)half + i) * 2;
            float *a = x + head * d + (half_split ? i : 2 * i), *b = a + (half_split ? half : 1);
            float xa = *a * by, xb = *b * by, c = at[0], s = -at[1];
            *a = xa * c - xb * s;
            *b = xa * s + xb * c;
        });
}

template <class G> struct KvBack {
    G &g;
    const kv_back_job *j;
    size_t rows, all, h, nq, nkv; // all: rows of all draws
    uint32_t d, heads, kv_heads, group, draws;
    KvSeen seen;
    float *dx, *weights, *counted, *scores, *mixed, *dq, *dk, *dv, *dk_read, *dv_read, *evict;
    float *q, *k, *v;
    float scale;

    KvBack(G &on, const kv_back_job *job) : g(on), j(job) {}

    const float *gain(const float *host, uint32_t n) { return g.up(KV_SLOT_GAIN, host, n); }

    // What of dx goes through the norm of what a part added, or dx itself.
    const float *part(const float *delta, const float *norm) {
        if (!norm) return dx;
        float *to = g.room(KV_SLOT_DELTA, all * h);
        g.zero(to, all * h);
        const float *x = g.up(KV_SLOT_RAW, delta, rows * h);
        kv_norm_back(g, to, dx, x, gain(norm, h), all, rows, h, j->rms_eps);
        return to;
    }

    void feed_forward(const kv_back_layer &w) {
        float *act = g.room(KV_SLOT_ACT, all * j->ffn),
              *gu = g.room(KV_SLOT_GATEUP, all * 2 * j->ffn), *norm = g.room(KV_SLOT_NORM, all * h);
        g.product(all, j->ffn, h, part(w.ffn_delta, w.ffn_post_norm), w.down, act);
        const float *tape = g.up(KV_SLOT_TAPE_GATEUP, w.gateup_out, rows * 2 * j->ffn);
        kv_gate_back(g, gu, act, tape, all, rows, j->ffn, j->gelu);
        g.product(all, h, 2 * (size_t)j->ffn, gu, w.gateup, norm);
        const float *middle = g.up(KV_SLOT_TAPE_MIDDLE, w.middle, rows * h);
        kv_norm_back(g, dx, norm, middle, gain(w.ffn_norm, h), all, rows, h, j->rms_eps);
    }

    // Attention's weights, [heads][rows][rows].
    void weigh() {
        const size_t n = rows;
        float *to = weights;
        const KvSeen see = seen;
        KvSteps a = {heads, group, 0, 0, d, 0}, b = {heads, group, 0, 0, 0, d},
                c = {heads, group, 0, 0, n * n, 0};
        g.batched(heads, false, true, n, n, d, scale, q, a, nq, k, b, nkv, 0, to, c, n);
        g.teams(
            heads * n, KV_EACH(typename G::Team t, size_t at) {
                float *w = to + at * n, most = -INFINITY, sum = 0;
                uint32_t i = (uint32_t)(at % n);
                for (uint32_t p = t.lane(); p <= i; p += t.size())
                    if (see.sees(i, p)) most = fmaxf(most, w[p]);
                most = kv_of_rank(t.most(kv_rank(most)));
                for (uint32_t p = t.lane(); p < n; p += t.size()) {
                    w[p] = see.sees(i, p) ? expf(w[p] - most) : 0.0f;
                    sum += w[p];
                }
                sum = t.sum(sum);
                for (uint32_t p = t.lane(); p < n; p += t.size()) w[p] /= sum;
            });
    }

    // Gradients of scores, [draws][heads][rows][rows]: w (dO . v - sum of them by w).
    void score() {
        const size_t n = rows;
        float *to = scores;
        const float *w = weights;
        const uint32_t all_heads = heads;
        KvSteps a = {heads, group, 0, n * nq, d, 0}, b = {heads, group, 0, 0, 0, d},
                c = {heads, group, 0, heads * n * n, n * n, 0};
        g.batched(draws * heads, false, true, n, n, d, 1, mixed, a, nq, v, b, nkv, 0, to, c, n);
        g.teams(
            draws * heads * n, KV_EACH(typename G::Team t, size_t at) {
                float *s = to + at * n, dot = 0;
                const float *wr = w + at % (all_heads * n) * n;
                for (uint32_t p = t.lane(); p < n; p += t.size()) dot += wr[p] * s[p];
                dot = t.sum(dot);
                for (uint32_t p = t.lane(); p < n; p += t.size()) s[p] = wr[p] * (s[p] - dot);
            });
    }

    // Keys' and values' gradients of what the weights and scores given leave in.
    void gather(float *to_k, float *to_v, const float *w) {
        const size_t n = rows;
        for (uint32_t i = 0; i < group; i++) {
            const size_t at = (size_t)i * n * n, step = (size_t)group * n * n;
            KvSteps s = {kv_heads, 1, at, heads * n * n, step, 0},
                    wt = {kv_heads, 1, at, 0, step, 0},
                    of_q = {kv_heads, 1, (size_t)i * d, 0, (size_t)group * d, 0},
                    of_o = {kv_heads, 1, (size_t)i * d, n * nq, (size_t)group * d, 0},
                    out = {kv_heads, 1, 0, n * nkv, d, 0};
            g.batched(draws * kv_heads, true, false, n, d, n, scale, scores, s, n, q, of_q, nq,
                      i > 0, to_k, out, nkv);
            g.batched(draws * kv_heads, true, false, n, d, n, 1, w, wt, n, mixed, of_o, nq, i > 0,
                      to_v, out, nkv);
        }
    }

    void evictions() {
        const size_t n = rows;
        const KvSeen see = seen;
        const float *s = scores, *w = weights;
        float *to = evict;
        const uint32_t n_kv = kv_heads, per = group, hs = heads;
        g.teams(
            draws * n * n_kv, KV_EACH(typename G::Team t, size_t at) {
                size_t draw = at / (n * n_kv), row = at / n_kv % n, head = at % n_kv;
                float sum = 0;
                for (size_t i = row + 1 + t.lane(); i < n; i += t.size()) {
                    if (!see.counts((uint32_t)i, (uint32_t)row)) continue;
                    for (uint32_t q_ = 0; q_ < per; q_++) {
                        size_t of = ((head * per + q_) * n + i) * n + row;
                        sum -= s[draw * hs * n * n + of] / fmaxf(1 - w[of], 1e-4f);
                    }
                }
                sum = t.sum(sum);
                if (t.lane() == 0) to[at] = sum;
            });
    }

    // Leaves the reads that count alone.
    void keep_counted() {
        const size_t n = rows;
        const KvSeen see = seen;
        const float *w = weights;
        float *s = scores, *to = counted;
        g.each(
            draws * heads * n * n, KV_EACH(size_t at) {
                if (!see.counts((uint32_t)(at / n % n), (uint32_t)(at % n))) s[at] = 0;
            });
        g.each(
            heads * n * n, KV_EACH(size_t at) {
                to[at] = see.counts((uint32_t)(at / n % n), (uint32_t)(at % n)) ? w[at] : 0.0f;
            });
    }

    // Heads' gradients before their norm; x itself where there is none.
    const float *heads_back(float *x, const float *raw, const float *norm, uint32_t n_heads,
                            float *to) {
        if (!norm) return x;
        size_t n = all * n_heads * d;
        g.zero(to, n);
        const float *before = g.up(KV_SLOT_RAW, raw, rows * n_heads * d);
        kv_norm_back(g, to, x, before, gain(norm, d), all * n_heads, rows * n_heads, d, j->rms_eps);
        return to;
    }

    void project(const kv_back_layer &w) {
        const size_t width = nq + 2 * nkv, of_q = nq, of_k = nkv;
        float *qkv = g.room(KV_SLOT_QKV, all * width), *norm = g.room(KV_SLOT_NORM, all * h),
              *room = g.room(KV_SLOT_HEADS, all * (nq + nkv));
        const float *turn = g.up(KV_SLOT_TURN, w.turn, (size_t)j->n_positions * d);
        kv_turn_back(g, dq, all, rows, heads, d, turn, seen.position, j->half_split, j->query_gain);
        kv_turn_back(g, dk, all, rows, kv_heads, d, turn, seen.position, j->half_split, 1.0f);
        const float *a = heads_back(dq, w.q_raw, w.q_norm, heads, room),
                    *b = heads_back(dk, w.k_raw, w.k_norm, kv_heads, room + all * nq), *c = dv;
        g.each(
            all * width, KV_EACH(size_t at) {
                size_t row = at / width, i = at % width;
                qkv[at] = i < of_q          ? a[row * of_q + i]
                          : i < of_q + of_k ? b[row * of_k + i - of_q]
                                            : c[row * of_k + i - of_q - of_k];
            });
        g.product(all, h, width, qkv, w.qkv, norm);
        const float *x = g.up(KV_SLOT_TAPE_X, w.x, rows * h);
        kv_norm_back(g, dx, norm, x, gain(w.attn_norm, h), all, rows, h, j->rms_eps);
    }

    int attention(uint32_t l, const kv_back_layer &w) {
        seen.window = w.window;
        q = g.up(KV_SLOT_TAPE_Q, w.q, rows * nq);
        k = g.up(KV_SLOT_TAPE_K, w.k, rows * nkv);
        v = g.up(KV_SLOT_TAPE_V, w.v, rows * nkv);
        g.product(all, nq, h, part(w.attn_delta, w.attn_post_norm), w.out, mixed);
        weigh();
        score();
        KvSteps s = {heads, group, 0, heads * rows * rows, rows * rows, 0},
                of_k = {heads, group, 0, 0, 0, d}, out = {heads, group, 0, rows * nq, d, 0};
        g.batched(draws * heads, false, false, rows, d, rows, scale, scores, s, rows, k, of_k, nkv,
                  0, dq, out, nq);
        evictions();
        gather(dk, dv, weights);
        if (seen.counted) {
            keep_counted();
            gather(dk_read, dv_read, counted);
        }
        const size_t n = all * nkv;
        const float *got = g.down(dk_read, 2 * n, evict, all * kv_heads);
        if (!got) return 1;
        for (uint32_t r = 0; r < draws; r++)
            j->take(j->self, r, l, got + r * rows * nkv, got + n + r * rows * nkv,
                    got + 2 * n + r * rows * kv_heads);
        return 0;
    }

    // What layers will ask for, so that memory ends before anything was taken.
    void reserve() {
        const size_t act = all * j->ffn, width = nq + 2 * nkv;
        g.room(KV_SLOT_IN, all * h), g.room(KV_SLOT_TAPE_X, rows * h);
        g.room(KV_SLOT_TAPE_Q, rows * nq), g.room(KV_SLOT_TAPE_K, rows * nkv);
        g.room(KV_SLOT_TAPE_V, rows * nkv), g.room(KV_SLOT_TAPE_MIDDLE, rows * h);
        g.room(KV_SLOT_TAPE_GATEUP, rows * 2 * j->ffn), g.room(KV_SLOT_DELTA, all * h);
        g.room(KV_SLOT_RAW, rows * (h > nq ? h : nq)), g.room(KV_SLOT_ACT, act);
        g.room(KV_SLOT_GATEUP, 2 * act), g.room(KV_SLOT_NORM, all * h);
        g.room(KV_SLOT_QKV, all * width), g.room(KV_SLOT_HEADS, all * (nq + nkv));
    }

    int run() {
        rows = j->rows, draws = j->n_draws, all = rows * draws, h = j->hidden, d = j->head_dim;
        heads = j->n_heads, kv_heads = j->n_kv_heads, group = heads / kv_heads;
        nq = (size_t)heads * d, nkv = (size_t)kv_heads * d;
        scale = 1.0f / sqrtf((float)d);
        if ((double)draws * heads * rows * rows * 4 > KV_BACK_BYTES) return KV_BACK_TOO_LONG;
        uint32_t *place = g.place(j->position, j->begin, j->counted, rows);
        seen =
            KvSeen{place, place + rows, j->counted ? place + 2 * rows : nullptr, j->n_context, 0};
        dx = g.room(KV_SLOT_DX, all * h);
        mixed = g.room(KV_SLOT_MIXED, all * nq);
        dq = g.room(KV_SLOT_DQ, all * nq);
        dk = g.room(KV_SLOT_DK, 4 * all * nkv);
        dv = dk + all * nkv;
        dk_read = j->counted ? dv + all * nkv : dk;
        dv_read = dk_read + all * nkv;
        evict = g.room(KV_SLOT_EVICT, all * kv_heads);
        weights = g.room(KV_SLOT_WEIGHTS, heads * rows * rows);
        counted = j->counted ? g.room(KV_SLOT_COUNTED, heads * rows * rows) : nullptr;
        scores = g.room(KV_SLOT_SCORES, draws * heads * rows * rows);
        reserve();
        if (g.full()) return KV_BACK_TOO_LONG;
        const float *df = g.up(KV_SLOT_IN, j->d_final, all * h),
                    *x = g.up(KV_SLOT_TAPE_X, j->x, rows * h);
        g.zero(dx, all * h);
        kv_norm_back(g, dx, df, x, gain(j->final_norm, h), all, rows, h, j->rms_eps);
        for (uint32_t l = j->n_layers; l-- > 0 && !g.failed();) {
            kv_back_layer w = {};
            j->layer(j->layer_self, l, &w);
            feed_forward(w);
            if (attention(l, w)) return 1;
            project(w);
        }
        return g.failed();
    }
};

template <class G> int kv_back_run(G &g, const kv_back_job *j) {
    KvBack<G> b(g, j);
    return b.run();
}

#endif
