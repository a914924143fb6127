// SPDX-License-Identifier: Apache-2.0
// Attention of a tile of queries over their path: 64 queries (rows times the query heads of a KV
// head), keys 32 at a time through shared memory, softmax as it goes (Milakov and Gimelshein 2018,
// arXiv 1805.02867). Each query reads a position coded or exact, as coded_upto says.
#ifndef KV_CUDA_ENGINE_ATTEND_CUH
#define KV_CUDA_ENGINE_ATTEND_CUH

#include "sim/cuda/engine/launch.cuh"

enum { KV_TILE_QUERIES = 64, KV_TILE_KEYS = 32, KV_TILE_THREADS = 128, KV_SCORE_PITCH = 36 };

struct KvAttend {
    const kv_engine_tile *tiles;
    const float *q;                 // [rows][n_heads][D], scaled
    const float *k[2], *v[2];       // exact, coded; stored rows [n_kv_heads][D]
    const uint32_t *upto;           // [rows][2]
    const uint8_t *cells;           // [stored][n_layers][n_kv_heads][2]
    uint32_t layer, n_layers, n_heads, n_kv_heads, window;
    float *out; // [rows][n_heads][D]
};

template <int D> constexpr size_t kv_attend_bytes() {
    return sizeof(float) * ((size_t)(KV_TILE_QUERIES + KV_TILE_KEYS) * (D + 4) +
                            KV_TILE_QUERIES * KV_SCORE_PITCH + 3 * KV_TILE_QUERIES) +
           sizeof(uint32_t) * (5 * KV_TILE_QUERIES + KV_TILE_KEYS);
}

