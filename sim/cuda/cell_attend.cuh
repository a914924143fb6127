// SPDX-License-Identifier: Apache-2.0
// Attention over cells of mixed widths on a GPU (sm_90): bulk copies of pages into shared memory run
// ahead of the arithmetic, which is that of the tensor cores (cell_planes.cuh).
//
// A block of threads takes an even share of the tokens of all (sequence, KV head) pairs of a layer
// and goes through it piece by piece. Of a piece, all keys come first, page by page and each page by
// one warp; their scores become a row by token, the row's weights go to the pages of values (a cell's
// slot is its rank among its width, so tags and ballots give the way), then come the values. A warp's
// copies run ahead through all of this. Queries and weights are sums of two fp16 numbers, which
// occupy a column each.
#ifndef KV_CELL_ATTEND_CUH
#define KV_CELL_ATTEND_CUH

#include "cell_planes.cuh"

enum { RING = 9216, BARRIERS = 8, COLUMNS = 8, PART = DIM + 4 }; // bytes a warp; a head's partial
enum { PART_MAX = DIM, PART_SUM, PART_WEIGHTED, PART_OLDEST };

template <int GROUP> struct piece_of {
    static constexpr int tokens = GROUP == 1 ? 2048 : 1024;
    static constexpr int slots = tokens + 2 * PORTS * TILE; // tiles begun and tiles ended
    static constexpr int units = SIDES * (2 * tokens / PAGE + 4 * PORTS);
    static constexpr int turns = tokens / (WARPS * 32);
};

// What a warp copies and works through at a time: a page, or half of one at 16 bits.
struct unit {
    uint32_t page;       // units of the arena
    int16_t at;          // of its slot 0 among the scores
    uint8_t port, half;  // half: which one at 16 bits
    uint8_t low, high;   // slots of the piece
};

// Cells of a piece by side and port.
struct piece_run {
    uint32_t first, end; // ranks
    int at, unit;        // of the first rank's tile among the scores; of the first page
};
struct piece {
    piece_run runs[SIDES * PORTS];
    int n[SIDES];
};

template <int GROUP> struct attend_memory {
    uint8_t ring[WARPS][RING];
    uint4 query[SETS][GROUPS][32];
    uint2 weight[WARPS][GROUPS][2 * GROUP][4][4];
    float score[GROUP][piece_of<GROUP>::slots];
    unit units[2][piece_of<GROUP>::units];
    piece pieces[2];
    uint64_t arrived[WARPS][BARRIERS];
    float red[3][GROUP][WARPS], q_sum[GROUP][GROUPS], q_scale;
};

// ---- shares ------------------------------------------------------------------------------------

struct share {
    int pair, first, end; // tokens
};

// Parts of work in blocks of RANK_TOKENS: part i has [whole i / n, whole (i + 1) / n).
__host__ __device__ static inline int part_begin(int whole, int n, int i) {
    return (int)((long long)whole * i / n);
}
// The part that has block x.
__host__ __device__ static inline int part_with(int whole, int n, int x) {
    return (int)((((long long)x + 1) * n + whole - 1) / whole) - 1;
}

// ---- copies ------------------------------------------------------------------------------------

__device__ static inline unsigned shared_at(const void *p) {
    return (unsigned)__cvta_generic_to_shared(p);
}
__device__ static inline void bulk_copy(void *to, const void *from, int bytes, uint64_t *arrived) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
                 "[%3];" ::"r"(shared_at(to)),
                 "l"(from), "r"(bytes), "r"(shared_at(arrived))
                 : "memory");
}
__device__ static inline void expect(uint64_t *arrived, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_at(arrived)),
                 "r"(bytes)
                 : "memory");
}
__device__ static inline void wait_for(uint64_t *arrived, int phase) {
    asm volatile("{\n .reg .pred done;\n again:\n"
                 " mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 " @!done bra again;\n}\n" ::"r"(shared_at(arrived)),
                 "r"(phase)
                 : "memory");
}

// Room in a warp's ring, in the order of its units.
struct cursor {
    int begin, at; // bytes before this round of the ring; place in it
    __device__ inline int place(int bytes) { // of the next unit
        if (at + bytes > RING) {
            begin += RING;
            at = 0;
        }
        const int here = at;
        at += bytes;
        return here;
    }
    __device__ inline int end() const { return begin + at; }
};
__device__ static inline int unit_bytes(int port) {
    return port == 6 ? PAGE * DIM : cell_block_bytes(port);
}

