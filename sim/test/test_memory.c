// SPDX-License-Identifier: Apache-2.0
// Memory that runs out anywhere in the library: the call says so, and the process goes on with what
// it had.
//
// Each story below calls what the installed headers declare. It is told once to count its
// allocations, then again and again with one of them failing; each time it must end in KV_ENOMEM,
// having closed what it held, and once more succeed in the end.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/results/front.h"
#include "sim/store/store.h"
#include "analysis/studies/sweep.h"
#include "sim/cost/cost.h"
#include "sim/cost/runs.h"
#include "sim/replay/attention.h"
#include "sim/replay/fisher.h"
#include "sim/replay/test/tiny_trace.h"
#include "sim/test/light.h"

// What a failed call had allocated is lost by design.
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "detect_leaks=0";
}

enum { KEEP = KV_KEEP_ALL };

struct world {
    char dir[64], gguf[96], recording[96], db[96], swept[96], copy[96];
    struct kv_model *model;
    struct kv_trace *trace;
    struct kv_format_setting setting;
};

typedef int story_fn(struct world *w, struct kv_error *e);

static void fails_anywhere(struct world *w, story_fn *story) {
    struct kv_error e = {0};
    kv_memory_fail(SIZE_MAX);
    int rc = story(w, &e);
    const size_t most = light_testing() ? 25 : 80;
    size_t n = SIZE_MAX - kv_memory_fail(0), step = n / most + 1;
    if (rc) print_error("%s: %s\n", e.where, e.msg);
    assert_int_equal(rc, 0);
    assert_true(n > 0);
    for (size_t nth = 1; nth <= n; nth += nth < most / 3 ? 1 : step) {
        e = (struct kv_error){0};
        kv_memory_fail(nth);
        rc = story(w, &e);
        // The order of work on several threads may need a few allocations less.
        if (kv_memory_fail(0) && rc == 0) continue;
        if (rc != KV_ENOMEM) print_error("allocation %zu of %zu: %d, %s\n", nth, n, rc, e.msg);
        assert_int_equal(rc, KV_ENOMEM);
        assert_true(strncmp(e.msg, "out of memory: ", 15) == 0);
    }
    assert_int_equal(story(w, &e), 0);
}

// ---- stories --------------------------------------------------------------------------

static int open_specs(struct world *w, struct kv_error *e) {
    static const char *const texts[] = {"static:bits=4@sym",
                                        "shuffle(static:k=4,v=2):within=item@kivi", "threshold",
                                        "oracle:bits=5@asym", "none"};
    int rc = 0;
    for (size_t i = 0; i < sizeof texts / sizeof *texts && rc == 0; i++) {
        struct kv_replay_spec spec;
        rc = kv_replay_spec_open(&spec, texts[i], &w->setting, 1, e);
        kv_replay_spec_close(&spec);
    }
    return rc;
}

static int open_model(struct world *w, struct kv_error *e) {
    struct kv_model *m;
    uint32_t *ids = NULL;
    size_t n = 0;
    int rc = kv_model_open(&m, w->gguf, KV_WEIGHTS_F32, e);
    for (size_t i = 0; i < 3 && rc == 0; i++)
        rc = kv_tokenizer_encode(m->tokenizer, "the 12 hens in the inn", 22, &ids, &n, e);
    free(ids);
    kv_model_close(m);
    return rc;
}

static int record_into(const struct kv_model *m, const char *dir, size_t n, struct kv_error *e) {
    struct kv_tasks *tasks;
    struct kv_record_options o = {
        .dir = dir, .keep = KEEP, .n = n, .adjoint = tiny_adjoint, .seed = 1, .jobs = 2};
    o.adjoint.draws = 2;
    int rc = kv_tasks_load(&tasks, "samples", e);
    if (rc == 0) rc = kv_record(m, tasks, &o, e);
    kv_tasks_free(tasks);
    return rc;
}

static int record(struct world *w, struct kv_error *e) {
    struct kv_trace *trace = NULL;
    int rc = record_into(w->model, w->copy, 2, e);
    if (rc == 0) rc = kv_trace_open(&trace, w->copy, e);
    if (rc == 0) rc = kv_trace_verify(trace, e);
    kv_trace_close(trace);
    tiny_remove(w->copy);
    return rc;
}

static int take(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    (void)self, (void)item, (void)spec, (void)o, (void)e;
    free(kv_alloc(1, 1)); // as a listener of the library's own would
    return 0;
}

static int take_attention(void *self, size_t item, size_t spec, const struct kv_attention_error *x,
                          struct kv_error *e) {
    (void)self, (void)item, (void)spec, (void)x, (void)e;
    free(kv_alloc(1, 1));
    return 0;
}

