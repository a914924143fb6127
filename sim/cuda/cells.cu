// SPDX-License-Identifier: Apache-2.0
// Widths by cell on a GPU: checks the kernels against plain loops on the CPU, then measures
// attention over 16k tokens at each width and mixed, as a share of a streaming read and of a copy
// of the same run, and decode steps of cells with their controller beside uniform storage, fp16 and
// no cache.
//
//     make cuda && build/kvsim-cuda-cells -o work/cells.tsv
//
// Needs nvcc and cuBLAS alone. Widths are those of a policy of cells (--shares, as bench_cells has
// them); sequences go in batches, so that caches of a step are at least four times the second
// level.
#include "cell_control_judge.cuh"

enum { ROUNDS = 5, WARM = 2, STEPS = 20, PASSES = 21, MAX_CONTEXTS = 8, MAX_SHAPES = 3 };

struct cells_options {
    bool check, attend, steps;
    int n_shapes, n_contexts, contexts[MAX_CONTEXTS];
    const shape *at[MAX_SHAPES];
    double pct[PORTS];
    const char *output;
};

struct machine {
    cudaDeviceProp p;
    double read, copy; // bytes/ns of a streaming read; of a copy, read and written
    cudaEvent_t begin, end;
};

// ---- times -------------------------------------------------------------------------------------

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double quantile_of(double *x, int n, double q) {
    qsort(x, n, sizeof *x, ascending);
    const double at = q * (n - 1);
    const int i = (int)at;
    return i + 1 < n ? x[i] + (at - i) * (x[i + 1] - x[i]) : x[i];
}
template <class WORK> static double work_ns(const machine *m, cudaStream_t stream, WORK work) {
    float ms;
    CHECK(cudaEventRecord(m->begin, stream));
    work();
    CHECK(cudaEventRecord(m->end, stream));
    CHECK(cudaEventSynchronize(m->end));
    CHECK(cudaEventElapsedTime(&ms, m->begin, m->end));
    return ms * 1e6;
}

// Four loads of a thread are under way at once.
__global__ void read_wide(const uint4 *x, size_t n, uint32_t *sum) {
    uint32_t s = 0;
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i + 3 * step < n;
         i += 4 * step) {
        uint4 v[4];
        for (int k = 0; k < 4; k++) v[k] = __ldcs(x + i + k * step);
        for (int k = 0; k < 4; k++) s ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
    }
    if (s == 0x12345678u) *sum = s; // practically never; keeps the loads
}

// The best of two ways to read, by medians, and a copy.
static void measure_machine(machine *m) {
    const size_t bytes = (size_t)4 << 30;
    uint8_t *x, *y;
    uint32_t *sum;
    double ns[3][9];
    CHECK(cudaGetDeviceProperties(&m->p, 0));
    CHECK(cudaEventCreate(&m->begin));
    CHECK(cudaEventCreate(&m->end));
    CHECK(cudaMalloc(&x, bytes));
    CHECK(cudaMalloc(&y, bytes));
    CHECK(cudaMalloc(&sum, 4));
    CHECK(cudaMemset(x, 1, bytes));
    const int grid = 4 * m->p.multiProcessorCount;
    for (int i = -1; i < 9; i++)
        for (int k = 0; k < 3; k++) {
            const double t = work_ns(m, 0, [&] {
                if (k == 0) read_all<<<4 * grid, 512>>>((uint4 *)x, bytes / 16, sum);
                if (k == 1) read_wide<<<grid, 512>>>((uint4 *)x, bytes / 16, sum);
                if (k == 2) CHECK(cudaMemcpyAsync(y, x, bytes, cudaMemcpyDeviceToDevice));
            });
            if (i >= 0) ns[k][i] = t;
        }
    const double narrow = quantile_of(ns[0], 9, 0.5), wide = quantile_of(ns[1], 9, 0.5);
    m->read = (double)bytes / fmin(narrow, wide);
    m->copy = 2 * (double)bytes / quantile_of(ns[2], 9, 0.5);
    CHECK(cudaFree(x));
    CHECK(cudaFree(y));
    CHECK(cudaFree(sum));
}

