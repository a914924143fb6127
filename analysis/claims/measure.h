// SPDX-License-Identifier: Apache-2.0
// A claim's quantity measured on two rows of a store, with a 95 % interval.
#ifndef KV_ANALYSIS_CLAIMS_MEASURE_H
#define KV_ANALYSIS_CLAIMS_MEASURE_H

#include "analysis/claims/claim.h"
#include "sim/store/store.h"
#include "sim/cost/cost.h"

struct kv_measuring {
    struct kv_device *device; // its costs are varied and put back; NULL = none
    uint64_t seed;
    size_t draws; // of a bootstrap
};

struct kv_measured {
    size_t n;                   // items in both
    double estimate, low, high; // in the quantity's unit; NAN = cannot be measured
    double standard_error;      // at n items; of the logarithm where `log`
    bool log;
};

// a and b: rows of one trace (equal for quantities of one spec). Accuracies: Tango's interval, or
// t where redraws make fractions; agreement: Wilson's; ratio and perplexity: bootstrap over items,
// in their sources and contexts. Latency: each cost of the device goes through its own 95 %
// interval, in both specs at once, and the changes are added as squares; what a cache of no bytes
// would save is a bound.
KV_MUST_CHECK int kv_measure(struct kv_store *s, const struct kv_claim *c,
                             const struct kv_summary *a, const struct kv_summary *b,
                             const struct kv_measuring *how, struct kv_measured *m,
                             struct kv_error *e);

// From the estimate to the nearest bound of the claim, on the scale of standard_error.
double kv_measured_distance(const struct kv_measured *m, const struct kv_claim *c);

#endif