// How a story replays: three specs, two of which read tables.
static int replay(struct world *w, enum kv_mode mode,
                  int (*how)(struct kv_replay *r, struct kv_error *e), struct kv_error *e) {
    static const char *const texts[] = {"static:bits=4@sym", "oracle:bits=5@sym", "h2o@asym"};
    struct kv_replay_spec specs[3] = {{0}};
    struct kv_replay r = {.trace = w->trace,
                          .model = w->model,
                          .specs = specs,
                          .n_specs = mode == KV_INLINE ? 3 : 1,
                          .mode = mode,
                          .quiet = true,
                          .n_items = 2,
                          .take = take};
    int rc = 0;
    for (size_t i = 0; i < 3 && rc == 0; i++)
        rc = kv_replay_spec_open(&specs[i], texts[i], &w->setting, 1, e);
    if (rc == 0) rc = kv_replay_open_tables(&r, KV_TABLE_ISO, 2, e);
    if (rc == 0) rc = how(&r, e);
    kv_replay_close_tables(&r);
    for (size_t i = 0; i < 3; i++) kv_replay_spec_close(&specs[i]);
    return rc;
}

static int exact(struct kv_replay *r, struct kv_error *e) {
    return kv_replay_exact(r, 2, e);
}
static int fisher(struct kv_replay *r, struct kv_error *e) {
    return kv_replay_fisher(r, KV_TABLE_ISO, 2, e);
}
static int attention(struct kv_replay *r, struct kv_error *e) {
    return kv_replay_attention(r, 2, take_attention, NULL, e);
}

static int replay_inline(struct world *w, struct kv_error *e) {
    return replay(w, KV_INLINE, exact, e);
}
static int replay_requantized(struct world *w, struct kv_error *e) {
    return replay(w, KV_REQUANT, exact, e);
}
static int replay_by_fisher(struct world *w, struct kv_error *e) {
    return replay(w, KV_INLINE, fisher, e);
}
static int replay_attention(struct world *w, struct kv_error *e) {
    return replay(w, KV_INLINE, attention, e);
}

static int write_store(struct world *w, struct kv_store *s, struct kv_error *e) {
    long long trace, run;
    struct kv_choice_outcome choice = {.logprob = -1, .tokens = 1, .chars = 1, .bytes = 1};
    int rc = kv_store_trace(s, kv_trace_info(w->trace), kv_trace_item, w->trace, &trace, e);
    if (rc == 0)
        rc = kv_store_run(s, &(struct kv_run_key){.trace = trace, .spec = "none", .policy = "none"},
                          &run, e);
    for (uint32_t i = 0; i < 3 && rc == 0; i++) {
        const struct kv_outcome o = {.n_choices = 1, .choice = &choice, .n_scored = 1};
        rc = kv_store_put(s, run, i, &o, e);
    }
    if (rc == 0) rc = kv_store_put_timing(s, run, 1, 1, 3, e);
    return rc ? rc : kv_store_flush(s, e);
}

static int read_store(struct kv_store *s, struct kv_error *e) {
    struct kv_summary *rows;
    struct kv_item_result *items = NULL;
    struct kv_choice_result *choices = NULL;
    struct kv_redraw_result *redraws = NULL;
    size_t n, n_items = 0, n_choices = 0, n_redraws = 0;
    int rc = kv_store_summaries(s, NULL, &rows, &n, e);
    if (rc == 0) rc = kv_store_items(s, rows[0].run_group, &items, &n_items, e);
    if (rc == 0) rc = kv_store_choices(s, rows[0].run_group, &choices, &n_choices, e);
    if (rc == 0) rc = kv_store_redraws(s, rows[0].run_group, &redraws, &n_redraws, e);
    if (rc == 0 && (n != 1 || n_items != 3 || n_choices != 3 || n_redraws != 3))
        rc = kv_fail(e, KV_EFAIL, "", "%zu rows, %zu items", n, n_items);
    kv_choice_results_free(choices, n_choices);
    kv_item_results_free(items, n_items);
    kv_summaries_free(rows, n);
    free(redraws);
    return rc;
}

// The same handle does it all again after a failure, so that nothing stays locked or half-written.
static int keep_results(struct world *w, struct kv_error *e) {
    struct kv_store *s;
    struct kv_error ignored;
    unlink(w->db);
    int rc = kv_store_open(&s, w->db, KV_STORE_CREATE, e);
    if (rc) return rc;
    rc = write_store(w, s, e);
    if (rc == 0) rc = read_store(s, e);
    if (rc == KV_ENOMEM) {
        assert_int_equal(write_store(w, s, &ignored), 0);
        assert_int_equal(read_store(s, &ignored), 0);
    }
    int closed = kv_store_close(s, &ignored);
    return rc ? rc : closed;
}

static int sweep_into(struct world *w, const char *db, struct kv_error *e) {
    static const char *const specs[] = {"static:bits={2,4}@sym", "shuffle(static:bits=4)@sym"};
    struct kv_sweep_options o = kv_sweep_defaults();
    struct kv_sweep *s;
    o.trace = w->recording, o.model = w->gguf, o.db = db;
    o.specs = specs, o.n_specs = 2;
    o.redraws = 2, o.jobs = 2;
    int rc = kv_sweep_open(&s, &o, e);
    if (rc == 0) rc = kv_sweep_run(s, e);
    if (rc == KV_ENOMEM && s) { // the same sweep goes on where it stopped
        struct kv_error again = {0};
        assert_int_equal(kv_sweep_run(s, &again), 0);
    }
    kv_sweep_close(s);
    return rc;
}

