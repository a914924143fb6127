// SPDX-License-Identifier: Apache-2.0
// What explains the results of a store's runs.
#include "analysis/results/attribution.h"

#include <stdlib.h>

#include "analysis/results/shared.h"
#include "analysis/stats/evidence.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"

enum { KL = KV_N_SCORERS, N_VALUES };
static const double confidence = 0.95;

static double value_of(int which, const struct kv_item_result *r) {
    return which == KL ? r->kl_nats : 100 * (r->right[which] - r->right_ref[which]);
}

static double weight_of(int which, const struct kv_item_result *r) {
    return which == KL ? r->n_scored : 1;
}

const char *kv_attribution_factor(const struct kv_attribution *t, size_t factor) {
    return factor == t->scorer ? "scorer" : t->factors.name[factor];
}

const char *kv_attribution_level(const struct kv_attribution *t, size_t factor, size_t level) {
    return factor == t->scorer ? kv_scorer_names[level] : t->factors.level_name[factor][level];
}

// ---- designs --------------------------------------------------------------------------

// The runs once for divergence, and once a scorer for accuracy.
struct designs {
    size_t n_rows, n_factors; // without the scorer
    size_t n_levels[KV_MAX_FACTORS];
    struct kv_factorial *acc, *kl;
    double *y_acc, *y_kl; // [n_rows][KV_N_SCORERS], [n_rows]
};

static void new_designs(struct designs *d, const struct kv_factors *f) {
    size_t n = f->n_rows, m = f->n;
    size_t *level = kv_alloc(n * KV_N_SCORERS * (m + 1) + 1, sizeof *level);
    *d = (struct designs){.n_rows = n, .n_factors = m};
    memcpy(d->n_levels, f->n_levels, m * sizeof *d->n_levels);
    d->n_levels[m] = KV_N_SCORERS;
    d->y_kl = kv_alloc(n + 1, sizeof *d->y_kl);
    d->y_acc = kv_alloc(n * KV_N_SCORERS + 1, sizeof *d->y_acc);
    for (size_t i = 0; i < n * KV_N_SCORERS; i++) {
        memcpy(&level[i * (m + 1)], &f->level[i / KV_N_SCORERS * m], m * sizeof *level);
        level[i * (m + 1) + m] = i % KV_N_SCORERS;
    }
    d->kl = kv_factorial_new(n, m, f->n_levels, f->level);
    d->acc = kv_factorial_new(n * KV_N_SCORERS, m + 1, d->n_levels, level);
    free(level);
}

static void free_designs(struct designs *d) {
    kv_factorial_free(d->acc);
    kv_factorial_free(d->kl);
    free(d->y_acc);
    free(d->y_kl);
}

// Results of all runs on resampled items; times NULL: on the items as they are.
static void results(struct designs *d, const struct kv_shared *g, const uint32_t *times) {
    for (size_t p = 0; p < d->n_rows * N_VALUES; p++) {
        double sum = 0, weight = 0;
        for (size_t i = 0; i < g->n; i++) {
            double w = g->w[p * g->n + i] * (times ? times[i] : 1);
            sum += w * g->x[p * g->n + i];
            weight += w;
        }
        size_t row = p / N_VALUES, which = p % N_VALUES;
        if (which == KL)
            d->y_kl[row] = log(sum / weight);
        else
            d->y_acc[row * KV_N_SCORERS + which] = sum / weight;
    }
}

// ---- effects --------------------------------------------------------------------------

static size_t count_runs(const struct kv_factors *f, const struct kv_effect *x) {
    size_t n = 0;
    for (size_t i = 0; i < f->n_rows; i++) {
        bool a = x->a >= f->n || f->level[i * f->n + x->a] == x->level_a;
        bool b = x->b >= f->n || f->level[i * f->n + x->b] == x->level_b;
        n += a && b;
    }
    return n;
}

