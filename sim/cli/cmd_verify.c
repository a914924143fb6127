// SPDX-License-Identifier: Apache-2.0
// kvsim verify: reads every byte of a trace, model or store and says whether it is whole, compares
// a trace with its model, and runs some of a store's outcomes again.
#include <stdlib.h>

#include "sim/store/sound.h"
#include "sim/store/store.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "analysis/studies/recheck.h"
#include "sim/cli/lists.h"
#include "sim/cli/options.h"
#include "sim/model/model.h"
#include "sim/model/path.h"
#include "sim/replay/recorded_model.h"
#include "traces/trace.h"

// A trace, and with -m whether it is that model's.
static int verify_trace(const struct kv_cli *c, const char *path, struct kv_error *e) {
    struct kv_trace *t;
    struct kv_model *m = NULL;
    int rc = kv_trace_open(&t, path, e);
    if (rc) return rc;
    rc = kv_trace_verify(t, e);
    const struct kv_trace_info *in = kv_trace_info(t);
    const char *model = kv_opt(c, "model");
    if (rc == 0 && model) rc = kv_recorded_model_open(&m, in, model, KV_COMPUTE_HOST, e);
    if (rc == 0 && model) rc = kv_trace_check_model(in, m, e);
    if (rc == 0) {
        kv_print("%s: a whole trace of %s over %s (%s): %zu items, %zu tokens\n", path,
                 in->model_name, in->task_name, in->subset, in->n_items, in->n_tokens);
        if (model) kv_print("its dimensions are those of %s\n", model);
        if (!*in->seal) puts("note: no checksum covers its manifest; an older kvsim recorded it");
    }
    kv_model_close(m);
    kv_trace_close(t);
    return rc;
}

static int verify_model(const char *path, struct kv_error *e) {
    struct kv_model *m;
    int rc = kv_model_open(&m, path, KV_WEIGHTS_F32, e);
    if (rc) return rc;
    kv_print("%s: a whole model, %s, %s: %u layers, %u heads, %u KV heads of %u\n", path, m->name,
             m->source, m->shape.n_layers, m->shape.n_heads, m->shape.n_kv_heads,
             m->shape.head_dim);
    kv_model_close(m);
    return 0;
}

// The first line of SQLite's own check; "ok" when the file is sound.
static int take_word(void *self, size_t n, const char *const *names,
                     const struct kv_sql_value *values, struct kv_error *e) {
    (void)names, (void)e;
    char *word = self;
    if (n && values[0].text && !*word) snprintf(word, 200, "%s", values[0].text);
    return 0;
}

static void print_recheck(const struct kv_recheck *r, uint64_t seed) {
    size_t run = r->n_equal + r->n_near;
    if (run)
        printf("%zu of %zu outcomes run again (drawn with seed %llu): %zu equal bit for bit", run,
               r->n_stored, (unsigned long long)seed, r->n_equal);
    else
        printf("none of its %zu outcomes was run again", r->n_stored);
    if (r->n_near)
        printf(", %zu stored on another processor level or BLAS core within %g nats a token",
               r->n_near, KV_RECHECK_NATS);
    putchar('\n');
    if (r->n_no_trace)
        printf("%zu not run: no such trace at %s (--trace DIR says where it is)\n", r->n_no_trace,
               r->trace);
    if (r->n_no_model) printf("%zu not run: %s (-m MODEL)\n", r->n_no_model, r->model);
    if (r->n_not_here) printf("%zu not run: an accelerator did their products\n", r->n_not_here);
}

static int run_again(const struct kv_cli *c, struct kv_store *s, struct kv_error *e) {
    struct kv_recheck r;
    char **traces, *model = kv_model_path(kv_opt(c, "model"));
    long n;
    int rc = kv_opt_int(c, "outcomes", 0, 1000000, &n, e);
    size_t n_traces = kv_opt_list(c, "trace", &traces);
    const struct kv_recheck_options o = {.model = model,
                                         .traces = (const char *const *)traces,
                                         .n_traces = n_traces,
                                         .n = (size_t)n,
                                         .seed = c->seed,
                                         .jobs = c->jobs};
    if (rc == 0) rc = kv_recheck(&r, s, &o, e);
    if (rc == 0) print_recheck(&r, c->seed);
    kv_list_free(traces, n_traces);
    free(model);
    return rc;
}

static int verify_store(const struct kv_cli *c, const char *path, struct kv_error *e) {
    struct kv_store *s;
    char word[200] = "";
    int rc = kv_store_open(&s, path, KV_STORE_READ, e);
    if (rc) return rc;
    rc = kv_store_query(s, "PRAGMA integrity_check", NULL, 0, take_word, word, e);
    if (rc == 0 && strcmp(word, "ok") != 0) rc = kv_fail(e, KV_EFAIL, path, "is damaged: %s", word);
    if (rc == 0) rc = kv_store_check_numbers(s, KV_STORE_ALL, e);
    if (rc == 0) kv_print("%s: a whole store\n", path);
    if (rc == 0) rc = run_again(c, s, e);
    int closed = kv_store_close(s, rc ? NULL : e);
    if (rc == 0) rc = closed;
    return rc;
}

static int verify(struct kv_cli *c, struct kv_error *e) {
    const char *path = c->args[0];
    char *manifest = kv_format_text("%s/manifest.json", path), magic[16] = "";
    struct kv_map map;
    bool trace = kv_map_open(&map, manifest, NULL) == 0;
    if (trace) kv_map_close(&map);
    free(manifest);
    int rc = 0;
    if (!kv_is_dir(path)) {
        if ((rc = kv_map_open(&map, path, e))) return rc;
        memcpy(magic, map.data, map.n < 15 ? map.n : 15);
        kv_map_close(&map);
    }
    if (strcmp(magic, "SQLite format 3") == 0)
        rc = verify_store(c, path, e);
    else if (trace)
        rc = verify_trace(c, path, e);
    else
        rc = verify_model(path, e);
    return rc ? rc : kv_flush_stdout(e);
}

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL,
     "compare a trace with this model; of a store: the model that exact outcomes run again"},
    {"trace", 0, "LIST", NULL, "folders of a store's traces, where they are not where they were"},
    {"outcomes", 0, "N", "20", "outcomes of a store to run again, drawn with the seed"},
    {0}};

const struct kv_command kv_cmd_verify = {
    .name = "verify",
    .summary =
        "reads a trace, model or store whole, runs some of a store again, says if it is sound",
    .usage = "PATH",
    .example = "kvsim verify work/samples.trace",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = verify};
