// SPDX-License-Identifier: Apache-2.0
// How close exact replay comes to its floor: the matrix products alone, on the same shapes, in the
// same run.
//
// Environment: MODEL, KVSIM_DATA (HellaSwag there; else the samples), BENCH_ITEMS (default 200).
#include <stdlib.h>
#include <unistd.h>

#include "sim/base/blas.h"
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/model/forward.h"
#include "sim/replay/replay.h"
#include "traces/record.h"
#include "sim/test/figure.h"

static const char *const specs[] = {
    "static:bits=8@sym",
    "static:bits=4@sym",
    "static:bits=2@sym",
    "static:bits=4@asym:group=32",
    "static:k=8,v=4@asym:group=32",
    "static@q8_0",
    "static@q4_0",
    "random:bits=2/4/8/16@sym",
};
enum { N_SPECS = sizeof specs / sizeof *specs, TILE = 1024 };

static int ignore(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                  struct kv_error *e) {
    (void)self, (void)item, (void)spec, (void)o, (void)e;
    return 0;
}

// The products of one pass over an item, on the model's own weights.
static void products(const struct kv_model *m, const struct kv_trace_item *it, const float *x,
                     float *y, struct kv_scratch *s) {
    for (size_t l = 0; l < m->shape.n_layers; l++) {
        const struct kv_layer_weights *w = &m->layers[l];
        const struct kv_matrix *list[] = {&w->qkv, &w->out, &w->gateup, &w->down};
        for (int i = 0; i < 4; i++) kv_product(list[i], x, it->n_tokens, y, s);
    }
    size_t most = kv_head_rows(m);
    for (size_t from = 0; from < m->shape.vocab; from += TILE) {
        struct kv_matrix part = {
            .rows = TILE, .cols = m->head.cols, .f32 = m->head.f32 + from * m->head.cols};
        for (size_t row = 0; row < it->n_final; row += most)
            kv_product(&part, x, it->n_final - row < most ? it->n_final - row : most, y, s);
    }
}

static void fail(int rc, const struct kv_error *e) {
    if (rc == 0) return;
    fprintf(stderr, "bench_replay: %s: %s\n", e->where, e->msg);
    exit(1);
}

int main(void) {
    struct kv_error e = {0};
    const char *model_path = getenv("MODEL"), *data = getenv("KVSIM_DATA"),
               *n_text = getenv("BENCH_ITEMS");
    char *tasks_spec = data && *data ? kv_format_text("hellaswag:%s/hellaswag_val.jsonl.gz", data)
                                     : kv_strdup("samples");
    struct kv_model *m;
    struct kv_tasks *tasks;
    struct kv_trace *t;
    char dir[] = "/tmp/kvsim-bench-XXXXXX";
    kv_set_verbosity(-1);
    fail(kv_model_open(&m, model_path ? model_path : "data/SmolLM2-135M-Instruct.Q4_1.gguf",
                       KV_WEIGHTS_F32, &e),
         &e);
    fail(kv_tasks_load(&tasks, tasks_spec, &e), &e);
    if (!mkdtemp(dir)) return 1;
    size_t n = n_text ? (size_t)atol(n_text) : 200;
    if (n > tasks->n_items) n = tasks->n_items;
    struct kv_record_options o = {
        .dir = dir, .keep = KV_KEEP_FINAL, .n = n, .seed = 1, .jobs = kv_cpu_count()};
    fail(kv_record(m, tasks, &o, &e), &e);
    fail(kv_trace_open(&t, dir, &e), &e);

    struct kv_replay_spec opened[N_SPECS];
    const struct kv_trace_info *info = kv_trace_info(t);
    struct kv_format_setting setting = kv_trace_setting(info);
    for (size_t i = 0; i < N_SPECS; i++)
        fail(kv_replay_spec_open(&opened[i], specs[i], &setting, 1, &e), &e);

    // Item by item, replay and products in turn, so that a change of the machine's speed meets both
    // alike.
    struct kv_scratch *s = kv_scratch_new();
    size_t widest = 2 * (size_t)m->shape.ffn > TILE ? 2 * (size_t)m->shape.ffn : TILE, tokens = 0;
    double replay_s = 0, products_s = 0, flop = 0;
    for (size_t i = 0; i < n; i++) {
        const struct kv_trace_item *it = kv_trace_item(t, i);
        float *x = kv_alloc((size_t)it->n_tokens * m->shape.ffn, sizeof *x),
              *y = kv_alloc(it->n_tokens * widest, sizeof *y);
        for (size_t k = 0; k < (size_t)it->n_tokens * m->shape.ffn; k++)
            x[k] = (float)kv_draw(1, i, k) - 0.5f;
        struct kv_replay job = {.trace = t,
                                .model = m,
                                .specs = opened,
                                .n_specs = N_SPECS,
                                .mode = KV_INLINE,
                                .first_item = i,
                                .n_items = 1,
                                .take = ignore};
        double start = kv_cpu_time_s();
        fail(kv_replay_exact(&job, 1, &e), &e);
        replay_s += kv_cpu_time_s() - start;
        start = kv_cpu_time_s();
        products(m, it, x, y, s);
        products_s += (kv_cpu_time_s() - start) * N_SPECS;
        for (size_t l = 0; l < m->shape.n_layers; l++)
            flop += 2.0 * it->n_tokens * N_SPECS *
                    (double)(m->layers[l].qkv.rows * m->layers[l].qkv.cols +
                             m->layers[l].out.rows * m->layers[l].out.cols +
                             m->layers[l].gateup.rows * m->layers[l].gateup.cols +
                             m->layers[l].down.rows * m->layers[l].down.cols);
        flop += 2.0 * it->n_final * N_SPECS * (double)(m->head.rows * m->head.cols);
        tokens += it->n_tokens;
        free(x);
        free(y);
    }
    printf("exact replay, %s, %zu items of %.0f tokens, %d specs, OpenBLAS core %s\n", tasks->name,
           n, (double)tokens / (double)n, N_SPECS, kv_blas_core());
    printf("item-specs per CPU second      %8.3f\n", (double)(n * N_SPECS) / replay_s);
    printf("products alone, same shapes    %8.3f   (%.0f GFLOP/s)\n",
           (double)(n * N_SPECS) / products_s, 1e-9 * flop / products_s);
    bench_figure((double)(n * N_SPECS) / replay_s, "item-specs/s", "the products alone",
                 (double)(n * N_SPECS) / products_s, "exact replay, one core");
    printf("share of the floor reached     %8.1f %%  (at least 90 %% is asked)\n",
           100 * products_s / replay_s);

    for (size_t i = 0; i < N_SPECS; i++) kv_replay_spec_close(&opened[i]);
    kv_scratch_free(s);
    kv_trace_close(t);
    char *clean = kv_format_text("rm -r '%s'", dir);
    int gone = system(clean);
    free(clean);
    free(tasks_spec);
    kv_tasks_free(tasks);
    kv_model_close(m);
    return gone ? 1 : 0;
}
