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

// ---- which pages a piece has -------------------------------------------------------------------

// Runs of a piece, by one warp; wide ones come first, so that pages that take longest start first.
__device__ static void find_runs(const cells &c, piece &p, int n) {
    const int lane = threadIdx.x % 32, side = lane / PORTS % SIDES, order = lane % PORTS;
    const int port = PORTS - 1 - order, slots = slots_of_unit(port);
    uint32_t first = 0, end = 0;
    if (lane < SIDES * PORTS) {
        first = c.rank[rank_at(c, p.stream, side, p.first) + port];
        end = p.end < n ? c.rank[rank_at(c, p.stream, side, p.end) + port]
                        : c.count[(p.stream * SIDES + side) * 8 + port];
    }
    const int units = end > first ? (int)((end - 1) / slots - first / slots) + 1 : 0;
    int unit = 0;
    for (int i = 0; i < PORTS - 1; i++) {
        const int before = __shfl_sync(~0u, units, side * PORTS + i);
        unit += i < order ? before : 0;
    }
    if (lane < SIDES * PORTS) {
        p.runs[side * PORTS + port] = {first, end, unit};
        if (port == 0) p.n[side] = unit + units;
    }
    __syncwarp();
}

__device__ static void find_units(const cells &c, const piece &p, unit *units) {
    for (int i = threadIdx.x % 32; i < p.n[KEY] + p.n[VALUE]; i += 32) {
        const int side = i >= p.n[KEY], of = side ? i - p.n[KEY] : i;
        int port = 0;
        while (of < p.runs[side * PORTS + port].unit) port++;
        const piece_run r = p.runs[side * PORTS + port];
        const uint32_t slots = slots_of_unit(port), at = r.first / slots + (of - r.unit);
        const uint32_t slot = at * slots;
        units[i].page = c.page[run_at(c, p.stream, side, port) + slot / PAGE];
        units[i].port = (uint8_t)port;
        units[i].half = (uint8_t)(slot % PAGE / slots);
        units[i].low = (uint8_t)(r.first > slot ? r.first - slot : 0);
        units[i].high = (uint8_t)min(r.end - slot, slots);
    }
    __syncwarp();
}

// A warp's ring as the copier knows it.
struct ring_state {
    uint32_t begin, at;      // bytes before this round; place in it
    uint32_t free;           // bytes up to which all was worked through
    uint32_t copies, worked; // begun, and how many of them worked through
};

// Begins the copy of a unit of warp w, if its ring has room for it.
template <int GROUP>
__device__ static inline bool begin_copy(const cells &c, attend_memory<GROUP> &m, unit &u, int w,
                                         ring_state &r) {
    const uint32_t bytes = unit_bytes(u.port), slots = u.half * slots_of_unit(u.port);
    const bool round = r.at + bytes > RING;
    const uint32_t place = round ? 0 : r.at,
                   end = (round ? r.begin + RING : r.begin) + place + bytes;
    while (end - r.free > RING || r.copies - r.worked == UNDER_WAY) {
        if (!is_there(&m.worked[w][r.worked % UNDER_WAY], r.worked / UNDER_WAY % 2)) return false;
        r.free = m.ends[w][r.worked++ % UNDER_WAY];
    }
    u.tokens = (uint16_t)(place + slots * 2);
    u.codes = (uint16_t)(place + PAGE_HEAD);
    m.ends[w][r.copies % UNDER_WAY] = end;
    start_copy(c, u, m.ring[w] + place, &m.arrived[w][r.copies++ % UNDER_WAY]);
    r.begin = end - place - bytes;
    r.at = place + bytes;
    return true;
}

// What follows in blocks [at, end) of all pairs, of n tokens each.
template <int GROUP>
__device__ static void describe(const attend_job &j, int n, int at, int end, piece &p,
                                unit *units) {
    const int whole = (n + RANK_TOKENS - 1) / RANK_TOKENS;
    if (threadIdx.x % 32 == 0) {
        const int pair = at < end ? at / whole : -1, b = at % whole;
        p.pair = pair;
        p.stream = j.stream + pair;
        p.blocks = min(min(piece_of<GROUP>::blocks, whole - b), end - at);
        p.first = b * RANK_TOKENS;
        p.end = min(n, (b + p.blocks) * RANK_TOKENS);
        p.last = b + p.blocks == whole || at + p.blocks == end;
    }
    __syncwarp();
    if (at >= end) return;
    find_runs(j.c, p, n);
    find_units(j.c, p, units);
}

