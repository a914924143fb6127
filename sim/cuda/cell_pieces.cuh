// SPDX-License-Identifier: Apache-2.0
// How a block of threads goes through its pieces, and the joining of the blocks' parts.
#ifndef KV_CELL_PIECES_CUH
#define KV_CELL_PIECES_CUH

#include "cell_attend.cuh"

// A layer's attention: `pairs` of (sequence, KV head), whose streams follow each other.
struct attend_job {
    cells c;
    int stream, pairs, parts; // the first stream; room for parts a pair
    const float *query;       // [pairs][GROUP][DIM], rotated
    float *partial;           // [pairs][parts][GROUP][PART]
};

__device__ static inline int slots_of_unit(int port) {
    return port == 6 ? PAGE / 2 : PAGE;
}

// A stretch of one pair's tokens.
struct stretch {
    int stream, pair, first, end, blocks;
};
template <int GROUP>
__device__ static inline stretch stretch_at(const attend_job &j, int n, int at, int end) {
    const int whole = (n + RANK_TOKENS - 1) / RANK_TOKENS, b = at % whole;
    stretch s = {j.stream + at / whole, at / whole, b * RANK_TOKENS, 0,
                 min(min(piece_of<GROUP>::tokens / RANK_TOKENS, whole - b), end - at)};
    s.end = min(n, (b + s.blocks) * RANK_TOKENS);
    return s;
}

// ---- which pages a piece has -------------------------------------------------------------------

// Runs of a stretch, by one warp; wide ones come first, so that pages that take longest start first.
__device__ static void find_runs(const cells &c, const stretch &s, int n, piece &p) {
    const int lane = threadIdx.x % 32, side = lane / PORTS % SIDES, order = lane % PORTS;
    const int port = PORTS - 1 - order, slots = slots_of_unit(port);
    uint32_t first = 0, end = 0;
    if (lane < SIDES * PORTS) {
        first = c.rank[rank_at(c, s.stream, side, s.first) + port];
        end = s.end < n ? c.rank[rank_at(c, s.stream, side, s.end) + port]
                        : c.count[(s.stream * SIDES + side) * 8 + port];
    }
    const int units = end > first ? (int)((end - 1) / slots - first / slots) + 1 : 0;
    const int tiles = end > first ? (int)((end - 1) / TILE - first / TILE) + 1 : 0;
    int unit = 0, at = 0;
    for (int i = 0; i < PORTS - 1; i++) {
        const int before = __shfl_sync(~0u, units, side * PORTS + i);
        const int room = __shfl_sync(~0u, tiles, side * PORTS + i) * TILE;
        unit += i < order ? before : 0;
        at += i < order ? room : 0;
    }
    if (lane >= SIDES * PORTS) return;
    p.runs[side * PORTS + port] = {first, end, at, unit};
    if (port == 0) p.n[side] = unit + units;
}

template <int GROUP>
__device__ static void find_units(const cells &c, const stretch &s, const piece &p, unit *units) {
    for (int i = threadIdx.x; i < p.n[KEY] + p.n[VALUE]; i += blockDim.x) {
        const int side = i >= p.n[KEY], of = side ? i - p.n[KEY] : i;
        int port = 0;
        while (of < p.runs[side * PORTS + port].unit) port++;
        const piece_run r = p.runs[side * PORTS + port];
        const uint32_t slots = slots_of_unit(port), at = r.first / slots + (of - r.unit);
        const uint32_t slot = at * slots;
        units[i].page = c.page[run_at(c, s.stream, side, port) + slot / PAGE];
        units[i].at = (int16_t)(r.at + (int)(slot - r.first / TILE * TILE));
        units[i].port = (uint8_t)port;
        units[i].half = (uint8_t)(slot % PAGE / slots);
        units[i].low = (uint8_t)(r.first > slot ? r.first - slot : 0);
        units[i].high = (uint8_t)min(r.end - slot, slots);
    }
}

// ---- a warp's copies ---------------------------------------------------------------------------