template <int D> __global__ void __launch_bounds__(KV_TILE_THREADS) kv_attend(KvAttend a) {
    KV_SHARED_FLOATS(memory);
    const int P = D + 4;
    float *qs = memory, *ks = qs + KV_TILE_QUERIES * P, *s = ks + KV_TILE_KEYS * P,
          *most = s + KV_TILE_QUERIES * KV_SCORE_PITCH, *sum = most + KV_TILE_QUERIES,
          *factor = sum + KV_TILE_QUERIES;
    uint32_t *from = (uint32_t *)(factor + KV_TILE_QUERIES), *to = from + KV_TILE_QUERIES,
             *upto = to + KV_TILE_QUERIES, // [2][queries]
        *gone = upto + 2 * KV_TILE_QUERIES;
    const kv_engine_tile t = a.tiles[blockIdx.x];
    const uint32_t head = blockIdx.y, group = a.n_heads / a.n_kv_heads, n = t.n * group,
                   tid = threadIdx.x, tq = tid / 8, tk = tid % 8;
    for (uint32_t i = tid; i < KV_TILE_QUERIES * D; i += KV_TILE_THREADS) {
        uint32_t m = i / D, c = i % D;
        qs[m * P + c] = m < n ? a.q[((size_t)(t.row + m / group) * a.n_heads + head * group +
                                     m % group) * D + c]
                              : 0.0f;
    }
    for (uint32_t m = tid; m < KV_TILE_QUERIES; m += KV_TILE_THREADS) {
        uint32_t row = m < n ? m / group : 0, position = t.position + row;
        from[m] = a.window && position >= a.window ? position - a.window + 1 : 0;
        to[m] = m < n ? position + 1 : 0;
        for (int side = 0; side < 2; side++) {
            uint32_t u = a.upto[2 * (size_t)(t.row + row) + side];
            upto[side * KV_TILE_QUERIES + m] = u > position ? 0xFFFFFFFFu : u; // all it sees
        }
        most[m] = -INFINITY;
        sum[m] = 0;
    }
    constexpr int COLUMNS = (D + 31) / 32 * 4;
    float acc[4][COLUMNS];
    for (int i = 0; i < 4; i++)
        for (int c = 0; c < COLUMNS; c++) acc[i][c] = 0;
    __syncthreads();
    const uint32_t end = t.position + t.n, first = from[0] / KV_TILE_KEYS * KV_TILE_KEYS;
    // Which copies a stretch of keys is read from: bit 0 exact, bit 1 coded.
    uint32_t low[2] = {0xFFFFFFFFu, 0xFFFFFFFFu}, high[2] = {0, 0};
    for (uint32_t m = 0; m < n; m += group)
        for (int side = 0; side < 2; side++) {
            uint32_t u = upto[side * KV_TILE_QUERIES + m];
            low[side] = u < low[side] ? u : low[side];
            high[side] = u > high[side] ? u : high[side];
        }
    const auto row_of = [&](uint32_t p) -> size_t {
        return p < t.n_context ? t.context + p : t.own + (p - t.n_context);
    };
    // Brings a tile of keys or values into shared memory; zeros behind the end.
    const auto fetch = [&](const float *rows, uint32_t base) {
        __syncthreads();
        for (uint32_t i = tid; i < KV_TILE_KEYS * (D / 4); i += KV_TILE_THREADS) {
            uint32_t k = i / (D / 4), c = i % (D / 4) * 4, p = base + k;
            float4 x = make_float4(0, 0, 0, 0);
            if (p < end) x = *(const float4 *)(rows + (row_of(p) * a.n_kv_heads + head) * D + c);
            *(float4 *)(ks + k * P + c) = x;
        }
        __syncthreads();
    };
    for (uint32_t base = first; base < end; base += KV_TILE_KEYS) {
        const uint32_t stop = base + KV_TILE_KEYS < end ? base + KV_TILE_KEYS : end;
        for (uint32_t k = tid; k < KV_TILE_KEYS; k += KV_TILE_THREADS) {
            uint32_t p = base + k;
            gone[k] = p < end && a.cells[((row_of(p) * a.n_layers + a.layer) * a.n_kv_heads + head) * 2] ==
                                     KV_EVICT;
        }
        for (int copy = 0; copy < 2; copy++) {
            if (copy ? base >= high[0] : stop <= low[0]) continue;
            fetch(a.k[copy], base);
            float score[4][4] = {};
            for (int c = 0; c < D; c += 4) {
                float4 x[4], y[4];
                for (int i = 0; i < 4; i++) x[i] = *(const float4 *)(qs + (tq * 4 + i) * P + c);
                for (int j = 0; j < 4; j++) y[j] = *(const float4 *)(ks + (tk + 8 * j) * P + c);
                for (int i = 0; i < 4; i++)
                    for (int j = 0; j < 4; j++)
                        score[i][j] += x[i].x * y[j].x + x[i].y * y[j].y + x[i].z * y[j].z +
                                       x[i].w * y[j].w;
            }
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) {
                    uint32_t m = tq * 4 + i, k = tk + 8 * j, p = base + k;
                    if ((p < upto[m]) != (copy == 1)) continue;
                    bool seen = p >= from[m] && p < to[m] && (!gone[k] || p + 1 == to[m]);
                    s[m * KV_SCORE_PITCH + k] = seen ? score[i][j] : -INFINITY;
                }
        }
        __syncthreads();
        {
            const uint32_t m = tid / 2, at = m * KV_SCORE_PITCH + tid % 2 * 16;
            float top = -INFINITY, total = 0;
            for (int k = 0; k < 16; k++) top = fmaxf(top, s[at + k]);
            top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 1));
            float now = fmaxf(most[m], top), shift = now == -INFINITY ? 0.0f : now;
            for (int k = 0; k < 16; k++) {
                float w = expf(s[at + k] - shift);
                s[at + k] = w;
                total += w;
            }
            total += __shfl_xor_sync(0xFFFFFFFFu, total, 1);
            float f = expf(most[m] - shift);
            __syncwarp();
            if (tid % 2 == 0) {
                factor[m] = f;
                sum[m] = sum[m] * f + total;
                most[m] = now;
            }
        }
        __syncthreads();
        for (int i = 0; i < 4; i++) {
            float f = factor[tq * 4 + i];
            for (int c = 0; c < COLUMNS; c++) acc[i][c] *= f;
        }
        for (int copy = 0; copy < 2; copy++) {
            if (copy ? base >= high[1] : stop <= low[1]) continue;
            const bool whole = copy ? stop <= low[1] : base >= high[1];
            fetch(a.v[copy], base);
            for (int k = 0; k < KV_TILE_KEYS; k += 4) {
                float w[4][4];
                for (int i = 0; i < 4; i++) {
                    const uint32_t m = tq * 4 + i;
                    float4 x = *(const float4 *)(s + m * KV_SCORE_PITCH + k);
                    w[i][0] = x.x, w[i][1] = x.y, w[i][2] = x.z, w[i][3] = x.w;
                    if (!whole)
                        for (int j = 0; j < 4; j++)
                            if ((base + k + j < upto[KV_TILE_QUERIES + m]) != (copy == 1))
                                w[i][j] = 0;
                }
                for (int j = 0; j < 4; j++)
                    for (int c = 0; c < D / 32; c++) {
                        float4 y = *(const float4 *)(ks + (k + j) * P + c * 32 + tk * 4);
                        for (int i = 0; i < 4; i++) {
                            acc[i][4 * c] += w[i][j] * y.x;
                            acc[i][4 * c + 1] += w[i][j] * y.y;
                            acc[i][4 * c + 2] += w[i][j] * y.z;
                            acc[i][4 * c + 3] += w[i][j] * y.w;
                        }
                    }
                if (D % 32) // heads of 16 more: the first four of the eight take them
                    for (int j = 0; j < 4 && tk < 4; j++) {
                        float4 y = *(const float4 *)(ks + (k + j) * P + D / 32 * 32 + tk * 4);
                        for (int i = 0; i < 4; i++) {
                            acc[i][D / 32 * 4] += w[i][j] * y.x;
                            acc[i][D / 32 * 4 + 1] += w[i][j] * y.y;
                            acc[i][D / 32 * 4 + 2] += w[i][j] * y.z;
                            acc[i][D / 32 * 4 + 3] += w[i][j] * y.w;
                        }
                    }
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++) {
        const uint32_t m = tq * 4 + i;
        if (m >= n) continue;
        float *to_row = a.out + ((size_t)(t.row + m / group) * a.n_heads + head * group + m % group) * D;
        const float scale = 1.0f / sum[m];
        for (int c = 0; c < (D + 31) / 32; c++) {
            if (c * 32 + (int)tk * 4 >= D) continue;
            for (int x = 0; x < 4; x++) to_row[c * 32 + tk * 4 + x] = acc[i][4 * c + x] * scale;
        }
    }
}

#endif
