// SPDX-License-Identifier: Apache-2.0
// What a cheap prediction of divergence is worth: agreement with exact runs, a monotone calibration
// with its band, and what it then says of accuracy.
//
//     struct kv_agreement a = kv_agreement(predicted, exact, n);
//     struct kv_monotone *m = kv_monotone_new(log_predicted, log_exact, n);
//     double kl = exp(kv_monotone_at(m, log(0.02)));
//     kv_monotone_left_out(log_predicted, log_exact, family, n, left_out);
//     kv_decline_fit(&d, kl, accuracy, n, top, floor, &e);  kv_decline_at(&d, 0.1)
//
// Pure functions of the numbers handed in; any thread.
#ifndef KV_ANALYSIS_STATS_AGREEMENT_H
#define KV_ANALYSIS_STATS_AGREEMENT_H

#include "analysis/stats/stats.h"

// ---- agreement ------------------------------------------------------------------------

// Of n pairs of positive numbers; pairs with a NAN, zero or negative number are left out. Ratios
// are predicted / exact. NAN for fewer than three pairs.
struct kv_agreement {
    size_t n;
    double log_correlation; // Pearson's, of the logarithms
    double spearman;        // of ranks, ties at their mean rank
    double ratio_5, ratio_median, ratio_95;
};
struct kv_agreement kv_agreement(const double *predicted, const double *exact, size_t n);

// Quantile p in 0..1 of x's numbers, interpolated (Hyndman and Fan 1996, type 7); NANs are left
// out.
double kv_quantile(const double *x, size_t n, double p);

// ---- monotone calibration -------------------------------------------------------------

// Fits fitted[n] to y[n], not falling, least squares with weights (NULL = alike): pool adjacent
// violators (Ayer et al., Ann. Math. Statist. 26:641, 1955). x is taken as ascending.
void kv_isotonic(const double *y, const double *weight, size_t n, double *fitted);

// y as a function of x that does not fall: y - x by robust local lines over 60 % of the points
// (Cleveland, JASA 74:829, 1979), then pooled where it falls, linear between points, y - x constant
// beyond them. Points with a NAN are left out. NULL for fewer than four points.
struct kv_monotone;
struct kv_monotone *kv_monotone_new(const double *x, const double *y, size_t n);
void kv_monotone_free(struct kv_monotone *m); // NULL is fine
double kv_monotone_at(const struct kv_monotone *m, double x);
// Fits without each group in turn and predicts it: predicted[n], NAN where that cannot be.
void kv_monotone_left_out(const double *x, const double *y, const int *group, size_t n,
                          double *predicted);

// ---- decline with divergence ----------------------------------------------------------

// y(x) = floor + (top - floor) / (1 + (x / half)^slope): how accuracy, or agreement with the 16-bit
// run, falls with divergence x: a logistic curve in log x.
struct kv_decline {
    double top, floor, half, slope;
    double sd;               // of residuals, n - parameters degrees of freedom
    double covariance[3][3]; // of log half, log slope, and floor when it was fitted
    size_t n, n_fitted;
};
// Least squares (GSL, Levenberg-Marquardt). floor NAN: fitted. Points with a NAN are left out.
// Errors: KV_EFAIL for fewer than five points or when the solver gives up.
KV_MUST_CHECK int kv_decline_fit(struct kv_decline *d, const double *x, const double *y, size_t n,
                                 double top, double floor, struct kv_error *e);
double kv_decline_at(const struct kv_decline *d, double x);
// Interval of a new policy's y at x: residual spread and the fit's own uncertainty, Student's t.
struct kv_interval kv_decline_interval(const struct kv_decline *d, double x, double confidence);
// Fits without each group in turn: predicted[n].
void kv_decline_left_out(const double *x, const double *y, const int *group, size_t n, double top,
                         double floor, double *predicted);

#endif
