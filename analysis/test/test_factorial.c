// SPDX-License-Identifier: Apache-2.0
// Effects and shares against statsmodels 0.15.0, and against marginal means where nothing is
// missing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "analysis/stats/factorial.h"
#include "policies/policy.h"

static void near(double x, double expected, double tolerance) {
    if (!(fabs(x - expected) <= tolerance)) fail_msg("%.12g, expected %.12g", x, expected);
}

// Three factors of 3, 2 and 2 levels, two cells missing.
static const size_t n_levels[] = {3, 2, 2};
static const size_t level[10][3] = {{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {0, 1, 1}, {1, 0, 0},
                                    {1, 0, 1}, {1, 1, 0}, {1, 1, 1}, {2, 0, 0}, {2, 0, 1}};
static const double y[10] = {1.0, 2.5, 0.7, 3.1, 2.2, 4.0, 1.9, 5.2, 0.3, 1.1};

// statsmodels: smf.ols("y ~ C(a, Sum) + C(b, Sum) + C(c, Sum) [+ C(a, Sum):C(c,
// Sum)]").fit().params and .ssr, anova_lm(fit, typ=3).
static void effects_are_those_of_statsmodels(void **state) {
    double effect[6];
    (void)state;
    struct kv_factorial *f = kv_factorial_new(10, 3, n_levels, &level[0][0]);
    kv_factorial_main(f, 0, y, effect);
    near(effect[0], -0.175, 1e-12);
    near(effect[1], 1.325, 1e-12);
    near(effect[2], -1.15, 1e-12);
    kv_factorial_main(f, 1, y, effect);
    near(effect[0], -0.15, 1e-12);
    kv_factorial_main(f, 2, y, effect);
    near(effect[0], -0.98, 1e-12);
    near(effect[1], 0.98, 1e-12);
    assert_true(kv_factorial_has_pair(f, 0, 2));
    kv_factorial_pair(f, 0, 2, y, effect);
    near(effect[0], -0.0916666666667, 1e-12);
    near(effect[1], 0.0916666666667, 1e-12);
    near(effect[2], -0.391666666667, 1e-12);
    near(effect[5], -0.483333333333, 1e-12);
    kv_factorial_pair(f, 1, 2, y, effect);
    near(effect[0], 0.370833333333, 1e-12);
    near(kv_factorial_share(f, 0, y), 8.4675 / 21.74, 1e-12);
    near(kv_factorial_share(f, 1, y), 0.18 / 21.74, 1e-12);
    near(kv_factorial_share(f, 2, y), 9.604 / 21.74, 1e-12);
    near(kv_factorial_main_share(f, y), 1 - 1.831 / 21.74, 1e-12);
    near(kv_factorial_pair_share(f, 0, 2, y), (1.831 - 0.81) / 21.74, 1e-12);
    near(kv_factorial_pair_share(f, 1, 2, y), (1.831 - 0.510833333333) / 21.74, 1e-12);
    assert_false(kv_factorial_has_pair(f, 0, 1)); // the third level was seen with one of b alone
    kv_factorial_free(f);
}

static void in_a_full_design_effects_are_marginal_means(void **state) {
    size_t levels[] = {3, 4}, cells[12][2];
    double value[12], mean = 0, effect[12], row[3] = {0}, column[4] = {0};
    (void)state;
    for (size_t i = 0; i < 12; i++) {
        cells[i][0] = i / 4;
        cells[i][1] = i % 4;
        value[i] = kv_draw(1, i, 0);
        mean += value[i] / 12;
        row[i / 4] += value[i] / 4;
        column[i % 4] += value[i] / 3;
    }
    struct kv_factorial *f = kv_factorial_new(12, 2, levels, &cells[0][0]);
    kv_factorial_main(f, 0, value, effect);
    for (size_t i = 0; i < 3; i++) near(effect[i], row[i] - mean, 1e-12);
    kv_factorial_main(f, 1, value, effect);
    for (size_t i = 0; i < 4; i++) near(effect[i], column[i] - mean, 1e-12);
    kv_factorial_pair(f, 0, 1, value, effect);
    for (size_t i = 0; i < 12; i++)
        near(effect[i], value[i] - row[i / 4] - column[i % 4] + mean, 1e-12);
    near(kv_factorial_share(f, 0, value) + kv_factorial_share(f, 1, value) +
             kv_factorial_pair_share(f, 0, 1, value),
         1, 1e-12);
    kv_factorial_free(f);
}

static void a_factor_that_others_determine_is_left_out(void **state) {
    static const size_t levels[] = {2, 2, 2};
    // The second follows the first; the third is their own.
    static const size_t cells[4][3] = {{0, 0, 0}, {0, 0, 1}, {1, 1, 0}, {1, 1, 1}};
    static const double flat[4] = {1, 1, 1, 1};
    (void)state;
    struct kv_factorial *f = kv_factorial_new(4, 3, levels, &cells[0][0]);
    assert_true(kv_factorial_has(f, 0));
    assert_false(kv_factorial_has(f, 1));
    assert_true(kv_factorial_has(f, 2));
    assert_true(kv_factorial_has_pair(f, 0, 2));
    assert_false(kv_factorial_has_pair(f, 0, 1));
    assert_true(kv_factorial_share(f, 0, flat) == 0);
    kv_factorial_free(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(effects_are_those_of_statsmodels),
        cmocka_unit_test(in_a_full_design_effects_are_marginal_means),
        cmocka_unit_test(a_factor_that_others_determine_is_left_out),
    };
    return cmocka_run_group_tests_name("factorial", tests, NULL, NULL);
}