static struct kv_effect *add_effect(struct kv_attribution *t, size_t a, size_t level_a, size_t b,
                                    size_t level_b) {
    static const struct kv_effect_size unknown = {NAN, NAN, NAN};
    t->effects = kv_grow(t->effects, t->n + 1, sizeof *t->effects);
    struct kv_effect *x = &t->effects[t->n++];
    *x = (struct kv_effect){.a = a,
                            .level_a = level_a,
                            .b = b,
                            .level_b = level_b,
                            .acc = unknown,
                            .log_kl = unknown,
                            .acc_share = NAN,
                            .kl_share = NAN};
    x->n_runs = count_runs(&t->factors, x);
    return x;
}

// Main effects, level by level, then pairs, cell by cell: what at least one design determines.
static void list_effects(struct kv_attribution *t, const struct designs *d) {
    size_t m = d->n_factors;
    for (size_t a = 0; a <= m; a++)
        for (size_t l = 0; l < d->n_levels[a] && kv_factorial_has(d->acc, a); l++)
            add_effect(t, a, l, KV_MAX_FACTORS, 0);
    for (size_t a = 0; a < m; a++)
        for (size_t b = a + 1; b <= m; b++)
            for (size_t l = 0; l < d->n_levels[a] && kv_factorial_has_pair(d->acc, a, b); l++)
                for (size_t k = 0; k < d->n_levels[b]; k++) add_effect(t, a, l, b, k);
}

// The estimates of all effects under one design, in the list's order; NAN for the scorer's in KL.
static void estimate(const struct kv_attribution *t, const struct kv_factorial *f, const double *y,
                     size_t n_factors, const size_t *n_levels, double *out) {
    double cells[KV_MAX_LEVELS * KV_MAX_LEVELS];
    for (size_t i = 0; i < t->n;) {
        const struct kv_effect *x = &t->effects[i];
        bool pair = x->b < KV_MAX_FACTORS;
        size_t n_cells = n_levels[x->a] * (pair ? n_levels[x->b] : 1);
        bool known = x->a < n_factors && (!pair || x->b < n_factors);
        if (known && pair) kv_factorial_pair(f, x->a, x->b, y, cells);
        if (known && !pair) kv_factorial_main(f, x->a, y, cells);
        for (size_t k = 0; k < n_cells; k++) out[i + k] = known ? cells[k] : NAN;
        i += n_cells;
    }
}

static void fill_shares(struct kv_attribution *t, const struct designs *d) {
    t->acc_main = kv_factorial_main_share(d->acc, d->y_acc);
    t->kl_main = kv_factorial_main_share(d->kl, d->y_kl);
    for (size_t i = 0; i < t->n; i++) {
        struct kv_effect *x = &t->effects[i];
        bool pair = x->b < KV_MAX_FACTORS, of_kl = x->a != t->scorer && x->b != t->scorer;
        x->acc_share = pair ? kv_factorial_pair_share(d->acc, x->a, x->b, d->y_acc)
                            : kv_factorial_share(d->acc, x->a, d->y_acc);
        if (of_kl)
            x->kl_share = pair ? kv_factorial_pair_share(d->kl, x->a, x->b, d->y_kl)
                               : kv_factorial_share(d->kl, x->a, d->y_kl);
    }
}

static struct kv_effect_size size_of(double at, double *draws, size_t n, double level) {
    struct kv_interval i =
        isnan(at) ? (struct kv_interval){NAN, NAN} : kv_percentile_interval(draws, n, level);
    return (struct kv_effect_size){at, i.low, i.high};
}

