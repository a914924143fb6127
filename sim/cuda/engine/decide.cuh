// SPDX-License-Identifier: Apache-2.0
// Policy cells inside a pass: once a layer's queries, keys and values are there, a width for every
// cell, as sim/replay/layered.c asks for it and policies/cells.c answers.
//
// What needs no earlier decision is done for all rows at once: errors of all widths, the place's
// and the input's share of log s. A token's attention features read the keys of earlier tokens as
// they were stored, so a branch goes by tiles of tokens: keys before the tile are scored by all
// blocks together (kv_scan), then a block a branch goes through the tile token by token
// (kv_decide_tile). Contexts come first, choices go on from what these remember. Sums run in an order
// that is always the same.
#ifndef KV_CUDA_ENGINE_DECIDE_CUH
#define KV_CUDA_ENGINE_DECIDE_CUH

#include "sim/cuda/engine/lane.cuh"

#ifdef KV_EMULATED // short tiles, so that short tests meet several; a thread costs more than its numbers
enum { KV_DECIDE_TOKENS = 8, KV_DECIDE_WARPS = 1, KV_FACT_WARPS = 1, KV_SCAN_WARPS = 1 };
#else
enum { KV_DECIDE_TOKENS = 32, KV_DECIDE_WARPS = 16, KV_FACT_WARPS = 8, KV_SCAN_WARPS = 4 };
#endif
enum { KV_SCAN_QUERIES = 8, KV_SCAN_KEYS = 32 }; // a warp's queries; keys at a time
enum { KV_MOST_X = (KV_CELLS_MOST_INPUTS + 3) / 4 * 4 };

// Deciders on one GPU.
class KvDeciders {
  public:
    const kv_plain_cells *at = nullptr;
    uint32_t tried = 0, n_tried = 0, most_hidden = 0; // widths that are coded, of any; units of a net

    KvDeciders() = default;
    KvDeciders(const KvDeciders &) = delete;
    KvDeciders &operator=(const KvDeciders &) = delete;
    ~KvDeciders() { clear(); }
    void hold(const kv_plain_cells *from, uint32_t n) {
        clear();
        std::vector<kv_plain_cells> all(from, from + n);
        for (kv_plain_cells &c : all) {
            const size_t heads = (size_t)c.n_layers * c.n_kv_heads, places = 2 * heads, h = c.n_hidden;
            copy(c.channel, places * c.head_dim);
            copy(c.bias, places);
            copy(c.linear, places * c.n_x);
            copy(c.probe, places * c.hidden);
            copy(c.attention_mean, heads * KV_N_CELL_FEATURES);
            copy(c.attention_deviation, heads * KV_N_CELL_FEATURES);
            copy(c.first, c.n_x * h);
            copy(c.place, places * h);
            copy(c.second, h * h);
            copy(c.second_bias, h);
            copy(c.last, h);
            copy(c.budget.share, (size_t)KV_CELLS_STEPS * c.n_layers);
            tried |= c.error_widths;
            for (size_t w = 0; w < c.choice.n_widths && !c.exact_keys; w++) tried |= 1u << c.choice.width[w];
            most_hidden = c.n_hidden > most_hidden ? c.n_hidden : most_hidden;
        }
        for (uint32_t w = 0; w < KV_MAX_WIDTHS; w++) n_tried += tried >> w & 1;
        if (n_tried == 0) n_tried = 1; // ranges stand there
        const kv_plain_cells *held = all.data();
        copy(held, n);
        at = n ? held : nullptr;
    }

  private:
    std::vector<void *> owned;

    void clear() {
        for (void *p : owned) cudaFree(p);
        owned.clear();
        at = nullptr, tried = n_tried = most_hidden = 0;
    }
    // Points to a copy on the device instead.
    template <class T> void copy(const T *&x, size_t n) {
        T *to = nullptr;
        if (!x || n == 0) return;
        kv_try(cudaMalloc((void **)&to, n * sizeof *to));
        owned.push_back(to);
        kv_try(cudaMemcpy(to, x, n * sizeof *to, cudaMemcpyHostToDevice));
        x = to;
    }
};

// The row of attention weights of one query so far: largest score, and with e = exp(score - most)
// the sums of e and of e (score - most); the score of the oldest visible key.
struct KvScan {
    float most, sum, weighted, oldest;
};

