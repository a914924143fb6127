// SPDX-License-Identifier: Apache-2.0
// What fisher replay saves: CPU of judging one policy on one item by tables, and of making a table,
// against exact replay of the same policy on the same item, in the same run.
//
// Environment: MODEL, KVSIM_DATA (HellaSwag there; else the samples), BENCH_ITEMS (default 12).
#include <stdlib.h>
#include <unistd.h>

#include "sim/base/blas.h"
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/replay/sums.h"
#include "traces/record.h"
#include "sim/test/figure.h"

static const struct {
    const char *spec, *what;
} policies[] = {
    {"static:k=5,v=3@asym:group=32", "the same for all tokens"},
    {"layerwise:by=head,k=5/4,v=3/4/3@asym:group=32", "by layer and head"},
    {"threshold:feature=rarity,bits=3/4/5@asym:group=32", "a width a token"},
    {"random:bits=3/4/5,by=cell@asym:group=32", "a width a cell"},
};
enum {
    N_POLICIES = sizeof policies / sizeof *policies,
    REPEATS = 200,
    MANY = 10000,
    MANY_ITEMS = 200
};

static void fail(int rc, const struct kv_error *e) {
    if (rc == 0) return;
    fprintf(stderr, "bench_fisher: %s: %s\n", e->where, e->msg);
    exit(1);
}

static int ignore(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                  struct kv_error *e) {
    (void)self, (void)item, (void)spec, (void)o, (void)e;
    return 0;
}

struct bench {
    struct kv_model *m;
    struct kv_trace *t;
    struct kv_replay_spec spec[N_POLICIES];
    struct kv_cell_table *table;
    struct kv_cell_table_sums *sums;
    size_t n;
};

// CPU seconds an item of exact replay of one policy.
static double exact_s(const struct bench *b, size_t which) {
    struct kv_error e;
    struct kv_replay job = {.trace = b->t,
                            .model = b->m,
                            .specs = &b->spec[which],
                            .n_specs = 1,
                            .n_items = b->n,
                            .take = ignore};
    fail(kv_replay_open_tables(&job, KV_TABLE_ISO, 1, &e), &e);
    double start = kv_cpu_time_s();
    fail(kv_replay_exact(&job, 1, &e), &e);
    double used = kv_cpu_time_s() - start;
    kv_replay_close_tables(&job);
    return used / (double)b->n;
}

// The same of deciding and adding up, by sums made in advance where they serve.
static double fisher_s(const struct bench *b, size_t which, double *sum) {
    struct kv_error e;
    struct kv_replay job = {.trace = b->t, .specs = &b->spec[which], .n_specs = 1};
    uint8_t *cells = kv_alloc(4096 * kv_cells(&kv_trace_info(b->t)->shape), 1);
    fail(kv_replay_open_tables(&job, KV_TABLE_ISO, 1, &e), &e);
    double start = kv_cpu_time_s();
    for (int k = 0; k < REPEATS; k++)
        for (size_t i = 0; i < b->n; i++) {
            fail(kv_decide(&job, 0, i, cells, &e), &e);
            *sum += kv_sums_damage(b->sums, i, b->spec[which].varies, cells);
        }
    double used = kv_cpu_time_s() - start;
    kv_replay_close_tables(&job);
    free(cells);
    return used / (double)(REPEATS * b->n);
}

// Of adding up alone, decisions given.
static double sum_s(const struct bench *b, size_t which, double *sum) {
    struct kv_error e;
    struct kv_replay job = {.trace = b->t, .specs = &b->spec[which], .n_specs = 1};
    size_t n_cells = kv_cells(&kv_trace_info(b->t)->shape);
    double used = 0;
    fail(kv_replay_open_tables(&job, KV_TABLE_ISO, 1, &e), &e);
    for (size_t i = 0; i < b->n; i++) {
        uint8_t *cells = kv_alloc(kv_trace_item(b->t, i)->n_tokens * n_cells, 1);
        fail(kv_decide(&job, 0, i, cells, &e), &e);
        double start = kv_cpu_time_s();
        for (int k = 0; k < REPEATS; k++)
            *sum += kv_sums_damage(b->sums, i, b->spec[which].varies, cells);
        used += kv_cpu_time_s() - start;
        free(cells);
    }
    kv_replay_close_tables(&job);
    return used / (double)(REPEATS * b->n);
}

