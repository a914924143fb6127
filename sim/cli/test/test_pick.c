// SPDX-License-Identifier: Apache-2.0
// kvsim pick on a made store: who keeps a bound, at what cost, and what is said of it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <jansson.h>

#include "analysis/studies/pick.h"
#include "sim/cli/test/made_store.h"

// Divergences are 0.035 (4 bits) and 0.0105 (k8v4) within a tenth, on 200 items.
static int pick(const struct fixture *f, struct kv_pick_options o, struct kv_picks *p) {
    struct kv_error e;
    o.db = f->db;
    return kv_pick_run(p, &o, &e);
}

static void the_fastest_that_keeps_the_bound_is_named_first(void **state) {
    static const struct {
        double kl;
        size_t n_keeping;
        const char *first;
    } expected[] = {{0.05, 3, "static:bits=4@asym:group=32"},
                    {0.02, 2, "static:k=8,v=4@asym:group=32"},
                    {0.001, 1, "none"}};
    for (size_t i = 0; i < 3; i++) {
        struct kv_pick_options o = kv_pick_defaults();
        struct kv_picks p;
        o.kl_most = expected[i].kl;
        assert_int_equal(pick(*state, o, &p), 0);
        assert_int_equal(p.n, 1);
        assert_int_equal(p.at[0].n_keeping, expected[i].n_keeping);
        assert_string_equal(p.at[0].row[0].row->label, expected[i].first);
        for (size_t k = 0; k < p.at[0].n; k++) {
            const struct kv_pick_row *r = &p.at[0].row[k];
            assert_int_equal(r->keeps, k < p.at[0].n_keeping);
            assert_int_equal(r->keeps, r->kl.interval.high <= o.kl_most);
            if (k && r->keeps) assert_true(r->ms >= p.at[0].row[k - 1].ms);
        }
        kv_pick_fini(&p);
    }
}

// A mean below the bound is not enough: its interval must end below it.
static void the_upper_end_decides_not_the_mean(void **state) {
    struct kv_pick_options o = kv_pick_defaults();
    struct kv_picks p;
    o.kl_most = 1;
    assert_int_equal(pick(*state, o, &p), 0);
    struct kv_mean kl = {0};
    for (size_t k = 0; k < p.at[0].n; k++)
        if (strcmp(p.at[0].row[k].row->label, "static:bits=4@asym:group=32") == 0)
            kl = p.at[0].row[k].kl;
    kv_pick_fini(&p);
    assert_true(kl.interval.high > kl.mean);
    for (int above = 0; above < 2; above++) {
        o.kl_most = above ? kl.interval.high * 1.0001 : (kl.mean + kl.interval.high) / 2;
        assert_int_equal(pick(*state, o, &p), 0);
        assert_int_equal(p.at[0].n_keeping, above ? 3 : 2);
        kv_pick_fini(&p);
    }
    // Four policies looked at together need wider intervals than each alone.
    o.kl_most = kl.interval.high * 1.0001;
    o.together = true;
    assert_int_equal(pick(*state, o, &p), 0);
    assert_int_equal(p.at[0].n_keeping, 2);
    kv_pick_fini(&p);
}

static void bytes_bound_and_order(void **state) {
    struct kv_pick_options o = kv_pick_defaults();
    struct kv_picks p;
    o.context = 1000;
    o.smallest = true;
    o.bytes_most = 1e12;
    assert_int_equal(pick(*state, o, &p), 0);
    assert_int_equal(p.at[0].n_keeping, p.at[0].n);
    for (size_t k = 1; k < p.at[0].n; k++)
        assert_true(p.at[0].row[k].bytes >= p.at[0].row[k - 1].bytes);
    double least = p.at[0].row[0].bytes;
    assert_true(least == p.at[0].row[0].row->s.bytes_per_token * 1000);
    kv_pick_fini(&p);
    o.bytes_most = least;
    assert_int_equal(pick(*state, o, &p), 0);
    assert_int_equal(p.at[0].n_keeping, 1);
    kv_pick_fini(&p);
}

static void a_bound_that_nobody_keeps_names_the_nearest(void **state) {
    struct kv_pick_options o = kv_pick_defaults();
    struct kv_picks p;
    o.acc_least = 0.99;
    assert_int_equal(pick(*state, o, &p), 0);
    assert_int_equal(p.n_answered, 0);
    assert_non_null(strstr(p.at[0].sentence, "none of 4 exactly replayed policies keeps accuracy "
                                             "of at least 0.99"));
    for (size_t k = 1; k < p.at[0].n; k++)
        assert_true(p.at[0].row[k].worst >= p.at[0].row[k - 1].worst);
    char *name = kv_format_text("the nearest is %s: ", p.at[0].row[0].row->label);
    assert_non_null(strstr(p.at[0].sentence, name));
    free(name);
    kv_pick_fini(&p);
    expect(*state, "pick --db", 2, "kvsim: ");
    char *line = kv_format_text("pick --db %s --min-acc 0.99", ((struct fixture *)*state)->db);
    expect(*state, line, 1, "the nearest is ");
    free(line);
}

static void the_sentence_says_costs_and_what_is_not_known(void **state) {
    static const char *const words[] = {
        "static:bits=4@asym:group=32 is the fastest of 3 that keep KL up to 0.05 nats a scored "
        "token (95 % confidence), among 4 exactly replayed: KL 0.0",
        " on 200 items; at 100000 tokens its cache takes ",
        "the latency model errs by ",
        "; next stands static:k=8,v=4@asym:group=32, KL 0.01",
        "Not known: the quality at 100000 tokens, since it was measured at ",
        "the time there, since the device was measured at 64 to 16384 tokens",
        "whether the confidence survives the choice"};
    struct kv_pick_options o = kv_pick_defaults();
    struct kv_picks p;
    o.kl_most = 0.05;
    o.context = 100000;
    assert_int_equal(pick(*state, o, &p), 0);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(p.at[0].sentence, words[i]))
            fail_msg("no '%s' in: %s", words[i], p.at[0].sentence);
    kv_pick_fini(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fastest_that_keeps_the_bound_is_named_first),
        cmocka_unit_test(the_upper_end_decides_not_the_mean),
        cmocka_unit_test(bytes_bound_and_order),
        cmocka_unit_test(a_bound_that_nobody_keeps_names_the_nearest),
        cmocka_unit_test(the_sentence_says_costs_and_what_is_not_known),
    };
    return cmocka_run_group_tests_name("pick", tests, set_up, tear_down);
}