struct KvDecide {
    const kv_plain_cells *deciders;
    const kv_engine_branch *branches;
    const kv_engine_decision *decisions;
    const float *known;
    const float *q, *input; // computed rows: [n_heads][D] scaled, [hidden]
    const float *k, *v;     // stored rows: [n_kv_heads][D]
    uint32_t layer, n_layers, n_heads, n_kv_heads, head_dim, hidden, window;
    uint32_t tried, n_tried, n_stored;
    const float *coded_k; // [n_tried][n_stored][n_kv_heads][D] as each width returns it
    float *error;         // [n_stored][cells][n_tried] weighted by channel; of KV_CELLS_RANGE the first
    float *fact;          // [n_stored][cells][2] what log s has of place and input; log norm
    float *seen;          // [n_stored][n_kv_heads][D] keys as features read them
    KvScan *scan;         // [n_stored][n_heads] of keys before the tile
    kv_cells_memory *memory; // [decisions]
    uint8_t *cells;
    uint32_t *no_number; // [decisions][2]
};

// ---- where things are -----------------------------------------------------------------

// The stored row of a position of a branch's path.
__device__ inline size_t kv_path_row(const kv_engine_branch &b, uint32_t position) {
    return position < b.start ? (size_t)b.opening_row + position : (size_t)b.row + position - b.start;
}
// The computed row of a branch's own position.
__device__ inline size_t kv_path_computed(const kv_engine_branch &b, const kv_engine_decision &d,
                                          uint32_t position) {
    if (position < d.n_exact) return (size_t)d.prompt + position;
    return (size_t)d.own + position - (d.n_exact > b.start ? d.n_exact : b.start);
}
__device__ inline uint32_t kv_oldest(uint32_t window, uint32_t position) {
    return window && position >= window ? position - window + 1 : 0;
}
// How many of the widths that are tried come before one.
__device__ inline uint32_t kv_tried_slot(uint32_t tried, uint32_t width) {
#ifdef KV_EMULATED
    return (uint32_t)__builtin_popcount(tried & ((1u << width) - 1));
#else
    return (uint32_t)__popc(tried & ((1u << width) - 1));
#endif
}
__device__ inline float kv_warp_sum(float v) {
    for (int i = 16; i; i >>= 1) v += __shfl_xor_sync(0xFFFFFFFFu, v, i);
    return v;
}

// ---- before any decision --------------------------------------------------------------

// The error of each cell of one side at one width, where it is asked for. A warp a cell.
__global__ void kv_try_width(KvDecide a, uint32_t side, uint32_t width, const float *coded) {
    const kv_engine_branch b = a.branches[blockIdx.x];
    const kv_plain_cells *c = a.deciders + a.decisions[blockIdx.x].decider;
    if (!(c->error_widths >> width & 1)) return;
    const uint32_t slot = kv_tried_slot(a.tried, width);
    const uint32_t lane = threadIdx.x % 32, warps = blockDim.x / 32, d = a.head_dim, heads = a.n_kv_heads;
    const float *x = side ? a.v : a.k;
    for (uint32_t i = blockIdx.y * warps + threadIdx.x / 32; i < b.n * heads; i += gridDim.y * warps) {
        const size_t at = (size_t)b.row * heads + i, cell = 2 * at + side;
        const float *m = c->channel + (((size_t)a.layer * heads + i % heads) * 2 + side) * d;
        float sum = 0;
        for (uint32_t k = lane; k < d; k += 32) {
            float off = coded[at * d + k] - x[at * d + k];
            sum += m[k] * off * off;
        }
        sum = kv_warp_sum(sum);
        if (lane == 0) a.error[cell * a.n_tried + slot] = sum;
    }
}

// Over 12, sum over groups of range^2 sum m (kv_cells_choice_ranges); a lane a group.
__device__ inline float kv_ranges(const kv_cells_choice &c, const float *x, const float *m, uint32_t d,
                                  uint32_t lane) {
    float sum = 0;
    for (uint32_t from = lane * (uint32_t)c.group; from < d; from += 32 * (uint32_t)c.group) {
        float low = x[from], high = x[from], weight = 0;
        for (uint32_t i = from; i < from + c.group; i++) {
            low = fminf(low, x[i]);
            high = fmaxf(high, x[i]);
            weight += m[i];
        }
        float range = c.symmetric ? 2 * fmaxf(high, -low) : high - low;
        sum += range * range * weight / 12;
    }
    return kv_warp_sum(sum);
}

