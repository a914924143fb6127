// SPDX-License-Identifier: Apache-2.0
// The controller of widths in a decode step on a GPU, and the coding of the token's cells: the
// formulas of sim/cache/controller.h, with errors by ranges. A block has one sequence and KV head.
#ifndef KV_CELL_CONTROL_CUH
#define KV_CELL_CONTROL_CUH

#include "cell_judge.cuh"

enum { FEATURES = 6, NET = 64, OFFERED = 6, FINISH = 256 }; // threads of a block
enum { SELF, FIRST, LARGEST, ENTROPY, KEY_NORM, VALUE_NORM };

// Places are (layer x KV heads + head) x 2 + side. Device memory.
struct controller {
    const float *channel, *bias, *linear, *probe; // [place][DIM], [], [FEATURES], [hidden]
    const float *constant;                        // [place][NET]: first bias and embedding
    const float *first, *second;                  // [FEATURES][NET], [NET][NET]: [in][out]
    const float *second_bias, *third;             // [NET]
    const float *mean, *deviation;                // [layer x KV heads][FEATURES]
    float third_bias, lambda;
    bool net;
};

struct finish_job {
    attend_job attend;
    int grid, layer, kv_heads, hidden;
    const float *key, *value; // [pairs][DIM] of the token, rotated
    const float *input;       // [sequences][hidden], the layer's normalised input
    __nv_bfloat16 *context;   // [sequences][KV heads x GROUP x DIM]
    float *features;          // [pairs][FEATURES]
    controller control;
    int given; // port of both cells; -1: the controller decides; -2: the next of `drawn`
    port_shares drawn;
};

__device__ static inline float silu(float x) {
    return x / (1 + __expf(-x));
}
// Sum over a block; all threads get it.
__device__ static inline float block_sum(float x, float *room) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < FINISH / 32; i++) sum += room[i];
    return sum;
}

template <int GROUP> struct finish_memory {
    joined_row<GROUP> row;
    float own[GROUP], kv[SIDES][DIM], x[FEATURES], z[FEATURES], hidden[SIDES][NET], room[FINISH / 32];
    float low[SIDES][GROUPS], high[SIDES][GROUPS], weight[SIDES][GROUPS], log_s[SIDES];
    int port[SIDES];
    uint8_t code[SIDES][DIM];
};

// The token's own score joins the row: it is exact in its own step.
template <int GROUP>
__device__ static inline void add_own(const finish_job &j, finish_memory<GROUP> &m, int pair) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float *q = j.attend.query + (size_t)pair * GROUP * DIM;
    if (warp < GROUP) {
        const float s = warp_sum(q[warp * DIM + lane] * m.kv[KEY][lane] +
                                 q[warp * DIM + lane + 32] * m.kv[KEY][lane + 32]);
        if (lane == 0) m.own[warp] = s * 0.125f;
    }
    __syncthreads();
    const int h = threadIdx.x / DIM, i = threadIdx.x % DIM;
    if (h < GROUP) {
        const float top = fmaxf(m.row.max[h], m.own[h]);
        const float keep = __expf(m.row.max[h] - top), own = __expf(m.own[h] - top);
        const float x = (keep * m.row.o[h][i] + own * m.kv[VALUE][i]) /
                        (keep * m.row.sum[h] + own);
        const int sequence = pair / j.kv_heads, head = pair % j.kv_heads;
        j.context[((size_t)sequence * j.kv_heads + head) * GROUP * DIM + threadIdx.x] =
            __float2bfloat16(x);
    }
    if (threadIdx.x < SIDES * 32) { // norms
        const int side = threadIdx.x / 32;
        const float a = m.kv[side][lane], b = m.kv[side][lane + 32];
        const float norm = sqrtf(warp_sum(a * a + b * b));
        if (lane == 0) m.x[KEY_NORM + side] = logf(fmaxf(norm, 1e-6f));
    }
    if (threadIdx.x == FINISH - 1) { // shares of the row's weights, in the mean over query heads
        float self = 0, first = 0, largest = 0, entropy = 0;
        for (int g = 0; g < GROUP; g++) {
            const float top = fmaxf(m.row.max[g], m.own[g]), down = m.row.max[g] - top;
            const float keep = __expf(down), own = m.own[g] - top, e = __expf(own);
            const float sum = keep * m.row.sum[g] + e;
            const float weighted =
                keep * (m.row.weighted[g] + down * m.row.sum[g]) + e * own;
            self += e / sum / GROUP;
            first += __expf(m.row.oldest[g] - top) / sum / GROUP;
            largest += 1 / sum / GROUP;
            entropy += (logf(sum) - weighted / sum) / GROUP;
        }
        m.x[SELF] = logf(fmaxf(self, 6.1442124e-6f)); // exp(-12)
        m.x[FIRST] = logf(fmaxf(first, 1e-6f));
        m.x[LARGEST] = logf(fmaxf(largest, 1e-6f));
        m.x[ENTROPY] = entropy;
    }
    __syncthreads();
}

