// SPDX-License-Identifier: Apache-2.0
// Tuning: policies of least predicted divergence within a budget, chosen on some items of a trace
// and confirmed by exact replay on others.
//
//     struct kv_tune_options o = kv_tune_defaults();
//     const char *words[] = {"layerwise@asym:group=32", "threshold:quantiles=0..1,bits=3/5@sym"};
//     struct kv_tune t;
//     o.plan.trace = "f.trace", o.plan.limit = 4.5, o.model = "model.gguf";
//     o.words = words, o.n_words = 2;
//     int rc = kv_tune_run(&t, &o, &e);                        t.at[0]: the best
//     kv_tune_fini(&t);
#ifndef KV_ANALYSIS_STUDIES_TUNE_H
#define KV_ANALYSIS_STUDIES_TUNE_H

#include "analysis/search/search.h"
#include "analysis/stats/stats.h"
#include "analysis/studies/planner.h"
#include "sim/model/compute.h"

// What policies found are ranked by.
enum kv_objective { KV_OBJECTIVE_KL, KV_OBJECTIVE_ACCURACY };
extern const char *const kv_objectives[]; // "kl", "accuracy", NULL

struct kv_tune_options {
    size_t struct_bytes; // as kv_tune_defaults sets it
    struct kv_planner_options plan;
    const char *model; // GGUF file or Hugging Face folder, for exact replay
    enum kv_compute compute;
    // Each a separable family ("static@F", "layerwise@F", "layerwise:by=head@F", "class@F"),
    // "kvtuner@F", a spec with free parameters ("threshold:quantiles=0..1,bits=3/5@F"), or specs as
    // sweeps take them.
    const char *const *words;
    size_t n_words;
    uint32_t widths[KV_MAX_WIDTHS]; // that a family's plan may use; none = all that F offers
    size_t n_widths;
    enum kv_search_method method; // for free parameters
    size_t tries;                 // policies tried in such a search
    bool greedy;                  // improve plans by swaps that exact replay verifies: greedy.h
    size_t evaluations;           // plans that it replays
    size_t verify;                // on so many of the train items, the first
    bool predict_only;            // do not confirm
    enum kv_objective objective;
};
// The defaults of kv_planner_defaults; the simplex with 300 tries; 200 evaluations on 8 items.
struct kv_tune_options kv_tune_defaults(void);
// Says what is wrong with options before anything is opened: KV_EUSAGE; `where` is the field.
KV_MUST_CHECK int kv_tune_check(const struct kv_tune_options *o, struct kv_error *e);

// One policy that was found or given.
struct kv_tuned {
    char *spec, *how; // "knapsack, 60 groups", "simplex", "as given", ...
    size_t tried;     // policies or plans, to find it
    struct kv_forecast train, test;
    double budget;   // that it was to stay within, as test.cost
    double verified; // exact KL on the items that greedy replays; NAN
    double gap;      // of the plan's predicted damage to the best possible, 0..1; NAN
    // Of exact replay on the test items, NAN until confirmed: nats a scored token, and shares of
    // items that are right and that pick as the 16-bit run does.
    struct kv_mean kl;
    double acc, agree;
};

struct kv_tune {
    struct kv_tuned *at; // the best first
    size_t n;
    bool interrupted; // by the user: what was found until then stands, and is not confirmed
};

// Runs the study. Free with kv_tune_fini, whatever is returned. Errors: those of kv_tune_check,
// kv_planner_open, kv_plan_find, kv_search_run and exact replay; a spec that is none.
KV_MUST_CHECK int kv_tune_run(struct kv_tune *t, const struct kv_tune_options *o,
                              struct kv_error *e);
void kv_tune_fini(struct kv_tune *t);

#endif