// CPU seconds an item and width of making the table.
static double table_s(const struct bench *b, enum kv_cell_table_kind kind) {
    const struct kv_trace_info *in = kv_trace_info(b->t);
    const struct kv_format *f = b->spec[0].format;
    struct kv_cell_table_scratch *s = kv_cell_table_scratch_new(f);
    struct kv_error e;
    double used = 0;
    for (int warm = 0; warm < 2; warm++) {
        double start = kv_cpu_time_s();
        for (size_t i = 0; i < b->n; i++) {
            const struct kv_trace_item *it = kv_trace_item(b->t, i);
            float *out = kv_alloc(it->n_tokens * f->n_widths * kv_cells(&in->shape), sizeof *out);
            fail(kv_cell_table_fill(in, it, f, kind, kv_trace_channels(b->t), s, out, &e), &e);
            free(out);
        }
        used = kv_cpu_time_s() - start;
    }
    kv_cell_table_scratch_free(s);
    return used / (double)(b->n * f->n_widths);
}

// Many per-token policies on as many items as MANY_ITEMS (items repeat where the trace has fewer).
struct crowd {
    const struct bench *b;
    struct kv_quantiles *quantiles;
    double *kl; // [MANY]
};

static int one_of_many(void *self, unsigned worker, size_t k, struct kv_error *e) {
    const struct crowd *c = self;
    const struct kv_trace_info *in = kv_trace_info(c->b->t);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_replay_spec spec;
    char text[160];
    (void)worker;
    double a = kv_draw(1, 0, k), z = kv_draw(1, 1, k);
    snprintf(text, sizeof text,
             "threshold:feature=rarity,quantiles=%.4f/%.4f,bits=3/4/5@asym:group=32", fmin(a, z),
             fmax(a, z));
    int rc = kv_replay_spec_open(&spec, text, &setting, 1, e);
    if (rc) return rc;
    struct kv_replay job = {
        .trace = c->b->t, .specs = &spec, .n_specs = 1, .quantiles = c->quantiles};
    uint8_t *cells = kv_alloc(4096 * kv_cells(&in->shape), 1);
    for (size_t i = 0; i < MANY_ITEMS && rc == 0; i++) {
        rc = kv_decide(&job, 0, i % c->b->n, cells, e);
        if (rc == 0) c->kl[k] += kv_sums_damage(c->b->sums, i % c->b->n, spec.varies, cells);
    }
    free(cells);
    kv_replay_spec_close(&spec);
    return rc;
}

static void bench_many(const struct bench *b) {
    struct kv_error e;
    struct kv_replay job = {.trace = b->t, .specs = &b->spec[2], .n_specs = 1};
    fail(kv_replay_open_tables(&job, KV_TABLE_ISO, 1, &e), &e);
    struct crowd c = {b, job.quantiles, kv_alloc(MANY, sizeof(double))};
    double start = kv_now_s(), cpu = kv_cpu_time_s();
    fail(kv_parallel(MANY, 2, one_of_many, &c, &e), &e);
    printf("%d per-token policies on %d items: %.1f s on 2 workers, %.1f s of CPU (asked: under "
           "60 s on 2 cores)\n",
           MANY, MANY_ITEMS, kv_now_s() - start, kv_cpu_time_s() - cpu);
    kv_replay_close_tables(&job);
    free(c.kl);
}

