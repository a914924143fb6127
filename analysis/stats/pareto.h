// SPDX-License-Identifier: Apache-2.0
// The frontier of value against cost: the points that no other beats, and how sure that is.
//
//     bool *on = ...;  kv_pareto(cost, accuracy, n, on);
//     kv_pareto_frequency(resampler, right, cost, n, n_items, seed, 1000, frequency);
#ifndef KV_ANALYSIS_STATS_PARETO_H
#define KV_ANALYSIS_STATS_PARETO_H

#include "analysis/stats/stats.h"

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

// The same for means of x weighted by w (both [n_points][n_items]; NAN x = not judged): the
// divergence a scored token is sum(x w) / sum(w). w NULL: all weigh alike. lower_is_better turns
// the value round, so that a floor is then minus the largest divergence. *hypervolume: percentile
// interval of kv_hypervolume over the draws; NULL = not wanted.
struct kv_pareto_draws {
    const struct kv_resampler *resampler;
    const double *x, *w, *cost;
    size_t n_points, n_items;
    bool lower_is_better;
    uint64_t seed;
    size_t draws;
    double most, floor; // of the hypervolume
};
void kv_pareto_bootstrap(const struct kv_pareto_draws *d, double *frequency,
                         struct kv_interval *hypervolume, double confidence);

// Area that the frontier dominates, up to `most` cost and down to `floor` value (Zitzler and
// Thiele, PPSN V, 1998, in two dimensions): higher is better; 0 when no point lies inside. In units
// of cost times value.
double kv_hypervolume(const double *cost, const double *value, size_t n, double most, double floor);

// The frontier's knee: the point farthest above the line between its cheapest and its best point,
// both axes scaled to their span (Das, Structural Optimization 18:107, 1999). n = none: fewer than
// three points on the frontier, or none above the line.
size_t kv_pareto_knee(const double *cost, const double *value, size_t n);

// Why a point is not on the frontier: of the points on it that dominate it, the one with the best
// value, then the least cost. by[i] = n for points on the frontier and for those with a NAN.
void kv_pareto_dominators(const double *cost, const double *value, size_t n, size_t *by);

#endif
