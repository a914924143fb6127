// SPDX-License-Identifier: Apache-2.0
// Judges the searches on functions whose least value is known.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "analysis/search/search.h"

static const double low[] = {-1, -1, 0}, high[] = {3, 2, 1};

// Least at (1, 1, 0.25), in a bent valley.
static double valley(void *self, const double *x) {
    size_t *calls = self;
    ++*calls;
    for (int i = 0; i < 3; i++) assert_true(x[i] >= low[i] && x[i] <= high[i]);
    return pow(1 - x[0], 2) + 3 * pow(x[1] - x[0] * x[0], 2) + pow(x[2] - 0.25, 2);
}

static void run(enum kv_search_method method, size_t tries, double within) {
    struct kv_error e;
    size_t calls = 0;
    double best[3], again[3], value, second;
    struct kv_search s = {.n = 3,
                          .low = low,
                          .high = high,
                          .value = valley,
                          .self = &calls,
                          .method = method,
                          .tries = tries,
                          .seed = 5};
    assert_int_equal(kv_search_run(&s, best, &value, &e), 0);
    assert_true(calls <= tries && s.tried == calls && calls > tries / 2);
    if (value > within) fail_msg("%s: %g after %zu", kv_search_methods[method], value, calls);
    assert_true(valley(&calls, best) == value);
    assert_int_equal(kv_search_run(&s, again, &second, &e), 0);
    assert_memory_equal(best, again, sizeof best);
}

static void every_method_nears_the_least_value_within_its_tries_and_repeats(void **state) {
    (void)state;
    run(KV_SEARCH_GRID, 9261, 0.01);
    run(KV_SEARCH_RANDOM, 5000, 0.05);
    run(KV_SEARCH_SIMPLEX, 600, 1e-4);
    run(KV_SEARCH_ANNEAL, 5000, 0.02);
}

static double gap(void *self, const double *x) {
    (void)self;
    return x[0] < 0.5 ? INFINITY : x[0];
}

static void points_without_a_value_are_walked_around(void **state) {
    (void)state;
    struct kv_error e;
    double best, value;
    for (int m = 0; kv_search_methods[m]; m++) {
        struct kv_search s = {.n = 1,
                              .low = &low[2],
                              .high = &high[2],
                              .value = gap,
                              .method = (enum kv_search_method)m,
                              .tries = 300,
                              .seed = 2};
        assert_int_equal(kv_search_run(&s, &best, &value, &e), 0);
        assert_true(value >= 0.5 && value < 0.55);
    }
}

static void an_empty_box_is_refused(void **state) {
    (void)state;
    struct kv_error e;
    double best, value, at = 1;
    struct kv_search s = {.n = 1, .low = &at, .high = &at, .value = gap, .tries = 10};
    assert_int_equal(kv_search_run(&s, &best, &value, &e), KV_EUSAGE);
    s.n = 0;
    assert_int_equal(kv_search_run(&s, &best, &value, &e), KV_EUSAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_method_nears_the_least_value_within_its_tries_and_repeats),
        cmocka_unit_test(points_without_a_value_are_walked_around),
        cmocka_unit_test(an_empty_box_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
