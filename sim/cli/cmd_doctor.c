// SPDX-License-Identifier: Apache-2.0
// kvsim doctor: will kvsim run here, and will its numbers be right?
#include <stdlib.h>

#include "sim/cli/options.h"
#include "sim/base/blas.h"
#include "sim/base/cpu.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/model/forward.h"
#include "sim/model/peak.h"

enum {
    ROWS = 61,
    COLS = 192,
    DEPTH = 576
}; // a K projection of the 135M model over an odd number of rows

struct check {
    const char *what;
    bool good, slow;
    char detail[256];
};

KV_CELL(what_cell, struct check, kv_table_text(t, row->what))
KV_CELL(result_cell, struct check, kv_table_text(t, !row->good ? "bad" : row->slow ? "slow" : "ok"))
KV_CELL(detail_cell, struct check, kv_table_text(t, row->detail))

// Old BLAS libraries choose wrong kernels on processors younger than they are: a product is checked
// in float64.
static void check_blas(struct check *out) {
    float *w = kv_alloc((size_t)COLS * DEPTH, sizeof *w),
          *x = kv_alloc((size_t)ROWS * DEPTH, sizeof *x);
    float *y = kv_alloc((size_t)ROWS * COLS, sizeof *y),
          *again = kv_alloc((size_t)ROWS * COLS, sizeof *again);
    struct kv_matrix m = {.rows = COLS, .cols = DEPTH, .f32 = w};
    struct kv_scratch *s = kv_scratch_new();
    double worst = 0;
    for (size_t i = 0; i < (size_t)COLS * DEPTH; i++) w[i] = (float)(kv_draw(1, 0, i) - 0.5);
    for (size_t i = 0; i < (size_t)ROWS * DEPTH; i++) x[i] = (float)(kv_draw(2, 0, i) - 0.5);
    kv_product(&m, x, ROWS, y, s);
    kv_product(&m, x, ROWS, again, s);
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < COLS; c++) {
            double sum = 0;
            for (size_t k = 0; k < DEPTH; k++)
                sum += (double)x[r * DEPTH + k] * (double)w[c * DEPTH + k];
            worst = fmax(worst, fabs(sum - (double)y[r * COLS + c]));
        }
    bool same = memcmp(y, again, (size_t)ROWS * COLS * sizeof *y) == 0;
    out->good = worst < 1e-4 && same;
    snprintf(out->detail, sizeof out->detail,
             "core %s: largest error %.1e of a product of %d terms%s", kv_blas_core(), worst, DEPTH,
             same ? "" : "; not repeatable");
    kv_scratch_free(s);
    free(w);
    free(x);
    free(y);
    free(again);
}

// Billions of operations a second of one thread in products of an MLP's size; the best of a few.
static double product_gflops(void) {
    enum { N = 384, RUNS = 8 };
    float *x = kv_alloc(N * N, sizeof *x), *y = kv_alloc(N * N, sizeof *y);
    double best = 0;
    for (size_t i = 0; i < (size_t)N * N; i++) x[i] = (float)(kv_draw(3, 0, i) - 0.5);
    for (int run = 0; run < RUNS; run++) {
        double from_s = kv_now_s();
        kv_sgemm(false, true, N, N, N, x, N, x, N, 0, y, N);
        best = fmax(best, 2e-9 * N * N * N / (kv_now_s() - from_s));
    }
    free(x);
    free(y);
    return best;
}

// OpenBLAS with kernels of its own level reaches 60 to 90 % of what a core can do; with those of
// the level below half of that, with those of old processors a tenth.
static void check_rate(struct check *out) {
    const double expected = 0.55;
    double peak = kv_peak_gflops(), rate = product_gflops();
    out->good = true;
    out->slow = rate < expected * peak;
    int n = snprintf(out->detail, sizeof out->detail, "core %s: %.0f GFLOP/s a thread",
                     kv_blas_core(), rate);
    if (rate <= peak) // more than all: the level was forced below what OpenBLAS uses
        snprintf(out->detail + n, sizeof out->detail - (size_t)n,
                 ", %.0f %% of the %.0f that level %s can do%s", 100 * rate / peak, peak,
                 kv_cpu_level_name(kv_cpu_level()),
                 out->slow ? ", far below what is expected" : "");
}

