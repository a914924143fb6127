// SPDX-License-Identifier: Apache-2.0
// Survival curves against a published example; what a store of generations adds up to against sums
// by hand; damaged rows are refused.
#include <setjmp.h>
#include <stdlib.h>
#include <unistd.h>

#include "analysis/studies/generation.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"

// cmocka wants the headers above before its own
#include <cmocka.h>

// Weeks of remission of 21 patients on 6-MP, some watched no longer (Freireich et al., Blood
// 21:699, 1963; tabled with its curve in Klein and Moeschberger, Survival Analysis, 2003, table
// 4.1B).
static void survival_is_that_of_a_published_example(void **state) {
    static const double weeks[] = {6,  6,  6,  6,  7,  9,  10, 10, 11, 13, 16,
                                   17, 19, 20, 22, 23, 25, 32, 32, 34, 35};
    static const bool back[] = {1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0};
    static const struct {
        double week, share;
        size_t at_risk;
    } known[] = {{6, 0.8571, 21},  {7, 0.8067, 17}, {10, 0.7529, 15}, {13, 0.6902, 12},
                 {16, 0.6275, 11}, {22, 0.5378, 7}, {23, 0.4482, 6}};
    struct kv_survival *s = kv_survival_new(weeks, back, 21, 0.95);
    (void)state;
    assert_int_equal(s->n_points, 7);
    for (size_t i = 0; i < 7; i++) {
        assert_true(fabs(s->point[i].time - known[i].week) < 1e-12);
        assert_int_equal(s->point[i].at_risk, known[i].at_risk);
        assert_true(fabs(s->point[i].share - known[i].share) < 5e-5);
    }
    // By hand: share 0.7529, Greenwood's standard error 0.0963.
    double theta = 1.959964 * 0.0963486 / (0.752941 * -log(0.752941));
    assert_true(fabs(s->point[2].interval.low - pow(0.752941, exp(theta))) < 1e-4);
    assert_true(fabs(s->point[2].interval.high - pow(0.752941, exp(-theta))) < 1e-4);
    assert_true(fabs(kv_survival_quantile(s, 0.5) - 23) < 1e-12);
    assert_true(isinf(kv_survival_quantile(s, 0.3)));
    assert_true(fabs(kv_survival_at(s, 5).share - 1) < 1e-12);
    assert_true(fabs(kv_survival_at(s, 21).share - 0.6275) < 5e-5);
    assert_int_equal(kv_survival_at(s, 21).at_risk, 7);
    assert_true(isnan(kv_survival_at(s, 36).share)); // nobody was watched so long
    kv_survival_free(s);
}

static void a_curve_of_nothing_or_of_one_kind_has_honest_ends(void **state) {
    static const double times[] = {3, 3, 3, 3};
    static const bool all[] = {1, 1, 1, 1}, none[] = {0, 0, 0, 0};
    (void)state;
    struct kv_survival *s = kv_survival_new(times, all, 4, 0.95);
    struct kv_survival_point p = kv_survival_at(s, 10);
    assert_true(p.share == 0 && p.interval.low == 0 && p.interval.high > 0.4);
    kv_survival_free(s);
    // The last of 20 is alone at risk, and the interval is that of 0 of 20; 0 of 17 without 3.
    double one_by_one[20];
    bool each[20];
    for (size_t i = 0; i < 20; i++) {
        one_by_one[i] = (double)i;
        each[i] = true;
    }
    for (int lost = 0; lost < 2; lost++) {
        for (size_t i = 0; i < 3 && lost; i++) each[i] = false;
        s = kv_survival_new(one_by_one, each, 20, 0.95);
        p = kv_survival_at(s, 19);
        assert_true(p.share == 0);
        assert_true(fabs(p.interval.high - kv_clopper_pearson(0, lost ? 17 : 20, 0.95).high) <
                    1e-12);
        kv_survival_free(s);
    }
    s = kv_survival_new(times, none, 4, 0.95);
    p = kv_survival_at(s, 3);
    assert_true(p.share == 1 && p.interval.high == 1 && p.interval.low < 0.6);
    kv_survival_free(s);
    s = kv_survival_new(NULL, NULL, 0, 0.95);
    assert_int_equal(s->n_points, 0);
    assert_true(isnan(kv_survival_at(s, 1).share));
    kv_survival_free(s);
}

