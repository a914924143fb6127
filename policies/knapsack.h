// SPDX-License-Identifier: Apache-2.0
// The multiple-choice knapsack: one option for each group, least loss within a budget of cost.
//
//     struct kv_knapsack k = {.n_groups = n, .n_options = w, .cost = c, .loss = l, .budget = b};
//     struct kv_knapsack_result r;
//     if (kv_knapsack_solve(&k, choice, &r)) ...                 choice[g] < n_options
//     r.loss - r.bound                                           no answer is better by more
//
// Linear relaxation on the lower convex hull of each group (Sinha and Zoltners, Operations Research
// 27, 1979), the rest of the budget filled greedily, then exact dynamic programming over the
// options whose reduced loss fits the gap (Pisinger, EJOR 83, 1995), where its lists stay short.
#ifndef KV_POLICIES_KNAPSACK_H
#define KV_POLICIES_KNAPSACK_H

#include "policies/policy.h"

struct kv_knapsack {
    size_t n_groups, n_options; // at most 255 options
    // [n_groups][n_options], finite and not negative; an option with a loss of INFINITY is not
    // offered (each group needs one that is).
    const double *cost, *loss;
    double budget;
    size_t max_states; // of the dynamic program, in all; 0 = none is tried
};

struct kv_knapsack_result {
    double loss, cost; // of the answer
    double bound;      // no answer within the budget has a smaller loss
    bool exact;        // the answer is proven best
};

// Fills choice[n_groups]. Returns false when even the cheapest options exceed the budget (the
// answer then holds those) or memory ran out.
bool kv_knapsack_solve(const struct kv_knapsack *k, uint8_t *choice, struct kv_knapsack_result *r);

#endif
