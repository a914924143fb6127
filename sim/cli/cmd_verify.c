// SPDX-License-Identifier: Apache-2.0
// kvsim verify: reads every byte of a trace, model or store and says whether it is whole.
#include <stdlib.h>

#include "sim/store/store.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/cli/options.h"
#include "sim/model/model.h"
#include "traces/trace.h"

static int verify_trace(const char *path, struct kv_error *e) {
    struct kv_trace *t;
    int rc = kv_trace_open(&t, path, e);
    if (rc) return rc;
    rc = kv_trace_verify(t, e);
    const struct kv_trace_info *in = kv_trace_info(t);
    if (rc == 0)
        kv_print("%s: a whole trace of %s over %s (%s): %zu items, %zu tokens\n", path,
                 in->model_name, in->task_name, in->subset, in->n_items, in->n_tokens);
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

static int verify_store(const char *path, struct kv_error *e) {
    struct kv_store *s;
    char word[200] = "";
    int rc = kv_store_open(&s, path, KV_STORE_READ, e);
    if (rc) return rc;
    rc = kv_store_query(s, "PRAGMA integrity_check", NULL, 0, take_word, word, e);
    int closed = kv_store_close(s, rc ? NULL : e);
    if (rc == 0) rc = closed;
    if (rc == 0 && strcmp(word, "ok") != 0) rc = kv_fail(e, KV_EFAIL, path, "is damaged: %s", word);
    if (rc == 0) kv_print("%s: a whole store\n", path);
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
        rc = verify_store(path, e);
    else if (trace)
        rc = verify_trace(path, e);
    else
        rc = verify_model(path, e);
    return rc ? rc : kv_flush_stdout(e);
}

const struct kv_command kv_cmd_verify = {
    .name = "verify",
    .summary = "reads a trace, model or store whole and says if it is sound",
    .usage = "PATH",
    .example = "kvsim verify work/samples.trace",
    .min_args = 1,
    .max_args = 1,
    .run = verify};
