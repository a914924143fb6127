// SPDX-License-Identifier: Apache-2.0
// The budgeted knapsack against every answer there is, and against many random ones.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#include "policies/knapsack.h"

enum { MAX_GROUPS = 400, OPTIONS = 5 };

struct problem {
    double cost[MAX_GROUPS * OPTIONS], loss[MAX_GROUPS * OPTIONS];
    struct kv_knapsack k;
};

// Widths 2, 3, 4, 8, 16 with a scale, weighted by how often a token counts; losses fall about
// fourfold a bit, with noise that leaves some options off the hull.
static void fill_problem(struct problem *p, size_t groups, uint64_t seed, double share) {
    static const double bits[OPTIONS] = {2.25, 3.25, 4.25, 8.25, 16};
    double least = 0, most = 0;
    for (size_t g = 0; g < groups; g++) {
        double weight = 0.5 + kv_draw(seed, 1, g), size = exp(6 * kv_draw(seed, 2, g));
        for (size_t o = 0; o < OPTIONS; o++) {
            p->cost[g * OPTIONS + o] = weight * bits[o];
            p->loss[g * OPTIONS + o] =
                size * pow(4, -bits[o]) * (0.5 + kv_draw(seed, 3, g * OPTIONS + o));
        }
        least += weight * bits[0];
        most += weight * bits[OPTIONS - 1];
    }
    p->k = (struct kv_knapsack){.n_groups = groups,
                                .n_options = OPTIONS,
                                .cost = p->cost,
                                .loss = p->loss,
                                .budget = least + share * (most - least),
                                .max_states = 1u << 20};
}

static double total(const double *table, const uint8_t *choice, size_t groups) {
    double sum = 0;
    for (size_t g = 0; g < groups; g++) sum += table[g * OPTIONS + choice[g]];
    return sum;
}

static double best_of_all(const struct problem *p) {
    size_t n = 1;
    double best = INFINITY;
    for (size_t g = 0; g < p->k.n_groups; g++) n *= OPTIONS;
    for (size_t code = 0; code < n; code++) {
        double cost = 0, loss = 0;
        size_t rest = code;
        for (size_t g = 0; g < p->k.n_groups; g++, rest /= OPTIONS) {
            cost += p->cost[g * OPTIONS + rest % OPTIONS];
            loss += p->loss[g * OPTIONS + rest % OPTIONS];
        }
        if (cost <= p->k.budget) best = fmin(best, loss);
    }
    return best;
}

static void small_problems_are_solved_to_the_best_of_all_answers(void **state) {
    (void)state;
    static struct problem p;
    for (uint64_t seed = 0; seed < 60; seed++) {
        uint8_t choice[MAX_GROUPS];
        struct kv_knapsack_result r;
        fill_problem(&p, 1 + seed % 7, seed, 0.05 + 0.9 * kv_draw(seed, 9, 0));
        assert_true(kv_knapsack_solve(&p.k, choice, &r));
        double best = best_of_all(&p);
        assert_true(r.exact);
        assert_true(fabs(r.loss - best) <= 1e-12 * best);
        assert_true(r.bound <= best * (1 + 1e-12));
        assert_true(r.cost <= p.k.budget);
    }
}

static void the_greedy_answer_lies_between_the_bound_and_any_random_answer(void **state) {
    (void)state;
    static struct problem p;
    for (uint64_t seed = 0; seed < 20; seed++) {
        uint8_t choice[MAX_GROUPS], other[MAX_GROUPS];
        struct kv_knapsack_result r;
        fill_problem(&p, MAX_GROUPS, 100 + seed, 0.02 + 0.3 * kv_draw(seed, 9, 0));
        p.k.max_states = 0;
        assert_true(kv_knapsack_solve(&p.k, choice, &r));
        assert_true(r.cost <= p.k.budget);
        assert_true(r.bound <= r.loss);
        assert_true(fabs(r.loss - total(p.loss, choice, MAX_GROUPS)) <= 1e-9);
        for (uint64_t draw = 0; draw < 500; draw++) {
            // The same options on other groups; only those within the budget compare.
            for (size_t g = 0; g < MAX_GROUPS; g++) other[g] = choice[g];
            for (size_t g = MAX_GROUPS; g-- > 1;) {
                size_t with = (size_t)(kv_draw(draw, seed, g) * (double)(g + 1));
                uint8_t t = other[g];
                other[g] = other[with];
                other[with] = t;
            }
            if (total(p.cost, other, MAX_GROUPS) > p.k.budget) continue;
            assert_true(total(p.loss, other, MAX_GROUPS) >= r.bound);
            assert_true(total(p.loss, other, MAX_GROUPS) >= r.loss);
        }
    }
}

static void a_generous_budget_gives_each_group_its_least_loss(void **state) {
    (void)state;
    static struct problem p;
    uint8_t choice[MAX_GROUPS];
    struct kv_knapsack_result r;
    fill_problem(&p, 50, 3, 1.01);
    assert_true(kv_knapsack_solve(&p.k, choice, &r));
    assert_true(r.exact);
    for (size_t g = 0; g < 50; g++)
        for (size_t o = 0; o < OPTIONS; o++)
            assert_true(p.loss[g * OPTIONS + choice[g]] <= p.loss[g * OPTIONS + o]);
}

static void a_budget_below_the_cheapest_answer_is_refused(void **state) {
    (void)state;
    static struct problem p;
    uint8_t choice[MAX_GROUPS];
    struct kv_knapsack_result r;
    fill_problem(&p, 8, 4, -0.01);
    assert_false(kv_knapsack_solve(&p.k, choice, &r));
    for (size_t g = 0; g < 8; g++) assert_int_equal(choice[g], 0);
}

static void options_that_are_not_offered_are_never_chosen(void **state) {
    (void)state;
    static struct problem p;
    uint8_t choice[MAX_GROUPS];
    struct kv_knapsack_result r;
    fill_problem(&p, 60, 5, 0.2);
    for (size_t g = 0; g < 60; g++) p.loss[g * OPTIONS + g % OPTIONS] = INFINITY;
    assert_true(kv_knapsack_solve(&p.k, choice, &r));
    for (size_t g = 0; g < 60; g++) assert_int_not_equal(choice[g], g % OPTIONS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_problems_are_solved_to_the_best_of_all_answers),
        cmocka_unit_test(the_greedy_answer_lies_between_the_bound_and_any_random_answer),
        cmocka_unit_test(a_generous_budget_gives_each_group_its_least_loss),
        cmocka_unit_test(a_budget_below_the_cheapest_answer_is_refused),
        cmocka_unit_test(options_that_are_not_offered_are_never_chosen),
    };
    return cmocka_run_group_tests_name("knapsack", tests, NULL, NULL);
}
