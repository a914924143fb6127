// SPDX-License-Identifier: Apache-2.0
// The judge of attention over cells: plain loops on the CPU, which take each token's place from the
// pages' heads and know nothing of ranks.
#ifndef KV_CELL_JUDGE_CUH
#define KV_CELL_JUDGE_CUH

#include "cell_pieces.cuh"

static void *from_device(const void *device, size_t bytes) {
    void *host = malloc(bytes);
    CHECK(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
    return host;
}
static float *noise_on_device(size_t n, uint64_t seed, float size, float middle) {
    float *x = (float *)malloc(n * sizeof *x), *device;
    for (size_t i = 0; i < n; i++)
        x[i] = middle + size * (2 * (float)mixed((seed << 40) + i * 0x9E3779B97F4A7C15ull) *
                                    0x1p-32f - 1);
    CHECK(cudaMalloc(&device, n * sizeof *device));
    CHECK(cudaMemcpy(device, x, n * sizeof *x, cudaMemcpyHostToDevice));
    free(x);
    return device;
}

// A cache's memory, fetched.
static cells fetched_cells(const cells &c) {
    cells h = c;
    h.arena = (uint8_t *)from_device(c.arena, (size_t)c.units * UNIT);
    h.page = (uint32_t *)from_device(c.page, (size_t)c.streams * SIDES * PORTS * c.pages_room * 4);
    h.count = (uint32_t *)from_device(c.count, (size_t)c.streams * SIDES * 8 * 4);
    h.tag = (uint8_t *)from_device(c.tag, (size_t)c.streams * c.room);
    return h;
}
static void fetched_fini(cells *h) {
    free(h->arena);
    free(h->page);
    free(h->count);
    free(h->tag);
}

static double half_number(uint16_t x) {
    __half_raw raw;
    raw.x = x;
    return (double)__half2float(__half(raw));
}

// A cell's channels. Host memory.
static void read_cell(const cells &h, int stream, int side, int port, int slot, double *x) {
    uint8_t *block =
        page_of(h, h.page[run_at(h, stream, side, port) + slot / PAGE]) + PAGE_HEAD;
    const int t = slot % PAGE, a = low_bits(port), b = high_bits(port);
    for (int i = 0; i < DIM; i++) {
        if (port == 6) {
            x[i] = half_number(*cell_half(block, side, t, i));
            continue;
        }
        uint32_t code = *cell_word(block, side, port, false, t, i / (32 / a)) >> a * (i % (32 / a));
        code &= (1u << a) - 1;
        if (b) {
            const int at = high_bit_at(port, i);
            code |= (*cell_word(block, side, port, true, t, at / 32) >> at % 32 & ((1u << b) - 1))
                    << a;
        }
        const int of = i / (DIM / GROUPS) * PAGE + t;
        x[i] = code * half_number(((const uint16_t *)(block + scale_at(port)))[of]) +
               half_number(((const uint16_t *)(block + min_at(port)))[of]);
    }
}

// Keys or values of a stream in token order: [n][DIM]. False when a token has no cell or two, or its
// tag names another width.
static bool read_stream(const cells &h, int stream, int side, int n, double *x) {
    bool *seen = (bool *)calloc(n, 1), right = true;
    int all = 0;
    for (int port = 0; port < PORTS; port++)
        for (uint32_t slot = 0; slot < h.count[(stream * SIDES + side) * 8 + port]; slot++, all++) {
            const uint16_t *head = (const uint16_t *)page_of(
                h, h.page[run_at(h, stream, side, port) + slot / PAGE]);
            const int t = head[slot % PAGE];
            right &= t < n && !seen[t];
            if (!right) break;
            right &= (h.tag[(size_t)stream * h.room + t] >> 4 * side & 15) == port;
            seen[t] = true;
            read_cell(h, stream, side, port, (int)slot, x + (size_t)t * DIM);
        }
    free(seen);
    return right && all == n;
}

// Statistics of one row of weights.
struct judged_row {
    double max, sum, weighted, oldest;
};

// Attention of one query [DIM] over n tokens: out [DIM] sums of exp(score - max) value.
static judged_row judge_row(const float *q, const double *k, const double *v, int n, double *out) {
    judged_row r = {-INFINITY, 0, 0, 0};
    double *s = (double *)calloc(n, sizeof *s);
    for (int t = 0; t < n; t++) {
        for (int i = 0; i < DIM; i++) s[t] += q[i] * k[(size_t)t * DIM + i] / 8;
        r.max = fmax(r.max, s[t]);
    }
    r.oldest = s[0];
    for (int i = 0; i < DIM; i++) out[i] = 0;
    for (int t = 0; t < n; t++) {
        const double p = exp(s[t] - r.max);
        r.sum += p;
        r.weighted += p * (s[t] - r.max);
        for (int i = 0; i < DIM; i++) out[i] += p * v[(size_t)t * DIM + i];
    }
    free(s);
    return r;
}

// What a part's statistics and joined attention come to, for the judge.
template <int GROUP> __global__ void join_rows(attend_job j, int grid, float *rows) {
    __shared__ joined_row<GROUP> row;
    join_parts<GROUP>(j, *j.c.tokens, grid, blockIdx.x, row);
    const int h = threadIdx.x / DIM, i = threadIdx.x % DIM;
    float *to = rows + ((size_t)blockIdx.x * GROUP + h) * PART;
    to[i] = row.o[h][i];
    if (i) return;
    to[PART_MAX] = row.max[h];
    to[PART_SUM] = row.sum[h];
    to[PART_WEIGHTED] = row.weighted[h];
    to[PART_OLDEST] = row.oldest[h];
}

static port_shares shares_of(const double pct[PORTS]) {
    port_shares s;
    double sum = 0, all = 0;
    for (int p = 0; p < PORTS; p++) all += pct[p];
    for (int p = 0; p < PORTS; p++) {
        sum += pct[p] / all;
        s.below[p] = (uint32_t)fmin(sum * 0x1p32, 4294967295.0);
    }
    return s;
}

struct cell_judged {
    double attention, rows; // worst error of attention by the largest value; of statistics
    bool whole;             // each token has its two cells
};

template <int GROUP>
static void judge_cells(int sequences, int kv_heads, int n, int grid, const double pct[PORTS],
                        cell_judged *worst) {
    enum { LAYERS = 2 };
    cells c;
    const int pairs = sequences * kv_heads, room = parts_room(pairs, grid);
    cells_init(&c, LAYERS * pairs, n + 1, LAYERS * pairs * most_stream_bytes(n + 1));
    cells_fill(&c, n, shares_of(pct));
    cells h = fetched_cells(c);
    float *q = noise_on_device((size_t)pairs * GROUP * DIM, 3 + n, 4, 0), *rows, *partial;
    CHECK(cudaMalloc(&rows, (size_t)pairs * GROUP * PART * 4));
    CHECK(cudaMalloc(&partial, (size_t)pairs * room * GROUP * PART * 4));
    float *host_q = (float *)from_device(q, (size_t)pairs * GROUP * DIM * 4);
    double *k = (double *)malloc((size_t)n * DIM * 8), *v = (double *)malloc((size_t)n * DIM * 8);
    for (int layer = 0; layer < LAYERS; layer++) {
        const attend_job j = {c, layer * pairs, pairs, room, q, partial};
        CHECK(cudaMemset(partial, 0xFF, (size_t)pairs * room * GROUP * PART * 4)); // NaN
        launch_attend<GROUP>(j, grid, 0);
        join_rows<GROUP><<<pairs, GROUP * DIM>>>(j, grid, rows);
        CHECK(cudaDeviceSynchronize());
        float *got = (float *)from_device(rows, (size_t)pairs * GROUP * PART * 4);
        for (int p = 0; p < pairs; p++) {
            worst->whole &= read_stream(h, layer * pairs + p, KEY, n, k) &&
                            read_stream(h, layer * pairs + p, VALUE, n, v);
            for (int g = 0; g < GROUP; g++) {
                const float *row = got + ((size_t)p * GROUP + g) * PART;
                double out[DIM];
                judged_row r = judge_row(host_q + ((size_t)p * GROUP + g) * DIM, k, v, n, out);
                double wrong = 0, stats = fabs(row[PART_MAX] - r.max);
                for (int i = 0; i < DIM; i++)
                    wrong = fmax(wrong, fabs(row[i] / row[PART_SUM] - out[i] / r.sum));
                stats = fmax(stats, fabs(row[PART_SUM] / r.sum - 1));
                stats = fmax(stats, fabs(row[PART_WEIGHTED] - r.weighted) / r.sum);
                stats = fmax(stats, fabs(row[PART_OLDEST] - r.oldest));
                const double sum = wrong + stats + row[0];
                worst->attention = sum == sum ? fmax(worst->attention, wrong) : INFINITY;
                worst->rows = sum == sum ? fmax(worst->rows, stats) : INFINITY;
            }
        }
        free(got);
    }
    free(k);
    free(v);
    free(host_q);
    fetched_fini(&h);
    CHECK(cudaFree(q));
    CHECK(cudaFree(rows));
    CHECK(cudaFree(partial));
    cells_fini(&c);
}

// Every width alone and mixed, lengths about a page, a block of ranks and a piece, shares of threads
// that cut pairs and that hold several.
static bool check_attention() {
    static const int lengths[] = {1, 63, 64, 65, 127, 129, 700, 2047, 2049, 5000};
    cell_judged worst = {0, 0, true};
    for (int i = 0; i < 2 * (PORTS + 3); i++) {
        double pct[PORTS] = {0};
        const int mix = i / 2 - PORTS;
        for (int p = 0; p < PORTS; p++)
            pct[p] = mix < 0 ? p == i / 2 : mix == 0 ? 1 : mix == 1 ? p % 2 : 1 + 20 * (p == 2);
        const int n = lengths[i % 10], grid = i % 3 == 0 ? 3 : i % 3 == 1 ? 40 : 264;
        if (i % 2)
            judge_cells<1>(2, 2, n, grid, pct, &worst);
        else
            judge_cells<3>(3, 1, n, grid, pct, &worst);
        if (mix >= 0) judge_cells<3>(1, 2, 5000, grid, pct, &worst);
        if (mix >= 0) judge_cells<1>(1, 3, 6500, grid, pct, &worst);
    }
    const bool right = worst.whole && worst.attention < 1e-4 && worst.rows < 1e-3;
    fprintf(stderr,
            "attention over cells, against plain loops on the CPU: within %.1e (values of at most 1), "
            "rows' statistics within %.1e, %s: %s\n",
            worst.attention, worst.rows, worst.whole ? "each token has its cells" : "CELLS LACK",
            right ? "right" : "WRONG");
    return right;
}

#endif
