// SPDX-License-Identifier: Apache-2.0
#include "analysis/stats/survival.h"

#include <gsl/gsl_cdf.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"

struct watched {
    double time;
    bool ended;
};

static int earlier(const void *a, const void *b) {
    double x = ((const struct watched *)a)->time, y = ((const struct watched *)b)->time;
    return (x > y) - (x < y);
}

// sum: Greenwood's, of events / (at risk (at risk - events)). n: things whose fate is known.
static struct kv_interval around(double share, double sum, size_t n, double confidence) {
    if (share >= 1) return kv_clopper_pearson((unsigned)n, (unsigned)n, confidence);
    if (share <= 0) return kv_clopper_pearson(0, (unsigned)n, confidence);
    double z = gsl_cdf_ugaussian_Pinv(0.5 + confidence / 2), off = z * sqrt(sum) / fabs(log(share));
    return (struct kv_interval){pow(share, exp(off)), pow(share, exp(-off))};
}

struct kv_survival *kv_survival_new(const double *time, const bool *ended, size_t n,
                                    double confidence) {
    KV_GUARD_ELSE(return NULL);
    struct kv_survival *s = kv_alloc(1, sizeof *s);
    struct watched *w = kv_alloc(n + 1, sizeof *w);
    double share = 1, sum = 0;
    size_t lost = 0; // watched no longer
    s->n = n;
    s->confidence = confidence;
    s->point = kv_alloc(n + 1, sizeof *s->point);
    s->times = kv_alloc(n + 1, sizeof *s->times);
    for (size_t i = 0; i < n; i++) w[i] = (struct watched){time[i], ended[i]};
    qsort(w, n, sizeof *w, earlier);
    for (size_t i = 0, next; i < n; i = next) {
        size_t events = 0, at_risk = n - i;
        for (next = i; next < n && w[next].time <= w[i].time; next++) {
            events += w[next].ended;
            s->times[next] = w[next].time;
        }
        lost += next - i - events;
        if (events == 0) continue;
        share *= (double)(at_risk - events) / (double)at_risk;
        if (at_risk > events)
            sum += (double)events / ((double)at_risk * (double)(at_risk - events));
        s->point[s->n_points++] = (struct kv_survival_point){
            .time = w[i].time,
            .at_risk = at_risk,
            .events = events,
            .share = share,
            .interval = around(share, sum, n - (lost - (next - i - events)), confidence)};
    }
    free(w);
    return s;
}

void kv_survival_free(struct kv_survival *s) {
    if (!s) return;
    free(s->point);
    free(s->times);
    free(s);
}

struct kv_survival_point kv_survival_at(const struct kv_survival *s, double time) {
    struct kv_survival_point p = {.time = time, .share = 1};
    size_t first = 0;
    while (first < s->n && s->times[first] < time) first++;
    p.at_risk = s->n - first;
    if (s->n) p.interval = around(1, 0, p.at_risk ? p.at_risk : 1, s->confidence);
    for (size_t i = 0; i < s->n_points && s->point[i].time <= time; i++) {
        p.share = s->point[i].share;
        p.interval = s->point[i].interval;
    }
    if (p.at_risk == 0 && p.share > 0) {
        p.share = NAN;
        p.interval = (struct kv_interval){NAN, NAN};
    }
    return p;
}

double kv_survival_quantile(const struct kv_survival *s, double share) {
    for (size_t i = 0; i < s->n_points; i++)
        if (s->point[i].share <= share) return s->point[i].time;
    return INFINITY;
}
