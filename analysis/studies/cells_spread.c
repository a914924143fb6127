// SPDX-License-Identifier: Apache-2.0
// How losses spread over tokens: what policy cells starts from at a grain or with widths that it
// was not trained for, and what a frozen table holds.
#include <stdlib.h>

#include "analysis/studies/cells_budget.h"
#include "sim/base/memory.h"

static const double least_log = -80; // of a loss; a cell that loses nothing has it

struct weighed {
    double log_loss, weight;
};

static int by_loss(const void *a, const void *b) {
    const struct weighed *x = a, *y = b;
    return (x->log_loss > y->log_loss) - (x->log_loss < y->log_loss);
}

static double log_of(double loss) {
    return loss > 0 ? fmax(log(loss), least_log) : least_log;
}

// Cells of one layer that share a width: unit u of `units` has cells u, u + stride, ...
struct shared {
    size_t units, stride, cells;
};
static struct shared shared_by(const struct kv_shape *s, size_t grain) {
    size_t per = 2 * (size_t)s->n_kv_heads;
    if (grain == KV_CELLS_GRAIN_CELL) return (struct shared){per, 1, 1};
    if (grain == KV_CELLS_GRAIN_KV) return (struct shared){2, 2, per / 2};
    return (struct shared){1, 1, per};
}

// What one unit of a token loses at a width.
static double unit_loss(const struct kv_cells_choices *c, const struct shared *by, size_t token,
                        size_t layer, size_t unit, size_t width) {
    size_t per = 2 * (size_t)c->shape->n_kv_heads, places = per * c->shape->n_layers;
    double loss = 0;
    for (size_t i = 0; i < by->cells; i++) {
        size_t place = layer * per + unit + i * by->stride;
        loss += (double)c->damage[(token * places + place) * c->n_widths + width];
    }
    return loss;
}

static double weight_of(const struct kv_cells_choices *c, size_t token) {
    return c->weight ? c->weight[token] : 1;
}

// Quantiles of n sorted losses that weigh differently: where the weight below reaches the share.
static void cut(const struct weighed *x, size_t n, float *out) {
    double all = 0, below = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) all += x[i].weight;
    for (size_t q = 0; q < KV_CELLS_QUANTILES; q++) {
        while (at + 1 < n && below + x[at].weight <= kv_cells_quantile(q) * all)
            below += x[at++].weight;
        out[q] = (float)x[at].log_loss;
    }
}

static void measure_layer(const struct kv_cells_choices *c, size_t grain, size_t step, size_t layer,
                          size_t middle, struct weighed *x, float *out) {
    struct shared by = shared_by(c->shape, grain);
    bool empty = true;
    for (size_t t = 0; t < c->n && empty; t++) empty = !c->step || c->step[t] != step;
    size_t n = 0;
    for (size_t t = 0; t < c->n; t++) {
        if (!empty && c->step && c->step[t] != step) continue;
        for (size_t u = 0; u < by.units; u++)
            x[n++] =
                (struct weighed){log_of(unit_loss(c, &by, t, layer, u, middle)), weight_of(c, t)};
    }
    qsort(x, n, sizeof *x, by_loss);
    cut(x, n, out);
}

static void measure_ratios(const struct kv_cells_choices *c, size_t grain, size_t middle,
                           struct kv_cells_spread *s) {
    struct shared by = shared_by(c->shape, grain);
    double sum[KV_MAX_WIDTHS] = {0}, level = 0, n = 0;
    for (size_t t = 0; t < c->n; t++)
        for (size_t l = 0; l < c->shape->n_layers; l++)
            for (size_t u = 0; u < by.units; u++) {
                double w = weight_of(c, t), base = log_of(unit_loss(c, &by, t, l, u, middle));
                level += w * base;
                n += w;
                for (size_t k = 0; k < c->n_widths; k++)
                    sum[k] += w * (log_of(unit_loss(c, &by, t, l, u, k)) - base);
            }
    s->level[grain] = (float)(level / n);
    for (size_t k = 0; k < c->n_widths; k++)
        s->ratio[grain * c->n_widths + k] = (float)(sum[k] / n);
}

static void measure_table(const struct kv_cells_choices *c, size_t middle, float *table) {
    size_t places = 2 * (size_t)c->shape->n_kv_heads * c->shape->n_layers;
    for (size_t k = 0; k < KV_CELLS_CLASSES; k++)
        for (size_t p = 0; p < places; p++) {
            double sum = 0, n = 0, all = 0, n_all = 0;
            for (size_t t = 0; t < c->n; t++) {
                double w = weight_of(c, t);
                double loss = (double)c->damage[(t * places + p) * c->n_widths + middle];
                all += w * loss, n_all += w;
                if (c->class && c->class[t] == k) sum += w * loss, n += w;
            }
            table[k * places + p] = (float)log_of(n > 0 ? sum / n : all / n_all);
        }
}

struct kv_cells_spread *kv_cells_spread_measure(const struct kv_cells_choices *c, size_t middle) {
    size_t layers = c->shape->n_layers, per = 2 * (size_t)c->shape->n_kv_heads;
    struct kv_cells_spread *s = kv_alloc(1, sizeof *s);
    struct weighed *x = kv_alloc(c->n * per, sizeof *x);
    s->quantile = kv_alloc(KV_CELLS_SPREADS * KV_CELLS_STEPS * layers * KV_CELLS_QUANTILES,
                           sizeof *s->quantile);
    s->ratio = kv_alloc(KV_CELLS_SPREADS * c->n_widths, sizeof *s->ratio);
    s->table = kv_alloc(KV_CELLS_CLASSES * per * layers, sizeof *s->table);
    float *out = s->quantile;
    for (size_t grain = 0; grain < KV_CELLS_SPREADS; grain++) {
        for (size_t step = 0; step < KV_CELLS_STEPS; step++)
            for (size_t l = 0; l < layers; l++, out += KV_CELLS_QUANTILES)
                measure_layer(c, grain, step, l, middle, x, out);
        measure_ratios(c, grain, middle, s);
    }
    measure_table(c, middle, s->table);
    free(x);
    return s;
}

void kv_cells_spread_free(struct kv_cells_spread *s) {
    if (!s) return;
    free(s->quantile);
    free(s->table);
    free(s->ratio);
    free(s);
}

size_t kv_cells_middle(const struct kv_cells_training *o) {
    size_t best = 0;
    for (size_t w = 1; w < o->n_widths; w++)
        if (fabs((double)o->widths[w] - 4) < fabs((double)o->widths[best] - 4)) best = w;
    return best;
}