// ---- a store --------------------------------------------------------------------------

enum { TOKENS = 20, PROMPTS = 30 };
static char db[64];

static struct kv_generation_key key_of(const char *spec) {
    return (struct kv_generation_key){.spec = spec,
                                      .policy = "static",
                                      .format = "sym",
                                      .tag = "baseline",
                                      .label = spec,
                                      .model_name = "m",
                                      .model_digest = "d",
                                      .weights_as = "f32",
                                      .task_name = "text",
                                      .task_prompt = "",
                                      .task_digest = "t",
                                      .window_tokens = 64,
                                      .tokens = TOKENS,
                                      .ends = true,
                                      .stop = "",
                                      .seed = 1,
                                      .version = "0",
                                      .commit = "c",
                                      .cpu = "base",
                                      .compute = "cpu",
                                      .blas = ""};
}

// Prompt i parts at token i / 2 (15 and later: never); from there the own path diverges by `grows`
// times what is forced, 0.25 nats everywhere.
static void fill(struct kv_store *s, const char *spec, double grows, bool breaks) {
    const struct kv_generation_key key = key_of(spec);
    long long id;
    struct kv_error e;
    assert_int_equal(kv_store_generation(s, &key, &id, &e), 0);
    for (uint32_t i = 0; i < PROMPTS; i++) {
        uint32_t reference[TOKENS], own[TOKENS];
        double own_kl[TOKENS], forced_kl[TOKENS];
        struct kv_generated_row row = {.key = 1000 + i,
                                       .id = (char *)"x",
                                       .n_prompt = 64,
                                       .n_reference = TOKENS,
                                       .n_own = TOKENS,
                                       .reference = reference,
                                       .own = own,
                                       .own_kl = own_kl,
                                       .forced_kl = forced_kl,
                                       .equal = i < 15 ? i / 2 : TOKENS,
                                       .parted = i < 15};
        for (uint32_t t = 0; t < TOKENS; t++) {
            reference[t] = t;
            own[t] = t < row.equal ? t : 99;
            forced_kl[t] = 0.25;
            own_kl[t] = t <= row.equal ? 0.25 : 0.25 * grows;
        }
        if (breaks && i == 3) {
            row.n_own = row.equal;
            row.broken = true;
            forced_kl[5] = NAN;
        }
        assert_int_equal(kv_store_put_generated(s, id, &row, &e), 0);
    }
}

static int set_up(void **state) {
    struct kv_store *s;
    struct kv_error e;
    (void)state;
    kv_set_verbosity(-1);
    strcpy(db, "/tmp/kvsim-generation-XXXXXX");
    if (!mkdtemp(db)) return 1;
    strcat(db, "/g.db");
    if (kv_store_open(&s, db, KV_STORE_CREATE, &e)) return 1;
    fill(s, "static:bits=4", 1, false);
    fill(s, "static:bits=3", 3, false);
    fill(s, "static:bits=2", 2, true);
    return kv_store_close(s, &e);
}

static int tear_down(void **state) {
    (void)state;
    unlink(db);
    db[strlen(db) - 5] = '\0';
    return rmdir(db);
}

static void ratios_and_shares_are_the_sums_by_hand(void **state) {
    struct kv_generation_table t;
    struct kv_store *s;
    struct kv_error e;
    double behind = 0; // positions behind the first other token
    (void)state;
    for (uint32_t i = 0; i < 15; i++) behind += TOKENS - i / 2 - 1;
    assert_int_equal(kv_store_open(&s, db, KV_STORE_READ, &e), 0);
    if (kv_generation_table(s, 1, &t, &e)) fail_msg("%s", e.msg);
    assert_int_equal(t.n, 3);
    for (size_t i = 0; i < 3; i++) {
        const struct kv_generation_row *r = &t.row[i];
        double grows = strstr(r->g->spec, "bits=4") ? 1 : strstr(r->g->spec, "bits=3") ? 3 : 2;
        assert_int_equal(r->n, PROMPTS);
        assert_int_equal(r->n_parted, 15);
        assert_true(kv_generation_alike(r->g, t.row[0].g));
        assert_true(fabs(r->at[0].share - 0.5) < 1e-12); // at 16 tokens
        assert_true(isnan(r->at[1].share));              // no sequence is so long
        assert_int_equal(r->n_broken, grows == 2);
        if (grows == 2) continue;
        double n = PROMPTS * TOKENS, want = (n + (grows - 1) * behind) / n;
        assert_int_equal(r->all.tokens, PROMPTS * TOKENS);
        assert_true(fabs(r->all.forced - 0.25) < 1e-12);
        assert_true(fabs(r->all.ratio - want) < 1e-9);
        assert_true(fabs(r->parted.ratio - grows) < 1e-9);
        assert_true(fabs(r->agreement - (n - behind - 15) / n) < 1e-12);
        assert_true(r->all.interval.low <= want && r->all.interval.high >= want);
        if (grows > 1) assert_true(r->all.interval.low > 1 && r->all.interval.high < grows);
        if (grows > 1) assert_true(r->quarter[3].ratio > r->quarter[0].ratio);
    }
    kv_generation_table_fini(&t);
    assert_int_equal(kv_store_close(s, &e), 0);
}

