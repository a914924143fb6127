// SPDX-License-Identifier: Apache-2.0
// The frontier holds what no other point beats, ties included, and knows how sure it is.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "analysis/pareto.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_frontier_holds_what_no_other_beats),
        cmocka_unit_test(the_fast_frontier_is_the_definition),
        cmocka_unit_test(a_clear_winner_is_always_on_the_frontier_and_a_coin_toss_half_the_time),
    };
    return cmocka_run_group_tests_name("pareto", tests, NULL, NULL);
}
