// SPDX-License-Identifier: Apache-2.0
// Judges agreement, calibration and decline by cases worked out by hand and curves that are known.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "analysis/stats/agreement.h"

static bool near(double a, double b, double within) {
    return fabs(a - b) <= within;
}

static void agreement_of_five_pairs_by_hand(void **state) {
    (void)state;
    const double p[] = {1, 2, 4, 8, 16}, x[] = {1, 4, 2, 8, 16};
    struct kv_agreement a = kv_agreement(p, x, 5);
    // Logs to base 2: 0..4 against 0, 2, 1, 3, 4: 1 - 6 * 2 / (5 * 24), Pearson alike.
    assert_true(a.n == 5 && near(a.spearman, 0.9, 1e-12) && near(a.log_correlation, 0.9, 1e-12));
    assert_true(a.ratio_median == 1 && near(a.ratio_5, 0.6, 1e-12) && near(a.ratio_95, 1.8, 1e-12));
}

static void pairs_without_a_positive_number_are_left_out_and_ties_share_a_rank(void **state) {
    (void)state;
    const double p[] = {1, NAN, 2, 2, 3, 0}, x[] = {1, 5, 2, 3, 4, 1};
    struct kv_agreement a = kv_agreement(p, x, 6);
    // Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert_true(a.n == 4 && near(a.spearman, 4.5 / sqrt(5 * 4.5), 1e-12));
    assert_true(isnan(kv_agreement(p, x, 2).spearman));
}

static void isotonic_pools_neighbours_that_fall(void **state) {
    (void)state;
    const double y[] = {1, 3, 2, 4, 3, 2, 6}, w[] = {1, 1, 3, 1, 1, 1, 1};
    double f[7];
    kv_isotonic(y, NULL, 7, f);
    const double plain[] = {1, 2.5, 2.5, 3, 3, 3, 6};
    for (int i = 0; i < 7; i++) assert_true(near(f[i], plain[i], 1e-12));
    kv_isotonic(y, w, 7, f);
    assert_true(near(f[1], 2.25, 1e-12) && near(f[2], 2.25, 1e-12) && near(f[5], 3, 1e-12));
}

enum { N = 60 };

static void curve(double *x, double *y, double noise) {
    for (size_t i = 0; i < N; i++) {
        x[i] = -8 + 9 * kv_draw(1, 0, i);
        y[i] = x[i] + 0.3 - 0.04 * (x[i] + 3) * (x[i] + 3) + noise * (kv_draw(2, 0, i) - 0.5);
    }
}

static void a_known_bend_is_found_through_noise_and_one_wild_point(void **state) {
    (void)state;
    double x[N], y[N];
    curve(x, y, 0.1);
    y[7] += 3;
    struct kv_monotone *m = kv_monotone_new(x, y, N);
    assert_non_null(m);
    double before = -INFINITY;
    for (double at = -9; at < 2; at += 0.25) {
        double now = kv_monotone_at(m, at);
        assert_true(now >= before);
        before = now;
        if (at > -7.5 && at < 0.5)
            assert_true(near(now, at + 0.3 - 0.04 * (at + 3) * (at + 3), 0.25));
    }
    // Beyond the points the ratio stays.
    assert_true(near(kv_monotone_at(m, -20) - kv_monotone_at(m, -21), 1, 1e-9));
    kv_monotone_free(m);
}

static void a_family_left_out_is_predicted_by_the_others(void **state) {
    (void)state;
    double x[N], y[N], left_out[N], full[N];
    int family[N], alone[N];
    curve(x, y, 0);
    for (int i = 0; i < N; i++) {
        family[i] = i % 6;
        alone[i] = 0;
        if (family[i] == 5) y[i] += 1; // a family with a bias of its own cannot tell of itself
    }
    kv_monotone_left_out(x, y, family, N, left_out);
    struct kv_monotone *m = kv_monotone_new(x, y, N);
    double bias = 0, others = 0;
    for (int i = 0; i < N; i++) {
        full[i] = kv_monotone_at(m, x[i]);
        if (family[i] == 5)
            bias += (y[i] - left_out[i]) / 10;
        else
            others += fabs(y[i] - left_out[i]) / 50;
    }
    assert_true(near(bias, 1, 0.15) && others < 0.2);
    kv_monotone_free(m);
    kv_monotone_left_out(x, y, alone, N, full);
    assert_true(isnan(full[0]));
    assert_null(kv_monotone_new(x, y, 3));
}

// Nearly normal, standard deviation 0.0029.
static double noise_of(uint64_t seed, uint64_t i) {
    double sum = -2;
    for (uint64_t k = 0; k < 4; k++) sum += kv_draw(seed, k + 1, i);
    return 0.005 * sum;
}

static void a_decline_is_recovered_and_its_interval_covers_new_policies(void **state) {
    (void)state;
    const struct kv_decline truth = {.top = 0.42, .floor = 0.25, .half = 0.6, .slope = 1.2};
    struct kv_error e;
    struct kv_decline d;
    double x[N], y[N], left_out[N];
    int group[N];
    for (size_t i = 0; i < N; i++) {
        x[i] = exp(-6 + 8 * kv_draw(3, 0, i));
        y[i] = kv_decline_at(&truth, x[i]) + noise_of(4, i);
        group[i] = (int)i;
    }
    assert_int_equal(kv_decline_fit(&d, x, y, N, 0.42, 0.25, &e), 0);
    assert_true(near(d.half, 0.6, 0.1) && near(d.slope, 1.2, 0.15) && near(d.sd, 0.0029, 0.001));
    assert_int_equal(kv_decline_fit(&d, x, y, N, 0.42, NAN, &e), 0);
    assert_true(near(d.floor, 0.25, 0.02) && d.n_fitted == 3);
    size_t covered = 0;
    for (size_t i = 0; i < 1000; i++) {
        double at = exp(-6 + 8 * kv_draw(5, 0, i)),
               new = kv_decline_at(&truth, at) + noise_of(6, i);
        struct kv_interval in = kv_decline_interval(&d, at, 0.9);
        covered += new >= in.low &&new <= in.high;
    }
    assert_true(covered > 850 && covered < 980);
    kv_decline_left_out(x, y, group, N, 0.42, 0.25, left_out);
    for (size_t i = 0; i < N; i++) assert_true(near(left_out[i], y[i], 0.012));
}

static void too_few_policies_make_no_curve(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_decline d;
    const double x[] = {0.1, 0.2, 0.3, NAN, 0}, y[] = {0.4, 0.3, 0.3, 0.2, 0.4};
    assert_int_equal(kv_decline_fit(&d, x, y, 5, 0.4, 0.25, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "3 policies are too few"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agreement_of_five_pairs_by_hand),
        cmocka_unit_test(pairs_without_a_positive_number_are_left_out_and_ties_share_a_rank),
        cmocka_unit_test(isotonic_pools_neighbours_that_fall),
        cmocka_unit_test(a_known_bend_is_found_through_noise_and_one_wild_point),
        cmocka_unit_test(a_family_left_out_is_predicted_by_the_others),
        cmocka_unit_test(a_decline_is_recovered_and_its_interval_covers_new_policies),
        cmocka_unit_test(too_few_policies_make_no_curve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
