// SPDX-License-Identifier: Apache-2.0
// The frontier of a group of rows, on the items that all of them hold.
#include "analysis/results/front.h"

#include <stdlib.h>

#include "analysis/results/shared.h"
#include "analysis/stats/pareto.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"

const struct kv_front_value kv_front_values[] = {{"acc", "", KV_ACC},
                                                 {"acc_norm", "", KV_ACC_NORM},
                                                 {"acc_bytes", "", KV_ACC_BYTES},
                                                 {"acc_token", "", KV_ACC_TOKEN},
                                                 {"agree", "", KV_FRONT_AGREEMENT},
                                                 {"kl", "nats a token", KV_FRONT_KL},
                                                 {0}};

static double effective_bits(const struct kv_row *r, size_t context) {
    (void)context;
    return r->s.effective_bits;
}
static double allocated_bits(const struct kv_row *r, size_t context) {
    (void)context;
    return r->s.allocated_bits;
}
static double bytes(const struct kv_row *r, size_t context) {
    (void)context;
    return r->s.bytes_per_token;
}
static double milliseconds(const struct kv_row *r, size_t context) {
    return r->at[context].step_ns > 0 ? r->at[context].step_ns / 1e6 : NAN;
}

const struct kv_front_cost kv_front_costs[] = {
    {"bits", "effective bits a value", effective_bits, false},
    {"allocated", "allocated bits a value", allocated_bits, false},
    {"bytes", "bytes a token", bytes, false},
    {"ms", "ms a token", milliseconds, true},
    {0}};

static double weight_of(int scorer, const struct kv_item_result *r) {
    return scorer == KV_FRONT_KL ? r->n_scored : 1;
}

static double value_of(int scorer, const struct kv_item_result *r) {
    return scorer == KV_FRONT_KL          ? r->kl_nats
           : scorer == KV_FRONT_AGREEMENT ? r->agree
                                          : r->right[scorer];
}

// Whether a row was judged at all: one that is finite on no item would leave none to the others.
static bool is_known(const struct kv_row *r, int scorer) {
    return !isnan(scorer == KV_FRONT_KL          ? r->s.kl_nats
                  : scorer == KV_FRONT_AGREEMENT ? r->s.agree
                                                 : r->s.acc[scorer]);
}

// ---- the frontier ---------------------------------------------------------------------

static void measure_gain(struct kv_front *f, const struct kv_shared *g, bool lower, size_t row) {
    size_t best = f->by[row];
    double *d = kv_alloc(g->n + 1, sizeof *d);
    if (best == f->n) {
        f->gain[row] = (struct kv_mean){.mean = NAN, .interval = {NAN, NAN}};
        free(d);
        return;
    }
    const double *a = &g->x[best * g->n], *b = &g->x[row * g->n];
    for (size_t i = 0; i < g->n; i++) d[i] = lower ? b[i] - a[i] : a[i] - b[i];
    f->gain[row] = kv_ratio_interval(d, &g->w[row * g->n], g->n, KV_CONFIDENCE);
    if (!lower) { // accuracies have an interval that stays honest where few items differ
        struct kv_paired p = kv_paired_compare(a, b, g->n, KV_CONFIDENCE);
        f->gain[row].interval = p.interval;
    }
    free(d);
}

static void find(struct kv_front *f, const struct kv_shared *g, bool lower, double chance,
                 uint64_t seed, size_t draws) {
    double *good = kv_alloc(f->n + 1, sizeof *good), most = 0;
    f->floor = lower ? 0 : chance;
    for (size_t p = 0; p < f->n; p++) {
        double sum = 0, weight = 0;
        for (size_t i = 0; i < g->n; i++) {
            sum += g->w[p * g->n + i] * g->x[p * g->n + i];
            weight += g->w[p * g->n + i];
        }
        f->value[p] = weight > 0 ? sum / weight : NAN;
        good[p] = lower ? -f->value[p] : f->value[p];
        if (f->cost[p] > most) most = f->cost[p];
        if (lower) f->floor = fmax(f->floor, f->value[p]);
    }
    kv_pareto(f->cost, good, f->n, f->on);
    kv_pareto_dominators(f->cost, good, f->n, f->by);
    f->knee = kv_pareto_knee(f->cost, good, f->n);
    double floor = lower ? -f->floor : f->floor;
    f->hypervolume = kv_hypervolume(f->cost, good, f->n, most, floor);
    struct kv_resampler *r = kv_shared_resampler(g);
    const struct kv_pareto_draws d = {.resampler = r,
                                      .x = g->x,
                                      .w = g->w,
                                      .cost = f->cost,
                                      .n_points = f->n,
                                      .n_items = g->n,
                                      .lower_is_better = lower,
                                      .seed = seed,
                                      .draws = draws,
                                      .most = most,
                                      .floor = floor};
    kv_pareto_bootstrap(&d, f->frequency, &f->hypervolume_interval, KV_CONFIDENCE);
    kv_resampler_free(r);
    for (size_t p = 0; p < f->n; p++) measure_gain(f, g, lower, p);
    free(good);
}

// Guarded, so that what was found so far is let go of.
static int find_all(struct kv_front *f, struct kv_store *s, const struct kv_row *const *rows,
                    size_t n, const struct kv_front_value *value, const struct kv_front_cost *cost,
                    size_t context, uint64_t seed, size_t draws, struct kv_error *e) {
    KV_GUARD(e);
    struct kv_shared g;
    f->rows = kv_alloc(n + 1, sizeof *f->rows);
    f->cost = kv_alloc(n + 1, sizeof *f->cost);
    f->value = kv_alloc(n + 1, sizeof *f->value);
    f->on = kv_alloc(n + 1, sizeof *f->on);
    f->frequency = kv_alloc(n + 1, sizeof *f->frequency);
    f->by = kv_alloc(n + 1, sizeof *f->by);
    f->gain = kv_alloc(n + 1, sizeof *f->gain);
    const struct kv_summary **summaries = kv_alloc(n + 1, sizeof *summaries);
    size_t n_known = 0;
    for (size_t p = 0; p < n; p++) n_known += is_known(rows[p], value->scorer);
    f->n = 0;
    for (size_t p = 0; p < n; p++) {
        if (n_known && !is_known(rows[p], value->scorer)) continue;
        f->rows[f->n] = rows[p];
        f->cost[f->n] = cost->of(rows[p], context);
        summaries[f->n++] = &rows[p]->s;
    }
    int code = kv_shared_read(&g, s, summaries, f->n, value_of, weight_of, value->scorer, 1, e);
    free(summaries);
    f->n_items = g.n;
    f->n_left_out = g.n_left_out;
    double chance = value->scorer >= 0 && n ? rows[0]->s.chance : 0;
    if (!code) find(f, &g, value->scorer == KV_FRONT_KL, chance, seed, draws);
    kv_shared_fini(&g);
    return code;
}

int kv_front_find(struct kv_front *f, struct kv_store *s, const struct kv_row *const *rows,
                  size_t n, const struct kv_front_value *value, const struct kv_front_cost *cost,
                  size_t context, uint64_t seed, size_t draws, struct kv_error *e) {
    *f = (struct kv_front){.n = n};
    int code = find_all(f, s, rows, n, value, cost, context, seed, draws, e);
    if (code) kv_front_fini(f);
    return code;
}

void kv_front_fini(struct kv_front *f) {
    free(f->rows);
    free(f->cost);
    free(f->value);
    free(f->on);
    free(f->frequency);
    free(f->by);
    free(f->gain);
    *f = (struct kv_front){0};
}
