// SPDX-License-Identifier: Apache-2.0
// Attention over cells of mixed widths on a GPU (sm_90): what a block of threads holds, and a
// warp's work on one unit of cells. Two warps of a block serve the others: one finds the pages, one
// has them copied ahead into rings of shared memory (cell_pieces.cuh). The others work, by tensor
// cores.
//
// A block takes an even share of the tokens of all (sequence, KV head) pairs of a layer and goes
// through it piece by piece. Of a piece, all keys come first, page by page and each page by one
// warp: a page's head tells the tokens of its slots, and the scores become a row by token. Once all
// are there, the values follow, which take their weights from that row. Queries and weights are
// sums of two fp16 numbers, which occupy a column each. A single head leaves six of the eight
// columns free: its scores of four tiles come in two columns each.
#ifndef KV_CELL_ATTEND_CUH
#define KV_CELL_ATTEND_CUH

#include "cell_planes.cuh"

enum { RING = 9728, UNDER_WAY = 8 }; // of a warp: bytes, copies
enum { DESCRIBED = 3 };              // pieces whose units are known at once
enum { PART = DIM + 4 };             // of a head and block: sums over values, and
enum { PART_MAX = DIM, PART_SUM, PART_WEIGHTED, PART_OLDEST };

// GROUP: query heads a KV head.
template <int GROUP> struct piece_of {
    static constexpr int warps = GROUP == 1 ? 8 : 6; // that work
    static constexpr int threads = warps * 32;
    static constexpr int blocks = GROUP == 1 ? 16 : 8; // of RANK_TOKENS
    static constexpr int tokens = blocks * RANK_TOKENS;
    static constexpr int units = SIDES * (2 * tokens / PAGE + 2 * PORTS);
    static constexpr bool spread = GROUP == 1; // scores of a unit's tiles lie in columns of theirs
};

// What is copied and worked through at a time: a page, or half of one at 16 bits. In the ring: the
// page's head, codes, scales and minima.
struct unit {
    uint32_t page;          // units of the arena
    uint8_t port, half;     // which half at 16 bits
    uint8_t low, high;      // slots of the piece
    uint16_t tokens, codes; // where those of slot 0 lie in the ring
};
__host__ __device__ static inline int slots_of_unit(int port) {
    return port == 6 ? PAGE / 2 : PAGE;
}
__host__ __device__ static inline int unit_codes(int port) { // bytes
    return slots_of_unit(port) * words_of(port_bits(port)) * 4;
}
__host__ __device__ static inline int unit_bytes(int port) {
    return PAGE_HEAD + unit_codes(port) + (port < 6 ? GROUPS * PAGE * 4 : 0);
}
// Else a ring with nothing in it could still lack room behind the last unit for the next.
static_assert(RING >= 2 * (PAGE_HEAD + PAGE * DIM + GROUPS * PAGE * 4), "two of the largest");

// A stretch of one pair's tokens, and its cells by side and port.
struct piece_run {
    uint32_t first, end; // ranks
    int unit;            // of the first
};
struct piece {
    int stream, pair, first, end, blocks; // pair -1: there is no more
    bool last;                            // of its pair in this block
    int n[SIDES];                         // units
    piece_run runs[SIDES * PORTS];
};

template <int GROUP> struct attend_memory {
    uint8_t ring[piece_of<GROUP>::warps][RING];
    uint4 query[SETS + 1][GROUPS][32]; // the last set is zero
    uint2 split[piece_of<GROUP>::warps][GROUPS][2 * GROUP][4][4];
    float score[2][GROUP][piece_of<GROUP>::tokens]; // of this piece and of the one before
    unit units[DESCRIBED][piece_of<GROUP>::units];
    piece pieces[DESCRIBED];
    uint64_t arrived[piece_of<GROUP>::warps][UNDER_WAY], worked[piece_of<GROUP>::warps][UNDER_WAY];
    uint32_t ends[piece_of<GROUP>::warps][UNDER_WAY]; // of copies, in bytes of a warp
    uint64_t described[DESCRIBED], forgotten[DESCRIBED];
    float top[2][GROUP][piece_of<GROUP>::warps], sums[2][GROUP][piece_of<GROUP>::warps];
    float q_sum[GROUP][GROUPS], q_scale;
};

