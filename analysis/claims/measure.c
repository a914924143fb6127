// SPDX-License-Identifier: Apache-2.0
// A claim's quantity measured on two rows of a store, with a 95 % interval.
#include "analysis/claims/measure.h"
#include "analysis/stats/evidence.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "analysis/results/pairs.h"

static const double confidence = 0.95, z95 = 1.959963984540054;

// ---- of items -------------------------------------------------------------------------

static void measure_difference(const struct kv_pairs *j, enum kv_scorer scorer,
                               struct kv_measured *m) {
    struct kv_paired p = kv_paired_compare(j->a[scorer], j->b[scorer], j->n, confidence);
    m->n = p.n;
    if (p.n == 0) return;
    m->estimate = 100 * p.difference;
    m->low = 100 * p.interval.low;
    m->high = 100 * p.interval.high;
    // No item that differs has no spread; the interval is still as wide as n makes it.
    m->standard_error = fmax(100 * p.standard_error, (m->high - m->low) / (2 * z95));
}

static void measure_kl(const struct kv_pairs *j, struct kv_measured *m) {
    struct kv_mean x = kv_ratio_interval(j->kl_a, j->n_scored, j->n, confidence);
    m->n = x.n;
    m->estimate = x.mean;
    if (x.n < KV_LEAST_ITEMS) return;
    m->low = x.interval.low;
    m->high = x.interval.high;
    m->standard_error = x.standard_error;
}

static void measure_agreement(const struct kv_item_result *items, size_t n, struct kv_measured *m) {
    double *agree = kv_alloc(n + 1, sizeof *agree);
    for (size_t i = 0; i < n; i++) agree[i] = items[i].agree;
    struct kv_mean x = kv_mean_interval(agree, n, confidence);
    struct kv_interval w = kv_wilson(x.mean, (double)x.n, confidence);
    free(agree);
    m->n = x.n;
    m->estimate = 100 * x.mean;
    m->low = 100 * w.low;
    m->high = 100 * w.high;
    m->standard_error = fmax(100 * x.standard_error, (m->high - m->low) / (2 * z95));
}

// Ratios and perplexities: functions of sums over items, with one bootstrap.
struct two_sums {
    size_t n;
    double *a, *b, *w;
    bool ratio; // of sums: a / b; else exp(sum a / sum w) - exp(sum b / sum w)
};

static double combined(const struct two_sums *t, const uint32_t *times) {
    double a = 0, b = 0, w = 0;
    for (size_t i = 0; i < t->n; i++) {
        double k = times ? times[i] : 1;
        a += k * t->a[i];
        b += k * t->b[i];
        w += k * t->w[i];
    }
    if (t->ratio) return log(a / b);
    return exp(a / w) - exp(b / w);
}

static void bootstrap(const struct two_sums *t, const struct kv_resampler *r,
                      const struct kv_measuring *how, struct kv_measured *m) {
    double *x = kv_alloc(how->draws + 1, sizeof *x);
    uint32_t *times = kv_alloc(t->n + 1, sizeof *times);
    size_t kept = 0;
    for (size_t d = 0; d < how->draws; d++) {
        kv_resampler_draw(r, how->seed, d, times);
        double y = combined(t, times);
        if (isfinite(y)) x[kept++] = y;
    }
    struct kv_interval i =
        kv_percentile_interval(x, kept, kv_expanded_confidence((double)t->n, confidence));
    free(x);
    free(times);
    m->n = t->n;
    m->estimate = combined(t, NULL);
    if (t->n < KV_LEAST_ITEMS) i = (struct kv_interval){NAN, NAN};
    m->low = i.low;
    m->high = i.high;
    m->standard_error = (i.high - i.low) / (2 * z95);
    m->log = t->ratio;
    if (!t->ratio) return;
    m->estimate = exp(m->estimate);
    m->low = exp(m->low);
    m->high = exp(m->high);
}

static void two_sums_new(struct two_sums *t, size_t n) {
    *t = (struct two_sums){0};
    t->a = kv_alloc(n + 1, sizeof(double));
    t->b = kv_alloc(n + 1, sizeof(double));
    t->w = kv_alloc(n + 1, sizeof(double));
}

static void two_sums_fini(struct two_sums *t) {
    free(t->a);
    free(t->b);
    free(t->w);
}

static void measure_ratio(const struct kv_pairs *j, const struct kv_measuring *how,
                          struct kv_measured *m) {
    struct two_sums t;
    uint64_t *context = kv_alloc(j->n + 1, sizeof *context);
    const char **source = kv_alloc(j->n + 1, sizeof *source);
    two_sums_new(&t, j->n);
    t.ratio = true;
    for (size_t i = 0; i < j->n; i++) {
        if (isnan(j->kl_a[i]) || isnan(j->kl_b[i])) continue;
        context[t.n] = j->context[i];
        source[t.n] = j->source[i];
        t.a[t.n] = j->kl_a[i] * j->n_scored[i];
        t.b[t.n] = j->kl_b[i] * j->n_scored[i];
        t.w[t.n++] = 1;
    }
    struct kv_resampler *r = kv_resampler_new(t.n, context, source);
    if (t.n) bootstrap(&t, r, how, m);
    kv_resampler_free(r);
    free(context);
    free(source);
    two_sums_fini(&t);
}