struct copier {
    cursor room;
    int n, piece, at; // units begun; where the next one stands
};

// Begins copies as long as there is room; up to the end of piece `last`.
template <int GROUP>
__device__ static inline void copy_ahead(const cells &c, attend_memory<GROUP> &m, copier &k,
                                         int done, int released, int last) {
    const int warp = threadIdx.x / 32;
    while (k.n - done < BARRIERS) {
        const piece &p = m.pieces[k.piece % 2];
        if (k.at >= p.n[KEY] + p.n[VALUE]) {
            if (k.piece == last) return;
            k.piece++;
            k.at = warp;
            continue;
        }
        const unit u = m.units[k.piece % 2][k.at];
        cursor next = k.room;
        const int place = next.place(unit_bytes(u.port));
        if (next.end() > released + RING) return;
        if (threadIdx.x % 32 == 0)
            start_copy(c, u, k.at >= p.n[KEY], m.ring[warp] + place,
                       &m.arrived[warp][k.n % BARRIERS]);
        k.room = next;
        k.at += WARPS;
        k.n++;
    }
}

template <int GROUP>
__device__ static inline void unit_scores(attend_memory<GROUP> &m, const uint8_t *block,
                                          const unit &u) {
    switch (u.port) {
    case 0: unit_keys<LOW_2, SETS>(m, block, u); break;
    case 1: unit_keys<LOW_2, HIGH_3>(m, block, u); break;
    case 2: unit_keys<LOW_4, SETS>(m, block, u); break;
    case 3: unit_keys<LOW_4, HIGH_5>(m, block, u); break;
    case 4: unit_keys<LOW_4, HIGH_6>(m, block, u); break;
    case 5: unit_keys<LOW_8, SETS>(m, block, u); break;
    default: unit_keys<HALVES, SETS>(m, block, u);
    }
}
template <int GROUP>
__device__ static inline void unit_sums(attend_memory<GROUP> &m, const uint8_t *block,
                                        const unit &u, float up, value_sums<GROUP> &s) {
    switch (u.port) {
    case 0: unit_values<LOW_2, SETS>(m, block, u, up, s); break;
    case 1: unit_values<LOW_2, HIGH_3>(m, block, u, up, s); break;
    case 2: unit_values<LOW_4, SETS>(m, block, u, up, s); break;
    case 3: unit_values<LOW_4, HIGH_5>(m, block, u, up, s); break;
    case 4: unit_values<LOW_4, HIGH_6>(m, block, u, up, s); break;
    case 5: unit_values<LOW_8, SETS>(m, block, u, up, s); break;
    default: unit_values<HALVES, SETS>(m, block, u, 16384.0f, s);
    }
}

// ---- from pages of keys to pages of values -----------------------------------------------------

// Where the cells of a warp's tokens lie among the scores. base: of lane 8 side + port, where the
// next cell of that width lies.
__device__ static inline int cell_place(int side, int port, int &base) {
    const int lane = threadIdx.x % 32;
    const uint32_t one = __ballot_sync(~0u, port & 1), two = __ballot_sync(~0u, port & 2),
                   four = __ballot_sync(~0u, port & 4);
    const uint32_t same = (port & 1 ? one : ~one) & (port & 2 ? two : ~two) &
                          (port & 4 ? four : ~four);
    const uint32_t mine = (lane & 1 ? one : ~one) & (lane & 2 ? two : ~two) &
                          (lane & 4 ? four : ~four);
    const int at = __shfl_sync(~0u, base, 8 * side + port) + __popc(same & ((1u << lane) - 1));
    if (lane / 8 == side) base += __popc(mine);
    return at;
}

// What a thread carries over a pair's pieces; sum and weighted in parts by thread.
template <int GROUP> struct pair_state {
    float max[GROUP], sum[GROUP], weighted[GROUP], oldest[GROUP];
    value_sums<GROUP> values;
};