// A warp of its own describes pieces ahead of the others.
template <int GROUP>
__device__ static void describe_ahead(const attend_job &j, attend_memory<GROUP> &m, int n, int at,
                                      int end) {
    for (int index = 0;; index++) {
        const int i = index % DESCRIBED;
        if (index >= DESCRIBED) wait_for(&m.forgotten[i], (index / DESCRIBED - 1) % 2);
        describe<GROUP>(j, n, at, end, m.pieces[i], m.units[i]);
        if (threadIdx.x % 32 == 0) arrive(&m.described[i]);
        if (at >= end) return;
        at += m.pieces[i].blocks;
        __syncwarp();
    }
}

// Another has their units copied, lane w those of warp w, as long as its ring has room.
template <int GROUP> __device__ static void copy_ahead(const cells &c, attend_memory<GROUP> &m) {
    constexpr int warps = piece_of<GROUP>::warps, never = 0x7FFFFFFF;
    const int w = threadIdx.x % 32;
    ring_state ring = {0, 0, 0, 0, 0};
    int index = w < warps ? 0 : never, next = w, all_at = 0; // this lane's; all lanes'
    for (;;) {
        const int i = index % DESCRIBED;
        bool moved = false;
        if (index != never && is_there(&m.described[i], index / DESCRIBED % 2)) {
            const piece &p = m.pieces[i];
            if (p.pair < 0 || next >= p.n[KEY] + p.n[VALUE]) {
                index = p.pair < 0 ? never : index + 1;
                next = w;
                moved = true;
            } else if (begin_copy(c, m, m.units[i][next], w, ring)) {
                next += warps;
                moved = true;
            }
        }
        const int least = __reduce_min_sync(~0u, index);
        if (least == never) return;
        for (; all_at < least; all_at++)
            if (w == 0) arrive(&m.forgotten[all_at % DESCRIBED]);
        if (!__any_sync(~0u, moved)) __nanosleep(20);
    }
}

// ---- work --------------------------------------------------------------------------------------

template <int GROUP> __device__ static inline void state_init(pair_state<GROUP> &s) {
    for (int h = 0; h < GROUP; h++) {
        s.max[h] = -INFINITY;
        s.sum[h] = s.weighted[h] = s.oldest[h] = 0;
        for (int g = 0; g < GROUPS; g++) s.bias[h][g] = 0;
    }
    for (int i = 0; i < GROUPS * 4; i++) s.o[i / 4][i % 4] = 0;
}

// The warps that work.
template <int GROUP> __device__ static inline void meet() {
    asm volatile("bar.sync 1, %0;" ::"n"(piece_of<GROUP>::threads) : "memory");
}

// The largest scores of a warp's keys, for the others. top: of head lane % 4, or of the only one.
template <int GROUP>
__device__ static inline void put_largest(float (*tops)[piece_of<GROUP>::warps], float top) {
    const int lane = threadIdx.x % 32;
    for (int i = 16; i > (GROUP == 1 ? 0 : 2); i /= 2)
        top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
    if (lane < GROUP) tops[lane][threadIdx.x / 32] = top;
}

// The state so far, by the largest score with this piece's.
template <int GROUP>
__device__ static inline void join_largest(const float (*tops)[piece_of<GROUP>::warps],
                                           pair_state<GROUP> &s) {
    const int lane = threadIdx.x % 32;
    for (int h = 0; h < GROUP; h++) {
        const float before = s.max[h];
        s.max[h] =
            fmaxf(before, warp_max(lane < piece_of<GROUP>::warps ? tops[h][lane] : -INFINITY));
        if (s.max[h] == before) continue;
        const float down = before - s.max[h], keep = before == -INFINITY ? 0 : __expf(down);
        if (keep > 0) s.weighted[h] += down * s.sum[h];
        s.weighted[h] *= keep;
        s.sum[h] *= keep;
        for (int g = 0; g < GROUPS; g++) {
            s.bias[h][g] *= keep;
            for (int k = 0; k < 4 && lane % 4 == h; k++) s.o[g][k] *= keep;
        }
    }
}

