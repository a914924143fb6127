// SPDX-License-Identifier: Apache-2.0
// Numbers that are not finite: models, recordings and replays that overflow fp16 are refused or
// marked, and no mean counts them (issue 13, A1 and C8).
#include "sim/replay/test/tiny_trace.h"

#include "analysis/results/front.h"
#include "analysis/results/notes.h"
#include "analysis/results/pairs.h"
#include "analysis/results/rows.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/model/forward.h"
#include "traces/writer.h"

// cmocka wants the headers above before its own
#include <setjmp.h>

#include <cmocka.h>

enum { N_ITEMS = 8, KEEP = KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_Q | KV_KEEP_SENS };

static void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

static void says(const struct kv_error *e, const char *words) {
    if (!strstr(e->msg, words)) fail_msg("'%s' is wanted, not '%s'", words, e->msg);
}

// ---- a model near the edge of fp16 ----------------------------------------------------

// A layer's projection of keys (0) or values (1), times s. Scores then reach 1e5, which float32
// takes.
static void scale_projection(struct kv_model *m, size_t layer, size_t side, float s) {
    const struct kv_matrix *w = &m->layers[layer].qkv;
    size_t q = (size_t)m->shape.n_heads * m->shape.head_dim,
           kv = (size_t)m->shape.n_kv_heads * m->shape.head_dim;
    for (size_t i = (q + side * kv) * w->cols; i < (q + (side + 1) * kv) * w->cols; i++)
        (w->f32)[i] *= s;
}

static int record(const struct kv_model *m, struct tiny_trace *t, uint32_t keep,
                  struct kv_error *e) {
    struct kv_tasks *tasks;
    strcpy(t->dir, "/tmp/kvsim-tiny-XXXXXX");
    kv_set_verbosity(-1);
    assert_non_null(mkdtemp(t->dir));
    t->trace = NULL;
    must(kv_tasks_load(&tasks, "samples", e), e);
    struct kv_record_options o = {
        .dir = t->dir, .keep = keep, .n = N_ITEMS, .adjoint = tiny_adjoint, .seed = 1, .jobs = 1};
    int rc = kv_record(m, tasks, &o, e);
    kv_tasks_free(tasks);
    if (rc == 0) rc = kv_trace_open(&t->trace, t->dir, e);
    if (rc == 0) t->setting = kv_trace_setting(kv_trace_info(t->trace));
    return rc;
}

// Largest key of layer 1 of a recorded item, and of all.
static float largest_key_of(const struct tiny_trace *t, size_t i) {
    const struct kv_trace_info *in = kv_trace_info(t->trace);
    const struct kv_trace_item *it = kv_trace_item(t->trace, i);
    size_t n_kv = (size_t)in->shape.n_kv_heads * in->shape.head_dim;
    float most = 0;
    for (size_t row = 0; row < it->n_tokens; row++)
        for (size_t k = 0; k < n_kv; k++)
            most =
                fmaxf(most, fabsf(kv_f16_to_f32(it->k[(row * in->shape.n_layers + 1) * n_kv + k])));
    return most;
}

static float largest_key(const struct tiny_trace *t) {
    float most = 0;
    for (size_t i = 0; i < kv_trace_info(t->trace)->n_items; i++)
        most = fmaxf(most, largest_key_of(t, i));
    return most;
}

// What replays of one spec gave: which items were not finite, and how many were.
struct seen {
    bool odd[N_ITEMS];
    size_t n, n_odd;
    double kl;
};

static int look(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    struct seen *s = self;
    (void)spec, (void)e;
    s->n++;
    s->odd[item] = isnan(o->kl_nats);
    s->n_odd += s->odd[item];
    s->kl = o->kl_nats;
    for (int k = 0; k < KV_N_SCORERS; k++)
        if (isnan(o->kl_nats) && (o->pick[k] != -1 || o->pick_ref[k] != -1)) exit(1);
    return 0;
}

static struct seen replay(const struct tiny_trace *t, const struct kv_model *m, const char *text,
                          enum kv_mode mode, size_t first, size_t n) {
    struct kv_error e = {0};
    struct kv_replay_spec spec = tiny_spec(t, text);
    struct seen seen = {0};
    struct kv_replay r = {.trace = t->trace,
                          .model = m,
                          .specs = &spec,
                          .n_specs = 1,
                          .mode = mode,
                          .quiet = true,
                          .first_item = first,
                          .n_items = n,
                          .take = look,
                          .self = &seen};
    must(kv_replay_exact(&r, 1, &e), &e);
    kv_replay_spec_close(&spec);
    return seen;
}