template <int GROUP> __device__ static inline void state_init(pair_state<GROUP> &s) {
    for (int h = 0; h < GROUP; h++) {
        s.max[h] = -INFINITY;
        s.sum[h] = s.weighted[h] = s.oldest[h] = 0;
        for (int g = 0; g < GROUPS; g++) s.values.bias[h][g] = 0;
    }
    for (int i = 0; i < GROUPS * 4; i++) s.values.o[i / 4][i % 4] = 0;
}

// Softmax of a piece: scores by slot of keys become weights by slot of values, both in m.score.
template <int GROUP>
__device__ static inline void soften(attend_memory<GROUP> &m, const stretch &p,
                                     const uint32_t *tags, int base, pair_state<GROUP> &s) {
    constexpr int turns = piece_of<GROUP>::turns;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int first = p.first + warp * turns * 32 + lane;
    float x[GROUP][turns], top[GROUP];
    int to[turns];
    for (int h = 0; h < GROUP; h++) top[h] = -INFINITY;
#pragma unroll
    for (int i = 0; i < turns; i++) {
        const bool in = first + i * 32 < p.end;
        const uint32_t tag = tags[i / 4] >> 8 * (i % 4);
        const int from = cell_place(KEY, tag & 15, base);
        to[i] = cell_place(VALUE, tag >> 4 & 15, base);
        for (int h = 0; h < GROUP; h++) {
            x[h][i] = in ? m.score[h][from] : -INFINITY;
            top[h] = fmaxf(top[h], x[h][i]);
        }
    }
    for (int h = 0; h < GROUP; h++) {
        if (first == 0) s.oldest[h] = x[h][0];
        top[h] = warp_max(top[h]);
        if (lane == 0) m.red[0][h][warp] = top[h];
    }
    __syncthreads(); // all scores are read, all maxima there
    for (int h = 0; h < GROUP; h++) {
        const float before = s.max[h];
        for (int w = 0; w < WARPS; w++) s.max[h] = fmaxf(s.max[h], m.red[0][h][w]);
        const float down = before - s.max[h], keep = before == -INFINITY ? 0 : __expf(down);
        if (keep > 0) s.weighted[h] += down * s.sum[h];
        s.weighted[h] *= keep;
        s.sum[h] *= keep;
        for (int g = 0; g < GROUPS; g++) {
            s.values.bias[h][g] *= keep;
            for (int k = 0; k < 4 && lane % 4 == h; k++) s.values.o[g][k] *= keep;
        }
#pragma unroll
        for (int i = 0; i < turns; i++) {
            if (first + i * 32 >= p.end) continue;
            const float below = x[h][i] - s.max[h], e = __expf(below);
            s.sum[h] += e;
            s.weighted[h] += e * below;
            m.score[h][to[i]] = e;
        }
    }
    __syncthreads();
}

// Joins the warps' sums to the block's part of a pair.
template <int GROUP>
__device__ static inline void write_part(attend_memory<GROUP> &m, const pair_state<GROUP> &s,
                                         float *part) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
    float *all = &m.score[0][0]; // [WARPS][GROUP][DIM]
    for (int h = 0; h < GROUP; h++) {
        float bias[GROUPS];
        for (int g = 0; g < GROUPS; g++) bias[g] = warp_sum(s.values.bias[h][g]);
        const float sum = warp_sum(s.sum[h]), weighted = warp_sum(s.weighted[h]);
        if (lane == 0) {
            m.red[1][h][warp] = sum;
            m.red[2][h][warp] = weighted;
        }
        for (int i = 0; i < GROUPS * 4 && c == h; i++)
            all[(warp * GROUP + h) * DIM + 32 * (i / 4) + 4 * r + i % 4] =
                s.values.o[i / 4][i % 4] + bias[i / 4];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < GROUP * DIM; i += blockDim.x) {
        float x = 0;
        for (int w = 0; w < WARPS; w++) x += all[w * GROUP * DIM + i];
        part[i / DIM * PART + i % DIM] = x;
    }
    if (threadIdx.x == 0)
        for (int h = 0; h < GROUP; h++) {
            float sum = 0, weighted = 0;
            for (int w = 0; w < WARPS; w++) {
                sum += m.red[1][h][w];
                weighted += m.red[2][h][w];
            }
            part[h * PART + PART_MAX] = s.max[h];
            part[h * PART + PART_SUM] = sum;
            part[h * PART + PART_WEIGHTED] = weighted;
            part[h * PART + PART_OLDEST] = s.oldest[h]; // of the block that has token 0
        }
    __syncthreads();
}