// Text windows alone: those without a gold choice.
static int measure_perplexity(struct kv_store *s, const struct kv_summary *a,
                              const struct kv_summary *b, const struct kv_measuring *how,
                              struct kv_measured *m, struct kv_error *e) {
    struct kv_choice_result *x = NULL, *y = NULL;
    size_t n_x = 0, n_y = 0;
    struct two_sums t;
    int code = kv_store_choices(s, a->run_group, &x, &n_x, e);
    if (!code) code = kv_store_choices(s, b->run_group, &y, &n_y, e);
    two_sums_new(&t, n_x);
    for (size_t i = 0, k = 0; !code && i < n_x; i++) {
        while (k < n_y && y[k].item < x[i].item) k++;
        if (k == n_y) break;
        if (y[k].item != x[i].item || x[i].gold >= 0 || x[i].redraw != y[k].redraw) continue;
        if (!isfinite(x[i].outcome.logprob) || !isfinite(y[k].outcome.logprob)) continue;
        t.a[t.n] = -x[i].outcome.logprob;
        t.b[t.n] = -y[k].outcome.logprob;
        t.w[t.n++] = x[i].outcome.tokens;
    }
    struct kv_resampler *r = kv_resampler_new(t.n, NULL, NULL);
    if (t.n) bootstrap(&t, r, how, m);
    kv_resampler_free(r);
    two_sums_fini(&t);
    kv_choice_results_free(x, n_x);
    kv_choice_results_free(y, n_y);
    return code;
}

// ---- of a device ----------------------------------------------------------------------

static double saving(const struct kv_device *d, const struct kv_summary *a,
                     const struct kv_summary *b, double context) {
    double first = kv_device_step(d, &a->ledger, context, 0).step_ns;
    return 100 * (1 - first / kv_device_step(d, &b->ledger, context, 0).step_ns);
}

// Where the parameter of an interval stands in the device; NULL for those that are not costs.
static double *cost_named(struct kv_device *d, const char *name) {
    if (strcmp(name, "base_ns") == 0) return &d->base_ns;
    if (strcmp(name, "attend_ns") == 0) return &d->attend_ns;
    return kv_device_cost(d, name);
}

static void measure_saving(const struct kv_claim *c, const struct kv_summary *a,
                           const struct kv_summary *b, struct kv_device *d, struct kv_measured *m) {
    double below = 0, above = 0;
    m->n = a->n_items;
    m->estimate = saving(d, a, b, c->context);
    for (size_t i = 0; i < d->n_intervals; i++) {
        double *cost = cost_named(d, d->intervals[i].name), kept = cost ? *cost : 0, least = 0,
               most = 0;
        if (!cost) continue;
        const double ends[] = {d->intervals[i].low, d->intervals[i].high};
        for (int k = 0; k < 2; k++) {
            *cost = ends[k];
            double change = saving(d, a, b, c->context) - m->estimate;
            least = fmin(least, change);
            most = fmax(most, change);
        }
        *cost = kept;
        below += least * least;
        above += most * most;
    }
    struct kv_latency second = kv_device_step(d, &b->ledger, c->context, 0);
    double ceiling = 100 * (1 - second.ceiling_ns / second.step_ns);
    m->low = m->estimate - sqrt(below);
    m->high = fmin(m->estimate + sqrt(above), fmax(ceiling, m->estimate));
}

int kv_measure(struct kv_store *s, const struct kv_claim *c, const struct kv_summary *a,
               const struct kv_summary *b, const struct kv_measuring *how, struct kv_measured *m,
               struct kv_error *e) {
    struct kv_item_result *x = NULL, *y = NULL;
    struct kv_pairs j = {0};
    size_t n_x = 0, n_y = 0;
    *m = (struct kv_measured){.estimate = NAN, .low = NAN, .high = NAN, .standard_error = NAN};
    if (c->quantity->quantity == KV_Q_PERPLEXITY) return measure_perplexity(s, a, b, how, m, e);
    if (c->quantity->quantity == KV_Q_SAVING) {
        if (how->device) measure_saving(c, a, b, how->device, m);
        return 0;
    }
    int code = kv_store_items(s, a->run_group, &x, &n_x, e);
    if (!code) code = kv_store_items(s, b->run_group, &y, &n_y, e);
    if (!code) {
        kv_pairs_join(&j, x, n_x, y, n_y);
        switch (c->quantity->quantity) {
        case KV_Q_DIFFERENCE:
            measure_difference(&j, c->quantity->scorer, m);
            break;
        case KV_Q_KL_RATIO:
            measure_ratio(&j, how, m);
            break;
        case KV_Q_AGREE:
            measure_agreement(x, n_x, m);
            break;
        default:
            measure_kl(&j, m);
        }
    }
    kv_pairs_fini(&j);
    kv_item_results_free(x, n_x);
    kv_item_results_free(y, n_y);
    return code;
}

double kv_measured_distance(const struct kv_measured *m, const struct kv_claim *c) {
    if (!m->log) return kv_claim_distance(c, m->estimate);
    double low = c->low > 0 ? fabs(log(m->estimate / c->low)) : INFINITY;
    return fmin(low, fabs(log(m->estimate / c->high)));
}