// ---- rows --------------------------------------------------------------------------------------

struct row {
    const char *part, *shape, *cache;
    int sequences, context, samples;
    double bits, held, ns, low, high, attend_ns, controller_pct, x_fp16, x_uniform, x_ceiling;
};

static void write_head(FILE *f) {
    fprintf(f,
            "part\tshape\tsequences\tcontext\tcache\tbits\theld_mb\tx_l2\tus\tlow_us\thigh_us\t"
            "samples\tattend_us\tread_gb_s\tcopy_gb_s\tof_read_pct\tof_copy_pct\tcontroller_pct\t"
            "x_fp16\tx_uniform\tx_ceiling\tmachine\tcompiler\n");
}
static void write_number(FILE *f, double x, int decimals) {
    if (x == x && x < INFINITY)
        fprintf(f, "%.*f\t", decimals, x);
    else
        fprintf(f, "-\t");
}
static void write_row(FILE *f, const machine *m, const row *r) {
    const double rate = r->held / r->attend_ns;
    fprintf(f, "%s\t%s\t%d\t%d\t%s\t", r->part, r->shape, r->sequences, r->context, r->cache);
    write_number(f, r->bits, 3);
    write_number(f, r->held / 1e6, 1);
    write_number(f, r->held / m->p.l2CacheSize, 2);
    write_number(f, r->ns / 1e3, 2);
    write_number(f, r->low / 1e3, 2);
    write_number(f, r->high / 1e3, 2);
    fprintf(f, "%d\t", r->samples);
    write_number(f, r->attend_ns / 1e3, 2);
    write_number(f, m->read, 0);
    write_number(f, m->copy, 0);
    write_number(f, 100 * rate / m->read, 1);
    write_number(f, 100 * rate / m->copy, 1);
    write_number(f, r->controller_pct, 2);
    write_number(f, r->x_fp16, 3);
    write_number(f, r->x_uniform, 3);
    write_number(f, r->x_ceiling, 3);
    fprintf(f, "%s, %d MB L2\tnvcc %d.%d\n", m->p.name, m->p.l2CacheSize >> 20,
            __CUDACC_VER_MAJOR__, __CUDACC_VER_MINOR__);
    fflush(f);
}

// ---- caches ------------------------------------------------------------------------------------

static void one_width(double pct[PORTS], int port) {
    for (int p = 0; p < PORTS; p++) pct[p] = p == port;
}
static void cells_of(cells *c, const shape &s, int sequences, int tokens, int room,
                     const double pct[PORTS]) {
    const int streams = s.layers * sequences * s.kv_heads;
    double all = 0, token = 0;
    for (int p = 0; p < PORTS; p++) all += pct[p];
    for (int p = 0; p < PORTS; p++)
        token += SIDES * pct[p] / all * (PAGE_HEAD + cell_block_bytes(p)) / PAGE;
    cells_init(c, streams, room, streams * (1.05 * token * room + most_stream_bytes(PAGE)));
    cells_fill(c, tokens, shares_of(pct));
}
// Bytes of codes and metadata, as the ledger counts them.
static double held_bytes(const cells &c) {
    const size_t n = (size_t)c.streams * SIDES * 8;
    uint32_t *count = (uint32_t *)from_device(c.count, n * 4);
    double bytes = 0;
    for (size_t i = 0; i < n; i++)
        if (i % 8 < PORTS) bytes += (double)count[i] * cell_bits(i % 8) / 8;
    free(count);
    return bytes;
}