// What is not finite counts nowhere: prompt 3 ended after one token.
static void what_is_not_finite_is_in_no_sum(void **state) {
    struct kv_generation_table t;
    struct kv_store *s;
    struct kv_error e;
    (void)state;
    assert_int_equal(kv_store_open(&s, db, KV_STORE_READ, &e), 0);
    assert_int_equal(kv_generation_table(s, 1, &t, &e), 0);
    for (size_t i = 0; i < 3; i++) {
        const struct kv_generation_row *r = &t.row[i];
        if (r->n_broken == 0) continue;
        assert_int_equal(r->all.tokens, PROMPTS * TOKENS - (TOKENS - 1));
        assert_true(isfinite(r->all.ratio) && isfinite(r->all.own));
    }
    kv_generation_table_fini(&t);
    assert_int_equal(kv_store_close(s, &e), 0);
}

static void rows_that_are_there_are_found_and_equal_keys_are_one(void **state) {
    struct kv_store *s;
    struct kv_error e;
    struct kv_generation_key key = key_of("static:bits=4");
    long long a, b;
    bool there;
    (void)state;
    assert_int_equal(kv_store_open(&s, db, KV_STORE_WRITE, &e), 0);
    assert_int_equal(kv_store_generation(s, &key, &a, &e), 0);
    assert_int_equal(kv_store_generation(s, &key, &b, &e), 0);
    assert_true(a == b);
    assert_int_equal(kv_store_generated_has(s, a, 1003, &there, &e), 0);
    assert_true(there);
    assert_int_equal(kv_store_generated_has(s, a, 7, &there, &e), 0);
    assert_false(there);
    key.temperature = 0.5;
    assert_int_equal(kv_store_generation(s, &key, &b, &e), 0);
    assert_false(a == b);
    assert_int_equal(kv_store_close(s, &e), 0);
}

static void damaged_rows_are_refused(void **state) {
    static const char *const damage[] = {"own_kl = '[1,2'", "own_kl = '[1]'", "reference = '{}'",
                                         "forced_kl = replace(forced_kl, "
                                         "'0.25', '-1')",
                                         "equal = 21"};
    (void)state;
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        struct kv_generation_table t;
        struct kv_store *s;
        struct kv_error e;
        char *sql =
            kv_format_text("BEGIN; UPDATE generated_item SET %s WHERE key LIKE '%%3ea'", damage[i]);
        assert_int_equal(kv_store_open(&s, db, KV_STORE_WRITE, &e), 0);
        assert_int_equal(kv_store_query(s, sql, NULL, 0, NULL, NULL, &e), 0);
        assert_int_equal(kv_generation_table(s, 1, &t, &e), KV_EFAIL);
        assert_non_null(strstr(e.msg, "is damaged"));
        assert_int_equal(kv_store_query(s, "ROLLBACK", NULL, 0, NULL, NULL, &e), 0);
        assert_int_equal(kv_store_close(s, &e), 0);
        free(sql);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survival_is_that_of_a_published_example),
        cmocka_unit_test(a_curve_of_nothing_or_of_one_kind_has_honest_ends),
        cmocka_unit_test(ratios_and_shares_are_the_sums_by_hand),
        cmocka_unit_test(what_is_not_finite_is_in_no_sum),
        cmocka_unit_test(rows_that_are_there_are_found_and_equal_keys_are_one),
        cmocka_unit_test(damaged_rows_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