// Joins the warps' sums to the block's part of a pair. room: [warps][GROUP][DIM]
template <int GROUP>
__device__ static inline void write_part(attend_memory<GROUP> &m, const pair_state<GROUP> &s,
                                         float *room, float *part) {
    constexpr int warps = piece_of<GROUP>::warps;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
    for (int h = 0; h < GROUP; h++) {
        float bias[GROUPS];
        for (int g = 0; g < GROUPS; g++) bias[g] = warp_sum(s.bias[h][g]);
        const float sum = warp_sum(s.sum[h]), weighted = warp_sum(s.weighted[h]);
        if (lane == 0) {
            m.sums[0][h][warp] = sum;
            m.sums[1][h][warp] = weighted;
        }
        for (int i = 0; i < GROUPS * 4 && c == h; i++)
            room[(warp * GROUP + h) * DIM + 32 * (i / 4) + 4 * r + i % 4] =
                s.o[i / 4][i % 4] + bias[i / 4];
    }
    meet<GROUP>();
    for (int i = threadIdx.x; i < GROUP * DIM; i += piece_of<GROUP>::threads) {
        float x = 0;
        for (int w = 0; w < warps; w++) x += room[w * GROUP * DIM + i];
        part[i / DIM * PART + i % DIM] = x;
    }
    if (threadIdx.x == 0)
        for (int h = 0; h < GROUP; h++) {
            float sum = 0, weighted = 0;
            for (int w = 0; w < warps; w++) {
                sum += m.sums[0][h][w];
                weighted += m.sums[1][h][w];
            }
            part[h * PART + PART_MAX] = s.max[h];
            part[h * PART + PART_SUM] = sum;
            part[h * PART + PART_WEIGHTED] = weighted;
            part[h * PART + PART_OLDEST] = s.oldest[h]; // of the block that has token 0
        }
    meet<GROUP>();
}

// The warps that work, through all pieces. Warps meet once a piece, when its scores are there:
// then nobody is at the values of the piece before any more.
template <int GROUP>
__device__ static void work(const attend_job &j, attend_memory<GROUP> &m, int n) {
    constexpr int warps = piece_of<GROUP>::warps;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    pair_state<GROUP> s;
    work_at<GROUP> w;
    float up = 1;
    uint32_t done = 0;
    for (int index = 0, pair = -1;; index++) {
        wait_for(&m.described[index % DESCRIBED], index / DESCRIBED % 2);
        const piece &p = m.pieces[index % DESCRIBED];
        if (p.pair < 0) return;
        if (p.pair != pair) {
            if (pair < 0) cudaGridDependencySynchronize(); // what gave the queries is done
            pair = p.pair;
            query_init<GROUP>(m, j.query + (size_t)pair * GROUP * DIM);
            state_init(s);
            const float largest = j.c.largest[p.stream];
            up = largest > 0 ? exp2f(fminf(13 - floorf(log2f(largest)), 60)) : 1;
            meet<GROUP>();
            const int h = GROUP == 1 ? 0 : min(lane % 4, GROUP - 1);
            w.q_scale = m.q_scale;
            for (int g = 0; g < GROUPS; g++) w.q_sum[g] = m.q_sum[h][g];
        }
        w.score = m.score[index % 2];
        w.first = p.first;
        const unit *units = m.units[index % DESCRIBED];
        const int keys = p.n[KEY], all = keys + p.n[VALUE];
        float top = -INFINITY;
        for (int i = warp, side = KEY;; i += warps) {
            if (side == KEY && i >= keys) { // all of this warp's keys are done
                put_largest<GROUP>(m.top[index % 2], top);
                meet<GROUP>();
                if (threadIdx.x == 0 && index > 0) arrive(&m.forgotten[(index - 1) % DESCRIBED]);
                join_largest(m.top[index % 2], s);
                for (int h = 0; h < GROUP && p.first == 0; h++) s.oldest[h] = w.score[h][0];
                side = VALUE;
            }
            if (i >= all) break;
            wait_for(&m.arrived[warp][done % UNDER_WAY], done / UNDER_WAY % 2);
            const unit u = units[i];
            w.port = u.port;
            w.low = u.low;
            w.high = u.high;
            w.tokens = (const uint16_t *)(m.ring[warp] + u.tokens);
            w.codes = m.ring[warp] + u.codes;
            if (side == KEY)
                unit_keys(m, w, top);
            else
                unit_values(m, w, up, s);
            __syncwarp(); // the ring's place is free, and that of the weights
            if (lane == 0) arrive(&m.worked[warp][done % UNDER_WAY]);
            done++;
        }
        if (p.last) {
            const int blocks = (n + RANK_TOKENS - 1) / RANK_TOKENS;
            const int part = blockIdx.x - part_with(j.pairs * blocks, gridDim.x, pair * blocks);
            write_part(m, s, &m.score[(index + 1) % 2][0][0],
                       j.partial + ((size_t)pair * j.parts + part) * GROUP * PART);
        }
    }
}

