// SPDX-License-Identifier: Apache-2.0
// Intervals and tests for accuracies, paired differences and divergences; bootstrap over items.
#include "analysis/stats/stats.h"

#include <gsl/gsl_cdf.h>
#include <gsl/gsl_randist.h>
#include <gsl/gsl_rng.h>
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics.h>
#include <stdlib.h>

#include "sim/base/hash.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"

static const struct kv_interval nothing = {NAN, NAN};
// What is said where there is no memory.
static const struct kv_mean unknown_mean = {0, NAN, NAN, NAN, {NAN, NAN}};
static const struct kv_paired unknown_pair = {0, NAN, NAN, NAN, NAN, {NAN, NAN}, NAN, NAN, NAN};

static double z_of(double confidence) {
    return gsl_cdf_ugaussian_Pinv(0.5 + confidence / 2);
}

// ---- proportions ----------------------------------------------------------------------

struct kv_interval kv_wilson(double p, double n, double confidence) {
    if (!(n > 0) || isnan(p)) return nothing;
    double z = z_of(confidence), shrink = 1 + z * z / n;
    double centre = (p + z * z / (2 * n)) / shrink;
    double half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink;
    // At p = 0 and 1 the interval ends there exactly; rounding must not push it past.
    return (struct kv_interval){p == 0 ? 0 : fmax(0, centre - half),
                                p == 1 ? 1 : fmin(1, centre + half)};
}

