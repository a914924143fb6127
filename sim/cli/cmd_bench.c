// SPDX-License-Identifier: Apache-2.0
// kvsim bench device: measures decode steps on this machine and writes them for calibrate.
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/base/version.h"
#include "sim/cli/lists.h"
#include "sim/cost/bench.h"
#include "sim/replay/policy_cost.h"

#include <stdlib.h>

#ifndef KV_COMMIT
#define KV_COMMIT "unknown"
#endif

enum { MAX_CONTEXTS = 64, MAX_MIXES = 32, MAX_THREADS = 8, MAX_WEIGHTS = 8 };

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL, "weights of a model (GGUF file or Hugging Face folder)"},
    {"shape", 0, "LIST", "135m",
     "else seeded weights of these shapes: 135m, 360m, 1.7b, qwen2.5-0.5b, qwen2.5-1.5b, "
     "gemma-3-270m"},
    {"weights", 0, "LIST", "f32", "how weights are stored: f32,bf16,q8,q4"},
    {"contexts", 0, "LIST", "64,256,512,1024,2048", "tokens in the cache"},
    {"mixes", 0, "LIST", "16,8,4,2",
     "widths of the cache: 8, k8v4, k4v2=0.5/8=0.5, cells:2=0.5/8=0.5, ..."},
    {"threads", 0, "LIST", NULL, "threads of a step (default: --jobs)"},
    {"format", 0, "SPEC", "sym", "how the cache is coded: sym or asym with their keys"},
    {"rounds", 0, "N", "3", "rounds over the whole grid"},
    {"steps", 0, "N", "7", "steps of a cell in a round"},
    {"features", 0, NULL, NULL, "also compute the entropy and confidence a policy reads"},
    {"policy", 0, "SPEC", NULL, "also time this policy's decision, features included"},
    {"out", 'o', "FILE", NULL, "write runs to FILE.json and FILE.csv"},
    {0}};

// What the options say, and room for their lists.
struct wanted {
    struct kv_bench b;
    uint32_t contexts[MAX_CONTEXTS], threads[MAX_THREADS];
    struct kv_mix mixes[MAX_MIXES];
    enum kv_weight_kind weights[MAX_WEIGHTS];
};

// ---- options --------------------------------------------------------------------------

static int read_weights(const struct kv_cli *c, struct wanted *w, struct kv_error *e) {
    char **names;
    size_t n = kv_opt_list(c, "weights", &names);
    int rc = n > MAX_WEIGHTS
                 ? kv_fail(e, KV_EUSAGE, "bench", "--weights takes 1 to %d kinds", MAX_WEIGHTS)
                 : 0;
    for (size_t i = 0; rc == 0 && i < n; i++) rc = kv_bench_weights(&w->weights[i], names[i], e);
    kv_list_free(names, n);
    w->b.weights = w->weights;
    w->b.n_weights = n;
    return rc;
}

static int read_mixes(const struct kv_cli *c, struct wanted *w, struct kv_error *e) {
    char **texts;
    size_t n = kv_opt_list(c, "mixes", &texts);
    int rc = 0;
    if (n == 0 || n > MAX_MIXES)
        rc = kv_fail(e, KV_EUSAGE, "bench", "--mixes takes 1 to %d mixes", MAX_MIXES);
    for (size_t i = 0; rc == 0 && i < n; i++) rc = kv_mix_parse(&w->mixes[i], texts[i], e);
    kv_list_free(texts, n);
    w->b.grid.mixes = w->mixes;
    w->b.grid.n_mixes = n;
    return rc;
}

static int read_contexts(const struct kv_cli *c, struct wanted *w, struct kv_error *e) {
    size_t *n = &w->b.grid.n_contexts;
    int rc = kv_opt_counts(c, "contexts", 2, 1 << 20, w->contexts, MAX_CONTEXTS, n, e);
    for (size_t i = 1; rc == 0 && i < *n; i++)
        if (w->contexts[i] <= w->contexts[i - 1])
            rc = kv_fail(e, KV_EUSAGE, "bench", "--contexts must ascend");
    w->b.grid.contexts = w->contexts;
    return rc;
}

