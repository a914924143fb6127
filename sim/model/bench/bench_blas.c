// SPDX-License-Identifier: Apache-2.0
// OpenBLAS, BLIS and oneDNN on the products of one item, and of several items stacked: how fast
// each is beside what a core can do, and whether a row's bits depend on what it is stacked with.
// What is not installed is left out with a line.
//
// Environment: BENCH_ROWS ("66,133,266": tokens of an item; default: that), BENCH_ROUNDS (5).
// Threads: one; every library is asked for it in its own way.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/blas.h"
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/model/peak.h"
#include "sim/test/figure.h"

enum { STACKED = 4, ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };

// y[m][n] = x[m][k] w[n][k]^T
typedef void product_fn(size_t m, size_t n, size_t k, const float *x, const float *w, float *y);
typedef void cblas_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                      const float *a, int lda, const float *b, int ldb, float beta, float *c,
                      int ldc);
typedef int dnnl_fn(char trans_a, char trans_b, int64_t m, int64_t n, int64_t k, float alpha,
                    const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                    int64_t ldc);
static cblas_fn *blis;
static dnnl_fn *dnnl;

static void by_openblas(size_t m, size_t n, size_t k, const float *x, const float *w, float *y) {
    kv_sgemm(false, true, m, n, k, x, k, w, k, 0, y, n);
}
static void by_blis(size_t m, size_t n, size_t k, const float *x, const float *w, float *y) {
    blis(ROW_MAJOR, AS_IT_IS, TRANSPOSED, (int)m, (int)n, (int)k, 1, x, (int)k, w, (int)k, 0, y,
         (int)n);
}
static void by_dnnl(size_t m, size_t n, size_t k, const float *x, const float *w, float *y) {
    if (dnnl('N', 'T', (int64_t)m, (int64_t)n, (int64_t)k, 1, x, (int64_t)k, w, (int64_t)k, 0, y,
             (int64_t)n))
        exit(1);
}

