// SPDX-License-Identifier: Apache-2.0
// Judges calibration of predictions by a made study, whose exact divergence, predictions and
// accuracies follow known curves.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "analysis/studies/calibration.h"

enum { N = 30, UNRUN = 2, FAMILIES = 5, SMALL = 12 };
static const double iso_factor = 0.8, chance = 0.25, top = 0.6;
static const struct kv_decline truth = {.top = 0.6, .floor = 0.25, .half = 0.5, .slope = 1.5};

// Divergence rises evenly in its logarithm from 0.001 to 1; element is right but for a bend, iso
// tells four fifths of that, and attention's output error is a rival in units of its own.
static void make(struct kv_fidelity_study *s, struct kv_fidelity_policy *at, size_t n) {
    static char *families[FAMILIES] = {"a", "b", "c", "d", "e"};
    *s = (struct kv_fidelity_study){.n = n + UNRUN,
                                    .n_exact = n,
                                    .at = at,
                                    .families = families,
                                    .n_families = FAMILIES,
                                    .n_draws = 4,
                                    .chance = chance};
    for (size_t i = 0; i < n + UNRUN; i++) {
        struct kv_fidelity_policy *x = &at[i];
        bool run = i < n;
        double kl = 0.001 *
                    pow(1000, run ? (double)i / (double)(n - 1) : 0.4 + 0.3 * (double)(i - n)),
               element = kl / (1 + 0.3 * kl);
        *x = (struct kv_fidelity_policy){.label = "policy",
                                         .family = (int)(i % FAMILIES),
                                         .exact = run,
                                         .n_items = 8,
                                         .bits = 3 + (double)(i % 3) + 0.1,
                                         .kl = run ? kl : NAN,
                                         .acc = run ? kv_decline_at(&truth, kl) : NAN,
                                         .acc_ref = run ? top : NAN,
                                         .agree = NAN,
                                         .outside = kl > 0.5 ? "above 0.5 nats" : NULL};
        for (size_t p = 0; p < KV_N_PREDICTORS; p++) x->by[p] = NAN;
        x->by[KV_BY_ISO] = iso_factor * element;
        x->by[KV_BY_ELEMENT] = element;
        x->by[KV_BY_OUTPUT] = 7 * sqrt(kl);
        for (size_t f = 0; f < KV_DRAW_FORMS; f++)
            for (size_t k = 0; k < KV_DRAW_LEVELS; k++) x->draws[f][k] = k < 3 ? element : NAN;
    }
}

struct made {
    struct kv_fidelity_study study;
    struct kv_fidelity_policy at[N + UNRUN];
    struct kv_kl_calibration c;
};

static struct made of(size_t n) {
    struct made m;
    make(&m.study, m.at, n);
    return m;
}

static void calibrate(struct made *m) {
    struct kv_error e = {0};
    m->study.at = m->at;
    if (kv_kl_calibrate(&m->c, &m->study, KV_N_PREDICTORS, &e)) fail_msg("%s", e.msg);
}

static void the_best_form_that_there_is_leads(void **state) {
    (void)state;
    struct made m = of(N);
    calibrate(&m);
    assert_int_equal(m.c.headline, KV_BY_ELEMENT);
    kv_kl_calibration_fini(&m.c);
    for (size_t i = 0; i < N + UNRUN; i++) m.at[i].by[KV_BY_MENDED] = m.at[i].by[KV_BY_ELEMENT];
    calibrate(&m);
    assert_int_equal(m.c.headline, KV_BY_MENDED);
    kv_kl_calibration_fini(&m.c);
}

static void a_familys_divergence_is_told_by_the_others_curve(void **state) {
    (void)state;
    struct made m = of(N);
    calibrate(&m);
    struct kv_policy_told *told = kv_kl_policies_told(&m.c);
    for (size_t i = 0; i < N; i++) {
        assert_ptr_equal(told[i].policy, &m.at[i]);
        assert_string_equal(told[i].family, m.study.families[i % FAMILIES]);
        // Beyond the others their curve goes on without the bend.
        assert_true(fabs(told[i].left_out / m.at[i].kl - 1) < (i + 3 < N ? 0.04 : 0.11));
        assert_true(fabs(told[i].acc - m.at[i].acc) < 0.01);
        assert_true(isnan(told[i].agree)); // nothing to fit it to
    }
    free(told);
    kv_kl_calibration_fini(&m.c);
}

