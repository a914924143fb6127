// SPDX-License-Identifier: Apache-2.0
// Studies that plan widths within a budget, asked for by their options, on a small random model.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "analysis/studies/headroom.h"
#include "analysis/studies/sweep.h"
#include "analysis/studies/tune.h"
#include "analysis/test/tiny_study.h"

enum { ITEMS = 4 };
static struct tiny_study tiny;

static int set_up(void **state) {
    (void)state;
    return tiny_study_open(&tiny, KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_SENS | KV_KEEP_GRAD, ITEMS);
}

static int tear_down(void **state) {
    (void)state;
    tiny_study_close(&tiny);
    return 0;
}

static void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

// ---- tune -----------------------------------------------------------------------------

static struct kv_tune_options tuning(const char *const *words, size_t n) {
    struct kv_tune_options o = kv_tune_defaults();
    o.plan.trace = tiny.trace;
    o.plan.limit = 5;
    o.model = tiny.model;
    o.words = words;
    o.n_words = n;
    return o;
}

static void finer_plans_come_first_within_budget_and_are_confirmed_on_other_items(void **state) {
    (void)state;
    const char *words[] = {"static@sym", "layerwise:by=head@sym", "layerwise@sym"};
    struct kv_tune_options o = tuning(words, 3);
    struct kv_error e = {0};
    struct kv_tune t;
    o.predict_only = true;
    must(kv_tune_run(&t, &o, &e), &e);
    assert_int_equal(t.n, 3);
    for (size_t i = 0; i < t.n; i++) {
        assert_true(t.at[i].test.cost <= 5.0001);
        assert_true(isnan(t.at[i].kl.mean) && isnan(t.at[i].acc));
        if (i) assert_true(t.at[i - 1].test.kl_nats <= t.at[i].test.kl_nats);
        // On the items that it is chosen on, a finer plan is predicted no worse than a coarser one.
        if (strncmp(t.at[i].spec, "layerwise:by=head", 17) == 0)
            for (size_t k = 0; k < t.n; k++)
                assert_true(t.at[i].train.kl_nats <= t.at[k].train.kl_nats * (1 + 1e-9));
    }
    kv_tune_fini(&t);
    o.predict_only = false;
    must(kv_tune_run(&t, &o, &e), &e);
    assert_int_equal(t.n, 3);
    for (size_t i = 0; i < t.n; i++) {
        assert_int_equal(t.at[i].kl.n, ITEMS / 2);
        assert_true(t.at[i].kl.mean > 0);
        if (i) assert_true(t.at[i - 1].kl.mean <= t.at[i].kl.mean);
    }
    kv_tune_fini(&t);
}

static void what_cannot_be_tuned_is_refused_by_the_name_of_the_field(void **state) {
    (void)state;
    const char *words[] = {"static@sym"};
    struct kv_tune_options wrong[5];
    const char *fields[] = {"method", "mean", "items", "budget", "words"};
    for (size_t i = 0; i < 5; i++) wrong[i] = tuning(words, 1);
    wrong[0].greedy = wrong[0].predict_only = true;
    wrong[1].plan.mean = KV_MEAN_ROBUST;
    wrong[2].plan.items = (struct kv_item_range){2, ITEMS};
    wrong[3].plan.unit = KV_BUDGET_MS;
    wrong[4].n_words = 0;
    for (size_t i = 0; i < 5; i++) {
        struct kv_error e = {0};
        struct kv_tune t;
        assert_int_equal(kv_tune_run(&t, &wrong[i], &e), KV_EUSAGE);
        assert_string_equal(e.where, fields[i]);
        kv_tune_fini(&t);
    }
}

// ---- headroom -------------------------------------------------------------------------

static struct kv_headroom_options headroom(const char *db) {
    struct kv_headroom_options o = kv_headroom_defaults();
    o.plan.trace = tiny.trace;
    o.plan.train = (struct kv_item_range){0, 1};
    o.plan.jobs = 2;
    o.model = tiny.model;
    o.bits[0] = 4;
    o.n_bits = 1;
    o.db = db;
    return o;
}