// A recording of eight items of which exactly one overflows under one of two specs: layer 1's keys
// come near the edge of fp16, and coarse coding in layer 0 pushes one item's beyond it. KIVI keeps
// its newest tokens in fp16, where they become infinite; the grid saturates.
static const char overflows[] = "static:bits=2@kivi", holds[] = "static:bits=4@asym";

static void make_edge(struct tiny_trace *t, struct kv_model **model) {
    struct kv_error e = {0};
    struct kv_model *m = tiny_model();
    must(record(m, t, KV_KEEP_FINAL | KV_KEEP_KV, &e), &e);
    float edge = 65400 / largest_key(t);
    double low = 0.4, high = 1;
    for (int i = 0; i < 20; i++) {
        double share = i ? 0.5 * (low + high) : high;
        tiny_trace_close(t);
        m = (kv_model_close(m), tiny_model());
        scale_projection(m, 1, KV_KEY, (float)share * edge);
        must(record(m, t, KV_KEEP_FINAL, &e), &e);
        size_t odd = replay(t, m, overflows, KV_INLINE, 0, N_ITEMS).n_odd;
        *model = m;
        if (odd == 1) return;
        if (odd == 0)
            low = share;
        else
            high = share;
    }
    fail_msg("no share of the edge lets one item overflow");
}

// ---- replay ---------------------------------------------------------------------------

static void one_of_eight_items_overflows_under_one_of_two_formats(void **state) {
    struct tiny_trace t;
    struct kv_model *m;
    (void)state;
    make_edge(&t, &m);
    for (int mode = 0; mode < KV_N_MODES; mode++) {
        struct seen bad = replay(&t, m, overflows, (enum kv_mode)mode, 0, N_ITEMS),
                    good = replay(&t, m, holds, (enum kv_mode)mode, 0, N_ITEMS);
        assert_int_equal(N_ITEMS, bad.n);
        assert_int_equal(1, bad.n_odd);
        assert_int_equal(N_ITEMS, good.n);
        assert_int_equal(0, good.n_odd);
    }
    kv_model_close(m);
    tiny_trace_close(&t);
}

