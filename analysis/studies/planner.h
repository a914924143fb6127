// SPDX-License-Identifier: Apache-2.0
// What planning needs of a trace: predicted damage and price of policies on two sets of items, the
// one that plans are chosen on and the one that they are judged on.
//
//     struct kv_planner_options o = kv_planner_defaults();
//     struct kv_planner p;
//     o.trace = "f.trace", o.limit = 5;                       allocated bits a value
//     if (kv_planner_open(&p, &o, &e) == 0)
//         rc = kv_planner_forecast(&p, &spec, &p.test, &forecast, &e);
//     kv_planner_close(&p);
//
// Plans themselves: analysis/studies/plan.h.
#ifndef KV_ANALYSIS_STUDIES_PLANNER_H
#define KV_ANALYSIS_STUDIES_PLANNER_H

#include "sim/cost/cost.h"
#include "sim/replay/sums.h"
#include "traces/range.h"

// What a budget limits of a cached token: allocated bits a value, bytes a token, or milliseconds a
// step at a context on a device.
enum kv_budget_unit { KV_BUDGET_BITS, KV_BUDGET_BYTES, KV_BUDGET_MS };
// How damage is averaged over the train items: plainly, or as the median of the means of eight
// parts.
enum kv_train_mean { KV_MEAN_PLAIN, KV_MEAN_ROBUST };
extern const char *const kv_train_means[]; // "plain", "robust", NULL

struct kv_planner_options {
    size_t struct_bytes; // as kv_planner_defaults sets it
    const char *trace;   // folder
    enum kv_form form; // of damage; none = the finest that the trace can give (kv_cell_table_best)
    enum kv_train_mean mean;
    // That plans are chosen on, and judged on; none = the trace's first half, and the others.
    struct kv_item_range train, items;
    enum kv_budget_unit unit;
    double limit;       // of the budget; may be set later, in the planner
    double context;     // tokens, for KV_BUDGET_MS
    const char *device; // shipped, or a file; for KV_BUDGET_MS
    unsigned jobs;
    uint64_t seed;
};
// Plain means, a budget of bits without a limit, a context of 2048, one thread,
// seed 1.
struct kv_planner_options kv_planner_defaults(void);
// Says what is wrong with options before anything is opened: KV_EUSAGE; `where` is the field.
KV_MUST_CHECK int kv_planner_check(const struct kv_planner_options *o, struct kv_error *e);

// A format with its damage table and its prices in the budget's unit: a policy costs
//   fixed + sum over K, V and widths of share[side][w] * price[side][w] + tag bits * per_tag_bit.
struct kv_ground {
    struct kv_format *format;
    struct kv_cell_table *table;
    struct kv_cell_table_sums *sums;
    double price[2][KV_MAX_WIDTHS], fixed, per_tag_bit;
};

struct kv_planner {
    struct kv_trace *trace;
    enum kv_mode mode; // that the trace's sensitivities were recorded for, and the own-step reading
    enum kv_self self;
    enum kv_form form; // of damage, and the tables that hold it
    enum kv_cell_table_kind table_kind;
    enum kv_train_mean mean;
    struct kv_item_range train, test;
    enum kv_budget_unit unit;
    double limit, context;
    struct kv_device *device;
    unsigned jobs;
    uint64_t seed;
    struct kv_ground *ground;
    size_t n_ground;
    struct kv_quantiles *quantiles; // made when a policy first asks
};

// Errors: a trace or device that cannot be opened, items that the trace does not hold, too few of
// them for a robust mean; KV_EUSAGE names the field.
KV_MUST_CHECK int kv_planner_open(struct kv_planner *p, const struct kv_planner_options *o,
                                  struct kv_error *e);
void kv_planner_close(struct kv_planner *p);

// The ground of a format, made when first asked for. Borrowed until the next call.
KV_MUST_CHECK int kv_planner_ground(struct kv_planner *p, const char *format,
                                    struct kv_ground **ground, struct kv_error *e);

// Predicted divergence in nats a scored token, and cost, of a spec on a range of items.
struct kv_forecast {
    double kl_nats, cost;
};
KV_MUST_CHECK int kv_planner_forecast(struct kv_planner *p, const struct kv_replay_spec *spec,
                                      const struct kv_item_range *items, struct kv_forecast *out,
                                      struct kv_error *e);

// Whether the trace's sensitivities answer for a spec; the errors of kv_fisher_answers.
KV_MUST_CHECK int kv_planner_answers(const struct kv_planner *p, const struct kv_replay_spec *spec,
                                     struct kv_error *e);

// Exact replay of specs on a range of items, in the recorded mode and own-step reading. Errors:
// those of kv_replay_exact.
KV_MUST_CHECK int kv_planner_replay(const struct kv_planner *p, const struct kv_model *m,
                                    const struct kv_replay_spec *specs, size_t n_specs,
                                    const struct kv_item_range *items, bool quiet,
                                    int (*take)(void *self, size_t item, size_t spec,
                                                const struct kv_outcome *o, struct kv_error *e),
                                    void *self, struct kv_error *e);

#endif