// What a cell's log s has of its place and the layer's input, its vector's norm, and its ranges
// where errors follow from them. A warp a cell.
__global__ void kv_facts(KvDecide a) {
    const kv_engine_branch b = a.branches[blockIdx.x];
    const kv_engine_decision by = a.decisions[blockIdx.x];
    const kv_plain_cells *c = a.deciders + by.decider;
    const uint32_t lane = threadIdx.x % 32, warps = blockDim.x / 32, d = a.head_dim, n = 2 * a.n_kv_heads;
    for (uint32_t i = blockIdx.y * warps + threadIdx.x / 32; i < b.n * n; i += gridDim.y * warps) {
        const uint32_t row = i / n, cell = i % n;
        const size_t at = (size_t)b.row + row, place = (size_t)a.layer * n + cell;
        const float *x = (cell & 1 ? a.v : a.k) + (at * a.n_kv_heads + cell / 2) * d;
        float share = 0, squares = 0;
        if (c->probe) {
            const float *h = a.input + kv_path_computed(b, by, b.start + row) * a.hidden;
            for (uint32_t k = lane; k < a.hidden; k += 32) share += c->probe[place * a.hidden + k] * h[k];
        }
        for (uint32_t k = lane; k < d; k += 32) squares += x[k] * x[k];
        share = kv_warp_sum(share);
        squares = kv_warp_sum(squares);
        if (lane == 0) {
            a.fact[2 * (at * n + cell)] = c->bias[place] + share;
            a.fact[2 * (at * n + cell) + 1] = logf(fmaxf(sqrtf(squares), 1e-6f));
        }
        if (c->choice.error != KV_CELLS_RANGE) continue;
        const float step2 = kv_ranges(c->choice, x, c->channel + place * d, d, lane);
        if (lane == 0) a.error[(at * n + cell) * a.n_tried] = step2;
    }
}

// ---- attention over keys as they were stored ------------------------------------------

__device__ inline KvScan kv_scan_none() {
    KvScan s = {-INFINITY, 0, 0, -INFINITY};
    return s;
}
__device__ inline void kv_scan_add(KvScan &s, float score) {
    const float off = score - s.most;
    if (off <= 0) {
        const float e = expf(off);
        s.sum += e;
        s.weighted += e * off;
    } else { // a first one has most = -inf and nothing to move
        const float e = s.sum > 0 ? expf(-off) : 0.0f;
        s.weighted = s.sum > 0 ? e * (s.weighted - off * s.sum) : 0.0f;
        s.sum = e * s.sum + 1;
        s.most = score;
    }
}
__device__ inline void kv_scan_join(KvScan &s, const KvScan &t) {
    if (t.most > s.most || s.sum == 0) {
        KvScan larger = t;
        larger.oldest = fmaxf(s.oldest, t.oldest);
        if (s.sum > 0) {
            const float off = s.most - t.most, e = expf(off);
            larger.sum += e * s.sum;
            larger.weighted += e * (s.weighted + off * s.sum);
        }
        s = larger;
    } else {
        if (t.sum > 0) {
            const float off = t.most - s.most, e = expf(off);
            s.sum += e * t.sum;
            s.weighted += e * (t.weighted + off * t.sum);
        }
        s.oldest = fmaxf(s.oldest, t.oldest);
    }
}
// Over lanes `step` apart and further; every lane gets the same.
__device__ inline KvScan kv_scan_lanes(KvScan s, int step) {
    for (int i = step; i < 32; i *= 2) {
        KvScan t;
        t.most = __shfl_xor_sync(0xFFFFFFFFu, s.most, i);
        t.sum = __shfl_xor_sync(0xFFFFFFFFu, s.sum, i);
        t.weighted = __shfl_xor_sync(0xFFFFFFFFu, s.weighted, i);
        t.oldest = __shfl_xor_sync(0xFFFFFFFFu, s.oldest, i);
        if (threadIdx.x & (unsigned)i) { // the lower lane's part comes first on both sides
            kv_scan_join(t, s);
            s = t;
        } else
            kv_scan_join(s, t);
    }
    return s;
}