// Sweeps both into a store and reads it back.
static void a_store_marks_the_item_and_no_mean_or_comparison_counts_it(void **state) {
    struct tiny_trace t;
    struct kv_model *m;
    struct kv_error e = {0};
    (void)state;
    make_edge(&t, &m);
    struct seen bad = replay(&t, m, overflows, KV_INLINE, 0, N_ITEMS);
    size_t odd = 0;
    while (!bad.odd[odd]) odd++;
    // The sweep opens models from files alone: outcomes are put as it would.
    char *db = kv_format_text("%s/finite.db", t.dir);
    struct kv_store *s;
    long long trace, run[2];
    const char *const specs[] = {overflows, holds};
    must(kv_store_open(&s, db, KV_STORE_CREATE, &e), &e);
    must(kv_store_trace(s, kv_trace_info(t.trace), kv_trace_item, t.trace, &trace, &e), &e);
    for (int k = 0; k < 2; k++) {
        struct kv_run_key key = {.trace = trace,
                                 .spec = specs[k],
                                 .policy = "static",
                                 .format = k ? "asym" : "rotatekv",
                                 .tag = "exact",
                                 .compute = KV_COMPUTE_CPU,
                                 .seed = 1,
                                 .version = "1",
                                 .commit = "x",
                                 .cpu = "base",
                                 .blas = "none"};
        must(kv_store_run(s, &key, &run[k], &e), &e);
        for (uint32_t i = 0; i < N_ITEMS; i++) {
            const struct kv_trace_item *it = kv_trace_item(t.trace, i);
            struct kv_choice_outcome choice[8] = {{0}};
            struct kv_outcome o = {.n_choices = it->n_choices,
                                   .choice = choice,
                                   .gold = it->gold,
                                   .pick = {it->gold, it->gold, it->gold, it->gold},
                                   .pick_ref = {it->gold, it->gold, it->gold, it->gold},
                                   .n_scored = 4,
                                   .kl_nats = k ? 0.5 : 0.25,
                                   .ledger = {.effective_bits = k ? 4 : 16}};
            // An infinity that some caller hands in is stored as nothing, not as a number.
            if (k == 0 && i == odd) choice[1].logprob = -INFINITY;
            must(kv_store_put(s, run[k], i, &o, &e), &e);
        }
    }
    must(kv_store_close(s, &e), &e);
    struct kv_rows rows;
    must(kv_rows_open(&rows, &s, &(struct kv_rows_options){.db = db}, &e), &e);
    assert_int_equal(2, rows.n);
    for (size_t i = 0; i < rows.n; i++) {
        const struct kv_row *r = &rows.row[i];
        bool over = strcmp(r->s.spec, overflows) == 0;
        assert_int_equal(N_ITEMS, r->s.n_items);
        assert_int_equal(over, r->n_left_out);
        assert_int_equal(N_ITEMS - over, r->s.n_judged);
        assert_true(r->kl.mean == (over ? 0.25 : 0.5));
        assert_int_equal(N_ITEMS - over, r->kl.n);
        assert_true(r->s.acc_ref[KV_ACC] == 1);
        char *note = kv_left_out_note(r);
        assert_int_equal(over, note != NULL);
        if (over) {
            char *wanted =
                kv_format_text("1 of 8 items, whose scores or divergence are not finite (id %s)",
                               kv_trace_item(t.trace, odd)->id);
            assert_string_equal(wanted, note);
            free(wanted);
        }
        free(note);
    }
    // Pairs and frontiers leave it out on both sides.
    struct kv_item_result *a, *b;
    size_t n_a, n_b;
    struct kv_pairs j;
    must(kv_store_items(s, rows.row[0].s.run_group, &a, &n_a, &e), &e);
    must(kv_store_items(s, rows.row[1].s.run_group, &b, &n_b, &e), &e);
    kv_pairs_join(&j, a, n_a, b, n_b);
    assert_int_equal(N_ITEMS - 1, j.n);
    assert_int_equal(1, j.n_left_out);
    kv_pairs_fini(&j);
    kv_item_results_free(a, n_a);
    kv_item_results_free(b, n_b);
    const struct kv_row *both[] = {&rows.row[0], &rows.row[1]};
    struct kv_front f;
    must(kv_front_find(&f, s, both, 2, &kv_front_values[5], &kv_front_costs[0], 0, 1, 10, &e), &e);
    assert_int_equal(2, f.n);
    assert_int_equal(N_ITEMS - 1, f.n_items);
    assert_int_equal(1, f.n_left_out);
    kv_front_fini(&f);
    kv_rows_fini(&rows);
    kv_store_abandon(s);
    free(db);
    kv_model_close(m);
    tiny_trace_close(&t);
}

// ---- the head -------------------------------------------------------------------------

static void no_divergence_becomes_zero_from_nan(void **state) {
    struct kv_model *m = tiny_model();
    struct kv_scratch *s = kv_scratch_new();
    size_t h = m->shape.hidden;
    float *final = kv_alloc(3 * h, sizeof *final), *other = kv_alloc(3 * h, sizeof *other);
    struct kv_reference ref;
    (void)state;
    for (size_t i = 0; i < 3 * h; i++) final[i] = other[i] = (float)(i % 7) - 3;
    kv_head_reference(m, final, 3, s, &ref);
    const float odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < h; i++) {
            double kl[3];
            struct kv_target at = {.row = 1, .id = 2};
            other[h + i] = odd[k];
            kv_head_compare(m, &ref, other, s, kl, &at, 1, NULL);
            assert_true(kl[0] == 0 && isnan(kl[1]) && kl[2] == 0);
            assert_true(isnan(at.logprob));
            other[h + i] = final[h + i];
        }
    final[0] = NAN; // the 16-bit run's: its features too
    kv_head_reference(m, final, 3, s, &ref);
    float entropy, confidence;
    kv_reference_features(m, &ref, 0, &entropy, &confidence);
    assert_true(isnan(entropy) && isnan(confidence));
    kv_reference_features(m, &ref, 1, &entropy, &confidence);
    assert_true(isfinite(entropy) && isfinite(confidence));
    free(final);
    free(other);
    kv_scratch_free(s);
    kv_model_close(m);
}

// ---- recording ------------------------------------------------------------------------