// Attention of all layers, without the steps about it.
static cudaGraphExec_t capture_attention(const batch_model *m, const cells *c) {
    const int pairs = m->sequences * m->s.kv_heads;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaStreamBeginCapture(m->stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < m->s.layers; i++) {
        const attend_job j = {*c,       i * pairs, pairs, parts_room(pairs, m->grid),
                              m->query, m->partial};
        if (m->group == 3) {
            launch_attend<3>(j, m->grid, m->stream);
            launch_early(join_cells<3>, pairs, 3 * DIM, 0, m->stream, j, m->grid, m->gate);
        } else {
            launch_attend<1>(j, m->grid, m->stream);
            launch_early(join_cells<1>, pairs, DIM, 0, m->stream, j, m->grid, m->gate);
        }
    }
    CHECK(cudaStreamEndCapture(m->stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    return exec;
}
static void time_attention(const machine *m, const batch_model *b, const cells *c, row *r) {
    cudaGraphExec_t graph = capture_attention(b, c);
    double ns[PASSES];
    for (int i = -WARM; i < PASSES; i++) {
        const double t = work_ns(m, b->stream, [&] { CHECK(cudaGraphLaunch(graph, b->stream)); });
        if (i >= 0) ns[i] = t;
    }
    r->attend_ns = quantile_of(ns, PASSES, 0.5);
    r->low = quantile_of(ns, PASSES, 0.25);
    r->high = quantile_of(ns, PASSES, 0.75);
    r->samples = PASSES;
    CHECK(cudaGraphExecDestroy(graph));
}

// ---- attention alone ---------------------------------------------------------------------------

static void bench_attention(const cells_options *o, const machine *m, const shape &s, FILE *f) {
    static const char *const names[] = {"2", "3", "4", "5", "6", "8", "16", "cells"};
    static const int batches[] = {1, 8};
    const int tokens = MOST_TOKENS;
    for (int sequences : batches) {
        batch_model b;
        batch_init(&b, s, sequences, m->p.multiProcessorCount);
        for (int w = PORTS; w >= 0; w--) {
            double pct[PORTS];
            cells c;
            memcpy(pct, o->pct, sizeof pct);
            if (w < PORTS) one_width(pct, w);
            cells_of(&c, s, sequences, tokens, tokens, pct);
            row r = {"attend", s.name, names[w], sequences, tokens, 0,   0,   0,
                     0,        0,      0,        0,         NAN,    NAN, NAN, NAN};
            r.held = held_bytes(c);
            r.bits = r.held * 8 / ((double)c.streams * SIDES * DIM * tokens);
            time_attention(m, &b, &c, &r);
            r.ns = r.attend_ns;
            write_row(f, m, &r);
            cells_fini(&c);
        }
        batch_fini(&b);
    }
}

// ---- decode steps ------------------------------------------------------------------------------

enum variant { CEILING, FP16, UNIFORM, CELLS, GIVEN, VARIANTS };
static const char *const variants[VARIANTS] = {"none (ceiling)", "fp16", "uniform", "cells",
                                               "cells, widths given"};

// Sequences that make the cache of cells at least four second-level caches.
static int sequences_for(const cells_options *o, const machine *m, const shape &s, int context) {
    double all = 0, bits = 0;
    for (int p = 0; p < PORTS; p++) {
        all += o->pct[p];
        bits += o->pct[p] * cell_bits(p);
    }
    const double bytes = bits / all / 8 * SIDES * s.layers * s.kv_heads * context;
    int n = 1;
    while (n * bytes < 4.0 * m->p.l2CacheSize) n *= 2;
    return n;
}

static void bench_steps(const cells_options *o, const machine *m, const shape &s, int context,
                        FILE *f) {
    static double ns[VARIANTS][ROUNDS * STEPS];
    const int sequences = sequences_for(o, m, s, context), tokens = context - WARM - STEPS;
    batch_model b;
    cells c[VARIANTS];
    cells_state state[VARIANTS];
    step_kind kinds[VARIANTS];
    cudaGraphExec_t graphs[VARIANTS];
    row rows[VARIANTS];
    batch_init(&b, s, sequences, m->p.multiProcessorCount);
    launch_batch_step(&b, {NULL, 0, {}}); // cuBLAS takes what it needs before a graph is captured
    for (int v = 0; v < VARIANTS; v++) {
        double pct[PORTS];
        memcpy(pct, o->pct, sizeof pct);
        if (v == FP16 || v == UNIFORM) one_width(pct, v == FP16 ? 6 : 3);
        rows[v] = {"step", s.name, variants[v], sequences, context, ROUNDS * STEPS,
                   NAN,    NAN,    0,           0,         0,       NAN,
                   NAN,    NAN,    NAN,         NAN};
        kinds[v] = {v == CEILING ? NULL : &c[v],
                    v == FP16      ? 6
                    : v == UNIFORM ? 3
                    : v == GIVEN   ? -2
                                   : -1,
                    shares_of(pct)};
        if (v != CEILING) {
            cells_of(&c[v], s, sequences, tokens, context, pct);
            rows[v].held = held_bytes(c[v]);
            rows[v].bits = rows[v].held * 8 / ((double)c[v].streams * SIDES * DIM * tokens) +
                           (v >= CELLS ? 3.0 / DIM : 0);
            time_attention(m, &b, &c[v], &rows[v]);
            state[v] = state_of(c[v]);
        }
        graphs[v] = capture_step(&b, kinds[v]);
    }
    for (int r = -1; r < ROUNDS; r++) // the first warms up
        for (int i = 0; i < VARIANTS; i++) {
            const int v = (i + r + VARIANTS) % VARIANTS;
            if (v != CEILING) put_back(c[v], state[v], b.stream);
            for (int k = -WARM; k < STEPS; k++) {
                const double t =
                    work_ns(m, b.stream, [&] { CHECK(cudaGraphLaunch(graphs[v], b.stream)); });
                if (r >= 0 && k >= 0) ns[v][r * STEPS + k] = t;
            }
        }
    float *logits = (float *)from_device(b.logits, (size_t)sequences * s.vocab * 4);
    for (size_t i = 0; i < (size_t)sequences * s.vocab; i++)
        if (!(fabsf(logits[i]) < INFINITY)) {
            fprintf(stderr, "kvsim-cuda-cells: %s: logits are not finite\n", s.name);
            exit(1);
        }
    free(logits);
    for (int v = 0; v < VARIANTS; v++) {
        rows[v].samples = ROUNDS * STEPS;
        rows[v].ns = quantile_of(ns[v], ROUNDS * STEPS, 0.5);
        rows[v].low = quantile_of(ns[v], ROUNDS * STEPS, 0.25);
        rows[v].high = quantile_of(ns[v], ROUNDS * STEPS, 0.75);
    }
    for (int v = 0; v < VARIANTS; v++) {
        rows[v].x_fp16 = rows[FP16].ns / rows[v].ns;
        rows[v].x_uniform = rows[UNIFORM].ns / rows[v].ns;
        rows[v].x_ceiling = rows[CEILING].ns / rows[v].ns;
        if (v == CELLS) rows[v].controller_pct = 100 * (rows[v].ns / rows[GIVEN].ns - 1);
        write_row(f, m, &rows[v]);
        CHECK(cudaGraphExecDestroy(graphs[v]));
        if (v == CEILING) continue;
        state_fini(&state[v]);
        cells_fini(&c[v]);
    }
    batch_fini(&b);
}

// ---- options -----------------------------------------------------------------------------------

static bool read_shares(double pct[PORTS], const char *text) {
    double sum = 0;
    for (int p = 0; p < PORTS; p++) pct[p] = 0;
    for (const char *at = text; *at;) {
        int bits, n = 0, port = 0;
        double share;
        if (sscanf(at, "%d:%lf%n", &bits, &share, &n) != 2 || !(share >= 0 && share <= 100))
            return false;
        while (port < PORTS && port_bits(port) != bits) port++;
        if (port == PORTS) return false;
        pct[port] = share;
        sum += share;
        at += n;
        at += strspn(at, ", ");
    }
    return fabs(sum - 100) < 1; // printed shares are rounded
}

// Its kernels are written for heads of DIM, and three query heads to a KV head or one.
static bool serves(const shape &s) {
    return s.head_dim == DIM && (s.heads == s.kv_heads || s.heads == 3 * s.kv_heads);
}

static bool read_shapes(cells_options *o, const char *text) {
    o->n_shapes = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (serves(shapes[i]) && (!strcmp(text, "all") || !strcmp(text, shapes[i].name)))
            o->at[o->n_shapes++] = &shapes[i];
    return o->n_shapes > 0;
}
static bool read_contexts(cells_options *o, const char *text) {
    o->n_contexts = 0;
    for (const char *at = text; *at;) {
        char *end;
        const long n = strtol(at, &end, 10);
        if (end == at || n <= WARM + STEPS || n > MOST_TOKENS || o->n_contexts == MAX_CONTEXTS)
            return false;
        o->contexts[o->n_contexts++] = (int)n;
        at = end + strspn(end, ",");
    }
    return o->n_contexts > 0;
}
static bool read_parts(cells_options *o, const char *text) {
    o->check = strstr(text, "check") || strstr(text, "all");
    o->attend = strstr(text, "attend") || strstr(text, "all");
    o->steps = strstr(text, "steps") || strstr(text, "all");
    return o->check || o->attend || o->steps;
}

int main(int argc, char **argv) {
    static cells_options o;
    bool right = read_parts(&o, "all") && read_shapes(&o, "all") &&
                 read_contexts(&o, "2048,8192,16384") &&
                 read_shares(o.pct, "2:14.5 3:26.2 4:27.2 5:20.4 6:11 8:0.727");
    for (int i = 1; i < argc && right; i += 2) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        right = strcmp(name, "--parts") == 0      ? read_parts(&o, value)
                : strcmp(name, "--shape") == 0    ? read_shapes(&o, value)
                : strcmp(name, "--contexts") == 0 ? read_contexts(&o, value)
                : strcmp(name, "--shares") == 0   ? read_shares(o.pct, value)
                                                  : strcmp(name, "-o") == 0 && *value;
        if (strcmp(name, "-o") == 0) o.output = value;
    }
    if (!right) {
        fprintf(
            stderr,
            "usage: kvsim-cuda-cells [--parts all|check,attend,steps] [--shape all|135m|360m|1.7b] "
            "[--contexts 2048,8192,16384] [--shares 2:14.5,3:26.2,...] [-o FILE.tsv]\n"
            "       contexts up to %d; shares in percent, 100 in all; without -o: stdout\n",
            MOST_TOKENS);
        return 2;
    }
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        fprintf(stderr, "kvsim-cuda-cells: no CUDA device is here\n");
        return 1;
    }
    if (o.check && (!check_attention() || !check_control())) return 1;
    FILE *f = o.output ? fopen(o.output, "w") : stdout;
    if (!f) {
        fprintf(stderr, "kvsim-cuda-cells: %s cannot be written\n", o.output);
        return 1;
    }
    machine m;
    measure_machine(&m);
    write_head(f);
    for (int i = 0; i < o.n_shapes; i++) {
        if (o.attend && (o.n_shapes == 1 || i == o.n_shapes - 1))
            bench_attention(&o, &m, *o.at[i], f);
        for (int k = 0; k < o.n_contexts && o.steps; k++)
            bench_steps(&o, &m, *o.at[i], o.contexts[k], f);
    }
    if (fflush(f) != 0 || ferror(f) || (o.output && fclose(f) != 0)) {
        fprintf(stderr, "kvsim-cuda-cells: %s could not be written whole\n",
                o.output ? o.output : "stdout");
        return 1;
    }
    return 0;
}
