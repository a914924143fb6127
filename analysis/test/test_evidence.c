// SPDX-License-Identifier: Apache-2.0
// Equivalence, items needed and the split of variance, against SciPy 1.17.1, statsmodels 0.15.0 and
// a published example.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "analysis/stats/evidence.h"
#include "policies/policy.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void near(double x, double expected, double tolerance) {
    if (!(fabs(x - expected) <= tolerance)) fail_msg("%.12g, expected %.12g", x, expected);
}

// The constrained likelihood of (b, c, n - b - c) maximised with scipy.optimize.brentq on its
// derivative, then scipy.stats.norm.sf and .cdf of the score; (0, 0, 100): the constrained estimate
// is margin for the first cell and 0 for the second, so the score is sqrt(n m / (1 - m)).
static void two_one_sided_tests_are_those_of_the_constrained_likelihood(void **state) {
    static const struct {
        double b, c, n, margin, worse, better;
    } cases[] = {
        {6, 16, 161, 0.1, 0.105847491126, 1.45418544765e-6},
        {40, 20, 160, 0.05, 0.000184490397751, 0.941566393172},
        {150, 180, 10042, 0.005, 0.133930058170, 7.03894792282e-6},
        {3, 2, 500, 0.01, 0.0194648973309, 0.0728172709083},
        {0, 0, 100, 0.05, 0.0108907314, 0.0108907314},
        {12, 9, 1000, 0.02, 3.77177105068e-5, 0.00116268418452},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct kv_tost t = kv_tost_counts(cases[i].b, cases[i].c, cases[i].n, cases[i].margin);
        near(t.worse_p, cases[i].worse, 2e-9);
        near(t.better_p, cases[i].better, 2e-9);
        assert_true(t.p == fmax(t.worse_p, t.better_p));
        struct kv_tost swapped =
            kv_tost_counts(cases[i].c, cases[i].b, cases[i].n, cases[i].margin);
        near(swapped.worse_p, t.better_p, 1e-12);
    }
    assert_true(isnan(kv_tost_counts(0, 0, 0, 0.05).p));
    assert_true(isnan(kv_tost_counts(1, 2, 10, 0).p));
}

static void equivalence_at_five_percent_is_the_ninety_percent_interval_inside(void **state) {
    (void)state;
    for (unsigned b = 0; b < 20; b++)
        for (unsigned c = 0; c < 20; c++) {
            struct kv_interval x = kv_tango(b, c, 300, 0.9);
            bool inside = x.low > -0.03 && x.high < 0.03;
            assert_true(inside == (kv_tost_counts(b, c, 300, 0.03).p < 0.05));
        }
}

// statsmodels.stats.weightstats.ttost_paired(a, b, -0.15, 0.15).
static void fractions_are_tested_with_t(void **state) {
    static const double a[] = {1, .5, 0, 1, .25, .75, NAN, 1, 0, .5, 1};
    static const double b[] = {1, .5, .25, 1, .5, .5, 1, 1, 0, .25, .75};
    (void)state;
    struct kv_tost t = kv_tost_items(a, b, COUNT(a), 0.15);
    near(t.worse_p, 0.007478181955207111, 1e-12);
    near(t.better_p, 0.030369173470915924, 1e-12);
    near(t.p, 0.030369173470915924, 1e-12);
}

static void whole_items_are_tested_by_their_counts(void **state) {
    double a[160], b[160];
    (void)state;
    for (size_t i = 0; i < COUNT(a); i++) {
        a[i] = i < 40 || i >= 100;
        b[i] = (i >= 40 && i < 60) || i >= 100;
    }
    near(kv_tost_items(a, b, COUNT(a), 0.05).worse_p, 0.000184490397751, 2e-9);
}

// Connor's formula with scipy.stats.norm.isf.
static void items_needed_are_connors(void **state) {
    static const struct {
        double d, discordant, power, items;
    } cases[] = {{0.1, 0.3, 0.8, 234}, {0.02, 0.06, 0.8, 1175},    {0.05, 0.25, 0.9, 1047},
                 {0.2, 0.2, 0.8, 37},  {0.003, 0.033, 0.8, 28777}, {-0.1, 0.3, 0.8, 234}};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_true(kv_items_for_difference(cases[i].d, cases[i].discordant, 0.05,
                                            cases[i].power) == cases[i].items);
    assert_true(isinf(kv_items_for_difference(0, 0.1, 0.05, 0.8)));
    assert_true(isnan(kv_items_for_difference(0.2, 0.1, 0.05, 0.8)));
    near(kv_difference_seen(234, 0.3, 0.05, 0.8), 0.1, 3e-4);
    assert_true(isnan(kv_difference_seen(10, 0.02, 0.05, 0.8)));
}