int main(void) {
    struct kv_error e = {0};
    const char *model_path = getenv("MODEL"), *data = getenv("KVSIM_DATA"),
               *n_text = getenv("BENCH_ITEMS");
    char *tasks_spec = data && *data ? kv_format_text("hellaswag:%s/hellaswag_val.jsonl.gz", data)
                                     : kv_strdup("samples");
    struct kv_tasks *tasks;
    struct bench b = {0};
    char dir[] = "/tmp/kvsim-bench-XXXXXX";
    kv_set_verbosity(-1);
    fail(kv_model_open(&b.m, model_path ? model_path : "data/SmolLM2-135M-Instruct.Q4_1.gguf",
                       KV_WEIGHTS_F32, &e),
         &e);
    fail(kv_tasks_load(&tasks, tasks_spec, &e), &e);
    if (!mkdtemp(dir)) return 1;
    b.n = n_text ? (size_t)atol(n_text) : 12;
    if (b.n > tasks->n_items) b.n = tasks->n_items;
    struct kv_record_options o = {.dir = dir,
                                  .keep = KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_SENS | KV_KEEP_GRAD,
                                  .n = b.n,
                                  .adjoint = {"inline", "coded", "choices", 2, 1},
                                  .seed = 1,
                                  .jobs = kv_cpu_count()};
    fail(kv_record(b.m, tasks, &o, &e), &e);
    fail(kv_trace_open(&b.t, dir, &e), &e);
    const struct kv_trace_info *in = kv_trace_info(b.t);
    struct kv_format_setting setting = kv_trace_setting(in);
    for (size_t i = 0; i < N_POLICIES; i++)
        fail(kv_replay_spec_open(&b.spec[i], policies[i].spec, &setting, 1, &e), &e);
    fail(kv_cell_table_open(&b.table, b.t, b.spec[0].format, KV_TABLE_ISO, 1, &e), &e);
    b.sums = kv_cell_table_sums_new(b.t, b.table, b.spec[0].format->n_widths);

    printf("fisher against exact replay, %s, %zu items of %.0f tokens, OpenBLAS core %s\n",
           tasks->name, b.n, (double)in->n_tokens / (double)b.n, kv_blas_core());
    printf("%-28s %10s %10s %10s %10s   (asked: 10000)\n", "policy", "exact ms", "fisher us",
           "sum us", "ratio");
    double exact = 0, sum = 0;
    for (size_t i = 0; i < N_POLICIES; i++) {
        exact = exact_s(&b, i);
        double fisher = fisher_s(&b, i, &sum), adding = sum_s(&b, i, &sum);
        bench_figure(1 / fisher, "item-specs/s", "exact replay", 1 / exact, "fisher, %s",
                     policies[i].what);
        printf("%-28s %10.1f %10.2f %10.2f %10.0f\n", policies[i].what, 1e3 * exact, 1e6 * fisher,
               1e6 * adding, exact / fisher);
    }
    static const enum kv_cell_table_kind kinds[] = {KV_TABLE_ISO, KV_TABLE_CHANNEL,
                                                    KV_TABLE_ELEMENT, KV_TABLE_VECTOR};
    printf("%-28s %10s %21s %10s   (asked: 100)\n", "table, an item and width", "exact ms",
           "table ms", "ratio");
    for (size_t k = 0; k < 4; k++) {
        double table = table_s(&b, kinds[k]);
        printf("%-28s %10.1f %21.3f %10.0f\n", kv_cell_table_kinds[kinds[k]], 1e3 * exact,
               1e3 * table, exact / table);
    }
    printf("table: %zu bytes a token for %zu widths\n", kv_cell_table_bytes_per_token(b.table),
           b.spec[0].format->n_widths);
    bench_many(&b);

    kv_cell_table_sums_free(b.sums);
    kv_cell_table_close(b.table);
    for (size_t i = 0; i < N_POLICIES; i++) kv_replay_spec_close(&b.spec[i]);
    kv_trace_close(b.t);
    char *clean = kv_format_text("rm -r '%s'", dir);
    int gone = system(clean);
    free(clean);
    free(tasks_spec);
    kv_tasks_free(tasks);
    kv_model_close(b.m);
    return gone || !(sum > 0);
}
