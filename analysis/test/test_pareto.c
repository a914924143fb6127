// SPDX-License-Identifier: Apache-2.0
// The frontier holds what no other point beats, ties included, and knows how sure it is.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "analysis/test/reliability.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void the_frontier_holds_what_no_other_beats(void **state) {
    //                             cheap  dominated  equal pair  dear, best  same cost, worse
    static const double cost[] = {1, 2, 3, 3, 5, 3, 0.5, NAN};
    static const double value[] = {0.3, 0.3, 0.5, 0.5, 0.7, 0.4, NAN, 0.9};
    static const bool expected[] = {true, false, true, true, true, false, false, false};
    bool on[COUNT(cost)];
    (void)state;
    kv_pareto(cost, value, COUNT(cost), on);
    assert_memory_equal(on, expected, sizeof on);
    kv_pareto(cost, value, 0, on);
}

static void the_fast_frontier_is_the_definition(void **state) {
    enum { N = 60 };
    (void)state;
    for (uint64_t r = 0; r < 50; r++) {
        double cost[N], value[N];
        bool on[N];
        for (size_t i = 0; i < N; i++) { // few distinct values, so that ties are common
            cost[i] = floor(kv_draw(r, 1, i) * 10);
            value[i] = floor(kv_draw(r, 2, i) * 10);
        }
        kv_pareto(cost, value, N, on);
        for (size_t i = 0; i < N; i++) {
            bool beaten = false;
            for (size_t j = 0; j < N; j++)
                beaten = beaten || (cost[j] <= cost[i] && value[j] >= value[i] &&
                                    (cost[j] < cost[i] || value[j] > value[i]));
            assert_true(on[i] == !beaten);
        }
    }
}

static void a_clear_winner_is_always_on_the_frontier_and_a_coin_toss_half_the_time(void **state) {
    enum { ITEMS = 200, POINTS = 4 };
    static double right[POINTS][ITEMS];
    // Dearest first; points 1 and 2 cost almost the same and differ by chance alone.
    static const double cost[POINTS] = {16, 4.01, 4, 2};
    double frequency[POINTS], again[POINTS];
    (void)state;
    for (size_t i = 0; i < ITEMS; i++) {
        right[0][i] = i % 10 != 0;
        right[1][i] = i % 2 == 0;
        right[2][i] = i % 2 == 1;
        right[3][i] = i % 10 == 0;
    }
    struct kv_resampler *r = kv_resampler_new(ITEMS, NULL, NULL);
    kv_pareto_frequency(r, &right[0][0], cost, POINTS, ITEMS, 1, 500, frequency);
    assert_true(frequency[0] == 1 && frequency[3] == 1);
    assert_true(frequency[1] > 0.4 && frequency[1] < 0.6);
    assert_true(frequency[2] == 1);
    kv_pareto_frequency(r, &right[0][0], cost, POINTS, ITEMS, 1, 500, again);
    assert_memory_equal(frequency, again, sizeof again);
    kv_resampler_free(r);
}

// By hand: points (1, 2), (2, 4), (4, 5) up to cost 5 over value 1: 4 x 1 + 3 x 2 + 1 x 1 = 11.
static void the_hypervolume_is_the_area_under_the_steps(void **state) {
    static const double cost[] = {2, 4, 1, 3, 6, NAN}, value[] = {4, 5, 2, 3, 9, 9};
    (void)state;
    assert_true(kv_hypervolume(cost, value, COUNT(cost), 5, 1) == 11);
    assert_true(kv_hypervolume(cost, value, COUNT(cost), 5, 4.5) == 0.5);
    assert_true(kv_hypervolume(cost, value, COUNT(cost), 1, 0) == 0);
    assert_true(kv_hypervolume(cost, value, 0, 5, 1) == 0);
}

static void the_knee_is_farthest_above_the_chord(void **state) {
    //                             cheapest    knee  best  dominated
    static const double cost[] = {2, 3, 4, 16, 5};
    static const double value[] = {0.2, 0.5, 0.55, 0.6, 0.3};
    static const double line_cost[] = {1, 2, 3}, line_value[] = {0.1, 0.2, 0.3};
    static const double sag_value[] = {0.1, 0.12, 0.3};
    (void)state;
    // From the diagonal: (3, 0.5): 0.75 - 1/14 = 0.679; (4, 0.55): 0.875 - 2/14 = 0.732.
    assert_int_equal(kv_pareto_knee(cost, value, COUNT(cost)), 2);
    assert_int_equal(kv_pareto_knee(line_cost, line_value, 3), 3);
    assert_int_equal(kv_pareto_knee(line_cost, sag_value, 3), 3);
    assert_int_equal(kv_pareto_knee(cost, value, 2), 2);
}