static int read_threads(const struct kv_cli *c, struct wanted *w, struct kv_error *e) {
    w->threads[0] = c->jobs;
    w->b.threads = w->threads;
    w->b.n_threads = 1;
    if (!kv_opt_given(c, "threads")) return 0;
    return kv_opt_counts(c, "threads", 1, 256, w->threads, MAX_THREADS, &w->b.n_threads, e);
}

static int read_options(const struct kv_cli *c, struct wanted *w, struct kv_error *e) {
    long rounds = 0, steps = 0;
    int rc = read_contexts(c, w, e);
    if (rc == 0) rc = kv_opt_int(c, "rounds", 1, 1000, &rounds, e);
    if (rc == 0) rc = kv_opt_int(c, "steps", 1, 1000, &steps, e);
    if (rc == 0) rc = read_threads(c, w, e);
    if (rc == 0) rc = read_mixes(c, w, e);
    if (rc == 0) rc = read_weights(c, w, e);
    w->b.grid.rounds = (unsigned)rounds;
    w->b.grid.steps = (unsigned)steps;
    w->b.grid.format = kv_opt(c, "format");
    w->b.features = kv_opt_given(c, "features") || kv_opt_given(c, "policy");
    return rc;
}

// ---- measuring ------------------------------------------------------------------------

// The command as one would type it again, for the runs' provenance.
static char *command_text(const struct kv_cli *c) {
    struct kv_text t = {0};
    kv_text_addf(&t, "kvsim bench device");
    for (const struct kv_option *o = options; o->name; o++)
        if (kv_opt_given(c, o->name) && strcmp(o->name, "out") != 0) {
            const char *base = o->letter == 'm' ? strrchr(kv_opt(c, o->name), '/') : NULL;
            kv_text_addf(&t, " --%s%s%s", o->name, o->arg ? " " : "",
                         base ? base + 1 : kv_opt(c, o->name));
        }
    if (!kv_opt_given(c, "threads")) kv_text_addf(&t, " --threads %u", c->jobs);
    return kv_text_take(&t);
}

static void note_origin(const struct kv_cli *c, struct kv_runs *r) {
    free(r->command);
    free(r->engine);
    r->command = command_text(c);
    r->engine = kv_format_text("kvsim %s (%s), %s", KV_VERSION, KV_COMMIT,
                               kv_attend_kernels[kv_cache_best_kernel()]);
}

// One model, with the policy's decision where one is named.
static int measure(const struct kv_cli *c, struct kv_bench *b, const struct kv_bench_model *m,
                   struct kv_runs *r, struct kv_error *e) {
    const char *policy = kv_opt(c, "policy");
    int rc = policy ? kv_policy_cost_ns(policy, &m->decoder.shape, &b->policy_ns, e) : 0;
    if (rc == 0) rc = kv_bench_run(b, m, r, e);
    if (rc == 0 && policy)
        kv_say("policy %s: %.2f us a decision, and the features it reads: policy_ms", policy,
               b->policy_ns / 1e3);
    return rc;
}

static int measure_all(const struct kv_cli *c, struct kv_bench *b, struct kv_runs *r,
                       struct kv_error *e) {
    struct kv_bench_model m;
    char **shapes;
    int rc = 0;
    if (kv_opt_given(c, "model")) {
        if ((rc = kv_bench_open(&m, kv_opt(c, "model"), b->weights, b->n_weights, e))) return rc;
        rc = measure(c, b, &m, r, e);
        kv_bench_close(&m);
        return rc;
    }
    size_t n = kv_opt_list(c, "shape", &shapes);
    for (size_t i = 0; rc == 0 && i < n; i++)
        if ((rc = kv_bench_shape(&m, shapes[i], e)) == 0) rc = measure(c, b, &m, r, e);
    kv_list_free(shapes, n);
    return rc;
}

// ---- the table ------------------------------------------------------------------------

#define TIME(name, ns) KV_CELL(name, struct kv_device_run, kv_table_number(t, (ns) / 1e6, 3))
KV_CELL(shape_cell, struct kv_device_run,
        kv_table_text(t, *row->shape_name ? row->shape_name : NULL))