// Copies sixteens of slots that the piece has, to where they lie in a block.
__device__ static inline void start_copy(const cells &c, const unit &u, int side, uint8_t *to,
                                         uint64_t *arrived) {
    const uint8_t *block = page_of(c, u.page) + PAGE_HEAD;
    const int low = u.low / TILE * TILE, n = (u.high + TILE - 1) / TILE * TILE - low;
    if (u.port == 6) { // both sides have a token's bytes in sixteens
        expect(arrived, n * DIM * 2);
        bulk_copy(to + low * DIM * 2, block + (u.half * PAGE / 2 + low) * DIM * 2, n * DIM * 2,
                  arrived);
        return;
    }
    const int a = words_of(low_bits(u.port)) * 4, b = words_of(high_bits(u.port)) * 4;
    const int metas = GROUPS * PAGE * 4, at = scale_at(u.port);
    expect(arrived, n * (a + b) + metas);
    if (n == PAGE) {
        bulk_copy(to, block, n * (a + b) + metas, arrived);
        return;
    }
    bulk_copy(to + low * a, block + low * a, n * a, arrived);
    const int high = high_at(u.port) + low * b;
    if (b) bulk_copy(to + high, block + high, n * b, arrived);
    bulk_copy(to + at, block + at, metas, arrived);
}

// ---- products ----------------------------------------------------------------------------------

__device__ static inline void multiply(float d[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                       uint32_t a3, uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The query's factors for each set of pairs, in two fp16 parts a head. q: [GROUP][DIM] floats.
template <int GROUP>
__device__ static void query_init(attend_memory<GROUP> &m, const float *q) {
    float top = 0;
    for (int i = threadIdx.x % 32; i < GROUP * DIM; i += 32) top = fmaxf(top, fabsf(q[i]));
    top = warp_max(top); // the largest is at most 2^10, so that no high plane's factor overflows
    const float up = top > 0 ? exp2f(9 - floorf(log2f(top))) : 1;
    if (threadIdx.x == 0) m.q_scale = 0.125f / up;
    for (int i = threadIdx.x; i < SETS * GROUPS * 32; i += blockDim.x) {
        const int set = i / (GROUPS * 32), g = i / 32 % GROUPS, n = i % 32 / 4, c = i % 4;
        uint32_t x[4] = {0, 0, 0, 0};
        for (int k = 0; k < 4 && n < 2 * GROUP; k++) {
            int apart;
            const int channel = key_channel(set, g, c, k, &apart);
            const float factor = up * exp2f((float)(weight_of_set(set) - key_place(set, k)));
            const float *of = q + n / 2 * DIM + channel;
            float a = of[0] * factor, b = of[apart] * factor;
            if (n % 2) {
                a -= __half2float(__float2half_rn(a));
                b -= __half2float(__float2half_rn(b));
            }
            x[k] = two_halves(a, b);
        }
        m.query[set][g][i % 32] = make_uint4(x[0], x[1], x[2], x[3]);
    }
    for (int i = threadIdx.x / 32; i < GROUP * GROUPS; i += WARPS) {
        const float sum = warp_sum(q[i * (DIM / GROUPS) + threadIdx.x % 32]);
        if (threadIdx.x % 32 == 0) m.q_sum[i / GROUPS][i % GROUPS] = sum * 0.125f;
    }
}

template <int SET, int GROUP>
__device__ static inline void add_keys(const attend_memory<GROUP> &m, const uint8_t *plane,
                                       int tile, float d[GROUPS][4]) {
    const int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
    constexpr int words = DIM * bits_of_set(SET) / 32;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        uint32_t x[2][4];
        key_pairs<SET>((const uint32_t *)plane + tile * words * TILE, g, r, c, x);
        const uint4 q = m.query[SET][g][lane];
        multiply(d[g], x[0][0], x[1][0], x[0][1], x[1][1], q.x, q.y);
        multiply(d[g], x[0][2], x[1][2], x[0][3], x[1][3], q.z, q.w);
    }
}

// Scores of a unit's keys. LOW, HIGH: sets of its planes (SETS: none).
template <int LOW, int HIGH, int GROUP>
__device__ static inline void unit_keys(attend_memory<GROUP> &m, const uint8_t *block,
                                        const unit &u) {
    const int r = threadIdx.x % 32 / 4, h = threadIdx.x % 4;
    const float factor = m.q_scale * (LOW == HALVES ? 1.0f : 0x1p24f);
    const float sum[GROUPS] = {m.q_sum[h < GROUP ? h : 0][0], m.q_sum[h < GROUP ? h : 0][1]};
#pragma unroll 1
    for (int tile = u.low / TILE; tile * TILE < u.high; tile++) {
        float d[GROUPS][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
        add_keys<LOW, GROUP>(m, block, tile, d);
        if (HIGH != SETS) add_keys<HIGH % SETS, GROUP>(m, block + high_at(u.port), tile, d);
        const int t = tile * TILE + 2 * r; // columns 2 h and 2 h + 1 are the parts of head h
        float2 s = make_float2(0, 0);
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            const float x = (d[g][0] + d[g][1]) * factor, y = (d[g][2] + d[g][3]) * factor;
            if (LOW == HALVES) {
                s.x += x;
                s.y += y;
                continue;
            }
            const __half2 *meta = (const __half2 *)(block + scale_at(u.port)) + (g * PAGE + t) / 2;
            const float2 scale = __half22float2(meta[0]),
                         low = __half22float2(meta[GROUPS * PAGE / 2]);
            s.x += x * scale.x + sum[g] * low.x;
            s.y += y * scale.y + sum[g] * low.y;
        }
        if (h < GROUP) *(float2 *)&m.score[h][u.at + t] = s;
    }
}

// Sums over values that a lane holds: of head c (lanes with c < GROUP), channels 32 g + 4 r + j.
template <int GROUP> struct value_sums { float o[GROUPS][4], bias[GROUP][GROUPS]; };

// The weights of a unit's tokens times their scales, in two fp16 parts a head. up: keeps products
// of the largest weight (1) below 2^15.
template <bool HALF, int GROUP>
__device__ static inline void weigh(attend_memory<GROUP> &m, const uint8_t *block, const unit &u,
                                    float up, value_sums<GROUP> &s) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int c = lane % 4, later = lane / 4 % 2, tile = lane / 8;
    const int t[2] = {tile * TILE + c + 8 * later, tile * TILE + c + 8 * later + 4};
    const bool in[2] = {t[0] >= u.low && t[0] < u.high, t[1] >= u.low && t[1] < u.high};
    const __half *scale = (const __half *)(block + scale_at(u.port));
    for (int h = 0; h < GROUP; h++) {
        const float p[2] = {in[0] ? m.score[h][u.at + t[0]] : 0, in[1] ? m.score[h][u.at + t[1]] : 0};
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            float x[2];
            for (int k = 0; k < 2; k++) {
                x[k] = p[k] * up;
                if (!HALF && in[k]) {
                    x[k] *= __half2float(scale[g * PAGE + t[k]]);
                    s.bias[h][g] += p[k] * __half2float(scale[(GROUPS + g) * PAGE + t[k]]);
                }
            }
            const __half2 whole = __floats2half2_rn(x[0], x[1]);
            const float2 of = __half22float2(whole);
            uint32_t *to = (uint32_t *)&m.weight[warp][g][2 * h][tile][c] + later;
            to[0] = *(const uint32_t *)&whole;
            to[4 * 4 * 2] = two_halves(x[0] - of.x, x[1] - of.y);
        }
    }
    __syncwarp();
}

