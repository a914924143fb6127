// SPDX-License-Identifier: Apache-2.0
// What tune needs of a trace: predicted damage and price of policies on two sets of items, the one
// that plans are chosen on and the one that they are judged on.
#ifndef KV_ANALYSIS_STUDIES_PLAN_H
#define KV_ANALYSIS_STUDIES_PLAN_H

#include "policies/knapsack.h"
#include "sim/cli/options.h"
#include "sim/cost/cost.h"
#include "sim/replay/sums.h"

struct kv_item_range {
    size_t first, n;
};

// A budget on what a cached token takes: allocated bits a value, bytes a token, or milliseconds a
// step at a context on a device.
struct kv_budget {
    enum { KV_BUDGET_BITS, KV_BUDGET_BYTES, KV_BUDGET_MS } unit;
    double limit;
    double context; // tokens, for KV_BUDGET_MS
    struct kv_device *device;
};

// A format with its damage table and its prices in the budget's unit: a policy costs
//   fixed + sum over K, V and widths of share[side][w] * price[side][w] + tag bits * per_tag_bit.
struct kv_ground {
    char *format_text;
    struct kv_format *format;
    struct kv_cell_table *table;
    struct kv_cell_table_sums *sums;
    double price[2][KV_MAX_WIDTHS], fixed, per_tag_bit;
};

struct kv_tuning {
    struct kv_trace *trace;
    struct kv_budget budget;
    enum kv_cell_table_kind form;
    bool robust; // plans go by the median of means over parts of the train items
    struct kv_item_range train, test;
    unsigned jobs;
    uint64_t seed;
    struct kv_ground *ground;
    size_t n_ground;
    struct kv_quantiles *quantiles; // made when a policy first asks
};

// Opens the trace named by the first argument, from the options --form, --mean, --train, --test;
// the budget is for the caller to set, or read from --budget and --context.
KV_MUST_CHECK int kv_tuning_open(struct kv_tuning *t, struct kv_cli *c, struct kv_error *e);
KV_MUST_CHECK int kv_tuning_budget(struct kv_tuning *t, struct kv_cli *c, struct kv_error *e);
void kv_tuning_close(struct kv_tuning *t);

// The ground of a format, made when first asked for. Borrowed until the next call.
KV_MUST_CHECK int kv_tuning_ground(struct kv_tuning *t, const char *format,
                                   struct kv_ground **ground, struct kv_error *e);

// Predicted divergence in nats a scored token, and cost, of a spec on a range of items.
struct kv_forecast {
    double kl_nats, cost;
};
KV_MUST_CHECK int kv_tuning_forecast(struct kv_tuning *t, const struct kv_replay_spec *spec,
                                     const struct kv_item_range *items, struct kv_forecast *out,
                                     struct kv_error *e);

// ---- separable families ---------------------------------------------------------------

// Families whose damage is a sum over groups of cells that choose their widths apart.
enum kv_family {
    KV_FAMILY_STATIC,
    KV_FAMILY_LAYER,
    KV_FAMILY_HEAD,
    KV_FAMILY_CLASS,
    KV_N_FAMILIES
};

// The best plan of a family within the budget on the train items; result.exact says that no other
// plan of the family is predicted better. Free with kv_plan_fini. Errors: a budget below the
// cheapest plan.
struct kv_plan {
    enum kv_family family;
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
KV_MUST_CHECK int kv_tuning_plan(struct kv_tuning *t, enum kv_family family, const char *format,
                                 const double *widths, size_t n_widths, struct kv_plan *out,
                                 struct kv_error *e);
void kv_plan_fini(struct kv_plan *p);
// The spec of some choice of options; caller frees.
char *kv_plan_text(const struct kv_plan *p, const uint8_t *choice);

// ---- exact replay ---------------------------------------------------------------------

// The mode that the trace's sensitivities were recorded for.
enum kv_mode kv_tuning_mode(const struct kv_tuning *t);
// Exact replay of specs on a range of items, in the recorded mode and own-step reading. Errors:
// those of kv_replay_exact.
KV_MUST_CHECK int kv_tuning_replay(const struct kv_tuning *t, const struct kv_model *m,
                                   const struct kv_replay_spec *specs, size_t n_specs,
                                   const struct kv_item_range *items, bool quiet,
                                   int (*take)(void *self, size_t item, size_t spec,
                                               const struct kv_outcome *o, struct kv_error *e),
                                   void *self, struct kv_error *e);

// KVTuner's plan within a budget of bits (policies/kvtuner.c), calibrated on the train items, as a
// layerwise spec; *how says what was searched. Caller frees both. Errors: a budget in another unit,
// train items that are not the trace's first, a trace without queries.
KV_MUST_CHECK int kv_tuning_kvtuner(struct kv_tuning *t, const char *format, char **spec,
                                    char **how, struct kv_error *e);

#endif