// Least and largest number and channel weights of the four groups: a warp each.
template <int GROUP>
__device__ static inline void find_ranges(const finish_job &j, finish_memory<GROUP> &m, int place) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, side = warp / GROUPS,
              g = warp % GROUPS;
    if (warp >= SIDES * GROUPS) return;
    const float x = m.kv[side][g * 32 + lane];
    const float high = warp_max(x), low = -warp_max(-x);
    float weight = 0;
    if (j.given == -1) weight = warp_sum(j.control.channel[(place + side) * DIM + g * 32 + lane]);
    if (lane == 0) {
        m.low[side][g] = low;
        m.high[side][g] = high;
        m.weight[side][g] = weight;
    }
}

// log s of both cells.
template <int GROUP>
__device__ static inline void find_sensitivity(const finish_job &j, finish_memory<GROUP> &m,
                                               int place, int sequence) {
    const controller &c = j.control;
    const int head = place / 2;
    if (threadIdx.x < FEATURES)
        m.z[threadIdx.x] = (m.x[threadIdx.x] - c.mean[head * FEATURES + threadIdx.x]) /
                           c.deviation[head * FEATURES + threadIdx.x];
    __syncthreads();
    if (c.net && threadIdx.x < SIDES * NET) {
        const int side = threadIdx.x / NET, o = threadIdx.x % NET;
        float x = c.constant[(place + side) * NET + o];
        for (int i = 0; i < FEATURES; i++) x += c.first[i * NET + o] * m.z[i];
        m.hidden[side][o] = silu(x);
    }
    __syncthreads();
    float part[SIDES] = {0, 0};
    if (c.net && threadIdx.x < SIDES * NET) {
        const int side = threadIdx.x / NET, o = threadIdx.x % NET;
        float x = c.second_bias[o];
#pragma unroll 16
        for (int i = 0; i < NET; i++) x += c.second[i * NET + o] * m.hidden[side][i];
        part[side] = c.third[o] * silu(x);
    }
    if (c.probe)
        for (int i = threadIdx.x; i < j.hidden; i += FINISH) {
            const float h = j.input[(size_t)sequence * j.hidden + i];
            part[KEY] += c.probe[(size_t)place * j.hidden + i] * h;
            part[VALUE] += c.probe[(size_t)(place + 1) * j.hidden + i] * h;
        }
    for (int side = 0; side < SIDES; side++) {
        float y = block_sum(part[side], m.room);
        if (threadIdx.x) continue;
        y += c.bias[place + side] + (c.net ? c.third_bias : 0);
        for (int i = 0; i < FEATURES; i++) y += c.linear[(place + side) * FEATURES + i] * m.z[i];
        m.log_s[side] = fminf(fmaxf(y, -30.0f), 30.0f);
    }
    __syncthreads();
}

// 0.5 s sum m e^2 + lambda bits at its least, e from ranges: step^2 / 12.
template <int GROUP>
__device__ static inline void choose(const finish_job &j, finish_memory<GROUP> &m) {
    const int side = threadIdx.x;
    if (side >= SIDES) return;
    float least = INFINITY, spread = 0;
    for (int g = 0; g < GROUPS; g++) {
        const float range = m.high[side][g] - m.low[side][g];
        spread += m.weight[side][g] * range * range;
    }
    m.port[side] = 0;
    const float s = 0.5f * expf(m.log_s[side]);
    for (int port = 0; port < OFFERED; port++) {
        const float steps = (float)((1 << port_bits(port)) - 1);
        const float cost =
            s * spread / (12 * steps * steps) + j.control.lambda * (float)cell_bits(port);
        if (cost < least) m.port[side] = port;
        least = fminf(least, cost);
    }
}

