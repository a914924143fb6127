// SPDX-License-Identifier: Apache-2.0
// What explains the results of a store's runs: each factor's effect on what accuracy loses to 16
// bit and on divergence, with bootstrap intervals over items. What `attribute` prints.
#ifndef KV_ANALYSIS_RESULTS_ATTRIBUTION_H
#define KV_ANALYSIS_RESULTS_ATTRIBUTION_H

#include "analysis/results/factors.h"

// A level against the mean of its factor's levels; a pair of levels beyond what both do apart.
struct kv_effect_size {
    double estimate, low, high; // NAN = the runs do not determine it
};
struct kv_effect {
    size_t a, level_a;
    size_t b, level_b;            // b = KV_MAX_FACTORS: a main effect
    size_t n_runs;                // that have this level, or both
    struct kv_effect_size acc;    // points of accuracy against 16 bit
    struct kv_effect_size log_kl; // of KL a scored token, natural logarithm
    double acc_share, kl_share;   // of the runs' variance, of the whole factor or pair
};

struct kv_attribution {
    struct kv_factors factors;
    size_t scorer;              // number of the factor "scorer", which only accuracy has
    size_t n_items, n_left_out; // that all runs hold; that only some hold
    double acc_main, kl_main;   // share of the variance that all main effects explain together
    size_t n;
    struct kv_effect *effects; // main effects in order, then pairs
};

const char *kv_attribution_factor(const struct kv_attribution *t, size_t factor);
const char *kv_attribution_level(const struct kv_attribution *t, size_t factor, size_t level);
// Did both results leave a factor out, since others determine it?
bool kv_attribution_has(const struct kv_attribution *t, size_t factor);
// Each pair of factors once, by the cell that deviates most, those that explain most first. Returns
// how many; pairs[] has room for t->n.
size_t kv_attribution_pairs(const struct kv_attribution *t, const struct kv_effect **pairs);

// rows[n_rows]: of one trace; those that hold everything at 16 bits must not be among them. Free
// with kv_attribution_fini.
KV_MUST_CHECK int kv_attribute(struct kv_attribution *t, struct kv_store *s,
                               const struct kv_summary *const *rows, size_t n_rows, uint64_t seed,
                               size_t draws, struct kv_error *e);
void kv_attribution_fini(struct kv_attribution *t);

#endif
