// SPDX-License-Identifier: Apache-2.0
// The frontier of value against cost: the points that no other beats, and how sure that is.
#include "analysis/stats/pareto.h"

#include <stdlib.h>

#include "sim/base/memory.h"

struct point {
    double cost, value;
    size_t i;
};

static int by_cost_then_value(const void *a, const void *b) {
    const struct point *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? -1 : 1;
    if (x->value != y->value) return x->value > y->value ? -1 : 1;
    return x->i < y->i ? -1 : x->i > y->i;
}

void kv_pareto(const double *cost, const double *value, size_t n, bool *on) {
    struct point *p = kv_alloc(n + 1, sizeof *p);
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        on[i] = false;
        if (!isnan(cost[i]) && !isnan(value[i])) p[m++] = (struct point){cost[i], value[i], i};
    }
    if (m) qsort(p, m, sizeof *p, by_cost_then_value);
    // In order of rising cost a point is on the frontier when it is better than all before, or
    // equal to the one that was.
    const struct point *best = NULL;
    for (size_t k = 0; k < m; k++) {
        bool equal = best && p[k].cost == best->cost && p[k].value == best->value;
        if (best && !equal && p[k].value <= best->value) continue;
        on[p[k].i] = true;
        best = &p[k];
    }
    free(p);
}

// ---- what the frontier is worth -------------------------------------------------------

// The frontier's points in order of rising cost, and so of rising value; equal points once.
static size_t frontier_of(const double *cost, const double *value, size_t n, struct point *front) {
    bool *on = kv_alloc(n + 1, sizeof *on);
    size_t m = 0, kept = 0;
    kv_pareto(cost, value, n, on);
    for (size_t i = 0; i < n; i++)
        if (on[i]) front[m++] = (struct point){cost[i], value[i], i};
    free(on);
    if (m) qsort(front, m, sizeof *front, by_cost_then_value);
    for (size_t i = 0; i < m; i++)
        if (i == 0 || front[i].cost != front[kept - 1].cost) front[kept++] = front[i];
    return kept;
}

double kv_hypervolume(const double *cost, const double *value, size_t n, double most,
                      double floor) {
    struct point *front = kv_alloc(n + 1, sizeof *front);
    size_t m = frontier_of(cost, value, n, front);
    double area = 0, reached = floor;
    for (size_t i = 0; i < m && front[i].cost < most; i++) {
        if (front[i].value <= reached) continue;
        area += (most - front[i].cost) * (front[i].value - reached);
        reached = front[i].value;
    }
    free(front);
    return area;
}

size_t kv_pareto_knee(const double *cost, const double *value, size_t n) {
    struct point *front = kv_alloc(n + 1, sizeof *front);
    size_t m = frontier_of(cost, value, n, front), knee = n;
    double farthest = 1e-12;
    for (size_t i = 1; i + 1 < m; i++) {
        double x = (front[i].cost - front[0].cost) / (front[m - 1].cost - front[0].cost);
        double y = (front[i].value - front[0].value) / (front[m - 1].value - front[0].value);
        if (y - x <= farthest) continue; // distance from the diagonal, but for a factor
        farthest = y - x;
        knee = front[i].i;
    }
    free(front);
    return knee;
}

void kv_pareto_dominators(const double *cost, const double *value, size_t n, size_t *by) {
    struct point *front = kv_alloc(n + 1, sizeof *front);
    size_t m = frontier_of(cost, value, n, front);
    for (size_t i = 0; i < n; i++) {
        by[i] = n;
        if (isnan(cost[i]) || isnan(value[i])) continue;
        for (size_t k = 0; k < m && front[k].cost <= cost[i]; k++)
            if (front[k].value >= value[i] &&
                (front[k].value > value[i] || front[k].cost < cost[i]))
                by[i] = front[k].i;
    }
    free(front);
}

// ---- how sure it is -------------------------------------------------------------------

void kv_pareto_bootstrap(const struct kv_pareto_draws *d, double *frequency,
                         struct kv_interval *hypervolume, double confidence) {
    size_t n = d->n_points;
    uint32_t *times = kv_alloc(d->n_items + 1, sizeof *times);
    double *value = kv_alloc(n + 1, sizeof *value);
    double *areas = kv_alloc(d->draws + 1, sizeof *areas);
    bool *on = kv_alloc(n + 1, sizeof *on);
    for (size_t p = 0; p < n; p++) frequency[p] = 0;
    for (size_t k = 0; k < d->draws; k++) {
        kv_resampler_draw(d->resampler, d->seed, k, times);
        for (size_t p = 0; p < n; p++) {
            double sum = 0, weight = 0;
            for (size_t i = 0; i < d->n_items; i++) {
                double x = d->x[p * d->n_items + i], w = d->w ? d->w[p * d->n_items + i] : 1;
                if (times[i] == 0 || isnan(x)) continue;
                sum += times[i] * w * x;
                weight += times[i] * w;
            }
            value[p] = weight > 0 ? (d->lower_is_better ? -sum : sum) / weight : NAN;
        }
        kv_pareto(d->cost, value, n, on);
        for (size_t p = 0; p < n; p++) frequency[p] += on[p];
        if (hypervolume) areas[k] = kv_hypervolume(d->cost, value, n, d->most, d->floor);
    }
    for (size_t p = 0; p < n; p++) frequency[p] /= d->draws ? (double)d->draws : 1;
    if (hypervolume) *hypervolume = kv_percentile_interval(areas, d->draws, confidence);
    free(times);
    free(value);
    free(areas);
    free(on);
}

void kv_pareto_frequency(const struct kv_resampler *r, const double *right, const double *cost,
                         size_t n_points, size_t n_items, uint64_t seed, size_t draws,
                         double *frequency) {
    const struct kv_pareto_draws d = {.resampler = r,
                                      .x = right,
                                      .cost = cost,
                                      .n_points = n_points,
                                      .n_items = n_items,
                                      .seed = seed,
                                      .draws = draws};
    kv_pareto_bootstrap(&d, frequency, NULL, 0.95);
}