inline size_t kv_scan_bytes(uint32_t d) {
    return sizeof(float) * (size_t)(KV_SCAN_KEYS + KV_SCAN_WARPS * KV_SCAN_QUERIES) * (d + 4);
}
inline uint32_t kv_scan_parts(uint32_t group) { // blocks that share a tile's queries
    return (KV_DECIDE_TOKENS * group + KV_SCAN_WARPS * KV_SCAN_QUERIES - 1) /
           (KV_SCAN_WARPS * KV_SCAN_QUERIES);
}

// Queries of a branch's tile over the keys before it: a lane a key, a warp some queries.
// blockIdx.y: part x KV heads + head.
__global__ void __launch_bounds__(32 * KV_SCAN_WARPS)
    kv_scan(KvDecide a, uint32_t first_branch, uint32_t tile) {
    KV_SHARED_FLOATS(memory);
    const kv_engine_branch b = a.branches[first_branch + blockIdx.x];
    const kv_engine_decision by = a.decisions[first_branch + blockIdx.x];
    const uint32_t d = a.head_dim, P = d + 4, lane = threadIdx.x % 32, warp = threadIdx.x / 32,
                   head = blockIdx.y % a.n_kv_heads, part = blockIdx.y / a.n_kv_heads,
                   group = a.n_heads / a.n_kv_heads, from_row = tile * KV_DECIDE_TOKENS,
                   most = KV_SCAN_WARPS * KV_SCAN_QUERIES;
    if (from_row >= b.n) return;
    const uint32_t rows = b.n - from_row < KV_DECIDE_TOKENS ? b.n - from_row : (uint32_t)KV_DECIDE_TOKENS,
                   first_query = part * most, end = b.start + from_row; // keys [.., end)
    if (first_query >= rows * group) return;
    const uint32_t n = rows * group - first_query < most ? rows * group - first_query : most;
    float *ks = memory, *qs = ks + KV_SCAN_KEYS * P;
    for (uint32_t i = threadIdx.x; i < n * d; i += blockDim.x) {
        const uint32_t m = first_query + i / d, position = end + m / group;
        qs[i / d * P + i % d] =
            a.q[(kv_path_computed(b, by, position) * a.n_heads + head * group + m % group) * d + i % d];
    }
    KvScan s[KV_SCAN_QUERIES];
    uint32_t oldest[KV_SCAN_QUERIES];
#pragma unroll
    for (uint32_t i = 0; i < KV_SCAN_QUERIES; i++) {
        const uint32_t m = warp * KV_SCAN_QUERIES + i;
        s[i] = kv_scan_none();
        oldest[i] = m < n ? kv_oldest(a.window, end + (first_query + m) / group) : end;
    }
    const uint32_t begin = kv_oldest(a.window, end + first_query / group) / KV_SCAN_KEYS * KV_SCAN_KEYS;
    for (uint32_t base = begin; base < end; base += KV_SCAN_KEYS) {
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < KV_SCAN_KEYS * (d / 4); i += blockDim.x) {
            const uint32_t key = i / (d / 4), c = i % (d / 4) * 4;
            float4 x = make_float4(0, 0, 0, 0);
            if (base + key < end)
                x = *(const float4 *)(a.seen + (kv_path_row(b, base + key) * a.n_kv_heads + head) * d + c);
            *(float4 *)(ks + key * P + c) = x;
        }
        __syncthreads();
        float score[KV_SCAN_QUERIES] = {};
        for (uint32_t c = 0; c < d; c += 4) {
            const float4 y = *(const float4 *)(ks + lane * P + c);
#pragma unroll
            for (uint32_t i = 0; i < KV_SCAN_QUERIES; i++) {
                const float4 x = *(const float4 *)(qs + (warp * KV_SCAN_QUERIES + i) * P + c);
                score[i] += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
            }
        }
        const uint32_t position = base + lane;
#pragma unroll
        for (uint32_t i = 0; i < KV_SCAN_QUERIES; i++) {
            if (position < oldest[i] || position >= end) continue;
            kv_scan_add(s[i], score[i]);
            if (position == oldest[i]) s[i].oldest = score[i];
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < KV_SCAN_QUERIES; i++) {
        const uint32_t m = warp * KV_SCAN_QUERIES + i;
        const KvScan all = kv_scan_lanes(s[i], 1);
        if (lane || m >= n) continue;
        const size_t row = kv_path_row(b, end + (first_query + m) / group);
        a.scan[row * a.n_heads + head * group + (first_query + m) % group] = all;
    }
}