// ---- shares ------------------------------------------------------------------------------------

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
__device__ static inline void barrier_init(uint64_t *barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_at(barrier)),
                 "r"(arrivals));
}
__device__ static inline void arrive(uint64_t *barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_at(barrier)) : "memory");
}
__device__ static inline void wait_for(uint64_t *barrier, uint32_t phase) {
    asm volatile("{\n .reg .pred done;\n again:\n"
                 " mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 " @!done bra again;\n}\n" ::"r"(shared_at(barrier)),
                 "r"(phase)
                 : "memory");
}
__device__ static inline bool is_there(uint64_t *barrier, uint32_t phase) {
    uint32_t done;
    asm volatile("{\n .reg .pred done;\n"
                 " mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
                 " selp.u32 %0, 1, 0, done;\n}\n"
                 : "=r"(done)
                 : "r"(shared_at(barrier)), "r"(phase)
                 : "memory");
    return done;
}
__device__ static inline void bulk_copy(void *to, const void *from, int bytes, uint64_t *arrived) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
        "[%3];" ::"r"(shared_at(to)),
        "l"(from), "r"(bytes), "r"(shared_at(arrived))
        : "memory");
}

__device__ static inline void start_copy(const cells &c, const unit &u, uint8_t *to,
                                         uint64_t *arrived) {
    const uint8_t *page = page_of(c, u.page);
    const int codes = unit_codes(u.port), bytes = unit_bytes(u.port);
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_at(arrived)),
                 "r"(bytes)
                 : "memory");
    bulk_copy(to, page, u.half ? PAGE_HEAD : bytes, arrived);
    if (u.half) bulk_copy(to + PAGE_HEAD, page + PAGE_HEAD + codes, codes, arrived);
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
template <int GROUP> __device__ static void query_init(attend_memory<GROUP> &m, const float *q) {
    float top = 0;
    for (int i = threadIdx.x % 32; i < GROUP * DIM; i += 32) top = fmaxf(top, fabsf(q[i]));
    top = warp_max(top); // the largest is at most 2^10, so that no high plane's factor overflows
    const float up = top > 0 ? exp2f(9 - floorf(log2f(top))) : 1;
    if (threadIdx.x == 0) m.q_scale = 0.125f / up;
    for (int i = threadIdx.x; i < (SETS + 1) * GROUPS * 32; i += piece_of<GROUP>::threads) {
        const int set = i / (GROUPS * 32), g = i / 32 % GROUPS, n = i % 32 / 4, c = i % 4;
        uint32_t x[4] = {0, 0, 0, 0};
        for (int k = 0; k < 4 && set < SETS && (piece_of<GROUP>::spread || n < 2 * GROUP); k++) {
            int apart;
            const int channel = key_channel(set, g, c, k, &apart);
            const float factor = up * exp2f((float)(weight_of_set(set) - key_place(set, k)));
            const float *of = q + (piece_of<GROUP>::spread ? 0 : n / 2) * DIM + channel;
            float a = of[0] * factor, b = of[apart] * factor;
            if (n % 2) {
                a -= __half2float(__float2half_rn(a));
                b -= __half2float(__float2half_rn(b));
            }
            x[k] = two_halves(a, b);
        }
        m.query[set][g][i % 32] = make_uint4(x[0], x[1], x[2], x[3]);
    }
    for (int i = threadIdx.x / 32; i < GROUP * GROUPS; i += piece_of<GROUP>::warps) {
        const float sum = warp_sum(q[i * (DIM / GROUPS) + threadIdx.x % 32]);
        if (threadIdx.x % 32 == 0) m.q_sum[i / GROUPS][i % GROUPS] = sum * 0.125f;
    }
}

// What a warp works at: a unit in the ring and the scores by token, of the piece's first on.
template <int GROUP> struct work_at {
    int port, low, high;    // slots
    const uint8_t *codes;   // scales and minima behind them: [2][GROUPS][PAGE] fp16
    const uint16_t *tokens; // of the unit's slots
    float (*score)[piece_of<GROUP>::tokens];
    int first;                    // the token of score 0
    float q_scale, q_sum[GROUPS]; // of head lane % 4, or of the only one
};