static void every_freedom_keeps_the_budget_of_uniform_storage_on_the_other_items(void **state) {
    (void)state;
    char *db = file_in(tiny.dir, "h.db");
    struct kv_headroom_options o = headroom(db);
    struct kv_error e = {0};
    struct kv_headroom h;
    must(kv_headroom_run(&h, &o, &e), &e);
    assert_int_equal(h.n, KV_N_FREEDOMS - 2); // nothing is measured again in one round
    assert_int_equal(h.items.first, 1);
    assert_int_equal(h.items.n, ITEMS - 1);
    assert_true(h.at[0].freedom == kv_freedoms && h.at[0].of_uniform == 1);
    for (size_t i = 0; i < h.n; i++) {
        const struct kv_headroom_entry *x = &h.at[i];
        assert_int_equal(x->n, ITEMS - 1);
        assert_true(x->bits <= h.at[0].bits * (1 + 1e-9));
        assert_true(x->exact.mean > 0 && x->predicted > 0);
    }
    kv_headroom_fini(&h);
    free(db);
}

static void sweep(const struct kv_sweep_options *o) {
    struct kv_error e = {0};
    struct kv_sweep *s;
    must(kv_sweep_open(&s, o, &e), &e);
    must(kv_sweep_run(s, &e), &e);
    kv_sweep_close(s);
}

static void rows_of_another_setting_in_the_store_are_not_read(void **state) {
    (void)state;
    char *db = file_in(tiny.dir, "h.db");
    const char *specs[] = {"static:bits=4@asym:group=32"};
    struct kv_sweep_options other = kv_sweep_defaults();
    struct kv_headroom_options o = headroom(db);
    struct kv_error e = {0};
    struct kv_headroom before, after;
    must(kv_headroom_run(&before, &o, &e), &e);
    other.trace = tiny.trace;
    other.model = tiny.model;
    other.specs = specs;
    other.n_specs = 1;
    other.db = db;
    other.self = KV_SELF_EXACT;
    sweep(&other);
    other.modes[0] = KV_PREFILL1;
    sweep(&other);
    must(kv_headroom_run(&after, &o, &e), &e);
    assert_true(after.at[0].exact.mean == before.at[0].exact.mean);
    assert_true(after.at[0].predicted == before.at[0].predicted);
    kv_headroom_fini(&before);
    kv_headroom_fini(&after);
    free(db);
}

static void items_that_plans_are_chosen_on_are_not_judged_nor_any_without_a_model(void **state) {
    (void)state;
    char *db = file_in(tiny.dir, "never.db");
    struct kv_headroom_options o = headroom(db);
    struct kv_error e = {0};
    struct kv_headroom h;
    o.plan.items = (struct kv_item_range){0, 2};
    assert_int_equal(kv_headroom_run(&h, &o, &e), KV_EUSAGE);
    assert_string_equal(e.where, "train");
    assert_non_null(strstr(e.msg, "overlap items 0-1"));
    kv_headroom_fini(&h);
    o = headroom(db);
    o.model = NULL;
    assert_int_equal(kv_headroom_run(&h, &o, &e), KV_EUSAGE);
    assert_string_equal(e.where, "model");
    assert_int_not_equal(access(db, F_OK), 0);
    free(db);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finer_plans_come_first_within_budget_and_are_confirmed_on_other_items),
        cmocka_unit_test(what_cannot_be_tuned_is_refused_by_the_name_of_the_field),
        cmocka_unit_test(every_freedom_keeps_the_budget_of_uniform_storage_on_the_other_items),
        cmocka_unit_test(rows_of_another_setting_in_the_store_are_not_read),
        cmocka_unit_test(items_that_plans_are_chosen_on_are_not_judged_nor_any_without_a_model),
    };
    return cmocka_run_group_tests_name("plan", tests, set_up, tear_down);
}