// The x whose beta distribution function is p. By bisection: GSL's own inverse does not converge
// for some counts in the hundreds.
static double beta_quantile(double p, double a, double b) {
    double low = 0, high = 1;
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        if (gsl_cdf_beta_P(middle, a, b) < p)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

struct kv_interval kv_clopper_pearson(unsigned k, unsigned n, double confidence) {
    double tail = (1 - confidence) / 2;
    if (n == 0) return nothing;
    return (struct kv_interval){k == 0 ? 0 : beta_quantile(tail, k, n - k + 1.0),
                                k == n ? 1 : beta_quantile(1 - tail, k + 1.0, n - k)};
}

struct kv_mcnemar kv_mcnemar(unsigned b, unsigned c) {
    unsigned fewer = b < c ? b : c, n = b + c;
    if (n == 0) return (struct kv_mcnemar){1, 1};
    double two_tails = 2 * gsl_cdf_binomial_P(fewer, 0.5, n);
    double at = gsl_ran_binomial_pdf(fewer, 0.5, n);
    return (struct kv_mcnemar){fmin(1, two_tails), fmin(1, two_tails - at)};
}

double kv_tango_score(double b, double c, double n, double d) {
    double linear = -b - c + (2 * n - b + c) * d, constant = -c * d * (1 - d);
    double root = sqrt(fmax(0, linear * linear - 8 * n * constant));
    double q = (root - linear) / (4 * n); // constrained estimate of P(right only in the second)
    double variance = n * (2 * q + d * (1 - d));
    double excess = b - c - n * d;
    if (variance > 0) return excess / sqrt(variance);
    return excess > 0 ? INFINITY : excess < 0 ? -INFINITY : 0;
}

static double tango_limit(double b, double c, double n, double low, double high, double z) {
    for (int i = 0; i < 100; i++) {
        double middle = (low + high) / 2;
        if (kv_tango_score(b, c, n, middle) > z)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

struct kv_interval kv_tango(double b, double c, double n, double confidence) {
    if (!(n > 0)) return nothing;
    double z = z_of(confidence), at = (b - c) / n;
    return (struct kv_interval){at <= -1 ? -1 : tango_limit(b, c, n, -1, at, z),
                                at >= 1 ? 1 : tango_limit(b, c, n, at, 1, -z)};
}

// ---- means ----------------------------------------------------------------------------

// Mean and spread are known; adds the error and the interval.
static void add_interval(struct kv_mean *m, double confidence) {
    m->standard_error = NAN;
    m->interval = nothing;
    if (m->n < 2) return;
    double half = gsl_cdf_tdist_Pinv(0.5 + confidence / 2, (double)(m->n - 1));
    m->standard_error = m->sd / sqrt((double)m->n);
    half *= m->standard_error;
    m->interval = (struct kv_interval){m->mean - half, m->mean + half};
}

struct kv_mean kv_mean_interval(const double *x, size_t n, double confidence) {
    KV_GUARD_ELSE(return unknown_mean);
    double *kept = kv_alloc(n + 1, sizeof *kept);
    struct kv_mean m = {.mean = NAN, .sd = NAN};
    for (size_t i = 0; i < n; i++)
        if (!isnan(x[i])) kept[m.n++] = x[i];
    if (m.n > 0) m.mean = gsl_stats_mean(kept, 1, m.n);
    if (m.n > 1) m.sd = gsl_stats_sd_m(kept, 1, m.n, m.mean);
    free(kept);
    add_interval(&m, confidence);
    return m;
}

double kv_mean_p(const struct kv_mean *m) {
    if (isnan(m->standard_error)) return NAN;
    if (!(m->standard_error > 0)) return m->mean == 0;
    return 2 * gsl_cdf_tdist_Q(fabs(m->mean) / m->standard_error, (double)(m->n - 1));
}

struct kv_mean kv_ratio_interval(const double *x, const double *w, size_t n, double confidence) {
    struct kv_mean m = {.mean = NAN, .sd = NAN};
    double sum = 0, weight = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(x[i])) continue;
        sum += x[i] * w[i];
        weight += w[i];
        m.n++;
    }
    if (weight > 0) m.mean = sum / weight;
    for (size_t i = 0; i < n; i++) {
        if (isnan(x[i])) continue;
        double deviation = (x[i] - m.mean) * w[i] / (weight / (double)m.n);
        squares += deviation * deviation;
    }
    if (m.n > 1) m.sd = sqrt(squares / (double)(m.n - 1));
    add_interval(&m, confidence);
    return m;
}

struct kv_paired kv_paired_compare(const double *a, const double *b, size_t n, double confidence) {
    KV_GUARD_ELSE(return unknown_pair);
    struct kv_paired p = {
        .exact_p = NAN, .mid_p = NAN, .t_p = NAN, .difference = NAN, .standard_error = NAN};
    double *d = kv_alloc(n + 1, sizeof *d);
    bool whole = true;
    for (size_t i = 0; i < n; i++) {
        double x = a[i] - b[i];
        if (isnan(x)) continue;
        d[p.n++] = x;
        p.won += fmax(0, x);
        p.lost += fmax(0, -x);
        whole = whole && (x == 0 || fabs(x) == 1);
    }
    struct kv_mean m = kv_mean_interval(d, p.n, confidence);
    free(d);
    if (p.n == 0) {
        p.interval = nothing;
        return p;
    }
    p.difference = m.mean;
    p.standard_error = m.standard_error;
    if (whole) {
        struct kv_mcnemar test = kv_mcnemar((unsigned)p.won, (unsigned)p.lost);
        p.exact_p = test.exact_p;
        p.mid_p = test.mid_p;
        p.interval = kv_tango(p.won, p.lost, (double)p.n, confidence);
    } else {
        p.interval = (struct kv_interval){fmax(-1, m.interval.low), fmin(1, m.interval.high)};
        if (isnan(m.interval.low)) p.interval = nothing;
        if (m.standard_error > 0)
            p.t_p = 2 * gsl_cdf_tdist_Q(fabs(m.mean) / m.standard_error, (double)(m.n - 1));
    }
    return p;
}

double kv_median_of_means(const double *sum, size_t stride, const double *weight, size_t n) {
    double mean[KV_MEAN_PARTS];
    for (size_t p = 0; p < n; p++) mean[p] = sum[p * stride] / weight[p];
    return gsl_stats_median(mean, 1, n);
}

void kv_holm(const double *p, size_t n, double *adjusted) {
    for (size_t i = 0; i < n; i++) adjusted[i] = NAN;
    KV_GUARD_ELSE(return );
    size_t *order = kv_alloc(n + 1, sizeof *order), m = 0;
    double *kept = kv_alloc(n + 1, sizeof *kept), largest = 0;
    size_t *from = kv_alloc(n + 1, sizeof *from);
    for (size_t i = 0; i < n; i++) {
        adjusted[i] = NAN;
        if (isnan(p[i])) continue;
        kept[m] = p[i];
        from[m++] = i;
    }
    if (m) gsl_sort_index(order, kept, 1, m);
    for (size_t i = 0; i < m; i++) {
        largest = fmax(largest, fmin(1, (double)(m - i) * kept[order[i]]));
        adjusted[from[order[i]]] = largest;
    }
    free(order);
    free(kept);
    free(from);
}

double kv_kendall(const double *x, const double *y, size_t n) {
    double alike = 0, in_x = 0, in_y = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++) {
            double dx = x[i] - x[k], dy = y[i] - y[k];
            if (isnan(dx) || isnan(dy)) continue;
            alike += ((dx > 0) - (dx < 0)) * ((dy > 0) - (dy < 0));
            in_x += dx != 0;
            in_y += dy != 0;
        }
    return in_x > 0 && in_y > 0 ? alike / sqrt(in_x * in_y) : NAN;
}

// ---- bootstrap ------------------------------------------------------------------------