static void a_recording_that_overflows_is_refused_with_item_layer_and_value(void **state) {
    struct kv_error e = {0};
    (void)state;
    for (size_t side = 0; side < 2; side++) {
        struct tiny_trace t;
        struct kv_model *m = tiny_model();
        scale_projection(m, 0, side, 1e7f);
        assert_int_not_equal(0, record(m, &t, KEEP, &e));
        says(&e, "item 0 (id ");
        says(&e, side ? "a value of layer 0 at token" : "a key of layer 0 at token");
        says(&e,
             "which fp16 cannot hold (up to 65504): nothing is recorded; the same command would "
             "meet it again, so no item is kept");
        // Nothing that a command would open is left.
        assert_int_not_equal(0, kv_trace_open(&t.trace, t.dir, &e));
        assert_int_equal(0, rmdir(t.dir));
        kv_model_close(m);
    }
}

// Layer 1's keys are linear in its projection: a scale between what the first item and the worst
// can bear lets items be finished before one is refused.
static void issue_13_A1_items_that_no_command_can_complete_are_not_kept(void **state) {
    struct kv_error e = {0};
    struct tiny_trace t;
    struct kv_model *m = tiny_model();
    (void)state;
    must(record(m, &t, KV_KEEP_FINAL | KV_KEEP_KV, &e), &e);
    kv_model_close(m);
    float first = largest_key_of(&t, 0), most = largest_key(&t);
    tiny_trace_close(&t);
    assert_true(most > 1.02f * first);
    m = tiny_model();
    scale_projection(m, 1, KV_KEY, 65504 / sqrtf(first * most));
    assert_int_not_equal(0, record(m, &t, KV_KEEP_FINAL | KV_KEEP_KV, &e));
    says(&e, "a key of layer 1 at token");
    says(&e, "the same command would meet it again, so no item is kept (--ids takes others)");
    assert_null(strstr(e.msg, "item 0 (id"));
    assert_int_equal(0, rmdir(t.dir)); // which is empty
    kv_model_close(m);
}

static void a_model_with_nan_in_its_head_records_nothing(void **state) {
    struct kv_error e = {0};
    struct tiny_trace t;
    struct kv_model *m = tiny_model();
    (void)state;
    (m->head.f32)[3 * m->head.cols] = NAN;
    assert_int_not_equal(0, record(m, &t, KV_KEEP_FINAL, &e));
    says(&e, "where every number must be finite");
    kv_model_close(m);
    tiny_remove(t.dir);
}

static void degenerate_models_record_traces_that_open_and_replay(void **state) {
    static const char *const names[] = {"a zero key projection", "a zero value projection",
                                        "a zero embedding", "constant projections"};
    struct kv_error e = {0};
    (void)state;
    for (size_t kind = 0; kind < sizeof names / sizeof *names; kind++) {
        struct tiny_trace t;
        struct kv_model *m = tiny_model();
        if (kind < 2) scale_projection(m, 0, kind, 0);
        float *embedding = m->embed.f32, *qkv = m->layers[0].qkv.f32;
        if (kind == 2) memset(embedding, 0, m->embed.rows * m->embed.cols * sizeof(float));
        for (size_t i = 0; kind == 3 && i < m->layers[0].qkv.rows * m->layers[0].qkv.cols; i++)
            qkv[i] = 0.01f;
        if (record(m, &t, KEEP, &e)) fail_msg("%s: %s: %s", names[kind], e.where, e.msg);
        must(kv_trace_verify(t.trace, &e), &e);
        if (kind < 2) assert_true(kv_trace_info(t.trace)->kv_norms[kind] == 0);
        struct seen seen = replay(&t, m, holds, KV_INLINE, 0, N_ITEMS);
        assert_int_equal(N_ITEMS, seen.n);
        assert_int_equal(0, seen.n_odd);
        kv_model_close(m);
        tiny_trace_close(&t);
    }
}

// ---- reading --------------------------------------------------------------------------