static void a_band_is_given_from_twenty_policies_on(void **state) {
    (void)state;
    struct made many = of(N), few = of(SMALL);
    calibrate(&many);
    calibrate(&few);
    const double *band = many.c.band[KV_BY_ELEMENT];
    assert_true(band[0] > 0.9 && band[0] < band[1] && band[1] < 1.1);
    assert_true(isnan(few.c.band[KV_BY_ELEMENT][0]) && isnan(few.c.band[KV_BY_ELEMENT][1]));
    kv_kl_calibration_fini(&many.c);
    kv_kl_calibration_fini(&few.c);
}

static void predictors_are_told_of_all_policies_and_of_those_inside_validity(void **state) {
    (void)state;
    struct made m = of(N);
    size_t n, outside = 0;
    calibrate(&m);
    for (size_t i = 0; i < N; i++) outside += m.at[i].outside != NULL;
    struct kv_predictor_told *told = kv_kl_predictors_told(&m.c, &n);
    assert_int_equal(n, 6); // iso, element and output; vector, total and others are not known
    for (size_t i = 0; i < n; i++) {
        bool rival = told[i].predictor == KV_BY_OUTPUT;
        assert_int_equal(told[i].inside, i % 2);
        assert_int_equal(told[i].all.n, i % 2 ? N - outside : N);
        assert_true(told[i].all.spearman > 0.999999);
        assert_int_equal(isnan(told[i].all.ratio_median), rival);
        for (size_t b = 0; b < KV_N_NEAR; b++)
            assert_int_equal(told[i].near[b].n, i % 2 ? 0 : N / 3);
        assert_true(told[i].off_median <= told[i].off_95 && told[i].off_95 < 0.1);
    }
    assert_true(told[0].all.ratio_median < iso_factor && told[0].all.ratio_95 < iso_factor + 1e-9);
    free(told);
    kv_kl_calibration_fini(&m.c);
}

static void forms_are_told_from_as_many_draws_as_were_recorded(void **state) {
    (void)state;
    struct made m = of(N);
    size_t n;
    calibrate(&m);
    struct kv_draws_told *told = kv_kl_draws_told(&m.c, &n);
    assert_int_equal(n, 3 * KV_DRAW_FORMS); // 1, 2 and 4 draws
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(told[i].form, kv_draw_forms[i / 3]);
        assert_int_equal(told[i].draws, 1 << i % 3);
        assert_int_equal(told[i].all.n, N);
    }
    free(told);
    kv_kl_calibration_fini(&m.c);
}

static void accuracys_decline_is_found_from_exact_and_from_told_divergence(void **state) {
    (void)state;
    struct made m = of(N);
    size_t n;
    calibrate(&m);
    struct kv_decline_told *told = kv_kl_declines_told(&m.c, &n);
    assert_int_equal(n, 2); // of accuracy alone
    assert_string_equal(told[0].measure, "acc");
    assert_string_equal(told[0].from, "exact KL");
    assert_string_equal(told[1].from, "element");
    assert_true(fabs(told[0].decline.half - truth.half) < 1e-3);
    assert_true(fabs(told[1].decline.half - truth.half) < 0.05);
    assert_true(told[0].off_95_points < 1e-3 && told[1].off_95_points < 1);
    free(told);
    kv_kl_calibration_fini(&m.c);
}

static void policies_that_were_not_run_are_read_off_the_curve(void **state) {
    (void)state;
    struct made m = of(N);
    size_t n;
    calibrate(&m);
    struct kv_policy_foretold *told = kv_kl_policies_foretold(&m.c, &n);
    assert_int_equal(n, UNRUN);
    for (size_t i = 0; i < n; i++) {
        double kl = 0.001 * pow(1000, 0.4 + 0.3 * (double)i);
        assert_ptr_equal(told[i].policy, &m.at[N + i]);
        assert_true(fabs(told[i].kl / kl - 1) < 0.05);
        assert_true(told[i].kl_low <= told[i].kl && told[i].kl <= told[i].kl_high);
        assert_true(told[i].acc_in.low < told[i].acc && told[i].acc < told[i].acc_in.high);
        assert_true(fabs(told[i].acc - kv_decline_at(&truth, kl)) < 0.01);
        assert_true(isnan(told[i].agree) && isnan(told[i].agree_in.low));
    }
    free(told);
    kv_kl_calibration_fini(&m.c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_form_that_there_is_leads),
        cmocka_unit_test(a_familys_divergence_is_told_by_the_others_curve),
        cmocka_unit_test(a_band_is_given_from_twenty_policies_on),
        cmocka_unit_test(predictors_are_told_of_all_policies_and_of_those_inside_validity),
        cmocka_unit_test(forms_are_told_from_as_many_draws_as_were_recorded),
        cmocka_unit_test(accuracys_decline_is_found_from_exact_and_from_told_divergence),
        cmocka_unit_test(policies_that_were_not_run_are_read_off_the_curve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
