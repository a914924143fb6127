// SPDX-License-Identifier: Apache-2.0
// Decode steps at batch 1 on a GPU over a packed mixed-precision cache, timed for kvsim calibrate.
//
//     make cuda && build/kvsim-cuda --shape 135m --contexts 64,512,2048 --mixes 16,8,4,2 -o
//     work/runs.csv
//
// Needs nvcc and the C library alone. A step is a CUDA graph: per layer a product for Q, K, V, one
// fused kernel that rotates, codes and stores the new token, attends over all widths and joins its
// parts, and three more products; then the head. Weights are bf16 with seeded values. Before any
// timing the kernels are checked on this GPU against plain loops on the CPU.
#include "judge.cuh"

// ---- timing
// --------------------------------------------------------------------------------------

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double quantile(double *x, int n, double q) {
    qsort(x, n, sizeof *x, compare);
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? x[i] + (at - i) * (x[i + 1] - x[i]) : x[i];
}

static double timed_ns(const model *m, cudaGraphExec_t graph, cudaEvent_t begin, cudaEvent_t end) {
    float ms;
    CHECK(cudaEventRecord(begin, m->stream));
    CHECK(cudaGraphLaunch(graph, m->stream));
    CHECK(cudaEventRecord(end, m->stream));
    CHECK(cudaEventSynchronize(end));
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    return ms * 1e6;
}

static double bandwidth_bytes_per_ns(const model *m) {
    size_t bytes = (size_t)2 << 30;
    uint4 *x;
    uint32_t *sum;
    double rate[9];
    cudaEvent_t begin, end;
    CHECK(cudaMalloc(&x, bytes));
    CHECK(cudaMalloc(&sum, 4));
    CHECK(cudaMemset(x, 1, bytes));
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    for (int i = -1; i < 9; i++) {
        float ms;
        CHECK(cudaEventRecord(begin, m->stream));
        read_all<<<16 * m->processors, 512, 0, m->stream>>>(x, bytes / sizeof *x, sum);
        CHECK(cudaEventRecord(end, m->stream));
        CHECK(cudaEventSynchronize(end));
        CHECK(cudaEventElapsedTime(&ms, begin, end));
        if (i >= 0) rate[i] = (double)bytes / (ms * 1e6);
    }
    CHECK(cudaFree(x));
    CHECK(cudaFree(sum));
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    return quantile(rate, 9, 0.5);
}