static void fill_effects(struct kv_attribution *t, struct designs *d, const struct kv_shared *g,
                         uint64_t seed, size_t draws) {
    size_t m = d->n_factors;
    double *at = kv_alloc(2 * t->n + 1, sizeof *at), *one = kv_alloc(2 * t->n + 1, sizeof *one);
    double *all = kv_alloc(2 * t->n * draws + 1, sizeof *all); // [effect][draw], accuracy then KL
    uint32_t *times = kv_alloc(g->n + 1, sizeof *times);
    struct kv_resampler *r = kv_shared_resampler(g);
    double level = g->n < KV_LEAST_ITEMS ? NAN : kv_expanded_confidence((double)g->n, confidence);
    results(d, g, NULL);
    estimate(t, d->acc, d->y_acc, m + 1, d->n_levels, at);
    estimate(t, d->kl, d->y_kl, m, d->n_levels, at + t->n);
    fill_shares(t, d);
    struct kv_progress *progress = kv_progress_start("resampling", draws, "draws");
    for (size_t k = 0; k < draws; k++, kv_progress_step(progress, 1)) {
        kv_resampler_draw(r, seed, k, times);
        results(d, g, times);
        estimate(t, d->acc, d->y_acc, m + 1, d->n_levels, one);
        estimate(t, d->kl, d->y_kl, m, d->n_levels, one + t->n);
        for (size_t i = 0; i < 2 * t->n; i++) all[i * draws + k] = one[i];
    }
    kv_progress_end(progress);
    for (size_t i = 0; i < t->n; i++) {
        t->effects[i].acc = size_of(at[i], &all[i * draws], draws, level);
        t->effects[i].log_kl = size_of(at[t->n + i], &all[(t->n + i) * draws], draws, level);
    }
    kv_resampler_free(r);
    free(times);
    free(all);
    free(one);
    free(at);
}

bool kv_attribution_has(const struct kv_attribution *t, size_t factor) {
    for (size_t i = 0; i < t->n; i++)
        if (t->effects[i].a == factor) return true;
    return false;
}

// Of a cell, by the logarithm of KL, else by accuracy.
static double deviation(const struct kv_effect *x) {
    return fabs(isnan(x->log_kl.estimate) ? x->acc.estimate : x->log_kl.estimate);
}

static double weight(const struct kv_effect *x) {
    return fmax(x->acc_share, isnan(x->kl_share) ? 0 : x->kl_share);
}

static int by_weight(const void *a, const void *b) {
    double x = weight(*(const struct kv_effect *const *)a);
    double y = weight(*(const struct kv_effect *const *)b);
    return (x < y) - (x > y);
}

size_t kv_attribution_pairs(const struct kv_attribution *t, const struct kv_effect **pairs) {
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        const struct kv_effect *x = &t->effects[i];
        if (x->b == KV_MAX_FACTORS) continue;
        if (x->level_a == 0 && x->level_b == 0) pairs[n++] = x;
        if (deviation(x) > deviation(pairs[n - 1])) pairs[n - 1] = x;
    }
    if (n) qsort(pairs, n, sizeof *pairs, by_weight);
    return n;
}

int kv_attribute(struct kv_attribution *t, struct kv_store *s, const struct kv_summary *const *rows,
                 size_t n_rows, uint64_t seed, size_t draws, struct kv_error *e) {
    struct kv_shared g = {0};
    struct designs d;
    *t = (struct kv_attribution){0};
    int code = kv_factors_find(&t->factors, rows, n_rows, e);
    if (!code && t->factors.n == KV_MAX_FACTORS) // the scorer needs a place
        code = kv_fail(e, KV_EFAIL, "attribute", "the runs differ in more than %d things",
                       KV_MAX_FACTORS - 1);
    if (!code) code = kv_shared_read(&g, s, rows, n_rows, value_of, weight_of, 0, N_VALUES, e);
    if (!code && g.n < 2)
        code = kv_fail(e, KV_EFAIL, "attribute",
                       "the runs hold %zu judged items in common; at least 2 are needed", g.n);
    if (!code) {
        t->scorer = t->factors.n;
        t->n_items = g.n;
        t->n_left_out = g.n_left_out;
        new_designs(&d, &t->factors);
        list_effects(t, &d);
        fill_effects(t, &d, &g, seed, draws);
        free_designs(&d);
    }
    kv_shared_fini(&g);
    if (code) kv_attribution_fini(t);
    return code;
}

void kv_attribution_fini(struct kv_attribution *t) {
    kv_factors_fini(&t->factors);
    free(t->effects);
    *t = (struct kv_attribution){0};
}
