// SPDX-License-Identifier: Apache-2.0
// kvsim bench device: measures decode steps on this machine and writes them for calibrate.
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/base/version.h"
#include "sim/cli/lists.h"
#include "sim/replay/policy_cost.h"
#include "sim/cost/measure.h"
#include "sim/model/model.h"

#include <stdlib.h>

#ifndef KV_COMMIT
#define KV_COMMIT "unknown"
#endif

enum { MAX_CONTEXTS = 64, MAX_MIXES = 32, MAX_THREADS = 8 };

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL, "weights of a model (GGUF file or Hugging Face folder)"},
    {"shape", 0, "LIST", "135m", "else seeded weights of these shapes: 135m,360m,1.7b"},
    {"weights", 0, "LIST", "f32", "how weights are stored: f32,bf16,q8,q4"},
    {"contexts", 0, "LIST", "64,256,512,1024,2048", "tokens in the cache"},
    {"mixes", 0, "LIST", "16,8,4,2", "widths of the cache: 8, k8v4, k4v2=0.5/8=0.5, ..."},
    {"threads", 0, "LIST", NULL, "threads of a step (default: --jobs)"},
    {"format", 0, "SPEC", "sym", "how the cache is coded: sym or asym with their keys"},
    {"rounds", 0, "N", "3", "rounds over the whole grid"},
    {"steps", 0, "N", "7", "steps of a cell in a round"},
    {"features", 0, NULL, NULL, "also compute the entropy and confidence a policy reads"},
    {"policy", 0, "SPEC", NULL, "also time this policy's decision, features included"},
    {"out", 'o', "FILE", NULL, "write runs to FILE.json and FILE.csv"},
    {0}};

struct bench {
    struct kv_cli *c;
    struct kv_measure m;
    struct kv_runs *runs;
    uint32_t contexts[MAX_CONTEXTS], threads[MAX_THREADS];
    struct kv_mix mixes[MAX_MIXES];
    size_t n_threads;
    char **weights;
    size_t n_weights;
    struct kv_model *model;
};

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

static void model_rows(void *self, enum kv_decoder_matrix matrix, uint32_t layer, size_t first,
                       size_t n, float *out) {
    const struct kv_model *m = self;
    const struct kv_layer_weights *l = &m->layers[layer];
    float *const norms[KV_N_MATRICES] = {[KV_M_ATTN_NORM] = l->attn_norm,
                                         [KV_M_FFN_NORM] = l->ffn_norm,
                                         [KV_M_FINAL_NORM] = m->final_norm};
    const struct kv_matrix *const matrices[KV_N_MATRICES] = {[KV_M_QKV] = &l->qkv,
                                                             [KV_M_OUT] = &l->out,
                                                             [KV_M_GATEUP] = &l->gateup,
                                                             [KV_M_DOWN] = &l->down,
                                                             [KV_M_HEAD] = &m->head};
    if (norms[matrix]) {
        memcpy(out, norms[matrix], m->shape.hidden * sizeof *out);
        return;
    }
    const struct kv_matrix *w = matrices[matrix];
    memcpy(out, w->f32 + first * w->cols, n * w->cols * sizeof *out);
}

static int weight_kind(const char *name, enum kv_weight_kind *kind, struct kv_error *e) {
    for (int i = 0; kv_weight_kind_names[i]; i++)
        if (strcmp(kv_weight_kind_names[i], name) == 0) {
            *kind = (enum kv_weight_kind)i;
            return 0;
        }
    return kv_fail(e, KV_EUSAGE, "bench", "--weights: '%s' is none of f32, bf16, q8, q4", name);
}

// Adds a policy's decision to the steps from row `first` on and to their policy part.
static int add_policy(struct bench *b, size_t first, struct kv_error *e) {
    const char *spec = kv_opt(b->c, "policy");
    double ns = 0;
    int rc = spec ? kv_policy_cost_ns(spec, &b->m.decoder.shape, &ns, e) : 0;
    if (rc || !spec) return rc;
    for (size_t i = first; i < b->runs->n; i++) {
        struct kv_device_run *r = &b->runs->row[i];
        r->step_ns += ns;
        r->low_ns += ns;
        r->high_ns += ns;
        r->part_ns[KV_PART_POLICY] += ns;
    }
    kv_say("policy %s: %.2f us a decision, and the features it reads: policy_ms", spec, ns / 1e3);
    return 0;
}

