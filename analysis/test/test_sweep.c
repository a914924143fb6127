// SPDX-License-Identifier: Apache-2.0
// Sweeps asked for by their options, on a small random model.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "analysis/studies/sweep.h"
#include "analysis/test/tiny_study.h"
#include "sim/store/store.h"

enum { ITEMS = 3 };
static struct tiny_study tiny;

static int set_up(void **state) {
    (void)state;
    return tiny_study_open(&tiny, KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_Q | KV_KEEP_SENS, ITEMS);
}

static int tear_down(void **state) {
    (void)state;
    tiny_study_close(&tiny);
    return 0;
}

static struct kv_sweep_options options(const char *const *specs, size_t n) {
    struct kv_sweep_options o = kv_sweep_defaults();
    o.trace = tiny.trace;
    o.model = tiny.model;
    o.specs = specs;
    o.n_specs = n;
    return o;
}

// A sweep that is run, with its lines; ends the program when it cannot be.
static struct kv_sweep *run(const struct kv_sweep_options *o, const struct kv_sweep_line **lines,
                            size_t *n) {
    struct kv_error e = {0};
    struct kv_sweep *s;
    if (kv_sweep_open(&s, o, &e) || kv_sweep_run(s, &e)) {
        fprintf(stderr, "%s: %s\n", e.where, e.msg);
        exit(1);
    }
    *lines = kv_sweep_lines(s, n);
    return s;
}

static void a_sweep_has_a_line_for_each_spec_fidelity_and_mode(void **state) {
    (void)state;
    const char *specs[] = {"static:bits={3,8}@sym", "static:k=8,v=8@sym", "none"};
    struct kv_sweep_options o = options(specs, 3);
    const struct kv_sweep_line *line;
    size_t n, n_specs;
    o.fisher = o.attention = true;
    struct kv_sweep *s = run(&o, &line, &n);
    const struct kv_replay_spec *spec = kv_sweep_specs(s, &n_specs);
    assert_int_equal(n_specs, 3); // 8 bits are named twice
    assert_int_equal(n, 9);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(line[i].spec, i % 3);
        assert_int_equal(line[i].fidelity, (enum kv_fidelity)(i / 3));
        assert_int_equal(line[i].mode, KV_INLINE);
        assert_int_equal(line[i].n, ITEMS);
        assert_int_equal(isnan(line[i].kl_nats), i >= 6);
        assert_int_equal(isnan(line[i].attention.output), i < 6);
    }
    assert_int_equal(strncmp(spec[0].canonical, "static:k=3,v=3@sym", 18), 0);
    assert_true(line[0].kl_nats > line[1].kl_nats && line[1].kl_nats > line[2].kl_nats);
    assert_true(line[0].allocated_bits > 3 && line[0].allocated_bits < line[1].allocated_bits);
    assert_true(line[6].attention.output > line[7].attention.output);
    kv_sweep_close(s);
}

static void lines_do_not_depend_on_the_number_of_threads(void **state) {
    (void)state;
    const char *specs[] = {"random:bits=2/4/8,seed={1,2,3}@sym"};
    struct kv_sweep_options one = options(specs, 1), three = one;
    const struct kv_sweep_line *a, *b;
    size_t n, m;
    one.attention = three.attention = true;
    three.jobs = 3;
    struct kv_sweep *s = run(&one, &a, &n), *t = run(&three, &b, &m);
    assert_int_equal(n, 6);
    assert_int_equal(m, n);
    for (size_t i = 0; i < n; i++) {
        assert_memory_equal(&a[i].attention, &b[i].attention, sizeof a[i].attention);
        if (a[i].fidelity == KV_ATTENTION) continue;
        assert_true(a[i].kl_nats == b[i].kl_nats && a[i].acc == b[i].acc);
        assert_true(a[i].effective_bits == b[i].effective_bits);
    }
    kv_sweep_close(s);
    kv_sweep_close(t);
}

static void count(void *listener, size_t spec, size_t item, enum kv_fidelity fidelity,
                  enum kv_mode mode, const struct kv_outcome *o) {
    (void)spec, (void)item, (void)fidelity, (void)mode, (void)o;
    ++*(size_t *)listener;
}

static void what_the_store_holds_is_not_run_again(void **state) {
    (void)state;
    const char *specs[] = {"static:bits={4,8}@sym", "static:bits=6@sym"};
    struct kv_sweep_options o = options(specs, 1);
    const struct kv_sweep_line *line;
    size_t n, heard = 0;
    char *db = file_in(tiny.dir, "held.db");
    o.db = db;
    o.items = (struct kv_item_range){1, 2};
    o.take = count;
    o.listener = &heard;
    kv_sweep_close(run(&o, &line, &n));
    assert_int_equal(heard, 4);
    o.n_specs = 2;
    struct kv_sweep *s = run(&o, &line, &n);
    assert_int_equal(heard, 6);
    assert_int_equal(n, 1);
    assert_int_equal(line[0].spec, 2);
    kv_sweep_close(s);
    free(db);
}