// A copy of the trace's first item in a folder of its own, one number of one column replaced.
static int copy_with(const struct tiny_trace *t, char *dir, const void *column, void *changed,
                     struct kv_error *e) {
    struct kv_trace_info in = *kv_trace_info(t->trace);
    struct kv_trace_item it = *kv_trace_item(t->trace, 0);
    struct kv_trace_writer *w;
    struct kv_trace *back;
    const void **fields[] = {(const void **)&it.features, (const void **)&it.next_logprob,
                             (const void **)&it.final,    (const void **)&it.score,
                             (const void **)&it.k,        (const void **)&it.v,
                             (const void **)&it.q,        (const void **)&it.sens,
                             (const void **)&it.evict};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (*fields[i] == column) *fields[i] = changed;
    in.n_items = 1;
    in.n_tokens = it.n_tokens;
    strcpy(dir, "/tmp/kvsim-odd-XXXXXX");
    assert_non_null(mkdtemp(dir));
    must(kv_trace_writer_open(&w, dir, &in, "", &it, 1, e), e);
    must(kv_trace_writer_put(w, 0, &it, 0, e), e);
    must(kv_trace_writer_close(w, true, e), e);
    int rc = kv_trace_open(&back, dir, e);
    if (rc == 0) kv_trace_close(back);
    tiny_remove(dir);
    return rc;
}

static void a_trace_with_nan_or_infinity_in_any_float_tensor_is_refused(void **state) {
    struct tiny_trace t;
    struct kv_error e = {0};
    char dir[40];
    (void)state;
    assert_int_equal(0, tiny_trace_open(&t, KEEP, 1, NULL));
    const struct kv_trace_info *in = kv_trace_info(t.trace);
    const struct kv_trace_item *it = kv_trace_item(t.trace, 0);
    size_t n = it->n_tokens, layers = in->shape.n_layers,
           n_kv = (size_t)in->shape.n_kv_heads * in->shape.head_dim;
    const struct {
        const void *column;
        size_t size, count, at; // bytes and numbers; which one changes
        const char *words;
    } cases[] = {
        {it->features, 4, n * KV_N_FEATURES, 2 * KV_N_FEATURES, "token.features at token 2"},
        {it->next_logprob, 4, n, 1, "token.next_logprob at token 1"},
        {it->final, 4, it->n_final * in->shape.hidden, 5, "final.state at token"},
        {it->score, 8, it->n_choices, 1, "choice.score at choice 1"},
        {it->k, 2, n * layers * n_kv, (3 * layers + 1) * n_kv, "k at layer 1, token 3"},
        {it->v, 2, n * layers * n_kv, 3 * layers * n_kv, "v at layer 0, token 3"},
        {it->q, 2, n * layers * 2 * n_kv, 0, "q at layer 0, token 0"},
        {it->sens, 4, n * kv_cells(&in->shape), 0, "sensitivity at layer 0, token 0"},
        {it->evict, 4, n * kv_cells(&in->shape) / 2, 0, "sensitivity.evict at layer 0, token 0"},
    };
    const double odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < 3; k++) {
            char *changed = malloc(cases[i].count * cases[i].size);
            float f = (float)odd[k];
            uint16_t h = kv_f32_to_f16(f);
            const void *bits = cases[i].size == 8   ? (const void *)&odd[k]
                               : cases[i].size == 4 ? (const void *)&f
                                                    : (const void *)&h;
            memcpy(changed, cases[i].column, cases[i].count * cases[i].size);
            memcpy(changed + cases[i].at * cases[i].size, bits, cases[i].size);
            assert_int_not_equal(0, copy_with(&t, dir, cases[i].column, changed, &e));
            says(&e, cases[i].words);
            says(&e, "item 0 (id ");
            free(changed);
        }
    assert_int_equal(0, copy_with(&t, dir, NULL, NULL, &e)); // as it was, it opens
    tiny_trace_close(&t);
}

#define TEST(number, f)                                                                            \
    { "issue 13 " number ": " #f, f, NULL, NULL, NULL }

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST("A1", one_of_eight_items_overflows_under_one_of_two_formats),
        TEST("A1", a_store_marks_the_item_and_no_mean_or_comparison_counts_it),
        TEST("A1", no_divergence_becomes_zero_from_nan),
        TEST("A1", a_recording_that_overflows_is_refused_with_item_layer_and_value),
        TEST("A1", issue_13_A1_items_that_no_command_can_complete_are_not_kept),
        TEST("A1", a_model_with_nan_in_its_head_records_nothing),
        TEST("A1", a_trace_with_nan_or_infinity_in_any_float_tensor_is_refused),
        TEST("C8", degenerate_models_record_traces_that_open_and_replay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
