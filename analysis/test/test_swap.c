// SPDX-License-Identifier: Apache-2.0
// Judges the search by swaps on values that are known.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "analysis/search/swap.h"

enum { GROUPS = 12, OPTIONS = 4, ITEMS = 6 };
static const double bits[OPTIONS] = {2, 3, 4, 8};

// What a plan is worth: each group's weight at 4^-bits, times what the model does not know.
struct world {
    double weight[GROUPS], unknown[GROUPS], noise;
    double cost[GROUPS * OPTIONS], loss[GROUPS * OPTIONS];
    size_t asked, plans, interrupt_after; // 0 = never
    double worst_cost;
};

static int measure(void *self, const uint8_t *choice, size_t n, double *value, struct kv_error *e) {
    struct world *w = self;
    if (w->interrupt_after && w->plans + n > w->interrupt_after)
        return kv_fail(e, KV_EINTR, "", "interrupted");
    w->asked++;
    for (size_t p = 0; p < n; p++, w->plans++) {
        for (size_t i = 0; i < ITEMS; i++) {
            double sum = 0;
            for (size_t g = 0; g < GROUPS; g++)
                sum += w->weight[g] * w->unknown[g] * pow(4, -bits[choice[p * GROUPS + g]]) *
                       (1 + 0.1 * kv_draw(3, g, i));
            value[p * ITEMS + i] = sum * (1 + w->noise * (kv_draw(4, w->plans, i) - 0.5));
        }
    }
    return 0;
}

static struct world world_of(uint64_t seed) {
    struct world w = {.noise = 0};
    for (size_t g = 0; g < GROUPS; g++) {
        w.weight[g] = exp(2 * kv_draw(seed, 1, g));
        w.unknown[g] = 1;
        for (size_t o = 0; o < OPTIONS; o++) {
            w.cost[g * OPTIONS + o] = bits[o] / GROUPS;
            w.loss[g * OPTIONS + o] = w.weight[g] * pow(4, -bits[o]);
        }
    }
    return w;
}

static struct kv_swap search_of(struct world *w, double budget, size_t evaluations) {
    return (struct kv_swap){.n_groups = GROUPS,
                            .n_options = OPTIONS,
                            .cost = w->cost,
                            .loss = w->loss,
                            .budget = budget + 1e-9,
                            .n_items = ITEMS,
                            .measure = measure,
                            .self = w,
                            .evaluations = evaluations};
}

static double cost_of(const struct world *w, const uint8_t *choice) {
    double sum = 0;
    for (size_t g = 0; g < GROUPS; g++) sum += w->cost[g * OPTIONS + choice[g]];
    return sum;
}

// The additive optimum at 3 bits of weights in descending order: found by swaps on the model.
static void start(struct world *w, uint8_t *choice) {
    memset(choice, 1, GROUPS); // all at 3 bits
    struct kv_error e;
    struct kv_swap s = search_of(w, 3, 1000);
    assert_int_equal(kv_swap_run(&s, choice, &e), 0);
    w->asked = w->plans = 0;
}

static void a_model_that_is_right_is_left_alone(void **state) {
    (void)state;
    struct kv_error e;
    struct world w = world_of(1);
    uint8_t choice[GROUPS], before[GROUPS];
    start(&w, choice);
    memcpy(before, choice, GROUPS);
    struct kv_swap s = search_of(&w, 3, 200);
    assert_int_equal(kv_swap_run(&s, choice, &e), 0);
    assert_int_equal(s.kept, 0);
    assert_memory_equal(choice, before, GROUPS);
    assert_true(s.value == s.first_value && s.evaluated == w.plans);
}

