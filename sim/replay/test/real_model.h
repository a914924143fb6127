// SPDX-License-Identifier: Apache-2.0
// The real model, small recordings of it in a folder of their own, and all outcomes of a replay.
#ifndef KV_REAL_MODEL_H
#define KV_REAL_MODEL_H

#include <cblas.h>
#include <dirent.h>
#include <setjmp.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "sim/base/util.h"
#include "sim/replay/replay.h"
#include "traces/record.h"

#define MUST(call)                                                                                 \
    do {                                                                                           \
        struct kv_error e_ = {0};                                                                  \
        struct kv_error *e = &e_;                                                                  \
        if ((call) != 0) fail_msg("%s: %s: %s", #call, e_.where, e_.msg);                          \
    } while (0)

// NULL when there is no model to test with: such tests are skipped.
static inline struct kv_model *real_model_open(void) {
    const char *path = getenv("MODEL");
    struct kv_model *m = NULL;
    struct kv_error e = {0};
    if (!path) path = "data/SmolLM2-135M-Instruct.Q4_1.gguf";
    openblas_set_num_threads(1); // as the program does: a product must not depend on threads
    if (access(path, R_OK) != 0) {
        printf("# skipping what needs the model: no %s (make model)\n", path);
        return NULL;
    }
    if (kv_model_open(&m, path, KV_WEIGHTS_F32, &e)) fail_msg("%s: %s", e.where, e.msg);
    return m;
}

// A fresh folder below the build folder; the caller frees the name.
static inline char *scratch_dir(void) {
    const char *build = getenv("BUILD");
    char *dir = kv_format_text("%s/test-XXXXXX", build ? build : "build");
    if (!mkdtemp(dir)) fail_msg("no folder %s", dir);
    return dir;
}

static inline void remove_dir(const char *dir) {
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        if (f->d_name[0] == '.') continue;
        char *path = kv_format_text("%s/%s", dir, f->d_name);
        if (unlink(path)) remove_dir(path);
        free(path);
    }
    if (d) closedir(d);
    rmdir(dir);
}

static inline void write_text(const char *dir, const char *name, const char *text) {
    char *path = kv_format_text("%s/%s", dir, name);
    MUST(kv_write_file(path, text, strlen(text), e));
    free(path);
}

// Records into dir/name and opens the trace. `o` names the subset and what to keep.
static inline struct kv_trace *record_to(const struct kv_model *m, const char *tasks_spec,
                                         const char *dir, const char *name,
                                         struct kv_record_options o) {
    struct kv_tasks *tasks;
    struct kv_trace *t;
    char *path = kv_format_text("%s/%s", dir, name);
    o.dir = path;
    if (!o.jobs) o.jobs = 2;
    if (!o.keep) o.keep = KV_KEEP_FINAL;
    MUST(kv_tasks_load(&tasks, tasks_spec, e));
    MUST(kv_record(m, tasks, &o, e));
    MUST(kv_trace_open(&t, path, e));
    kv_tasks_free(tasks);
    free(path);
    return t;
}

// Outcomes [n_specs][n_items of the trace], copied; those not replayed are zero.
struct outcomes {
    size_t n_specs, n_items;
    struct kv_outcome *at;
};

static inline int keep_outcome(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                               struct kv_error *e) {
    struct outcomes *all = self;
    struct kv_outcome *to = &all->at[spec * all->n_items + item];
    size_t n = o->n_choices ? o->n_choices : 1;
    (void)e;
    assert_null(to->choice); // an outcome comes once
    *to = *o;
    to->choice = kv_alloc(n, sizeof *to->choice);
    memcpy(to->choice, o->choice, n * sizeof *to->choice);
    return 0;
}

static inline void outcomes_free(struct outcomes *all) {
    for (size_t i = 0; i < all->n_specs * all->n_items; i++) kv_outcome_fini(&all->at[i]);
    free(all->at);
    free(all);
}

static inline const struct kv_outcome *outcome_of(const struct outcomes *all, size_t spec,
                                                  size_t item) {
    return &all->at[spec * all->n_items + item];
}

// Replays specs (a NULL-ended list). `how` carries mode, seed, redraw and the part of the trace;
// n_items 0 is all of it.
static inline struct outcomes *replay_texts(const struct kv_model *m, const struct kv_trace *t,
                                            const char *const *texts, unsigned jobs,
                                            struct kv_replay how) {
    const struct kv_trace_info *info = kv_trace_info(t);
    struct kv_format_setting setting = {info->shape, info->order};
    struct kv_replay_spec specs[16];
    struct outcomes *all = kv_alloc(1, sizeof *all);
    while (texts[all->n_specs]) {
        MUST(kv_replay_spec_open(&specs[all->n_specs], texts[all->n_specs], &setting, how.seed, e));
        all->n_specs++;
    }
    all->n_items = info->n_items;
    all->at = kv_alloc(all->n_specs * all->n_items, sizeof *all->at);
    how.trace = t;
    how.model = m;
    how.specs = specs;
    how.n_specs = all->n_specs;
    how.take = keep_outcome;
    how.self = all;
    if (!how.n_items) how.n_items = info->n_items - how.first_item;
    MUST(kv_replay_exact(&how, jobs, e));
    for (size_t i = 0; i < all->n_specs; i++) kv_replay_spec_close(&specs[i]);
    return all;
}

#define SPECS(...) ((const char *const[]){__VA_ARGS__, NULL})

#endif
