// SPDX-License-Identifier: Apache-2.0
// What explains a result over many configurations: main effects and two-way interactions of
// factors, by least squares with sum-to-zero coding.
//
//     struct kv_factorial *f = kv_factorial_new(n_configs, n_factors, n_levels, level);
//     kv_factorial_main(f, factor, y, effect);         effect[l]: level l against the mean of
//     levels kv_factorial_pair(f, a, b, y, effect);           effect[la * n_levels[b] + lb]: beyond
//     both
//
// An effect is a fixed linear combination of the configurations' results y, so an interval comes
// from doing the same to resampled ones. In a full factorial design effects are differences of
// marginal means; with cells missing they are those of the model mean + main effects (+ the pair's
// interaction), as far as the cells determine it.
#ifndef KV_ANALYSIS_STATS_FACTORIAL_H
#define KV_ANALYSIS_STATS_FACTORIAL_H

#include "policies/policy.h"

enum { KV_MAX_FACTORS = 24, KV_MAX_LEVELS = 24 };

struct kv_factorial;

// level: [n_configs][n_factors], each below n_levels[factor] (2..KV_MAX_LEVELS, every level seen).
// Copied. Factors are taken in order: one that those before it determine in part is left out.
struct kv_factorial *kv_factorial_new(size_t n_configs, size_t n_factors, const size_t *n_levels,
                                      const size_t *level);
void kv_factorial_free(struct kv_factorial *f);

// false: left out, since earlier factors determine it in part.
bool kv_factorial_has(const struct kv_factorial *f, size_t factor);
// false: the cells do not determine the interaction of two factors that are in.
bool kv_factorial_has_pair(const struct kv_factorial *f, size_t a, size_t b);

// effect: [n_levels[factor]]. Needs kv_factorial_has.
void kv_factorial_main(const struct kv_factorial *f, size_t factor, const double *y,
                       double *effect);
// effect: [n_levels[a]][n_levels[b]]. Needs kv_factorial_has_pair; a < b.
void kv_factorial_pair(const struct kv_factorial *f, size_t a, size_t b, const double *y,
                       double *effect);

// Share of the configurations' sum of squares about their mean that goes when a factor joins the
// others (type III), or a pair's interaction joins the main effects; 0 when y does not vary.
double kv_factorial_share(const struct kv_factorial *f, size_t factor, const double *y);
double kv_factorial_pair_share(const struct kv_factorial *f, size_t a, size_t b, const double *y);
// ... that all main effects explain together.
double kv_factorial_main_share(const struct kv_factorial *f, const double *y);

#endif