// All weight kinds and thread counts of one model.
static int bench_model(struct bench *b, struct kv_error *e) {
    for (size_t w = 0; w < b->n_weights; w++)
        for (size_t t = 0; t < b->n_threads; t++) {
            int rc = weight_kind(b->weights[w], &b->m.decoder.weights, e);
            b->m.decoder.n_threads = b->threads[t];
            // The bandwidth in the file is that of the first number of threads.
            size_t first = b->runs->n;
            if (rc == 0) rc = kv_measure_device(&b->m, b->runs, e);
            if (rc == 0) rc = add_policy(b, first, e);
            if (rc) return rc;
        }
    return 0;
}

static int bench_shapes(struct bench *b, struct kv_error *e) {
    char **shapes;
    size_t n = kv_opt_list(b->c, "shape", &shapes);
    int rc = 0;
    b->m.synthetic = true;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const struct kv_shape *s = kv_shape_named(shapes[i]);
        if (!s) {
            rc = kv_fail(e, KV_EUSAGE, "bench", "--shape: '%s' is none of 135m, 360m, 1.7b",
                         shapes[i]);
            break;
        }
        b->m.shape_name = shapes[i];
        b->m.decoder.shape = *s;
        b->m.decoder.rms_eps = 1e-5f;
        b->m.decoder.rope_base = 10000;
        rc = bench_model(b, e);
    }
    kv_list_free(shapes, n);
    return rc;
}

static int bench_file(struct bench *b, const char *path, struct kv_error *e) {
    int rc = kv_model_open(&b->model, path, KV_WEIGHTS_F32, e);
    if (rc) return rc;
    static const char *const names[] = {"135m", "360m", "1.7b"};
    b->m.shape_name = "";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (kv_shape_named(names[i])->hidden == b->model->shape.hidden) b->m.shape_name = names[i];
    b->m.decoder.shape = b->model->shape;
    b->m.decoder.order = b->model->order;
    b->m.decoder.rms_eps = b->model->rms_eps;
    b->m.decoder.rope_base = b->model->rope_base;
    b->m.decoder.source = (struct kv_matrix_rows){b->model, model_rows};
    rc = bench_model(b, e);
    kv_model_close(b->model);
    return rc;
}

static int read_options(struct bench *b, struct kv_error *e) {
    struct kv_cli *c = b->c;
    long rounds, steps;
    int rc =
        kv_opt_counts(c, "contexts", 2, 1 << 20, b->contexts, MAX_CONTEXTS, &b->m.n_contexts, e);
    if (rc == 0) rc = kv_opt_int(c, "rounds", 1, 1000, &rounds, e);
    if (rc == 0) rc = kv_opt_int(c, "steps", 1, 1000, &steps, e);
    if (rc) return rc;
    for (size_t i = 1; i < b->m.n_contexts; i++)
        if (b->contexts[i] <= b->contexts[i - 1])
            return kv_fail(e, KV_EUSAGE, "bench", "--contexts must ascend");
    b->threads[0] = c->jobs;
    b->n_threads = 1;
    if (kv_opt_given(c, "threads") &&
        (rc = kv_opt_counts(c, "threads", 1, 256, b->threads, MAX_THREADS, &b->n_threads, e)))
        return rc;
    char **mixes;
    b->m.n_mixes = kv_opt_list(c, "mixes", &mixes);
    if (b->m.n_mixes == 0 || b->m.n_mixes > MAX_MIXES)
        rc = kv_fail(e, KV_EUSAGE, "bench", "--mixes takes 1 to %d mixes", MAX_MIXES);
    for (size_t i = 0; rc == 0 && i < b->m.n_mixes; i++)
        rc = kv_mix_parse(&b->mixes[i], mixes[i], e);
    kv_list_free(mixes, b->m.n_mixes);
    b->m.contexts = b->contexts;
    b->m.mixes = b->mixes;
    b->m.rounds = (unsigned)rounds;
    b->m.steps = (unsigned)steps;
    b->m.format = kv_opt(c, "format");
    b->m.decoder.features = kv_opt_given(c, "features") || kv_opt_given(c, "policy");
    return rc;
}

