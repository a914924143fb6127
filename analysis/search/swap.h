// SPDX-License-Identifier: Apache-2.0
// Improving a plan by swaps at equal cost, each verified by measuring: how far is the best plan of
// an additive model from what measurement finds?
//
//     struct kv_swap s = {.n_groups = g, .n_options = w, .cost = c, .loss = l, .budget = b,
//                         .n_items = n, .measure = f, .self = &data, .evaluations = 200};
//     kv_swap_run(&s, choice, &e);             choice[g]: in, the additive optimum; out, the plan
//
// A round probes single steps, a group to its next cheaper or next dearer option, by measuring them
// all; then it makes swaps of a dearer step and the cheaper ones that pay for it, those that the
// probes say help most first, measures each and keeps it when the value falls by more than two
// standard errors of the paired difference over items. Rounds go on until one keeps nothing or the
// evaluations are used. Nothing is drawn: equal inputs give equal answers.
#ifndef KV_ANALYSIS_SEARCH_SWAP_H
#define KV_ANALYSIS_SEARCH_SWAP_H

#include "policies/policy.h"

struct kv_swap {
    size_t n_groups, n_options;
    const double *cost, *loss; // [n_groups][n_options]; a loss of INFINITY: not offered
    double budget;             // most cost of a plan
    size_t n_items;
    // Values of plans: choice[n_plans][n_groups] in, value[n_plans][n_items] out; a plan's value is
    // the sum over items. KV_EINTR ends the search without harm.
    int (*measure)(void *self, const uint8_t *choice, size_t n_plans, double *value,
                   struct kv_error *e);
    void *self;
    size_t evaluations; // most plans that may be measured, at least 1
    // Out: plans measured, swaps kept, value of the first and of the last plan, whether the search
    // was interrupted.
    size_t evaluated, kept;
    double first_value, value;
    bool interrupted;
};

// Errors: those of measure but KV_EINTR. An interruption before the first plan was measured leaves
// both values NAN.
KV_MUST_CHECK int kv_swap_run(struct kv_swap *s, uint8_t *choice, struct kv_error *e);

#endif
