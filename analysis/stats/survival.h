// SPDX-License-Identifier: Apache-2.0
// Kaplan-Meier curves: how long things stay as they were, where some are not watched to their end.
//
//     struct kv_survival *c = kv_survival_new(time, ended, n, 0.95);
//     struct kv_survival_point p = kv_survival_at(c, 64);      p.share [p.interval.low, .high]
//     kv_survival_free(c);
#ifndef KV_ANALYSIS_STATS_SURVIVAL_H
#define KV_ANALYSIS_STATS_SURVIVAL_H

#include "analysis/stats/stats.h"

KV_BEGIN_DECLS

// After an event at `time`: the share that is still as it was (Kaplan and Meier, JASA 53:457, 1958)
// and its interval, by Greenwood's variance on the scale log(-log share), which stays within 0..1
// (Kalbfleisch and Prentice, The Statistical Analysis of Failure Time Data, 1980, section 1.3).
// Where nothing has happened yet (share 1) or nothing is left (share 0) that scale ends: the
// interval is then the exact one of none or all of those that were not lost from sight before
// (Clopper and Pearson 1934).
struct kv_survival_point {
    double time;
    size_t at_risk, events;
    double share;
    struct kv_interval interval;
};

struct kv_survival {
    size_t n; // things
    double confidence;
    size_t n_points; // times of events, ascending
    struct kv_survival_point *point;
    double *times; // [n] ascending, events and ends of watching
};

// time[n] >= 0: when something happened (ended[i]) or until when it was watched and had not. One
// that is watched until the time of an event is at risk then. n = 0: no points.
struct kv_survival *kv_survival_new(const double *time, const bool *ended, size_t n,
                                    double confidence);
void kv_survival_free(struct kv_survival *s); // NULL is fine

// The curve at a time. share NAN beyond the last time at which something was watched.
struct kv_survival_point kv_survival_at(const struct kv_survival *s, double time);

// The first time at which the share is `share` or less; INFINITY where it stays above.
double kv_survival_quantile(const struct kv_survival *s, double share);

KV_END_DECLS

#endif
