// SPDX-License-Identifier: Apache-2.0
// How much the items at hand can tell, and how many would tell: equivalence within a margin, items
// needed to see a difference, and an item's variance split into items and rounding.
//
//     struct kv_tost t = kv_tost_items(right_a, right_b, n, 0.01);   lossless within one point?
//     double items = kv_items_for_difference(0.02, won / n, lost / n, 0.05, 0.8);
//
// Differences are of proportions or means in 0..1, paired by item. Pure functions.
#ifndef KV_ANALYSIS_STATS_EVIDENCE_H
#define KV_ANALYSIS_STATS_EVIDENCE_H

#include "analysis/stats/stats.h"

KV_BEGIN_DECLS

enum { KV_LEAST_ITEMS = 10 }; // fewer do not tell how they vary: no bootstrap or t interval

// Two one-sided tests (Schuirmann, J. Pharmacokinet. Biopharm. 15:657, 1987) that a paired
// difference lies within +-margin.
struct kv_tost {
    double worse_p;  // of "a is worse than b by the margin or more": small = a is not worse
    double better_p; // of "a is better than b by the margin or more"
    double p;        // the larger: small = equivalent within the margin
};

// For b items where only the first is right and c where only the second is, of n: one-sided score
// tests at -margin and +margin with the constrained maximum-likelihood variance (Nam, Biometrics
// 53:1422, 1997; Liu, Hsueh, Hsieh and Chen, Stat. Med. 21:231, 2002). That is the statistic of
// Tango's interval, so equivalence at level alpha is the interval of confidence 1 - 2 alpha lying
// inside the margin. 0 < margin < 1; n = 0: NAN.
struct kv_tost kv_tost_counts(double b, double c, double n, double margin);

// The same for items, a[i] and b[i] in 0..1; items where either is NAN are left out. Where redraws
// make fractions the two tests are paired t tests.
struct kv_tost kv_tost_items(const double *a, const double *b, size_t n, double margin);

// Items at which McNemar's test at two-sided level `alpha` sees a true difference with this
// `power`, when a share b of the items is right only in the first policy and c only in the second
// (Connor, Biometrics 43:207, 1987):
//   n = (z_alpha/2 sqrt(b + c) + z_power sqrt(b + c - d^2))^2 / d^2,  d = b - c.
// Rounded up; INFINITY when d = 0; NAN for shares that cannot be.
double kv_items_for_difference(double d, double discordant, double alpha, double power);

// The difference that n items would show with this power at this discordance: the inverse of the
// above by bisection. NAN when not even `discordant` itself would show.
double kv_difference_seen(double n, double discordant, double alpha, double power);

// Items at which an interval of confidence 1 - alpha around an estimate whose standard error is
// `standard_error` at n items keeps clear of a bound `distance` away, with this power, if the
// estimate is the truth: n ((z_alpha/2 + z_power) standard_error / distance)^2, rounded up.
double kv_items_to_clear(double n, double standard_error, double distance, double alpha,
                         double power);

// One-way random effects, y = mean + item + rounding: the analysis of variance estimator for
// unequal numbers of redraws (Searle, Casella and McCulloch, Variance Components, 1992, section
// 3.6). A negative item variance is reported as it is.
struct kv_variance_split {
    size_t n_items, n_values;
    double mean;
    double item_variance, rounding_variance; // of one draw on one item
    double rounding_share;                   // of their sum, in 0..1; NAN without repeats
    double standard_error;                   // of the mean over items, both included
};
// y[n_values]: one value a redraw of item[k]; values of one item stand together; NANs left out.
struct kv_variance_split kv_split_variance(const uint32_t *item, const double *y, size_t n_values);

KV_END_DECLS

#endif
