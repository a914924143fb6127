// SPDX-License-Identifier: Apache-2.0
// greedy-exact: a separable family's additive plan improved by swaps that exact replay verifies.
#ifndef KV_ANALYSIS_STUDIES_GREEDY_H
#define KV_ANALYSIS_STUDIES_GREEDY_H

#include "analysis/studies/plan.h"

struct kv_greedy {
    const struct kv_planner *planner;
    const struct kv_model *model;
    const struct kv_plan *plan; // where it begins
    struct kv_item_range items; // that plans are replayed on
    size_t evaluations;         // most plans replayed
    uint8_t *choice;            // out: [plan->n_groups], caller frees
    size_t evaluated, kept;     // out: plans replayed, swaps kept
    double kl_first, kl_nats;   // out: exact, nats a scored token, of the plan begun with and found
    bool interrupted;           // out: by the user; what was found until then stands
};
// Errors: those of exact replay.
KV_MUST_CHECK int kv_greedy_run(struct kv_greedy *g, struct kv_error *e);

#endif