static void *symbol(const char *const *names, const char *function) {
    void *library = NULL;
    for (size_t i = 0; !library && names[i]; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return library ? dlsym(library, function) : NULL;
}

// Of a 135M model: qkv, out, gate and up, down, and a tile of the vocabulary.
static const struct {
    const char *name;
    size_t n, k;
    double times; // in a pass
} shapes[] = {{"qkv", 960, 576, 30},
              {"out", 576, 576, 30},
              {"gate, up", 3072, 576, 30},
              {"down", 576, 1536, 30},
              {"vocabulary", 1024, 576, 48}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_LIBRARIES = 3 };

static const struct {
    const char *name;
    product_fn *by;
} libraries[N_LIBRARIES] = {{"OpenBLAS", by_openblas}, {"BLIS", by_blis}, {"oneDNN", by_dnnl}};

static bool there(size_t library) {
    return library == 0 || (library == 1 ? blis != NULL : dnnl != NULL);
}

struct work {
    size_t rows; // of an item
    float *x, *w, *y, *alone;
    double s[N_LIBRARIES][2][N_SHAPES]; // the best: of an item, stacked
    size_t other[N_LIBRARIES];          // rows whose bits the stack changed
};

// CPU seconds of a product, the best of this round and those before.
static void time_one(struct work *p, size_t library, bool stacked, size_t shape) {
    size_t m = stacked ? p->rows * STACKED : p->rows, n = shapes[shape].n, k = shapes[shape].k;
    size_t repeat = stacked ? 2 : 2 * STACKED;
    double start = kv_cpu_time_s();
    for (size_t i = 0; i < repeat; i++) libraries[library].by(m, n, k, p->x, p->w, p->y);
    double took = (kv_cpu_time_s() - start) / (double)repeat,
           *best = &p->s[library][stacked][shape];
    if (*best == 0 || took < *best) *best = took;
}

// Each item of the stack by itself, against the stack.
static void compare(struct work *p, size_t library) {
    for (size_t s = 0; s < N_SHAPES; s++) {
        size_t n = shapes[s].n, k = shapes[s].k;
        libraries[library].by(p->rows * STACKED, n, k, p->x, p->w, p->y);
        for (size_t item = 0; item < STACKED; item++) {
            libraries[library].by(p->rows, n, k, p->x + item * p->rows * k, p->w, p->alone);
            for (size_t r = 0; r < p->rows; r++)
                p->other[library] += memcmp(p->alone + r * n, p->y + (item * p->rows + r) * n,
                                            n * sizeof(float)) != 0;
        }
    }
}

static double gflops(const struct work *p, size_t library, bool stacked) {
    double flop = 0, s = 0;
    for (size_t i = 0; i < N_SHAPES; i++) {
        double m = (double)(stacked ? p->rows * STACKED : p->rows);
        flop += 2 * m * (double)(shapes[i].n * shapes[i].k) * shapes[i].times;
        s += p->s[library][stacked][i] * shapes[i].times;
    }
    return 1e-9 * flop / s;
}

static void bench(size_t rows, size_t rounds) {
    struct work p = {.rows = rows};
    size_t m = rows * STACKED, widest = 3072, deepest = 1536;
    p.x = kv_alloc(m * deepest, sizeof(float));
    p.w = kv_alloc(widest * 576 + 576 * deepest, sizeof(float));
    p.y = kv_alloc(m * widest, sizeof(float));
    p.alone = kv_alloc(rows * widest, sizeof(float));
    for (size_t i = 0; i < m * deepest; i++) p.x[i] = (float)kv_draw(1, 0, i) - 0.5f;
    for (size_t i = 0; i < widest * 576 + 576 * deepest; i++)
        p.w[i] = (float)kv_draw(1, 1, i) - 0.5f;
    for (size_t r = 0; r < rounds; r++) // in turn, so that the machine's moods meet all alike
        for (size_t s = 0; s < N_SHAPES; s++)
            for (int stacked = 0; stacked < 2; stacked++)
                for (size_t l = 0; l < N_LIBRARIES; l++)
                    if (there(l)) time_one(&p, l, stacked != 0, s);
    double peak = kv_peak_gflops();
    for (size_t l = 0; l < N_LIBRARIES; l++) {
        if (!there(l)) continue;
        compare(&p, l);
        double one = gflops(&p, l, false), many = gflops(&p, l, true);
        printf("%6zu  %-10s %10.1f %7.0f %% %10.1f %7.0f %%   %zu of %zu\n", rows,
               libraries[l].name, one, 100 * one / peak, many, 100 * many / peak, p.other[l],
               (size_t)N_SHAPES * rows * STACKED);
        bench_figure(one, "GFLOP/s", "one core in registers", peak, "%s, %zu rows",
                     libraries[l].name, rows);
        bench_figure(many, "GFLOP/s", "one core in registers", peak, "%s, %d x %zu rows stacked",
                     libraries[l].name, STACKED, rows);
    }
    fflush(stdout);
    free(p.x);
    free(p.w);
    free(p.y);
    free(p.alone);
}

int main(void) {
    static const char *const blis_names[] = {"libblis.so.4", "libblis.so", NULL},
                             *const dnnl_names[] = {"libdnnl.so.3", "libdnnl.so.2", "libdnnl.so",
                                                    NULL};
    const char *list = getenv("BENCH_ROWS"), *rounds = getenv("BENCH_ROUNDS");
    struct kv_error e;
    setenv("BLIS_NUM_THREADS", "1", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    if (kv_blas_open(&e)) {
        fprintf(stderr, "bench_blas: %s: %s\n", e.where, e.msg);
        return 1;
    }
    void *found = symbol(blis_names, "cblas_sgemm");
    memcpy(&blis, &found, sizeof blis);
    found = symbol(dnnl_names, "dnnl_sgemm");
    memcpy(&dnnl, &found, sizeof dnnl);
    if (!blis) printf("BLIS is not here (libblis4)\n");
    if (!dnnl) printf("oneDNN is not here (libdnnl2)\n");
    printf(
        "products of a 135M model's pass, GFLOP/s of one thread; %s, level %s, OpenBLAS core %s\n"
        "  rows  library          item  of core  %d stacked  of core   rows with other bits "
        "when stacked\n",
        kv_cpu_model(), kv_cpu_level_name(kv_cpu_level()), kv_blas_core(), STACKED);
    char *rest = kv_strdup(list && *list ? list : "66,133,266"), *start = rest;
    for (char *word; (word = strtok_r(rest, ",", &rest));)
        if (atol(word) > 0) bench((size_t)atol(word), rounds ? (size_t)atol(rounds) : 5);
    free(start);
    return 0;
}