template <int GROUP>
__global__ void __launch_bounds__(WARPS * 32, 2) attend_cells(attend_job j) {
    extern __shared__ __align__(128) uint8_t raw[];
    attend_memory<GROUP> &m = *(attend_memory<GROUP> *)raw;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n = *j.c.tokens;
    const int blocks = (n + RANK_TOKENS - 1) / RANK_TOKENS, whole = j.pairs * blocks;
    const int end = part_begin(whole, gridDim.x, blockIdx.x + 1);
    int at = part_begin(whole, gridDim.x, blockIdx.x), index = 0, done = 0;
    if (at >= end) return;
    if (lane < BARRIERS)
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(
            shared_at(&m.arrived[warp][lane])));
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    stretch now = stretch_at<GROUP>(j, n, at, end);
    if (warp == 0) find_runs(j.c, now, n, m.pieces[0]);
    __syncthreads();
    find_units<GROUP>(j.c, now, m.pieces[0], m.units[0]);
    __syncthreads();
    copier ahead = {{0, 0}, 0, 0, warp};
    cursor used = {0, 0};
    pair_state<GROUP> s;
    float up = 1;
    for (int pair = -1; at < end; index++) {
        if (ahead.piece < index) ahead = {ahead.room, ahead.n, index, warp};
        copy_ahead(j.c, m, ahead, done, used.end(), index);
        // What only the softmax needs is asked for now.
        constexpr int turns = piece_of<GROUP>::turns;
        const int mine = now.first + warp * turns * 32;
        uint32_t tags[turns / 4] = {}; // four in one
        for (int i = 0; i < turns; i++) {
            const int t = mine + i * 32 + lane;
            const uint32_t tag = t < now.end ? j.c.tag[(size_t)now.stream * j.c.room + t] : 0x77;
            tags[i / 4] |= tag << 8 * (i % 4);
        }
        int base = 0;
        if (lane < 16 && lane % 8 < PORTS && mine < now.end) {
            const piece_run r = m.pieces[index % 2].runs[lane / 8 * PORTS + lane % 8];
            base = r.at - (int)(r.first / TILE * TILE) +
                   j.c.rank[rank_at(j.c, now.stream, lane / 8, mine) + lane % 8];
        }
        if (now.pair != pair) {
            pair = now.pair;
            query_init<GROUP>(m, j.query + (size_t)pair * GROUP * DIM);
            state_init(s);
            const float largest = j.c.largest[now.stream];
            up = largest > 0 ? exp2f(fminf(13 - floorf(log2f(largest)), 60)) : 1;
        }
        const int then = at + now.blocks;
        stretch next = now;
        if (then < end) next = stretch_at<GROUP>(j, n, then, end);
        if (then < end && warp == 0) find_runs(j.c, next, n, m.pieces[(index + 1) % 2]);
        __syncthreads();
        if (then < end)
            find_units<GROUP>(j.c, next, m.pieces[(index + 1) % 2], m.units[(index + 1) % 2]);
        const int keys = m.pieces[index % 2].n[KEY], all = keys + m.pieces[index % 2].n[VALUE];
        int last = index; // piece up to which copies may go
        for (int i = warp, side = KEY;; i += WARPS) {
            if (side == KEY && i >= keys) { // all of this warp's keys are done
                __syncthreads();
                last = then < end ? index + 1 : index;
                soften(m, now, tags, base, s);
                side = VALUE;
            }
            if (i >= all) break;
            const unit u = m.units[index % 2][i];
            const uint8_t *block = m.ring[warp] + used.place(unit_bytes(u.port));
            wait_for(&m.arrived[warp][done % BARRIERS], done / BARRIERS % 2);
            if (side == KEY)
                unit_scores(m, block, u);
            else
                unit_sums(m, block, u, up, s.values);
            __syncwarp(); // the ring's place is free
            done++;
            copy_ahead(j.c, m, ahead, done, used.end(), last);
        }
        __syncthreads();
        if (then >= end || next.pair != now.pair) {
            const int part = blockIdx.x - part_with(whole, gridDim.x, now.pair * blocks);
            write_part(m, s, j.partial + ((size_t)now.pair * j.parts + part) * GROUP * PART);
        }
        at = then;
        now = next;
    }
}