static void a_width_not_offered_is_skipped_in_an_expansion_and_refused_alone(void **state) {
    (void)state;
    const char *pair[] = {"static:bits={2,4}@q4_0"}, *alone[] = {"static:bits=2@q4_0"};
    struct kv_sweep_options o = options(pair, 1);
    struct kv_error e = {0};
    struct kv_sweep *s;
    size_t n;
    assert_int_equal(kv_sweep_open(&s, &o, &e), 0);
    kv_sweep_specs(s, &n);
    assert_int_equal(n, 1);
    kv_sweep_close(s);
    o.specs = alone;
    assert_int_equal(kv_sweep_open(&s, &o, &e), KV_ENOTOFFERED);
    assert_null(s);
    assert_string_equal(e.msg, "format q4_0 does not offer 2 bits; it offers 4/16");
}

// ---- refusals -------------------------------------------------------------------------

static void unset_size(struct kv_sweep_options *o) {
    o->struct_bytes = 0;
}
static void no_trace(struct kv_sweep_options *o) {
    o->trace = NULL;
}
static void no_specs(struct kv_sweep_options *o) {
    o->n_specs = 0;
}
static void no_modes(struct kv_sweep_options *o) {
    o->n_modes = 0;
}
static void no_form(struct kv_sweep_options *o) {
    o->form = (enum kv_form)(KV_FORM_CHANNEL + 1);
}
static void no_redraws(struct kv_sweep_options *o) {
    o->redraws = 0;
}
static void no_jobs(struct kv_sweep_options *o) {
    o->jobs = 0;
}
static void no_fidelity(struct kv_sweep_options *o) {
    o->exact = false;
}
static void closed_fisher(struct kv_sweep_options *o) {
    o->fisher = true;
    o->feedback = KV_FEEDBACK_CLOSED;
}
static void no_model(struct kv_sweep_options *o) {
    o->model = NULL;
}
static void items_beyond(struct kv_sweep_options *o) {
    o->items = (struct kv_item_range){1, ITEMS};
}

static void wrong_options_are_refused_by_the_name_of_the_field(void **state) {
    (void)state;
    static const struct {
        void (*spoil)(struct kv_sweep_options *o);
        const char *field;
    } wrong[] = {{unset_size, "struct_bytes"},
                 {no_trace, "trace"},
                 {no_specs, "specs"},
                 {no_modes, "mode"},
                 {no_form, "form"},
                 {no_redraws, "redraws"},
                 {no_jobs, "jobs"},
                 {no_fidelity, "fidelity"},
                 {closed_fisher, "feedback"},
                 {no_model, "model"},
                 {items_beyond, "items"}};
    const char *specs[] = {"static:bits=4@sym"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct kv_sweep_options o = options(specs, 1);
        struct kv_error e = {0};
        struct kv_sweep *s;
        wrong[i].spoil(&o);
        assert_int_equal(kv_sweep_open(&s, &o, &e), KV_EUSAGE);
        assert_null(s);
        assert_string_equal(e.where, wrong[i].field);
    }
}

// Fisher's divergence of the first line, under a form; *named: the form that the store says.
static double predicted(const char *trace, enum kv_form form, enum kv_form *named) {
    const char *specs[] = {"static:bits=4@sym"};
    struct kv_sweep_options o = options(specs, 1);
    const struct kv_sweep_line *line;
    struct kv_store *store;
    struct kv_summary *rows;
    struct kv_error e;
    size_t n, n_rows;
    char *db = file_in(tiny.dir, "forms.db");
    o.trace = trace;
    o.db = db;
    o.exact = false;
    o.fisher = true;
    o.form = form;
    struct kv_sweep *s = run(&o, &line, &n);
    double kl = line[0].kl_nats;
    kv_sweep_close(s);
    struct kv_store_filter all = {.fidelities = 1u << KV_FISHER};
    if (kv_store_open(&store, db, KV_STORE_READ, &e) ||
        kv_store_summaries(store, &all, &rows, &n_rows, &e) || kv_store_close(store, &e))
        fail_msg("%s: %s", e.where, e.msg);
    assert_int_equal(n_rows, 1);
    *named = rows[0].form;
    kv_summaries_free(rows, n_rows);
    unlink(db);
    free(db);
    return kl;
}

static void damage_has_the_finest_form_that_the_trace_can_give(void **state) {
    (void)state;
    enum kv_form form;
    struct kv_error e;
    double iso = predicted(tiny.trace, KV_FORM_ISO, &form);
    assert_int_equal(form, KV_FORM_ISO);
    double channel = predicted(tiny.trace, KV_FORM_CHANNEL, &form);
    assert_int_equal(form, KV_FORM_CHANNEL);
    assert_true(channel > 0 && channel != iso);
    assert_true(predicted(tiny.trace, KV_FORM_NONE, &form) == channel);
    assert_int_equal(form, KV_FORM_CHANNEL);
    struct tiny_study old = tiny;
    old.trace = file_in(tiny.dir, "old.trace");
    assert_int_equal(tiny_study_record(&old, KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_SENS, ITEMS, &e),
                     0);
    tiny_forget_channels(old.trace);
    assert_true(predicted(old.trace, KV_FORM_NONE, &form) == iso);
    assert_int_equal(form, KV_FORM_ISO);
    free(old.trace);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sweep_has_a_line_for_each_spec_fidelity_and_mode),
        cmocka_unit_test(lines_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(what_the_store_holds_is_not_run_again),
        cmocka_unit_test(a_width_not_offered_is_skipped_in_an_expansion_and_refused_alone),
        cmocka_unit_test(damage_has_the_finest_form_that_the_trace_can_give),
        cmocka_unit_test(wrong_options_are_refused_by_the_name_of_the_field),
    };
    return cmocka_run_group_tests_name("sweep", tests, set_up, tear_down);
}
