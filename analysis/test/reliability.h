// SPDX-License-Identifier: Apache-2.0
// Made-up sets of policies whose frontier is known, to see what its bootstrap frequency is worth:
// of the points that are on the frontier in a share f of the resamples, how many belong there?
#ifndef KV_ANALYSIS_TEST_RELIABILITY_H
#define KV_ANALYSIS_TEST_RELIABILITY_H

#include <stdlib.h>

#include "analysis/stats/pareto.h"
#include "sim/base/memory.h"

enum { RELIABILITY_POLICIES = 12, RELIABILITY_BINS = 10, RELIABILITY_DRAWS = 200 };

struct reliability_bin {
    size_t n, truly_on; // points whose frequency falls here; of these, on the true frontier
    double frequency;   // sum
};

// One world: costs 2..16 bits; true accuracies rise with cost towards a ceiling and differ by as
// much as formats do at equal bits. On an item, policies share their luck with probability 0.85, so
// that they differ on few items, as caches of one model do. Adds its points to
// bins[RELIABILITY_BINS].
static inline void reliability_world(uint64_t world, size_t n_items, struct reliability_bin *bins) {
    double cost[RELIABILITY_POLICIES], truth[RELIABILITY_POLICIES], frequency[RELIABILITY_POLICIES];
    bool on[RELIABILITY_POLICIES];
    double *right = kv_alloc(RELIABILITY_POLICIES * n_items, sizeof *right);
    for (size_t p = 0; p < RELIABILITY_POLICIES; p++) {
        cost[p] = 2 + 14 * pow(kv_draw(11, world, p), 2);
        truth[p] = 0.45 - 0.2 * exp(-(cost[p] - 2) / 1.5) + 0.06 * (kv_draw(12, world, p) - 0.5);
    }
    for (size_t i = 0; i < n_items; i++) {
        double shared = kv_draw(13, world, i);
        for (size_t p = 0; p < RELIABILITY_POLICIES; p++) {
            uint64_t at = i * RELIABILITY_POLICIES + p;
            double luck = kv_draw(14, world, at) < 0.85 ? shared : kv_draw(15, world, at);
            right[p * n_items + i] = luck < truth[p];
        }
    }
    struct kv_resampler *r = kv_resampler_new(n_items, NULL, NULL);
    kv_pareto(cost, truth, RELIABILITY_POLICIES, on);
    kv_pareto_frequency(r, right, cost, RELIABILITY_POLICIES, n_items, world + 1, RELIABILITY_DRAWS,
                        frequency);
    for (size_t p = 0; p < RELIABILITY_POLICIES; p++) {
        size_t bin = (size_t)(frequency[p] * RELIABILITY_BINS);
        if (bin == RELIABILITY_BINS) bin--;
        bins[bin].n++;
        bins[bin].truly_on += on[p];
        bins[bin].frequency += frequency[p];
    }
    kv_resampler_free(r);
    free(right);
}

#endif