// ---- token after token ----------------------------------------------------------------

// What a block shares: doubles first.
struct KvDecideRoom {
    double *damage;  // [cells][widths to choose from] half s e^2
    float *own;      // [n_heads][4] what a query's row of weights tells
    float *x, *unit; // of this warp: [KV_MOST_X]; a net's units
    uint32_t *pick;  // [cells] by the choice's widths
};
inline size_t kv_decide_bytes(uint32_t cells, uint32_t n_heads, uint32_t most_hidden, uint32_t warps) {
    return sizeof(double) * cells * KV_MAX_WIDTHS +
           sizeof(float) * (4 * n_heads + (size_t)warps * (KV_MOST_X + most_hidden) + cells);
}

// One query's weights over all that its token sees, by a warp: keys of the tile as they were stored
// (eight lanes a key), those before it as scanned, its own as computed.
__device__ inline void kv_own_row(const KvDecide &a, const kv_engine_branch &b, size_t computed,
                                  uint32_t position, uint32_t tile_start, bool scanned, uint32_t h,
                                  float *out) {
    const uint32_t d = a.head_dim, lane = threadIdx.x % 32, head = h / (a.n_heads / a.n_kv_heads),
                   oldest = kv_oldest(a.window, position);
    const float *q = a.q + (computed * a.n_heads + h) * d;
    const size_t row = kv_path_row(b, position);
    KvScan s = kv_scan_none();
    for (uint32_t base = tile_start; base <= position; base += 4) {
        const uint32_t key = base + lane / 8;
        float score = 0;
        if (key <= position && key >= oldest) {
            const float *k = (key == position ? a.k : a.seen) + (kv_path_row(b, key) * a.n_kv_heads + head) * d;
            for (uint32_t c = lane % 8 * 4; c < d; c += 32) {
                const float4 x = *(const float4 *)(q + c), y = *(const float4 *)(k + c);
                score += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
            }
        }
        for (int i = 4; i; i >>= 1) score += __shfl_xor_sync(0xFFFFFFFFu, score, i);
        if (key > position || key < oldest) continue;
        kv_scan_add(s, score);
        if (key == oldest) s.oldest = score;
        if (key == position) out[0] = score; // eight lanes write the same
    }
    KvScan all = kv_scan_lanes(s, 8);
    __syncwarp();
    if (lane) return;
    if (scanned) {
        KvScan before = a.scan[row * a.n_heads + h];
        kv_scan_join(before, all);
        all = before;
    }
    out[KV_CELL_SELF] = expf(out[0] - all.most) / all.sum;
    out[KV_CELL_FIRST] = expf(all.oldest - all.most) / all.sum;
    out[KV_CELL_LARGEST] = 1 / all.sum;
    out[KV_CELL_ENTROPY_NATS] = fmaxf(0.0f, logf(all.sum) - all.weighted / all.sum);
}

// A cell's features, standardised, and the token's own behind them.
__device__ inline void kv_cell_inputs(const KvDecide &a, const kv_plain_cells *c, const float *known,
                                      size_t row, uint32_t position, uint32_t head, const KvDecideRoom &r) {
    const uint32_t lane = threadIdx.x % 32, group = a.n_heads / a.n_kv_heads,
                   n_own = c->attention_mean ? (uint32_t)KV_N_CELL_FEATURES : 0;
    if (lane < n_own) {
        const size_t at = ((size_t)a.layer * a.n_kv_heads + head) * KV_N_CELL_FEATURES + lane;
        float f = 0;
        if (lane >= KV_CELL_KEY_NORM)
            f = a.fact[2 * (row * 2 * a.n_kv_heads + 2 * head + lane - KV_CELL_KEY_NORM) + 1];
        else
            for (uint32_t g = 0; g < group; g++) f += r.own[4 * (head * group + g) + lane] / (float)group;
        if (lane == KV_CELL_SELF) f = logf(fmaxf(f, expf(-12.0f)));
        if (lane == KV_CELL_FIRST || lane == KV_CELL_LARGEST) f = logf(fmaxf(f, 1e-6f));
        const bool unknown = lane == KV_CELL_FIRST && kv_oldest(a.window, position) > 0;
        r.x[lane] = unknown ? 0.0f : (f - c->attention_mean[at]) / c->attention_deviation[at];
    } else if (lane < c->n_x)
        r.x[lane] = known[lane - n_own];
    __syncwarp();
}