// A port as a constant.
template <int PORT> struct port_is { static constexpr int value = PORT; };
template <class WORK> __device__ static inline void with_port(int port, const WORK &work) {
    switch (port) {
    case 0:
        return work(port_is<0>());
    case 1:
        return work(port_is<1>());
    case 2:
        return work(port_is<2>());
    case 3:
        return work(port_is<3>());
    case 4:
        return work(port_is<4>());
    case 5:
        return work(port_is<5>());
    default:
        return work(port_is<6>());
    }
}

// Sums over the codes of a tile's keys, of one plane.
template <int SET, int GROUP>
__device__ static inline void add_keys(const attend_memory<GROUP> &m, const uint8_t *plane,
                                       int tile, float d[GROUPS][4]) {
    const int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
    constexpr int words = DIM * bits_of_set(SET) / 32;
    const bool mine = !piece_of<GROUP>::spread || lane / 8 == tile;
    const uint4 *query = m.query[mine ? SET : SETS][0] + lane;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        uint32_t x[2][4];
        key_pairs<SET>((const uint32_t *)plane + tile * words * TILE, g, r, c, x);
        const uint4 q = query[g * 32];
        multiply(d[g], x[0][0], x[1][0], x[0][1], x[1][1], q.x, q.y);
        multiply(d[g], x[0][2], x[1][2], x[0][3], x[1][3], q.z, q.w);
    }
}
template <int PORT, int GROUP>
__device__ static inline void add_tiles(const attend_memory<GROUP> &m, const uint8_t *codes,
                                        int from, int to, float d[GROUPS][4]) {
    constexpr int low = low_set(PORT), high = high_set(PORT);
#pragma unroll 1
    for (int tile = from; tile < to; tile++) {
        add_keys<low, GROUP>(m, codes, tile, d);
        if (high != SETS) add_keys<high % SETS, GROUP>(m, codes + high_at(PORT), tile, d);
    }
}

// Scores of slots t and t + 1, from sums over codes of head h; the largest joins `top`.
template <int GROUP>
__device__ static inline void put_scores(const work_at<GROUP> &w, const float d[GROUPS][4], int t,
                                         int h, float &top) {
    const bool half = w.port == 6;
    const float factor = w.q_scale * (half ? 1.0f : 0x1p24f);
    const __half2 *meta = (const __half2 *)(w.codes + unit_codes(w.port)) + t / 2;
    float s[2] = {0, 0};
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        const float x = (d[g][0] + d[g][1]) * factor, y = (d[g][2] + d[g][3]) * factor;
        float2 scale = make_float2(1, 1), low = make_float2(0, 0);
        if (!half) {
            scale = __half22float2(meta[g * PAGE / 2]);
            low = __half22float2(meta[(GROUPS + g) * PAGE / 2]);
        }
        s[0] += x * scale.x + w.q_sum[g] * low.x;
        s[1] += y * scale.y + w.q_sum[g] * low.y;
    }
    const uint32_t tokens = *(const uint32_t *)(w.tokens + t);
    for (int i = 0; i < 2; i++)
        if (t + i >= w.low && t + i < w.high) {
            w.score[h][(int)(tokens >> 16 * i & 0xFFFF) - w.first] = s[i];
            top = fmaxf(top, s[i]);
        }
}

