// SPDX-License-Identifier: Apache-2.0
// Plans: the widths of a separable family's groups that are predicted to harm least within a
// budget.
//
//     struct kv_plan plan;
//     if (kv_plan_find(&plan, &planner, KV_PLAN_LAYER, "asym:group=32", NULL, 0, &e) == 0)
//         spec = kv_plan_text(&plan, plan.choice);            "layerwise:k=4/3/...,v=...@asym:..."
//     kv_plan_fini(&plan);
#ifndef KV_ANALYSIS_STUDIES_PLAN_H
#define KV_ANALYSIS_STUDIES_PLAN_H

#include "analysis/studies/planner.h"
#include "policies/knapsack.h"

// Families whose damage is a sum over groups of cells that choose their widths apart: K and V of
// the whole cache, of each layer, of each head, of each class of tokens.
enum kv_plan_family { KV_PLAN_STATIC, KV_PLAN_LAYER, KV_PLAN_HEAD, KV_PLAN_CLASS };

struct kv_plan {
    enum kv_plan_family family;
    char *format;
    size_t n_groups, n_options;
    // [n_groups][n_options] predicted nats a scored token (INFINITY: not offered) and cost; an
    // option is an index into width_bits.
    double *loss, *cost;
    double budget; // of the costs
    uint8_t width_bits[KV_MAX_WIDTHS];
    uint8_t *choice; // [n_groups]
    struct kv_knapsack_result result;
};

// The best plan of a family within the planner's budget on its train items, of n_widths widths in
// bits (none = all that the format offers); result.exact says that no other plan of the family is
// predicted better. Free with kv_plan_fini. Errors: a budget below the cheapest plan.
KV_MUST_CHECK int kv_plan_find(struct kv_plan *plan, struct kv_planner *p,
                               enum kv_plan_family family, const char *format,
                               const uint32_t *widths, size_t n_widths, struct kv_error *e);
void kv_plan_fini(struct kv_plan *plan);
// The spec of some choice of options; caller frees.
char *kv_plan_text(const struct kv_plan *plan, const uint8_t *choice);

// KVTuner's plan within a budget of bits (policies/kvtuner.c), calibrated on the train items, as a
// layerwise spec; *how says what was searched. Caller frees both. Errors: a budget in another unit,
// train items that are not the trace's first, a trace without queries.
KV_MUST_CHECK int kv_plan_kvtuner(struct kv_planner *p, const char *format, char **spec, char **how,
                                  struct kv_error *e);

#endif