template <int GROUP>
__global__ void __launch_bounds__(piece_of<GROUP>::threads + 64, 2) attend_cells(attend_job j) {
    extern __shared__ __align__(128) uint8_t raw[];
    attend_memory<GROUP> &m = *(attend_memory<GROUP> *)raw;
    const int n = *j.c.tokens, whole = j.pairs * ((n + RANK_TOKENS - 1) / RANK_TOKENS);
    const int at = part_begin(whole, gridDim.x, blockIdx.x),
              end = part_begin(whole, gridDim.x, blockIdx.x + 1);
    if (at >= end) return;
    cudaTriggerProgrammaticLaunchCompletion();
    for (int i = threadIdx.x; i < piece_of<GROUP>::warps * UNDER_WAY; i += blockDim.x) {
        barrier_init(&m.arrived[0][0] + i, 1);
        barrier_init(&m.worked[0][0] + i, 1);
    }
    if (threadIdx.x < DESCRIBED) {
        barrier_init(&m.described[threadIdx.x], 1);
        barrier_init(&m.forgotten[threadIdx.x], 2);
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    if (threadIdx.x < piece_of<GROUP>::threads)
        work(j, m, n);
    else if (threadIdx.x < piece_of<GROUP>::threads + 32)
        describe_ahead(j, m, n, at, end);
    else
        copy_ahead(j.c, m);
}

// ---- joining -----------------------------------------------------------------------------------

// Parts of a pair that hold something, joined by a block: sums of weight times value [GROUP][DIM]
// and the row's statistics, all in shared memory. Called with blockDim >= GROUP * DIM.
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
    cudaTriggerProgrammaticLaunchCompletion();
    cudaGridDependencySynchronize();
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
// Launches a kernel that may begin before the one before it ends, and itself waits for what it
// needs of it.
template <class... ARGUMENTS>
static void launch_early(void (*kernel)(ARGUMENTS...), int grid, int threads, int bytes,
                         cudaStream_t stream, ARGUMENTS... arguments) {
    cudaLaunchAttribute early;
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t launch = {};
    launch.gridDim = dim3(grid);
    launch.blockDim = dim3(threads);
    launch.dynamicSmemBytes = bytes;
    launch.stream = stream;
    launch.attrs = &early;
    launch.numAttrs = 1;
    CHECK(cudaLaunchKernelEx(&launch, kernel, arguments...));
}
template <int GROUP> static void launch_attend(const attend_job &j, int grid, cudaStream_t stream) {
    constexpr int bytes = (int)sizeof(attend_memory<GROUP>);
    static_assert(2 * (bytes + 1024) <= 228 << 10, "two blocks fit a processor");
    CHECK(cudaFuncSetAttribute(attend_cells<GROUP>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               bytes));
    launch_early(attend_cells<GROUP>, grid, piece_of<GROUP>::threads + 64, bytes, stream, j);
}

#endif