static int print(const struct kv_runs *r, enum kv_output how, struct kv_error *e) {
    static const struct kv_column columns[] = {
        {"shape", KV_LEFT},       {"weights", KV_LEFT},
        {"threads", KV_RIGHT},    {"mix", KV_LEFT},
        {"context", KV_RIGHT},    {"step_ms", KV_RIGHT},
        {"low_ms", KV_RIGHT},     {"high_ms", KV_RIGHT},
        {"weights_ms", KV_RIGHT}, {"attend_ms", KV_RIGHT},
        {"append_ms", KV_RIGHT},  {"policy_ms", KV_RIGHT},
        {"head_ms", KV_RIGHT},    {"other_ms", KV_RIGHT},
        {"cache_mb", KV_RIGHT},   {"cache_gb_per_s", KV_RIGHT},
        {"samples", KV_RIGHT},    {"disturbed", KV_RIGHT}};
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < r->n; i++) {
        const struct kv_device_run *x = &r->row[i];
        char mix[160];
        kv_mix_text(&x->mix, mix, sizeof mix);
        kv_table_text(t, *x->shape_name ? x->shape_name : NULL);
        kv_table_text(t, x->weights);
        kv_table_count(t, x->threads);
        kv_table_text(t, mix);
        kv_table_count(t, x->context);
        kv_table_number(t, x->step_ns / 1e6, 3);
        kv_table_number(t, x->low_ns / 1e6, 3);
        kv_table_number(t, x->high_ns / 1e6, 3);
        for (int p = 0; p < KV_N_PARTS; p++) kv_table_number(t, x->part_ns[p] / 1e6, 3);
        kv_table_number(t, x->cache_bytes / 1e6, 1);
        kv_table_number(t, x->cache_bytes / x->part_ns[KV_PART_ATTEND], 1);
        kv_table_count(t, x->samples);
        kv_table_count(t, x->disturbed);
    }
    return kv_table_print(t, how, e);
}

// Says so when other programs took cores away too often for the figures to be this machine's.
static void warn_if_busy(const struct kv_runs *r) {
    size_t kept = 0, disturbed = 0;
    for (size_t i = 0; i < r->n; i++) {
        kept += r->row[i].samples;
        disturbed += r->row[i].disturbed;
    }
    if (disturbed > kept)
        kv_say("warning: other programs took a core away during %zu steps (%zu are kept): measure "
               "on a quiet machine",
               disturbed, kept);
}

// FILE, FILE.json or FILE.csv: the stem names both files.
static int write_files(const struct kv_runs *r, const char *name, struct kv_error *e) {
    const char *end = strrchr(name, '.');
    bool known = end && (strcmp(end, ".json") == 0 || strcmp(end, ".csv") == 0);
    int stem = (int)(known ? (size_t)(end - name) : strlen(name)), rc = 0;
    for (int csv = 0; rc == 0 && csv < 2; csv++) {
        char *text = csv ? kv_runs_csv(r) : kv_runs_json(r);
        char *path = kv_format_text("%.*s%s", stem, name, csv ? ".csv" : ".json");
        rc = kv_write_file(path, text, strlen(text), e);
        free(text);
        free(path);
    }
    return rc;
}

static int run(struct kv_cli *c, struct kv_error *e) {
    if (strcmp(c->args[0], "device") != 0)
        return kv_fail(e, KV_EUSAGE, "bench", "'%s' cannot be measured; 'device' can", c->args[0]);
    struct bench b = {.c = c};
    int rc = read_options(&b, e);
    if (rc) return rc;
    b.runs = kv_runs_new();
    b.n_weights = kv_opt_list(c, "weights", &b.weights);
    free(b.runs->command);
    b.runs->command = command_text(c);
    free(b.runs->engine);
    b.runs->engine = kv_format_text("kvsim %s (%s), %s", KV_VERSION, KV_COMMIT,
                                    kv_attend_kernels[kv_cache_best_kernel()]);
    rc = kv_opt_given(c, "model") ? bench_file(&b, kv_opt(c, "model"), e) : bench_shapes(&b, e);
    if (rc == 0) warn_if_busy(b.runs);
    if (rc == 0) rc = print(b.runs, c->output, e);
    if (rc == 0 && kv_opt_given(c, "out")) rc = write_files(b.runs, kv_opt(c, "out"), e);
    kv_list_free(b.weights, b.n_weights);
    kv_runs_free(b.runs);
    return rc;
}

const struct kv_command kv_cmd_bench = {
    .name = "bench",
    .summary = "measures decode steps on this machine",
    .usage = "device",
    .example =
        "kvsim bench device --shape 135m --weights q4 --contexts 64,512 --mixes 16,4 -o work/runs",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