template <int SET, int GROUP>
__device__ static inline void add_values(const attend_memory<GROUP> &m, const uint8_t *plane,
                                         const unit &u, float factor, float o[GROUPS][4]) {
    const int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4, warp = threadIdx.x / 32;
    const value_lane<SET> at(r);
    float d[GROUPS][2][4];
    for (int i = 0; i < GROUPS * 2 * 4; i++) (&d[0][0][0])[i] = 0;
#pragma unroll 1
    for (int tile = u.low / TILE; tile * TILE < u.high; tile++)
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            const int t = tile * TILE + c;
            uint32_t x[2][4];
            at.pairs((const uint32_t *)plane, g, t, t + 4, x[0]);
            at.pairs((const uint32_t *)plane, g, t + 8, t + 12, x[1]);
            const uint2 w = m.weight[warp][g][r < 2 * GROUP ? r : 0][tile][c];
            for (int k = 0; k < 2; k++)
                multiply(d[g][k], x[0][2 * k], x[0][2 * k + 1], x[1][2 * k], x[1][2 * k + 1], w.x,
                         w.y);
        }
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
        for (int j = 0; j < 4; j++) {
            const int place = value_place(SET, j) - weight_of_set(SET);
            const float *of = d[g][j / 2] + 2 * (j % 2);
            const float by = place >= 0 ? 1.0f / (float)(1 << (place > 0 ? place : 0))
                                        : (float)(1 << (place < 0 ? -place : 0));
            o[g][j] += (of[0] + of[1]) * (factor * by);
        }
}

template <int LOW, int HIGH, int GROUP>
__device__ static inline void unit_values(attend_memory<GROUP> &m, const uint8_t *block,
                                          const unit &u, float up, value_sums<GROUP> &s) {
    constexpr bool half = LOW == HALVES;
    const float factor = (half ? 1.0f : 0x1p24f) / up;
    weigh<half, GROUP>(m, block, u, up, s);
    add_values<LOW, GROUP>(m, block, u, factor, s.o);
    if (HIGH != SETS)
        add_values<HIGH % SETS, GROUP>(m, block + high_at(u.port), u, factor, s.o);
    __syncwarp(); // the next unit's weights come to the same place
}

#endif
