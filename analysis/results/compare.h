// SPDX-License-Identifier: Apache-2.0
// Two runs compared on the items that both hold, with every test that the comparison allows. What
// `diff` prints.
#ifndef KV_ANALYSIS_RESULTS_COMPARE_H
#define KV_ANALYSIS_RESULTS_COMPARE_H

#include "analysis/results/pairs.h"
#include "analysis/stats/tokens.h"

struct kv_comparing {
    double margin; // difference that still counts as lossless, for TOST
    double power;  // with which a difference is to be seen, for the items needed
    size_t draws;  // of the bootstrap that checks the interval; 0 = none
    uint64_t seed;
};

// One quantity of runs a and b. NAN where nothing is known; what follows won is of accuracies
// alone.
struct kv_compared {
    const char *quantity; // of kv_scorer_names, "kl_nats", or of kv_token_measure_names
    bool divergence;
    size_t n; // items judged in both; of token measures, scored positions
    double a, b, difference;
    struct kv_interval interval, bootstrap; // 95 %
    double only_a, only_b;                  // items that one alone has right
    double exact_p, mid_p; // McNemar's; mid_p is a t test's where redraws make fractions
    double margin, tost_p, not_worse_p; // of equality within the margin; of a no worse than b by it
    double items_needed, smallest_seen; // to see the difference, were it true; that n would show
};
enum { KV_MAX_COMPARED = KV_N_SCORERS + 1 + KV_N_TOKEN_MEASURES - 1 };

// Fills out[] with the accuracies that both runs have, then with divergence, and returns how many
// there are.
size_t kv_compare(const struct kv_pairs *j, const struct kv_comparing *how,
                  struct kv_compared out[KV_MAX_COMPARED]);

// The same of quantiles of divergence, same top and change of probability at the scored positions
// of text windows that both runs hold; their intervals are from resampled blocks of tokens.
size_t kv_compare_tokens(const struct kv_window_tokens *a, size_t n_a,
                         const struct kv_window_tokens *b, size_t n_b,
                         const struct kv_comparing *how,
                         struct kv_compared out[KV_N_TOKEN_MEASURES]);

#endif