// At the number of items that Connor's formula gives for d = 0.1, discordance 0.3 and power 0.8,
// the mid-p test rejects in 80.7 % of all outcomes (SciPy's binom, enumerated).
static void so_many_items_show_the_difference_as_often_as_promised(void **state) {
    enum { N = 234, REPLICATIONS = 20000 };
    unsigned seen = 0;
    (void)state;
    for (uint64_t r = 0; r < REPLICATIONS; r++) {
        unsigned b = 0, c = 0;
        for (unsigned i = 0; i < N; i++) {
            double u = kv_draw(3, r, i);
            b += u < 0.2;
            c += u >= 0.2 && u < 0.3;
        }
        seen += kv_mcnemar(b, c).mid_p <= 0.05;
    }
    near((double)seen / REPLICATIONS, 0.8066, 0.012); // four standard errors
}

static void an_interval_clears_a_bound_with_enough_items(void **state) {
    (void)state;
    // Standard error 0.02 at 100 items, bound 0.01 away: ((1.95996 + 0.84162) 2)^2 times as many.
    assert_true(kv_items_to_clear(100, 0.02, 0.01, 0.05, 0.8) == 3140);
    assert_true(isinf(kv_items_to_clear(100, 0.02, 0, 0.05, 0.8)));
    assert_true(isnan(kv_items_to_clear(100, NAN, 0.01, 0.05, 0.8)));
}

// Dyestuff (Davies, Statistical Methods in Research and Production, 1947; R's lme4): variances
// 1764.05 between batches and 2451.25 within, mean 1527.5, its standard error 19.383.
static const double dyestuff[] = {1545, 1440, 1440, 1520, 1580, 1540, 1555, 1490, 1560, 1495,
                                  1595, 1550, 1605, 1510, 1560, 1445, 1440, 1595, 1465, 1545,
                                  1595, 1630, 1515, 1635, 1625, 1520, 1455, 1450, 1480, 1445};

static void variance_splits_as_in_the_dyestuff_example(void **state) {
    uint32_t batch[COUNT(dyestuff)];
    (void)state;
    for (size_t i = 0; i < COUNT(dyestuff); i++) batch[i] = (uint32_t)(i / 5);
    struct kv_variance_split s = kv_split_variance(batch, dyestuff, COUNT(dyestuff));
    assert_int_equal(s.n_items, 6);
    near(s.mean, 1527.5, 1e-9);
    near(s.item_variance, 1764.05, 1e-9);
    near(s.rounding_variance, 2451.25, 1e-9);
    near(s.rounding_share, 2451.25 / (2451.25 + 1764.05), 1e-12);
    near(s.standard_error, 19.3834, 1e-4);
}

static void without_repeats_nothing_is_known_of_rounding(void **state) {
    static const uint32_t item[] = {1, 2, 3, 3};
    static const double y[] = {0, 1, 1, NAN};
    (void)state;
    struct kv_variance_split s = kv_split_variance(item, y, COUNT(y));
    assert_int_equal(s.n_items, 3);
    assert_true(isnan(s.rounding_share));
    near(s.standard_error, 1.0 / 3, 1e-12);
    assert_int_equal(kv_split_variance(item, y, 0).n_items, 0);
}

// Items with standard deviation 1 and rounding with 0.5: a fifth of the variance is rounding.
static void unequal_redraws_are_split_without_bias(void **state) {
    enum { ITEMS = 4000 };
    static uint32_t item[ITEMS * 4];
    static double y[ITEMS * 4];
    size_t n = 0;
    (void)state;
    for (uint32_t i = 0; i < ITEMS; i++)
        for (uint32_t r = 0; r < 1 + i % 4; r++) {
            item[n] = i;
            // Uniform numbers of variance 1 and 1/4.
            y[n++] = sqrt(12) * (kv_draw(1, i, 0) - 0.5) + sqrt(3) * (kv_draw(2, i, r) - 0.5);
        }
    struct kv_variance_split s = kv_split_variance(item, y, n);
    near(s.rounding_share, 0.2, 0.02);
    near(s.item_variance, 1, 0.06);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_one_sided_tests_are_those_of_the_constrained_likelihood),
        cmocka_unit_test(equivalence_at_five_percent_is_the_ninety_percent_interval_inside),
        cmocka_unit_test(fractions_are_tested_with_t),
        cmocka_unit_test(whole_items_are_tested_by_their_counts),
        cmocka_unit_test(items_needed_are_connors),
        cmocka_unit_test(so_many_items_show_the_difference_as_often_as_promised),
        cmocka_unit_test(an_interval_clears_a_bound_with_enough_items),
        cmocka_unit_test(variance_splits_as_in_the_dyestuff_example),
        cmocka_unit_test(without_repeats_nothing_is_known_of_rounding),
        cmocka_unit_test(unequal_redraws_are_split_without_bias),
    };
    return cmocka_run_group_tests_name("evidence", tests, NULL, NULL);
}
