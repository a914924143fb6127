// SPDX-License-Identifier: Apache-2.0
// For tests: the real model, a recording of a few items in a folder of its own, and replays of it
// kept in memory.
#ifndef KV_REPLAY_TEST_RECORDING_H
#define KV_REPLAY_TEST_RECORDING_H

#include <setjmp.h>
#include <stdlib.h>
#include <unistd.h>
// cmocka wants the headers above (and those of policy.h) before its own
#include "sim/base/cpu.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/replay/replay.h"
#include "sim/test/light.h"
#include "traces/record.h"

#include <cmocka.h>

// Fails the test with the library's sentence unless rc is 0.
static inline void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

static inline struct kv_model *open_test_model(void) {
    struct kv_error e;
    struct kv_model *m;
    const char *path = getenv("MODEL");
    kv_set_verbosity(-1);
    must(
        kv_model_open(&m, path ? path : "data/SmolLM2-135M-Instruct.Q4_1.gguf", KV_WEIGHTS_F32, &e),
        &e);
    return m;
}

struct recording {
    char dir[40];
    struct kv_trace *trace;
};

// Records the items whose ids stand in `ids`, one a line.
static inline void record_items(struct recording *r, const struct kv_model *m, const char *tasks,
                                const char *ids, uint32_t keep) {
    struct kv_error e;
    struct kv_tasks *t;
    snprintf(r->dir, sizeof r->dir, "/tmp/kvsim-test-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    char *file = kv_format_text("%s/ids", r->dir);
    must(kv_write_file(file, ids, strlen(ids), &e), &e);
    must(kv_tasks_load(&t, tasks, &e), &e);
    must(kv_record(m, t,
                   &(struct kv_record_options){
                       .dir = r->dir, .keep = keep, .ids_file = file, .jobs = kv_cpu_count()},
                   &e),
         &e);
    must(kv_trace_open(&r->trace, r->dir, &e), &e);
    kv_tasks_free(t);
    free(file);
}

static inline void remove_recording(struct recording *r) {
    kv_trace_close(r->trace);
    char *command = kv_format_text("rm -r '%s'", r->dir);
    assert_int_equal(0, system(command));
    free(command);
}

// Outcomes of a replay, copied: [n_items of the trace][n_specs].
struct outcomes {
    size_t n_items, n_specs;
    struct kv_outcome *at;
};

static inline int keep_outcome(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                               struct kv_error *e) {
    struct outcomes *all = self;
    struct kv_outcome *to = &all->at[item * all->n_specs + spec];
    size_t n = o->n_choices ? o->n_choices : 1;
    (void)e;
    *to = *o;
    to->token = NULL;
    to->n_tokens = 0;
    to->choice = memcpy(kv_alloc(n, sizeof *o->choice), o->choice, n * sizeof *o->choice);
    return 0;
}

// Replays specs with what `job` says of mode, items and seed.
static inline struct outcomes replay_specs_as(struct kv_replay job, const char *const *specs,
                                              size_t n_specs, unsigned jobs) {
    struct kv_error e;
    const struct kv_trace_info *info = kv_trace_info(job.trace);
    struct kv_format_setting setting = kv_trace_setting(info);
    struct kv_replay_spec *opened = kv_alloc(n_specs, sizeof *opened);
    struct outcomes all = {.n_items = info->n_items, .n_specs = n_specs};
    all.at = kv_alloc(all.n_items * n_specs, sizeof *all.at);
    for (size_t i = 0; i < n_specs; i++)
        must(kv_replay_spec_open(&opened[i], specs[i], &setting, job.seed, &e), &e);
    job.specs = opened;
    job.n_specs = n_specs;
    job.take = keep_outcome;
    job.self = &all;
    if (job.n_items == 0) job.n_items = info->n_items;
    must(kv_replay_exact(&job, jobs, &e), &e);
    for (size_t i = 0; i < n_specs; i++) kv_replay_spec_close(&opened[i]);
    free(opened);
    return all;
}

static inline void free_outcomes(struct outcomes *all) {
    for (size_t i = 0; i < all->n_items * all->n_specs; i++) kv_outcome_fini(&all->at[i]);
    free(all->at);
}

#endif
