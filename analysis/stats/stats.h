// SPDX-License-Identifier: Apache-2.0
// Intervals and tests for accuracies, paired differences and divergences; bootstrap over items.
//
//     struct kv_interval i = kv_wilson(0.415, 10042, 0.95);
//     struct kv_paired d = kv_paired_compare(right_a, right_b, n, 0.95);
//     printf("%+.3f [%.3f, %.3f] p %.3g\n", d.difference, d.interval.low, d.interval.high,
//     d.mid_p);
//
// Every comparison is paired by item. Pure functions: no state, no clock, any thread. Where memory
// runs out nothing is said: NANs, and no resampler (NULL).
#ifndef KV_ANALYSIS_STATS_STATS_H
#define KV_ANALYSIS_STATS_STATS_H

#include "policies/policy.h"

KV_BEGIN_DECLS

struct kv_interval {
    double low, high; // NAN where there is nothing to say
};

// Wilson's (1927) score interval of a proportion p seen in n items, without continuity correction.
// p may be a mean of fractions (redraws averaged within an item). n = 0: NAN.
struct kv_interval kv_wilson(double p, double n, double confidence);

// The exact interval of k in n items (Clopper and Pearson, Biometrika 26:404, 1934): never covers
// less than it promises, and is wider for it. n = 0: NAN.
struct kv_interval kv_clopper_pearson(unsigned k, unsigned n, double confidence);

// McNemar's test that two policies are equally often right: b items where only the first is, c
// where only the second. Exact two-sided conditional p (McNemar 1947) and its mid-p variant
// (Fagerland, Lydersen and Laake, BMC Med. Res. Methodol. 13:91, 2013), which is less conservative.
struct kv_mcnemar {
    double exact_p, mid_p;
};
struct kv_mcnemar kv_mcnemar(unsigned b, unsigned c);

// Score interval of the difference (b - c) / n of paired proportions (Tango, Stat. Med. 17:891,
// 1998): the differences that a score test with the constrained maximum-likelihood variance does
// not reject. Unlike the Wald interval it stays honest when b + c is small; with b = c = 0 it is
// +-z^2 / (n + z^2).
struct kv_interval kv_tango(double b, double c, double n, double confidence);

// Tango's statistic for the hypothesis that the difference is d: approximately standard normal when
// it is, falling as d rises. +-INFINITY where the constrained variance is 0; n > 0, |d| < 1.
double kv_tango_score(double b, double c, double n, double d);

// Paired comparison of two policies on the same items: a[i], b[i] in 0..1 say how right each was.
// Items where either is NAN are left out.
struct kv_paired {
    size_t n;
    double won, lost;            // summed over items: right only in a, right only in b
    double difference;           // mean of a - b
    double standard_error;       // of the difference, from the spread over items
    struct kv_interval interval; // Tango's; Student's t, within -1..1, when redraws make fractions
    double exact_p, mid_p;       // McNemar's; NAN when redraws make fractions
    double t_p;                  // of the paired t test, used then; else NAN
};
struct kv_paired kv_paired_compare(const double *a, const double *b, size_t n, double confidence);

// Mean of x with Student's t interval; NANs are left out. For a paired difference hand in
// differences. interval is NAN for fewer than two values.
struct kv_mean {
    size_t n;
    double mean, sd, standard_error;
    struct kv_interval interval;
};
struct kv_mean kv_mean_interval(const double *x, size_t n, double confidence);
// Two-sided p of the t test that such a mean is 0; NAN for fewer than two values. Where they do not
// vary it is 1 for a mean of 0 and 0 for any other.
double kv_mean_p(const struct kv_mean *m);

// sum(x w) / sum(w) with the interval of a ratio estimate (Cochran, Sampling Techniques, 1977,
// section 2.11): the divergence a scored token, where items hold unequally many tokens. Items where
// x is NAN are left out. sd is that of the linearised items.
struct kv_mean kv_ratio_interval(const double *x, const double *w, size_t n, double confidence);

// Median of the means sum[p * stride] / weight[p] of n parts (Nemirovsky and Yudin 1983): a mean
// that one part with a large value cannot move far. n at most KV_MEAN_PARTS; n = 1 is the plain
// mean.
enum { KV_MEAN_PARTS = 8 };
double kv_median_of_means(const double *sum, size_t stride, const double *weight, size_t n);

// Holm's (1979) step-down adjustment of n p-values for a sweep; NANs stay and do not count.
void kv_holm(const double *p, size_t n, double *adjusted);

// Kendall's tau-b between two rankings of n things (Kendall, Biometrika 33:239, 1945): 1 = the same
// order, -1 = the reverse, ties taken out of the scale. Pairs with a NAN are left out; NAN when
// either does not order anything.
double kv_kendall(const double *x, const double *y, size_t n);

// ---- bootstrap ------------------------------------------------------------------------

// Draws items with replacement: whole clusters (items that share a context) within strata (the
// benchmark's sources), so that each draw has the same number of clusters of each stratum.
struct kv_resampler;
// cluster: [n], equal = resampled together, or NULL; stratum: [n] texts, or NULL. Copied.
struct kv_resampler *kv_resampler_new(size_t n, const uint64_t *cluster,
                                      const char *const *stratum);
void kv_resampler_free(struct kv_resampler *r);
// Fills times[n]: how often each item is in draw number `draw` of this seed. Draws may be asked for
// in any order.
void kv_resampler_draw(const struct kv_resampler *r, uint64_t seed, uint64_t draw, uint32_t *times);

// The middle `confidence` of n values (Hyndman and Fan's quantile 7); sorts them. n = 0 or no
// confidence: NAN.
struct kv_interval kv_percentile_interval(double *x, size_t n, double confidence);

// The confidence at which a percentile interval of n items covers as a t interval would: it makes
// up for resamples of few items varying too little (Hesterberg, Am. Stat. 69:371, 2015, section
// 5.2). n < 2: 1.
double kv_expanded_confidence(double n, double confidence);

// Percentile interval of the mean of x (NANs left out) over `draws` resamples.
struct kv_interval kv_bootstrap_mean(const struct kv_resampler *r, const double *x, size_t n,
                                     uint64_t seed, size_t draws, double confidence);

KV_END_DECLS

#endif
