// SPDX-License-Identifier: Apache-2.0
// Two runs of a store side by side on the items that both hold: what diff and verdict compare.
#ifndef KV_ANALYSIS_RESULTS_PAIRS_H
#define KV_ANALYSIS_RESULTS_PAIRS_H

#include "analysis/stats/stats.h"
#include "sim/store/store.h"

// [n] each, ascending by item; borrowed texts live as long as the lists that were joined.
struct kv_pairs {
    size_t n;
    size_t n_left_out; // items of both that are not finite on one side: on neither are they counted
    double *a[KV_N_SCORERS], *b[KV_N_SCORERS]; // how right
    double *kl_a, *kl_b, *n_scored;
    uint64_t *context;
    const char **source;
};

void kv_pairs_join(struct kv_pairs *j, const struct kv_item_result *a, size_t n_a,
                   const struct kv_item_result *b, size_t n_b);
void kv_pairs_fini(struct kv_pairs *j);

// Resamples items in their sources and contexts. Free with kv_resampler_free.
struct kv_resampler *kv_pairs_resampler(const struct kv_pairs *j);

// How alike two rows were replayed: fidelity before mode, own step and seed; -1 = not one trace.
int kv_pairs_likeness(const struct kv_summary *a, const struct kv_summary *b);

// The pair of rows to compare: of one trace, and alike in fidelity, mode, own step and seed where
// that is possible. false when no two are of one trace.
bool kv_pairs_choose(const struct kv_summary *a, size_t n_a, const struct kv_summary *b, size_t n_b,
                     size_t *at_a, size_t *at_b);

#endif