__device__ inline float kv_silu(float x) {
    return x / (1 + expf(-x));
}

// What the linear part and the net add to a cell's log s: a lane a unit.
__device__ inline float kv_cell_net(const kv_plain_cells *c, size_t place, const KvDecideRoom &r) {
    const uint32_t lane = threadIdx.x % 32, h = c->n_hidden;
    float sum = lane < c->n_x ? c->linear[place * c->n_x + lane] * r.x[lane] : 0.0f;
    for (uint32_t j = lane; j < h; j += 32) {
        float u = c->place[place * h + j];
        for (uint32_t i = 0; i < c->n_x; i++) u += c->first[i * h + j] * r.x[i];
        r.unit[j] = kv_silu(u);
    }
    __syncwarp();
    for (uint32_t j = lane; j < h; j += 32) {
        float u = c->second_bias[j];
#pragma unroll 16
        for (uint32_t i = 0; i < h; i++) u += c->second[i * h + j] * r.unit[i];
        sum += c->last[j] * kv_silu(u);
    }
    return kv_warp_sum(sum) + (h ? c->last_bias : 0.0f);
}

// Fills a cell's damages, a lane a width. Returns whether its sensitivity is a number.
__device__ inline bool kv_cell_damage(const KvDecide &a, const kv_plain_cells *c, const float *known,
                                      size_t row, uint32_t position, uint32_t cell, const KvDecideRoom &r) {
    const uint32_t lane = threadIdx.x % 32, n = 2 * a.n_kv_heads;
    const kv_cells_choice &choice = c->choice;
    kv_cell_inputs(a, c, known, row, position, cell / 2, r);
    float f = a.fact[2 * (row * n + cell)] + kv_cell_net(c, (size_t)a.layer * n + cell, r);
    f = f < -30 ? -30 : f > 30 ? 30 : f;
    const double half_s = (double)(0.5f * expf(f));
    const float *error = a.error + (row * n + cell) * a.n_tried;
    if (lane < choice.n_widths) {
        const double e2 =
            choice.error == KV_CELLS_RANGE   ? (double)error[0] * choice.ratio[lane]
            : choice.error == KV_CELLS_TRIAL ? (double)error[kv_tried_slot(a.tried, choice.width[lane])]
                                             : (double)error[kv_tried_slot(a.tried, choice.tried)] * choice.ratio[lane];
        r.damage[cell * KV_MAX_WIDTHS + lane] = half_s * e2;
    }
    __syncwarp();
    return isfinite(f);
}

// Picks at a lambda, as kv_cells_choose does; every thread gets the bits a value that they take.
__device__ inline double kv_choose(const kv_cells_choice &c, uint32_t cells, double lambda,
                                   const KvDecideRoom &r) {
    const uint32_t units = c.grain == KV_CHOICE_CELL ? cells : c.grain == KV_CHOICE_KV ? 2 : 1;
    __syncthreads();
    for (uint32_t u = threadIdx.x; u < units; u += blockDim.x) {
        uint32_t best = 0;
        double least = INFINITY;
        for (uint32_t w = 0; w < c.n_widths; w++) {
            double cost = 0;
            for (uint32_t cell = u; cell < cells; cell += units)
                cost += r.damage[cell * KV_MAX_WIDTHS + w] + lambda * c.cell_bits[cell & 1][w];
            if (cost < least) least = cost, best = w;
        }
        for (uint32_t cell = u; cell < cells; cell += units) r.pick[cell] = best;
    }
    __syncthreads();
    double bits = 0;
    for (uint32_t cell = 0; cell < cells; cell++) bits += c.cell_bits[cell & 1][r.pick[cell]];
    return bits / ((double)cells * (double)c.head_dim);
}

