// SPDX-License-Identifier: Apache-2.0
// The frontier of value against cost: the points that no other beats, and how sure that is.
//
//     bool *on = ...;  kv_pareto(cost, accuracy, n, on);
//     kv_pareto_frequency(resampler, right, cost, n, n_items, seed, 1000, frequency);
#ifndef KV_PARETO_H
#define KV_PARETO_H

#include "analysis/stats.h"

// Sets on[i] for the points that no other dominates: at least as good and at most as dear, and one
// of both strictly. value: higher is better; cost: lower is. Equal points are on it together; a
// point with a NAN is not on it. O(n log n).
void kv_pareto(const double *cost, const double *value, size_t n, bool *on);

// Of each point, the share of bootstrap draws over items in which it is on the frontier. right:
// [n_points][n_items] how right each was on each item (NAN = not judged); cost: [n_points], taken
// as known. Points of one draw are judged on the same items, so the comparison stays paired.
// frequency: [n_points].
void kv_pareto_frequency(const struct kv_resampler *r, const double *right, const double *cost,
                         size_t n_points, size_t n_items, uint64_t seed, size_t draws,
                         double *frequency);

#endif