static void a_dominated_point_names_the_best_point_that_beats_it(void **state) {
    static const double cost[] = {2, 3, 4, 3.5, 4, NAN, 2, 1};
    static const double value[] = {0.3, 0.5, 0.6, 0.4, 0.6, 0.9, 0.2, 0.1};
    static const size_t expected[] = {8, 8, 8, 1, 8, 8, 0, 8};
    size_t by[COUNT(cost)];
    (void)state;
    kv_pareto_dominators(cost, value, COUNT(cost), by);
    assert_memory_equal(by, expected, sizeof by);
}

static void weights_make_a_ratio_and_lower_divergence_wins(void **state) {
    enum { ITEMS = 50 };
    static double kl[2][ITEMS], tokens[2][ITEMS];
    static const double cost[] = {4, 2};
    double frequency[2];
    struct kv_interval area;
    (void)state;
    for (size_t i = 0; i < ITEMS; i++) {
        kl[0][i] = i == 0 ? 50 : 0.1; // one short item diverges: without weights it would decide
        kl[1][i] = 0.5;
        tokens[0][i] = tokens[1][i] = i == 0 ? 0.001 : 10;
    }
    struct kv_resampler *r = kv_resampler_new(ITEMS, NULL, NULL);
    struct kv_pareto_draws d = {.resampler = r,
                                .x = &kl[0][0],
                                .w = &tokens[0][0],
                                .cost = cost,
                                .n_points = 2,
                                .n_items = ITEMS,
                                .lower_is_better = true,
                                .seed = 1,
                                .draws = 200,
                                .most = 5,
                                .floor = -1};
    kv_pareto_bootstrap(&d, frequency, &area, 0.95);
    assert_true(frequency[0] == 1 && frequency[1] == 1);
    // (5 - 2) 0.5 + (5 - 4) 0.4, less what the short item takes off.
    assert_true(area.high <= 1.9 + 1e-12 && area.low > 1.89);
    d.w = NULL;
    kv_pareto_bootstrap(&d, frequency, NULL, 0.95);
    assert_true(frequency[0] < 0.5);
    kv_resampler_free(r);
}

// reports/figures/reliability.svg is the same on more sets. A high frequency is right; a low one
// does not say that a point is off the frontier, only that these items do not show it on.
static void the_bootstrap_frequency_is_near_the_truth_and_careful(void **state) {
    struct reliability_bin bins[RELIABILITY_BINS] = {{0}};
    double last = 0;
    (void)state;
    for (uint64_t w = 0; w < 150; w++) reliability_world(w, 500, bins);
    for (size_t b = 0; b < RELIABILITY_BINS; b++) {
        double n = (double)bins[b].n, share = (double)bins[b].truly_on / n;
        double frequency = bins[b].frequency / n, error = sqrt(0.25 / n);
        if (!(share > frequency - 0.02 - 2 * error && share < frequency + 0.17 + 2 * error))
            fail_msg("frequency %.2f: %.2f are on the frontier", frequency, share);
        assert_true(share > last - 3 * error);
        last = share;
    }
    assert_true(last > 0.96);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_frontier_holds_what_no_other_beats),
        cmocka_unit_test(the_fast_frontier_is_the_definition),
        cmocka_unit_test(the_hypervolume_is_the_area_under_the_steps),
        cmocka_unit_test(the_knee_is_farthest_above_the_chord),
        cmocka_unit_test(a_dominated_point_names_the_best_point_that_beats_it),
        cmocka_unit_test(weights_make_a_ratio_and_lower_divergence_wins),
        cmocka_unit_test(the_bootstrap_frequency_is_near_the_truth_and_careful),
        cmocka_unit_test(a_clear_winner_is_always_on_the_frontier_and_a_coin_toss_half_the_time),
    };
    return cmocka_run_group_tests_name("pareto", tests, NULL, NULL);
}