static void a_group_that_the_model_underrates_is_found_and_paid_for(void **state) {
    (void)state;
    struct kv_error e;
    struct world w = world_of(2);
    uint8_t choice[GROUPS], again[GROUPS];
    start(&w, choice);
    memcpy(again, choice, GROUPS);
    size_t wrong = 0;
    for (size_t g = 0; g < GROUPS; g++)
        if (choice[g] == 1) wrong = g;
    w.unknown[wrong] = 50;
    struct kv_swap s = search_of(&w, 3, 200), t = search_of(&w, 3, 200);
    assert_int_equal(kv_swap_run(&s, choice, &e), 0);
    assert_true(s.kept > 0 && s.value < 0.7 * s.first_value);
    assert_true(choice[wrong] > 1);
    assert_true(cost_of(&w, choice) <= 3 + 1e-9);
    w.plans = 0;
    assert_int_equal(kv_swap_run(&t, again, &e), 0);
    assert_memory_equal(choice, again, GROUPS);
}

static void no_more_plans_are_measured_than_allowed(void **state) {
    (void)state;
    for (size_t most = 1; most < 60; most += 3) {
        struct kv_error e;
        struct world w = world_of(3);
        uint8_t choice[GROUPS];
        memset(choice, 1, GROUPS);
        struct kv_swap s = search_of(&w, 3, most);
        assert_int_equal(kv_swap_run(&s, choice, &e), 0);
        assert_true(s.evaluated <= most && s.evaluated == w.plans);
        assert_true(cost_of(&w, choice) <= 3 + 1e-9);
        assert_true(s.value <= s.first_value);
    }
}

static void options_that_are_not_offered_are_not_taken(void **state) {
    (void)state;
    struct kv_error e;
    struct world w = world_of(4);
    uint8_t choice[GROUPS];
    memset(choice, 1, GROUPS);
    for (size_t g = 0; g < GROUPS; g++) w.loss[g * OPTIONS + 2] = INFINITY;
    struct kv_swap s = search_of(&w, 4, 300);
    assert_int_equal(kv_swap_run(&s, choice, &e), 0);
    assert_true(s.kept > 0);
    for (size_t g = 0; g < GROUPS; g++) assert_int_not_equal(choice[g], 2);
}

// Where plans differ by chance alone, one in twenty of six items passes a bound of two standard
// errors (Student's t, 5 degrees of freedom); of the plans measured, most are probes.
static void chance_keeps_few_swaps(void **state) {
    (void)state;
    size_t kept = 0, tried = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct kv_error e;
        struct world w = world_of(seed);
        uint8_t choice[GROUPS];
        for (size_t g = 0; g < GROUPS; g++) w.unknown[g] = 0;
        w.unknown[0] = w.noise = 1;
        memset(choice, 2, GROUPS);
        for (size_t o = 0; o < OPTIONS; o++) w.cost[o] = 0; // group 0 stays
        struct kv_swap s = search_of(&w, 4, 60);
        assert_int_equal(kv_swap_run(&s, choice, &e), 0);
        kept += s.kept;
        tried += s.evaluated - 1;
    }
    if (kept * 30 >= tried) fail_msg("%zu of %zu kept", kept, tried);
}

static void an_interruption_keeps_what_was_found(void **state) {
    (void)state;
    struct kv_error e;
    struct world w = world_of(2);
    uint8_t choice[GROUPS];
    memset(choice, 1, GROUPS);
    w.interrupt_after = 30;
    struct kv_swap s = search_of(&w, 3, 200);
    assert_int_equal(kv_swap_run(&s, choice, &e), 0);
    assert_true(s.interrupted && s.kept > 0 && s.value < s.first_value && s.evaluated <= 30);
    w.plans = 0;
    w.interrupt_after = 0;
    double value[ITEMS], sum = 0;
    assert_int_equal(measure(&w, choice, 1, value, &e), 0);
    for (size_t i = 0; i < ITEMS; i++) sum += value[i];
    assert_true(fabs(sum - s.value) < 1e-12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_that_is_right_is_left_alone),
        cmocka_unit_test(a_group_that_the_model_underrates_is_found_and_paid_for),
        cmocka_unit_test(no_more_plans_are_measured_than_allowed),
        cmocka_unit_test(options_that_are_not_offered_are_not_taken),
        cmocka_unit_test(chance_keeps_few_swaps),
        cmocka_unit_test(an_interruption_keeps_what_was_found),
    };
    return cmocka_run_group_tests_name("swaps", tests, NULL, NULL);
}