// Scores of a unit's keys.
template <int GROUP>
__device__ static inline void unit_keys(const attend_memory<GROUP> &m, const work_at<GROUP> &w,
                                        float &top) {
    constexpr bool spread = piece_of<GROUP>::spread;
    const int r = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
    const int end = (w.high + TILE - 1) / TILE;
#pragma unroll 1
    for (int from = w.low / TILE; from < end; from = spread ? end : from + 1) {
        const int to = spread ? end : from + 1;
        float d[GROUPS][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
        with_port(w.port, [&](auto port) { add_tiles<port.value>(m, w.codes, from, to, d); });
        if (spread)
            put_scores(w, d, c * TILE + 2 * r, 0, top);
        else if (c < GROUP)
            put_scores(w, d, from * TILE + 2 * r, c, top);
    }
}

// What a thread carries over a pair's pieces, in parts by thread but for the largest and the oldest
// score. Sums over values: of head c (lanes with c < GROUP), channels 32 g + 4 r + j.
template <int GROUP> struct pair_state {
    float max[GROUP], sum[GROUP], weighted[GROUP], oldest[GROUP];
    float o[GROUPS][4], bias[GROUP][GROUPS];
};

__device__ static inline float exp_of(float x) { // of at most 0; 0 below 2^-126
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
    return y;
}

// The weights of a unit's tokens times their scales, in two fp16 parts a head. up: keeps products
// of the largest weight (1) below 2^15.
template <int GROUP>
__device__ static inline void weigh(attend_memory<GROUP> &m, const work_at<GROUP> &w, float up,
                                    pair_state<GROUP> &s) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int c = lane % 4, later = lane / 4 % 2, tile = lane / 8;
    const int t = tile * TILE + c + 8 * later;
    const __half *meta = (const __half *)(w.codes + unit_codes(w.port));
    float scale[GROUPS][2], low[GROUPS][2];
    int token[2];
    bool in[2];
    for (int k = 0; k < 2; k++) {
        const int at = t + 4 * k;
        in[k] = at >= w.low && at < w.high;
        token[k] = in[k] ? w.tokens[at] - w.first : 0;
        for (int g = 0; g < GROUPS; g++) {
            scale[g][k] = up;
            low[g][k] = 0;
            if (!in[k] || w.port == 6) continue;
            scale[g][k] *= __half2float(meta[g * PAGE + at]);
            low[g][k] = __half2float(meta[(GROUPS + g) * PAGE + at]);
        }
    }
    for (int h = 0; h < GROUP; h++) {
        float p[2];
        for (int k = 0; k < 2; k++) {
            const float below = in[k] ? w.score[h][token[k]] - s.max[h] : 0;
            p[k] = in[k] ? exp_of(below) : 0;
            s.sum[h] += p[k];
            s.weighted[h] += p[k] * below;
        }
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            float x[2];
            for (int k = 0; k < 2; k++) {
                x[k] = p[k] * scale[g][k];
                s.bias[h][g] += p[k] * low[g][k];
            }
            const __half2 whole = __floats2half2_rn(x[0], x[1]);
            const float2 of = __half22float2(whole);
            uint32_t *to = (uint32_t *)&m.split[warp][g][2 * h][tile][c] + later;
            to[0] = *(const uint32_t *)&whole;
            to[4 * 4 * 2] = two_halves(x[0] - of.x, x[1] - of.y);
        }
    }
    __syncwarp();
}

// Adds the products of a plane's values and their weights.
template <int SET, int GROUP>
__device__ static inline void add_values(const attend_memory<GROUP> &m, const work_at<GROUP> &at,
                                         int plane, float factor, float o[GROUPS][4]) {
    const int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4, warp = threadIdx.x / 32;
    const uint32_t *codes = (const uint32_t *)(at.codes + plane);
    const value_lane<SET> value(r);
    float d[GROUPS][2][4];
    for (int i = 0; i < GROUPS * 2 * 4; i++) (&d[0][0][0])[i] = 0;
#pragma unroll 1
    for (int tile = at.low / TILE; tile * TILE < at.high; tile++)
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            const int t = tile * TILE + c;
            uint32_t x[2][4];
            value.pairs(codes, g, t, t + 4, x[0]);
            value.pairs(codes, g, t + 8, t + 12, x[1]);
            const uint2 w = m.split[warp][g][r < 2 * GROUP ? r : 0][tile][c];
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

template <int PORT, int GROUP>
__device__ static inline void add_planes(const attend_memory<GROUP> &m, const work_at<GROUP> &w,
                                         float factor, float o[GROUPS][4]) {
    constexpr int low = low_set(PORT), high = high_set(PORT);
    add_values<low>(m, w, 0, factor, o);
    if (high != SETS) add_values<high % SETS>(m, w, high_at(PORT), factor, o);
}

template <int GROUP>
__device__ static inline void unit_values(attend_memory<GROUP> &m, const work_at<GROUP> &w,
                                          float up, pair_state<GROUP> &s) {
    if (w.port == 6) up = 16384.0f;
    const float factor = (w.port == 6 ? 1.0f : 0x1p24f) / up;
    weigh(m, w, up, s);
    with_port(w.port, [&](auto port) { add_planes<port.value>(m, w, factor, s.o); });
}

#endif