// Codes a token's key and value and gives them the next slots of their runs.
template <int GROUP>
__device__ static inline void append_cells(const cells &c, finish_memory<GROUP> &m, int stream,
                                           int token) {
    __shared__ uint32_t at[SIDES], slots[SIDES];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t *count = c.count + stream * SIDES * 8;
    if (token % RANK_TOKENS == 0 && threadIdx.x < SIDES * 8)
        c.rank[rank_at(c, stream, threadIdx.x / 8, token) + threadIdx.x % 8] =
            (uint16_t)count[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < SIDES) {
        const int side = threadIdx.x, port = m.port[side];
        const uint32_t slot = count[side * 8 + port]++;
        at[side] = slot % PAGE ? c.page[run_at(c, stream, side, port) + slot / PAGE]
                               : open_page(c, stream, side, port, slot / PAGE);
        slots[side] = slot % PAGE;
        ((uint16_t *)page_of(c, at[side]))[slot % PAGE] = (uint16_t)token;
    }
    if (threadIdx.x == 0)
        c.tag[(size_t)stream * c.room + token] = (uint8_t)(m.port[KEY] | m.port[VALUE] << 4);
    __syncthreads();
    const int side = warp / GROUPS % SIDES, g = warp % GROUPS, i = g * 32 + lane;
    const int port = m.port[side], slot = (int)slots[side];
    uint8_t *block = page_of(c, at[side]) + PAGE_HEAD;
    if (warp < SIDES * GROUPS && port == PORTS - 1)
        *cell_half(block, side, slot, i) = __half_as_ushort(__float2half_rn(m.kv[side][i]));
    if (warp < SIDES * GROUPS && port < PORTS - 1) {
        const float levels = (float)((1 << port_bits(port)) - 1);
        const __half low = __float2half_rn(m.low[side][g] + 0.0f);
        const float from = __half2float(low);
        const __half scale = __float2half_rn(__fdiv_rn(m.high[side][g] - from, levels) + 0.0f);
        const float step = __half2float(scale);
        const float x = step > 0 ? rintf(__fdiv_rn(m.kv[side][i] - from, step)) : 0;
        m.code[side][i] = (uint8_t)fminf(fmaxf(x, 0.0f), levels);
        if (lane == 0) {
            ((__half *)(block + scale_at(port)))[g * PAGE + slot] = scale;
            ((__half *)(block + min_at(port)))[g * PAGE + slot] = low;
            if (side == VALUE && step > c.largest[stream]) // positive floats order as integers do
                atomicMax((int *)&c.largest[stream], __float_as_int(step));
        }
    }
    __syncthreads();
    if (threadIdx.x >= SIDES * 32) return;
    const int of = threadIdx.x / 32, w = lane; // a thread a word: at most 16 low ones, 4 high ones
    const int p = m.port[of], a = low_bits(p), b = high_bits(p);
    uint8_t *to = page_of(c, at[of]) + PAGE_HEAD;
    if (p == PORTS - 1) return;
    if (w < words_of(a)) {
        uint32_t word = 0;
        for (int k = 0; k < 32 / a; k++)
            word |= (m.code[of][w * (32 / a) + k] & ((1u << a) - 1)) << a * k;
        *cell_word(to, of, p, false, (int)slots[of], w) = word;
    }
    if (w < words_of(b)) {
        uint32_t word = 0;
        for (int k = 0; k < DIM; k++) {
            const int place = high_bit_at(p, k);
            if (place / 32 == w) word |= (uint32_t)(m.code[of][k] >> a) << place % 32;
        }
        *cell_word(to, of, p, true, (int)slots[of], w) = word;
    }
}

// After a layer's attention over the earlier tokens: joins its parts with the token's own, decides
// its widths, and codes and stores it.
template <int GROUP> __global__ void __launch_bounds__(FINISH) finish_cells(finish_job j) {
    __shared__ finish_memory<GROUP> m;
    const int pair = blockIdx.x, n = *j.attend.c.tokens, stream = j.attend.stream + pair;
    const int place = 2 * (j.layer * j.kv_heads + pair % j.kv_heads);
    const int side = threadIdx.x / DIM, i = threadIdx.x % DIM;
    if (side < SIDES) m.kv[side][i] = side ? j.value[pair * DIM + i] : j.key[pair * DIM + i];
    join_parts<GROUP>(j.attend, n, j.grid, pair, m.row);
    add_own(j, m, pair);
    find_ranges(j, m, place);
    __syncthreads();
    if (j.given == -1) {
        find_sensitivity(j, m, place, pair / j.kv_heads);
        choose(j, m);
        if (threadIdx.x < FEATURES) j.features[(size_t)pair * FEATURES + threadIdx.x] = m.x[threadIdx.x];
    } else if (threadIdx.x < SIDES) {
        m.port[threadIdx.x] =
            j.given >= 0
                ? j.given
                : drawn_port(j.drawn, ((uint64_t)stream * SIDES + threadIdx.x) * MOST_TOKENS + n);
    }
    __syncthreads();
    append_cells(j.attend.c, m, stream, n);
}

__global__ void advance(cells c) {
    ++*c.tokens;
}

#endif