// A node of a graph of empty kernels: what a launch inside a step costs.
static double launch_ns(const model *m) {
    enum { NODES = 500 };
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin, end;
    double ns[9];
    CHECK(cudaStreamBeginCapture(m->stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < NODES; i++) nothing<<<1, 32, 0, m->stream>>>();
    CHECK(cudaStreamEndCapture(m->stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    for (int i = -1; i < 9; i++) {
        double t = timed_ns(m, exec, begin, end);
        if (i >= 0) ns[i] = t / NODES;
    }
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    return quantile(ns, 9, 0.5);
}

// ---- the grid
// ------------------------------------------------------------------------------------

struct options {
    const shape *shape[8];
    mix mixes[MAX_CELLS];
    int contexts[MAX_CELLS];
    int n_shapes, n_mixes, n_contexts, rounds, steps;
    const char *output;
    char command[1024];
};

struct cell {
    cudaGraphExec_t graph;
    double *ns;
    int n;
    double bytes;
};

static void write_header(FILE *f) {
    fprintf(f,
            "mix,shape,layers,heads,kv_heads,head_dim,hidden,ffn,vocab,weights,synthetic,threads,"
            "context,step_ns,low_ns,high_ns,samples,disturbed,weights_ns,attend_ns,append_ns,"
            "policy_ns,head_ns,other_ns,cache_bytes,round_tokens,machine,engine,compiler,date,command,"
            "clock_mhz,bandwidth_bytes_per_ns,launch_ns\n");
}

static void machine_text(char *out, size_t room, double *clock_mhz) {
    cudaDeviceProp p;
    int khz = 0;
    CHECK(cudaGetDeviceProperties(&p, 0));
    cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, 0);
    *clock_mhz = khz / 1e3;
    snprintf(out, room, "%s; %d processors; %d MB L2", p.name, p.multiProcessorCount,
             p.l2CacheSize >> 20);
}

static void bench_shape(const options *o, const shape &s, FILE *f) {
    model m;
    layout l[MAX_CELLS];
    cudaEvent_t begin, end;
    model_init(&m, s);
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    int longest = o->contexts[o->n_contexts - 1], room = o->rounds * o->steps;
    cell *cells = (cell *)calloc((size_t)o->n_mixes * o->n_contexts, sizeof *cells);
    for (int i = 0; i < o->n_mixes; i++) {
        layout_init(&l[i], &o->mixes[i], s, longest);
        for (int t = 0; t < o->n_contexts; t++) {
            cell *c = &cells[i * o->n_contexts + t];
            layout_set(&l[i], &o->mixes[i], o->contexts[t]);
            c->graph = capture(&m, l[i], WHOLE);
            c->ns = (double *)calloc(room, sizeof(double));
            c->bytes = layout_bytes(&l[i], s);
        }
    }
    set_position(&m, longest - 1); // the angle does not change the time
    // What no cell changes: the step without attention, and the head alone.
    cudaGraphExec_t fixed[2] = {capture(&m, l[0], WITH_LAYERS | WITH_HEAD),
                                capture(&m, l[0], WITH_HEAD)};
    double *fixed_ns[2] = {(double *)calloc(room, 8), (double *)calloc(room, 8)};
    for (int r = 0; r < o->rounds; r++) {
        for (int k = 0; k < 2; k++) {
            timed_ns(&m, fixed[k], begin, end);
            for (int i = 0; i < o->steps; i++)
                fixed_ns[k][r * o->steps + i] = timed_ns(&m, fixed[k], begin, end);
        }
        for (int t = 0; t < o->n_contexts; t++)
            for (int i = 0; i < o->n_mixes; i++) {
                cell *c = &cells[(i + r) % o->n_mixes * o->n_contexts + t];
                timed_ns(&m, c->graph, begin, end); // warms up
                for (int k = 0; k < o->steps; k++)
                    c->ns[c->n++] = timed_ns(&m, c->graph, begin, end);
            }
    }
    double clock_mhz, bandwidth = bandwidth_bytes_per_ns(&m), launch = launch_ns(&m);
    double bare = quantile(fixed_ns[0], room, 0.5), head = quantile(fixed_ns[1], room, 0.5);
    char machine[300], date[32];
    time_t now = time(NULL);
    machine_text(machine, sizeof machine, &clock_mhz);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    for (int i = 0; i < o->n_mixes; i++)
        for (int t = 0; t < o->n_contexts; t++) {
            cell *c = &cells[i * o->n_contexts + t];
            double step = quantile(c->ns, c->n, 0.5);
            // Attention, with the append fused into it, is what the step takes beyond the bare one.
            fprintf(f,
                    "%s,%s,%d,%d,%d,%d,%d,%d,%d,bf16,1,0,%d,%.0f,%.0f,%.0f,%d,0,%.0f,%.0f,,,%.0f,,"
                    "%.0f,%d,%s,kvsim-cuda,nvcc %d.%d,%s,\"%s\",%.0f,%.6g,%.6g\n",
                    o->mixes[i].text, s.name, s.layers, s.heads, s.kv_heads, s.head_dim, s.hidden, s.ffn,
                    s.vocab, o->contexts[t], step, quantile(c->ns, c->n, 0.25),
                    quantile(c->ns, c->n, 0.75), c->n, bare - head, step - bare, head, c->bytes,
                    round_tokens(&m), machine, __CUDACC_VER_MAJOR__, __CUDACC_VER_MINOR__, date, o->command,
                    clock_mhz, bandwidth, launch);
        }
    fprintf(stderr,
            "%s: bare step %.3f ms, head %.3f ms, launch %.2f us, streaming read %.0f GB/s\n",
            s.name, bare / 1e6, head / 1e6, launch / 1e3, bandwidth);
    for (int i = 0; i < o->n_mixes * o->n_contexts; i++) {
        CHECK(cudaGraphExecDestroy(cells[i].graph));
        free(cells[i].ns);
    }
    for (int k = 0; k < 2; k++) {
        CHECK(cudaGraphExecDestroy(fixed[k]));
        free(fixed_ns[k]);
    }
    for (int i = 0; i < o->n_mixes; i++) layout_fini(&l[i]);
    free(cells);
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    model_fini(&m);
}

static int usage(const char *wrong) {
    if (wrong) fprintf(stderr, "kvsim-cuda: %s\n", wrong);
    fprintf(stderr,
            "usage: kvsim-cuda [--shape LIST] [--contexts LIST] [--mixes LIST] [--rounds N] "
            "[--steps N] [-o FILE.csv]\n"
            "       checks the kernels, then times decode steps; without -o: stdout\n");
    return 2;
}

static bool read_list(options *o, const char *name, const char *value) {
    char *copy = strdup(value), *state = NULL;
    bool good = true;
    for (char *x = strtok_r(copy, ",", &state); x && good; x = strtok_r(NULL, ",", &state)) {
        if (strcmp(name, "--shape") == 0) {
            good = false;
            for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
                if (strcmp(shapes[i].name, x) == 0 && o->n_shapes < 8) {
                    o->shape[o->n_shapes++] = &shapes[i];
                    good = true;
                }
        } else if (strcmp(name, "--contexts") == 0) {
            long n = strtol(x, NULL, 10);
            good = n >= 2 && n <= 1 << 20 && o->n_contexts < MAX_CELLS &&
                   (o->n_contexts == 0 || n > o->contexts[o->n_contexts - 1]);
            if (good) o->contexts[o->n_contexts++] = (int)n;
        } else {
            good = o->n_mixes < MAX_CELLS && parse_mix(&o->mixes[o->n_mixes], x);
            o->n_mixes += good;
        }
    }
    free(copy);
    return good;
}

int main(int argc, char **argv) {
    static options o;
    o.rounds = 5;
    o.steps = 10;
    snprintf(o.command, sizeof o.command, "kvsim-cuda");
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!value)
            return usage(name[0] == '-' && name[1] == '-' ? "an option lacks its value" : NULL);
        bool list =
            !strcmp(name, "--shape") || !strcmp(name, "--contexts") || !strcmp(name, "--mixes");
        if (list && !read_list(&o, name, value)) return usage(value);
        if (strcmp(name, "--rounds") == 0)
            o.rounds = atoi(value);
        else if (strcmp(name, "--steps") == 0)
            o.steps = atoi(value);
        else if (strcmp(name, "-o") == 0)
            o.output = value;
        else if (!list)
            return usage(name);
        size_t n = strlen(o.command);
        if (strcmp(name, "-o") != 0)
            snprintf(o.command + n, sizeof o.command - n, " %s %s", name, value);
    }
    if (o.rounds < 1 || o.steps < 1) return usage("--rounds and --steps are at least 1");
    if (!o.n_shapes) read_list(&o, "--shape", "135m");
    if (!o.n_contexts) read_list(&o, "--contexts", "64,256,512,1024,2048,4096,8192,16384");
    if (!o.n_mixes)
        read_list(&o, "--mixes", "16,8,4,2,k8v4,k4v8,k4v2,k16v4,2=0.25/4=0.25/8=0.25/16=0.25");
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        fprintf(stderr, "kvsim-cuda: no CUDA device is here\n");
        return 1;
    }
    if (!check_kernels()) return 1;
    FILE *f = o.output ? fopen(o.output, "w") : stdout;
    if (!f) {
        fprintf(stderr, "kvsim-cuda: %s cannot be written\n", o.output);
        return 1;
    }
    write_header(f);
    for (int i = 0; i < o.n_shapes; i++) bench_shape(&o, *o.shape[i], f);
    if (fflush(f) != 0 || ferror(f) || (o.output && fclose(f) != 0)) {
        fprintf(stderr, "kvsim-cuda: %s could not be written whole\n",
                o.output ? o.output : "stdout");
        return 1;
    }
    return 0;
}
