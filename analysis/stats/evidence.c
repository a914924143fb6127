// SPDX-License-Identifier: Apache-2.0
// How much the items at hand can tell, and how many would tell.
#include "analysis/stats/evidence.h"

#include <gsl/gsl_cdf.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"

// ---- equivalence ----------------------------------------------------------------------

static struct kv_tost joined(double worse_p, double better_p) {
    return (struct kv_tost){worse_p, better_p, fmax(worse_p, better_p)};
}

struct kv_tost kv_tost_counts(double b, double c, double n, double margin) {
    if (!(n > 0) || !(margin > 0 && margin < 1)) return (struct kv_tost){NAN, NAN, NAN};
    return joined(gsl_cdf_ugaussian_Q(kv_tango_score(b, c, n, -margin)),
                  gsl_cdf_ugaussian_P(kv_tango_score(b, c, n, margin)));
}

struct kv_tost kv_tost_items(const double *a, const double *b, size_t n, double margin) {
    struct kv_paired p = kv_paired_compare(a, b, n, 0.95);
    if (p.n == 0 || !isnan(p.exact_p)) return kv_tost_counts(p.won, p.lost, (double)p.n, margin);
    if (p.n < 2) return (struct kv_tost){NAN, NAN, NAN};
    double freedom = (double)(p.n - 1);
    return joined(gsl_cdf_tdist_Q((p.difference + margin) / p.standard_error, freedom),
                  gsl_cdf_tdist_P((p.difference - margin) / p.standard_error, freedom));
}

// ---- items needed ---------------------------------------------------------------------

static double upper_z(double p) {
    return gsl_cdf_ugaussian_Qinv(p);
}

static double connor(double d, double discordant, double alpha, double power) {
    double root = upper_z(alpha / 2) * sqrt(discordant) +
                  upper_z(1 - power) * sqrt(fmax(0, discordant - d * d));
    return root * root / (d * d);
}

double kv_items_for_difference(double d, double discordant, double alpha, double power) {
    if (!(discordant >= fabs(d)) || discordant > 1) return NAN;
    return d == 0 ? INFINITY : ceil(connor(d, discordant, alpha, power));
}

double kv_difference_seen(double n, double discordant, double alpha, double power) {
    double low = 0, high = discordant;
    if (!(n > 0) || !(discordant > 0) || connor(high, discordant, alpha, power) > n) return NAN;
    for (int i = 0; i < 100; i++) {
        double middle = (low + high) / 2;
        if (connor(middle, discordant, alpha, power) > n)
            low = middle;
        else
            high = middle;
    }
    return high;
}

double kv_items_to_clear(double n, double standard_error, double distance, double alpha,
                         double power) {
    if (!(distance >= 0) || !(standard_error >= 0)) return NAN;
    double times = (upper_z(alpha / 2) + upper_z(1 - power)) * standard_error / distance;
    return distance == 0 ? INFINITY : ceil(n * times * times);
}

// ---- items and rounding ---------------------------------------------------------------

struct kv_variance_split kv_split_variance(const uint32_t *item, const double *y, size_t n_values) {
    static const struct kv_variance_split unknown = {0, 0, NAN, NAN, NAN, NAN, NAN};
    KV_GUARD_ELSE(return unknown);
    struct kv_variance_split s = {0};
    double sum = 0, squared_sizes = 0, between = 0, within = 0, mean_of_means = 0, spread = 0;
    size_t *size = kv_alloc(n_values + 1, sizeof *size);
    double *mean = kv_alloc(n_values + 1, sizeof *mean);
    for (size_t first = 0, last; first < n_values; first = last) {
        double of_item = 0;
        size_t count = 0;
        for (last = first; last < n_values && item[last] == item[first]; last++) {
            if (isnan(y[last])) continue;
            of_item += y[last];
            count++;
        }
        if (!count) continue;
        for (size_t i = first; i < last; i++)
            if (!isnan(y[i]))
                within += (y[i] - of_item / (double)count) * (y[i] - of_item / (double)count);
        size[s.n_items] = count;
        mean[s.n_items++] = of_item / (double)count;
        s.n_values += count;
        sum += of_item;
        squared_sizes += (double)(count * count);
    }
    double n = (double)s.n_items, values = (double)s.n_values;
    s.mean = s.item_variance = s.rounding_variance = s.rounding_share = s.standard_error = NAN;
    for (size_t i = 0; i < s.n_items; i++) {
        between += (double)size[i] * (mean[i] - sum / values) * (mean[i] - sum / values);
        mean_of_means += mean[i] / n;
    }
    for (size_t i = 0; i < s.n_items; i++)
        spread += (mean[i] - mean_of_means) * (mean[i] - mean_of_means);
    free(size);
    free(mean);
    if (s.n_items) s.mean = mean_of_means;
    if (s.n_items < 2) return s;
    s.standard_error = sqrt(spread / (n - 1) / n);
    if (s.n_values == s.n_items) return s;
    double typical = (values - squared_sizes / values) / (n - 1);
    s.rounding_variance = within / (values - n);
    s.item_variance = (between / (n - 1) - s.rounding_variance) / typical;
    double total = fmax(0, s.item_variance) + s.rounding_variance;
    s.rounding_share = total > 0 ? s.rounding_variance / total : 0;
    return s;
}