// The same with at most so many bits (kv_cells_choose_at_most).
__device__ inline double kv_choose_at_most(const kv_cells_choice &c, uint32_t cells, double lambda,
                                           double most, const KvDecideRoom &r) {
    double bits = kv_choose(c, cells, lambda, r), low = lambda, high = lambda;
    if (bits <= most) return bits;
    while (bits > most && high < 1e30) bits = kv_choose(c, cells, high *= 16, r);
    for (int i = 0; i < 30; i++) {
        const double middle = sqrt(low * high);
        if (kv_choose(c, cells, middle, r) <= most)
            high = middle;
        else
            low = middle;
    }
    return kv_choose(c, cells, high, r);
}

// A token's answers, and its key as later tokens see it.
__device__ inline void kv_store_answers(const KvDecide &a, const kv_plain_cells *c, size_t row,
                                        bool exact, const KvDecideRoom &r) {
    const uint32_t cells = 2 * a.n_kv_heads, d = a.head_dim, n = a.n_kv_heads * d;
    const size_t at = row * n;
    uint8_t *to = a.cells + (row * a.n_layers + a.layer) * cells;
    for (uint32_t cell = threadIdx.x; cell < cells; cell += blockDim.x)
        to[cell] = c->choice.width[r.pick[cell]];
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
        const uint32_t slot = exact ? 0 : kv_tried_slot(a.tried, c->choice.width[r.pick[i / d * 2]]);
        a.seen[at + i] = exact ? kv_halved(a.k[at + i]) : a.coded_k[(size_t)slot * a.n_stored * n + at + i];
    }
}

// One tile of a branch. A block a branch.
__global__ void __launch_bounds__(32 * KV_DECIDE_WARPS)
    kv_decide_tile(KvDecide a, uint32_t first_branch, uint32_t tile, uint32_t scanned) {
    KV_SHARED_FLOATS(memory);
    const uint32_t index = first_branch + blockIdx.x, cells = 2 * a.n_kv_heads,
                   warp = threadIdx.x / 32, warps = blockDim.x / 32, from = tile * KV_DECIDE_TOKENS;
    const kv_engine_branch b = a.branches[index];
    const kv_engine_decision by = a.decisions[index];
    const kv_plain_cells *c = a.deciders + by.decider;
    KvDecideRoom r;
    r.damage = (double *)memory;
    r.own = (float *)(r.damage + cells * KV_MAX_WIDTHS);
    r.pick = (uint32_t *)(r.own + 4 * a.n_heads);
    r.x = (float *)(r.pick + cells) + warp * KV_MOST_X;
    r.unit = (float *)(r.pick + cells) + warps * KV_MOST_X + warp * c->n_hidden;
    kv_cells_memory m = {0, 0, 0, 0};
    if (tile)
        m = a.memory[index];
    else if (by.context != index)
        m = a.memory[by.context];
    const uint32_t to = b.n < from + KV_DECIDE_TOKENS ? b.n : from + KV_DECIDE_TOKENS;
    for (uint32_t i = from; i < to; i++) {
        const uint32_t position = b.start + i;
        const size_t row = (size_t)b.row + i, computed = kv_path_computed(b, by, position);
        __syncthreads(); // the keys of earlier tokens are stored
        for (uint32_t h = warp; h < a.n_heads && c->attention_mean; h += warps)
            kv_own_row(a, b, computed, position, b.start + from, scanned, h, r.own + 4 * h);
        __syncthreads();
        bool number = true;
        for (uint32_t cell = warp; cell < cells; cell += warps)
            number &= kv_cell_damage(a, c, a.known + by.known + (size_t)i * c->n_token, row, position,
                                     cell, r);
        if (!number && a.no_number[2 * index] == 0) { // of several threads all write the same
            a.no_number[2 * index] = (uint32_t)row + 1;
            a.no_number[2 * index + 1] = a.layer;
        }
        const double lambda = kv_cells_price(&c->budget, &m);
        const double bits =
            c->budget.hard ? kv_choose_at_most(c->choice, cells, lambda,
                                               kv_cells_most_bits(&c->budget, &m, a.layer), r)
                           : kv_choose(c->choice, cells, lambda, r);
        kv_cells_count(&c->budget, &m, a.layer, bits);
        kv_store_answers(a, c, row, c->exact_keys || position < by.n_exact, r);
    }
    if (threadIdx.x == 0) a.memory[index] = m;
}

#endif