struct kv_resampler {
    size_t n, n_clusters, n_strata;
    size_t *items;       // [n] item numbers, cluster after cluster
    size_t *first;       // [n_clusters + 1] into items
    size_t *first_group; // [n_strata + 1] into clusters
};

struct member {
    const char *stratum;
    uint64_t cluster;
    size_t item;
};

static int by_stratum_and_cluster(const void *a, const void *b) {
    const struct member *x = a, *y = b;
    int s = strcmp(x->stratum, y->stratum);
    if (s) return s;
    if (x->cluster != y->cluster) return x->cluster < y->cluster ? -1 : 1;
    return x->item < y->item ? -1 : x->item > y->item;
}

struct kv_resampler *kv_resampler_new(size_t n, const uint64_t *cluster,
                                      const char *const *stratum) {
    KV_GUARD_ELSE(return NULL);
    struct kv_resampler *r = kv_alloc(1, sizeof *r);
    struct member *m = kv_alloc(n + 1, sizeof *m);
    for (size_t i = 0; i < n; i++)
        m[i] =
            (struct member){stratum && stratum[i] ? stratum[i] : "", cluster ? cluster[i] : i, i};
    if (n) qsort(m, n, sizeof *m, by_stratum_and_cluster);
    r->n = n;
    r->items = kv_alloc(n + 1, sizeof *r->items);
    r->first = kv_alloc(n + 1, sizeof *r->first);
    r->first_group = kv_alloc(n + 1, sizeof *r->first_group);
    for (size_t i = 0; i < n; i++) {
        bool new_stratum = i == 0 || strcmp(m[i].stratum, m[i - 1].stratum) != 0;
        if (new_stratum) r->first_group[r->n_strata++] = r->n_clusters;
        if (new_stratum || m[i].cluster != m[i - 1].cluster) r->first[r->n_clusters++] = i;
        r->items[i] = m[i].item;
    }
    r->first[r->n_clusters] = n;
    r->first_group[r->n_strata] = r->n_clusters;
    free(m);
    return r;
}

void kv_resampler_free(struct kv_resampler *r) {
    if (!r) return;
    free(r->items);
    free(r->first);
    free(r->first_group);
    free(r);
}

void kv_resampler_draw(const struct kv_resampler *r, uint64_t seed, uint64_t draw,
                       uint32_t *times) {
    const uint64_t key[2] = {seed, draw};
    gsl_rng *rng = gsl_rng_alloc(gsl_rng_taus2);
    gsl_rng_set(rng, (unsigned long)(kv_hash(key, sizeof key, 0) & 0xFFFFFFFFu));
    memset(times, 0, r->n * sizeof *times);
    for (size_t s = 0; s < r->n_strata; s++) {
        size_t base = r->first_group[s], count = r->first_group[s + 1] - base;
        for (size_t i = 0; i < count; i++) {
            size_t c = base + gsl_rng_uniform_int(rng, count);
            for (size_t k = r->first[c]; k < r->first[c + 1]; k++) times[r->items[k]]++;
        }
    }
    gsl_rng_free(rng);
}

struct kv_interval kv_percentile_interval(double *x, size_t n, double confidence) {
    if (n == 0 || isnan(confidence)) return nothing;
    gsl_sort(x, 1, n);
    return (struct kv_interval){gsl_stats_quantile_from_sorted_data(x, 1, n, (1 - confidence) / 2),
                                gsl_stats_quantile_from_sorted_data(x, 1, n, (1 + confidence) / 2)};
}

double kv_expanded_confidence(double n, double confidence) {
    if (n < 2) return 1;
    double t = gsl_cdf_tdist_Pinv(0.5 + confidence / 2, n - 1);
    return 1 - 2 * gsl_cdf_ugaussian_Q(sqrt(n / (n - 1)) * t);
}

struct kv_interval kv_bootstrap_mean(const struct kv_resampler *r, const double *x, size_t n,
                                     uint64_t seed, size_t draws, double confidence) {
    if (n == 0 || n != r->n || draws == 0) return nothing;
    KV_GUARD_ELSE(return nothing);
    double *means = kv_alloc(draws, sizeof *means);
    uint32_t *times = kv_alloc(n, sizeof *times);
    size_t kept = 0;
    for (size_t d = 0; d < draws; d++) {
        double sum = 0, count = 0;
        kv_resampler_draw(r, seed, d, times);
        for (size_t i = 0; i < n; i++) {
            if (times[i] == 0 || isnan(x[i])) continue;
            sum += times[i] * x[i];
            count += times[i];
        }
        if (count > 0) means[kept++] = sum / count;
    }
    struct kv_interval result = kv_percentile_interval(means, kept, confidence);
    free(means);
    free(times);
    return result;
}
