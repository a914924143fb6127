// SPDX-License-Identifier: Apache-2.0
// For tests of studies: the file of a small random model and a trace that was recorded from it, in
// a folder that goes with them.
#ifndef KV_ANALYSIS_TEST_TINY_STUDY_H
#define KV_ANALYSIS_TEST_TINY_STUDY_H

#include "sim/replay/test/tiny_trace.h"

struct tiny_study {
    char dir[64], *model, *trace;
};

static inline int tiny_study_model(const struct tiny_study *t) {
    struct kv_text file = {0};
    struct kv_model *m = kv_model_random(&tiny_shape, KV_ORDER_GGML, true, 7);
    build_gguf(&file, m, &gguf_f32);
    int rc = write_file_in(t->dir, "tiny.gguf", file.s, file.n);
    free(file.s);
    kv_model_close(m);
    return rc;
}

static inline int tiny_study_record(const struct tiny_study *t, uint32_t keep, size_t n,
                                    struct kv_error *e) {
    struct kv_tasks *tasks = NULL;
    struct kv_model *m = NULL;
    struct kv_record_options o = {
        .dir = t->trace, .keep = keep, .n = n, .adjoint = tiny_adjoint, .seed = 1, .jobs = 2};
    int rc = kv_tasks_load(&tasks, "samples", e);
    if (rc == 0) rc = kv_model_open(&m, t->model, KV_WEIGHTS_F32, e);
    if (rc == 0) rc = kv_record(m, tasks, &o, e);
    kv_model_close(m);
    kv_tasks_free(tasks);
    return rc;
}

// Records n items of the samples with what `keep` says.
static inline int tiny_study_open(struct tiny_study *t, uint32_t keep, size_t n) {
    struct kv_error e = {0};
    strcpy(t->dir, "/tmp/kvsim-study-XXXXXX");
    kv_set_verbosity(-1);
    if (!mkdtemp(t->dir)) return -1;
    t->model = file_in(t->dir, "tiny.gguf");
    t->trace = file_in(t->dir, "tiny.trace");
    int rc = tiny_study_model(t);
    if (rc == 0) rc = tiny_study_record(t, keep, n, &e);
    if (rc) fprintf(stderr, "%s: %s\n", e.where, e.msg);
    return rc;
}

static inline void tiny_study_close(struct tiny_study *t) {
    tiny_remove(t->dir);
    free(t->model);
    free(t->trace);
}

#endif