static int sweep(struct world *w, struct kv_error *e) {
    unlink(w->db);
    return sweep_into(w, w->db, e);
}

static int find_frontier(struct world *w, struct kv_error *e) {
    const struct kv_rows_options how = {.db = w->swept, .n_contexts = 1, .context = {128}};
    struct kv_rows rows;
    struct kv_store *s;
    struct kv_front front = {0};
    const struct kv_row *all[3];
    int rc = kv_rows_open(&rows, &s, &how, e);
    if (rc == 0) rc = kv_rows_sort(&rows, "kl", e);
    for (size_t i = 0; i < rows.n && i < 3; i++) all[i] = &rows.row[i];
    if (rc == 0)
        rc = kv_front_find(&front, s, all, rows.n, &kv_front_values[0], &kv_front_costs[0], 0, 1,
                           20, e);
    kv_front_fini(&front);
    kv_rows_fini(&rows);
    kv_store_abandon(s);
    return rc;
}

static int price(struct world *w, struct kv_error *e) {
    struct kv_device *d;
    struct kv_runs *runs = NULL;
    (void)w;
    int rc = kv_device_open(&d, "h100-135m", e);
    char *text = rc ? NULL : kv_device_text(d);
    if (rc == 0 && !text) rc = kv_fail(e, KV_ENOMEM, "", "out of memory: no text");
    if (rc == 0) rc = kv_runs_open(&runs, "sim/cost/devices/h100-135m.json", e);
    free(text);
    kv_runs_free(runs);
    kv_device_free(d);
    return rc;
}

// ---- tests ----------------------------------------------------------------------------

#define TEST(story)                                                                                \
    static void story##_with_no_memory(void **state) {                                             \
        fails_anywhere(*state, story);                                                             \
    }
TEST(open_specs)
TEST(open_model)
TEST(record)
TEST(replay_inline)
TEST(replay_requantized)
TEST(replay_by_fisher)
TEST(replay_attention)
TEST(keep_results)
TEST(sweep)
TEST(find_frontier)
TEST(price)

// A model that lies in a file, so that it can be opened for the recording that is made of it.
static int write_model(const char *path, struct kv_error *e) {
    struct kv_text gguf = {0};
    struct kv_model *m = tiny_model();
    m->order = KV_ORDER_GGML;
    build_gguf(&gguf, m, &gguf_f32);
    int rc = kv_write_file(path, gguf.s, gguf.n, e);
    free(gguf.s);
    kv_model_close(m);
    return rc;
}

static int setup(void **state) {
    static struct world w = {.dir = "/tmp/kvsim-memory-XXXXXX"};
    struct kv_error e = {0};
    if (!mkdtemp(w.dir)) return -1;
    snprintf(w.gguf, sizeof w.gguf, "%s/model.gguf", w.dir);
    snprintf(w.recording, sizeof w.recording, "%s/trace", w.dir);
    snprintf(w.db, sizeof w.db, "%s/results.db", w.dir);
    snprintf(w.swept, sizeof w.swept, "%s/swept.db", w.dir);
    snprintf(w.copy, sizeof w.copy, "%s/copy", w.dir);
    kv_set_verbosity(-1);
    int rc = write_model(w.gguf, &e);
    if (rc == 0) rc = kv_model_open(&w.model, w.gguf, KV_WEIGHTS_F32, &e);
    if (rc == 0) rc = record_into(w.model, w.recording, 3, &e);
    if (rc == 0) rc = kv_trace_open(&w.trace, w.recording, &e);
    if (rc == 0) w.setting = kv_trace_setting(kv_trace_info(w.trace));
    if (rc == 0) rc = sweep_into(&w, w.swept, &e);
    if (rc) print_error("%s: %s\n", e.where, e.msg);
    *state = &w;
    return rc;
}

static int teardown(void **state) {
    struct world *w = *state;
    kv_trace_close(w->trace);
    kv_model_close(w->model);
    tiny_remove(w->dir);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_specs_with_no_memory),
        cmocka_unit_test(open_model_with_no_memory),
        cmocka_unit_test(record_with_no_memory),
        cmocka_unit_test(replay_inline_with_no_memory),
        cmocka_unit_test(replay_requantized_with_no_memory),
        cmocka_unit_test(replay_by_fisher_with_no_memory),
        cmocka_unit_test(replay_attention_with_no_memory),
        cmocka_unit_test(keep_results_with_no_memory),
        cmocka_unit_test(sweep_with_no_memory),
        cmocka_unit_test(find_frontier_with_no_memory),
        cmocka_unit_test(price_with_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