// What to type, said after the table.
static void advise(const struct check *rate) {
    const char *core = kv_blas_core_of_level(), *forced = getenv("OPENBLAS_CORETYPE");
    if (!rate->slow) return;
    if (forced)
        kv_say("products are slow: OPENBLAS_CORETYPE=%s stands in the environment; type: unset "
               "OPENBLAS_CORETYPE",
               forced);
    else if (core && strcmp(core, kv_blas_core()) != 0)
        kv_say("products are slow: this OpenBLAS does not hold the kernels of %s, which this "
               "processor can run; type: sudo apt-get install libopenblas0-pthread",
               core);
    else
        kv_say("products are slow: the machine may be busy, so try again; then try "
               "OPENBLAS_CORETYPE=Haswell kvsim doctor, or another version of OpenBLAS");
}

static void check_model(struct check *k, const char *path) {
    struct kv_model *m = NULL;
    struct kv_error why = {0};
    k->good = !path || kv_model_open(&m, path, KV_WEIGHTS_F32, &why) == 0;
    if (!path)
        snprintf(k->detail, sizeof k->detail, "not tried; -m MODEL does");
    else if (k->good)
        snprintf(k->detail, sizeof k->detail, "%s, %s", m->name, m->source);
    else
        snprintf(k->detail, sizeof k->detail, "%.120s: %.120s", why.where, why.msg);
    kv_model_close(m);
}

static int doctor(struct kv_cli *c, struct kv_error *e) {
    static const struct kv_table_column columns[] = {{"check", KV_LEFT, what_cell},
                                                     {"result", KV_LEFT, result_cell},
                                                     {"detail", KV_LEFT, detail_cell},
                                                     {0}};
    enum { PROCESSOR, BLAS, RATE, DISK, GNUPLOT, MODEL, N };
    struct check k[N] = {
        [PROCESSOR] = {.what = "processor", .good = true},
        [BLAS] = {.what = "OpenBLAS"},
        [RATE] = {.what = "products"},
        [DISK] = {.what = "disk", .good = kv_free_bytes(".") > 1000000000u},
        [GNUPLOT] = {.what = "gnuplot", .good = system("gnuplot --version >/dev/null 2>&1") == 0},
        [MODEL] = {.what = "model"}};
    snprintf(k[PROCESSOR].detail, sizeof k->detail, "%s, %u processors, level %s", kv_cpu_model(),
             kv_cpu_count(), kv_cpu_level_name(kv_cpu_level()));
    int rc = kv_blas_open(e);
    if (rc) return rc;
    check_blas(&k[BLAS]);
    check_rate(&k[RATE]);
    snprintf(k[DISK].detail, sizeof k->detail, "%.1f GB free in the current folder",
             1e-9 * (double)kv_free_bytes("."));
    snprintf(k[GNUPLOT].detail, sizeof k->detail,
             k[GNUPLOT].good ? "figures can be drawn"
                             : "not found: `report` needs the package gnuplot-nox");
    check_model(&k[MODEL], kv_opt(c, "model"));
    rc = kv_table_print_rows(columns, k, N, sizeof *k, c->output, e);
    if (rc) return rc;
    advise(&k[RATE]);
    if (!k[BLAS].good)
        return kv_fail(
            e, KV_EFAIL, "doctor",
            "OpenBLAS gives wrong products on this processor; try OPENBLAS_CORETYPE=Haswell");
    return k[GNUPLOT].good && k[MODEL].good
               ? 0
               : kv_fail(e, KV_EFAIL, "doctor", "not everything is well; see above");
}

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL, "also try to open this model"}, {0}};

const struct kv_command kv_cmd_doctor = {
    .name = "doctor",
    .summary = "checks whether kvsim will run here and compute right",
    .usage = "",
    .example = "kvsim doctor -m data/SmolLM2-135M-Instruct.Q4_1.gguf",
    .options = options,
    .run = doctor};