KV_CELL(weights_cell, struct kv_device_run, kv_table_text(t, row->weights))
KV_CELL(threads_cell, struct kv_device_run, kv_table_count(t, row->threads))
KV_CELL(context_cell, struct kv_device_run, kv_table_count(t, row->context))
TIME(step_time, row->step_ns)
TIME(low_time, row->low_ns)
TIME(high_time, row->high_ns)
TIME(weights_time, row->part_ns[KV_PART_WEIGHTS])
TIME(attend_time, row->part_ns[KV_PART_ATTEND])
TIME(append_time, row->part_ns[KV_PART_APPEND])
TIME(policy_time, row->part_ns[KV_PART_POLICY])
TIME(head_time, row->part_ns[KV_PART_HEAD])
TIME(other_time, row->part_ns[KV_PART_OTHER])
KV_CELL(cache_cell, struct kv_device_run, kv_table_number(t, row->cache_bytes / 1e6, 1))
KV_CELL(rate_cell, struct kv_device_run,
        kv_table_number(t, row->cache_bytes / row->part_ns[KV_PART_ATTEND], 1))
KV_CELL(samples_cell, struct kv_device_run, kv_table_count(t, row->samples))
KV_CELL(disturbed_cell, struct kv_device_run, kv_table_count(t, row->disturbed))

static void mix_cell(struct kv_table *t, const void *row) {
    const struct kv_device_run *r = row;
    char mix[160];
    kv_mix_text(&r->mix, mix, sizeof mix);
    kv_table_text(t, mix);
}

static const struct kv_table_column columns[] = {{"shape", KV_LEFT, shape_cell},
                                                 {"weights", KV_LEFT, weights_cell},
                                                 {"threads", KV_RIGHT, threads_cell},
                                                 {"mix", KV_LEFT, mix_cell},
                                                 {"context", KV_RIGHT, context_cell},
                                                 {"step_ms", KV_RIGHT, step_time},
                                                 {"low_ms", KV_RIGHT, low_time},
                                                 {"high_ms", KV_RIGHT, high_time},
                                                 {"weights_ms", KV_RIGHT, weights_time},
                                                 {"attend_ms", KV_RIGHT, attend_time},
                                                 {"append_ms", KV_RIGHT, append_time},
                                                 {"policy_ms", KV_RIGHT, policy_time},
                                                 {"head_ms", KV_RIGHT, head_time},
                                                 {"other_ms", KV_RIGHT, other_time},
                                                 {"cache_mb", KV_RIGHT, cache_cell},
                                                 {"cache_gb_per_s", KV_RIGHT, rate_cell},
                                                 {"samples", KV_RIGHT, samples_cell},
                                                 {"disturbed", KV_RIGHT, disturbed_cell},
                                                 {0}};

static int run(struct kv_cli *c, struct kv_error *e) {
    if (strcmp(c->args[0], "device") != 0)
        return kv_fail(e, KV_EUSAGE, "bench", "'%s' cannot be measured; 'device' can", c->args[0]);
    struct wanted w = {0};
    int rc = read_options(c, &w, e);
    if (rc == 0 && kv_opt_given(c, "out")) rc = kv_check_output(kv_opt(c, "out"), e);
    if (rc) return rc;
    struct kv_runs *r = kv_runs_new();
    note_origin(c, r);
    rc = measure_all(c, &w.b, r, e);
    if (rc == 0) kv_bench_warn_if_busy(r);
    if (rc == 0 && kv_opt_given(c, "out")) rc = kv_runs_write(r, kv_opt(c, "out"), e);
    if (rc == 0) rc = kv_table_print_rows(columns, r->row, r->n, sizeof *r->row, c->output, e);
    kv_runs_free(r);
    return rc;
}

const struct kv_command kv_cmd_bench = {
    .name = "bench",
    .summary = "measures decode steps on this machine",
    .usage = "device",
    .example = "kvsim bench device --shape 135m --weights q4 --contexts 64,512 --mixes 16,4 "
               "-o work/runs",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