// ---- joining -----------------------------------------------------------------------------------

// Parts of a pair that hold something, joined by a block: sums of weight times value [GROUP][DIM] and
// the row's statistics, all in shared memory. Called with blockDim >= GROUP * DIM.
template <int GROUP> struct joined_row {
    float o[GROUP][DIM], max[GROUP], sum[GROUP], weighted[GROUP], oldest[GROUP];
};

template <int GROUP>
__device__ static inline void join_parts(const attend_job &j, int n, int grid, int pair,
                                         joined_row<GROUP> &row) {
    const int blocks = (n + RANK_TOKENS - 1) / RANK_TOKENS, whole = j.pairs * blocks;
    const int first = part_with(whole, grid, pair * blocks);
    const int last = part_with(whole, grid, pair * blocks + blocks - 1);
    const int h = threadIdx.x / DIM, i = threadIdx.x % DIM;
    if (h < GROUP) {
        const float *part = j.partial + (size_t)pair * j.parts * GROUP * PART + h * PART;
        float top = -INFINITY, sum = 0, weighted = 0, x = 0;
        for (int k = first; k <= last; k++)
            if (part_begin(whole, grid, k) < part_begin(whole, grid, k + 1))
                top = fmaxf(top, part[(size_t)(k - first) * GROUP * PART + PART_MAX]);
        for (int k = first; k <= last; k++) {
            if (part_begin(whole, grid, k) == part_begin(whole, grid, k + 1)) continue;
            const float *of = part + (size_t)(k - first) * GROUP * PART;
            const float down = of[PART_MAX] - top, keep = __expf(down);
            x += keep * of[i];
            sum += keep * of[PART_SUM];
            weighted += keep * (of[PART_WEIGHTED] + down * of[PART_SUM]);
        }
        row.o[h][i] = x;
        if (i == 0) {
            row.max[h] = top;
            row.sum[h] = sum;
            row.weighted[h] = weighted;
            row.oldest[h] = part[PART_OLDEST];
        }
    }
    __syncthreads();
}

// out: [pairs][GROUP][DIM]
template <int GROUP> __global__ void join_cells(attend_job j, int grid, float *out) {
    __shared__ joined_row<GROUP> row;
    join_parts<GROUP>(j, *j.c.tokens, grid, blockIdx.x, row);
    for (int i = threadIdx.x; i < GROUP * DIM; i += blockDim.x)
        out[(size_t)blockIdx.x * GROUP * DIM + i] = row.o[i / DIM][i % DIM] / row.sum[i / DIM];
}

// ---- launching ---------------------------------------------------------------------------------

static int cell_grid(int processors) {
    return 2 * processors; // all at once: two blocks fit a processor
}
// Parts that a pair can have, at any number of tokens.
static int parts_room(int pairs, int grid) {
    return (grid + pairs - 1) / pairs + 2;
}
template <int GROUP> static void launch_attend(const attend_job &j, int grid, cudaStream_t stream) {
    const int bytes = (int)sizeof(attend_memory<GROUP>);
    CHECK(cudaFuncSetAttribute(attend_cells<GROUP>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               bytes));
    attend_cells<GROUP><<<grid, WARPS * 32, bytes, stream>>>(j);
}

#endif
