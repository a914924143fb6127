// SPDX-License-Identifier: Apache-2.0
// The frontier of value against cost: the points that no other beats, and how sure that is.
#include "analysis/pareto.h"

#include <stdlib.h>

#include "sim/base/util.h"

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

void kv_pareto_frequency(const struct kv_resampler *r, const double *right, const double *cost,
                         size_t n_points, size_t n_items, uint64_t seed, size_t draws,
                         double *frequency) {
    uint32_t *times = kv_alloc(n_items + 1, sizeof *times);
    double *value = kv_alloc(n_points + 1, sizeof *value);
    bool *on = kv_alloc(n_points + 1, sizeof *on);
    for (size_t p = 0; p < n_points; p++) frequency[p] = 0;
    for (size_t d = 0; d < draws; d++) {
        kv_resampler_draw(r, seed, d, times);
        for (size_t p = 0; p < n_points; p++) {
            double sum = 0, count = 0;
            for (size_t i = 0; i < n_items; i++) {
                double x = right[p * n_items + i];
                if (times[i] == 0 || isnan(x)) continue;
                sum += times[i] * x;
                count += times[i];
            }
            value[p] = count > 0 ? sum / count : NAN;
        }
        kv_pareto(cost, value, n_points, on);
        for (size_t p = 0; p < n_points; p++) frequency[p] += on[p];
    }
    for (size_t p = 0; p < n_points; p++) frequency[p] /= draws ? (double)draws : 1;
    free(times);
    free(value);
    free(on);
}
