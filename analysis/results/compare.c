// SPDX-License-Identifier: Apache-2.0
// Two runs compared on the items that both hold, with every test that the comparison allows.
#include "analysis/results/compare.h"

#include <stdlib.h>

#include "analysis/stats/evidence.h"
#include "sim/base/memory.h"

static const double confidence = 0.95, alpha = 0.05;

static struct kv_interval bootstrap(const struct kv_pairs *j, const double *a, const double *b,
                                    const struct kv_comparing *how) {
    struct kv_resampler *r = kv_pairs_resampler(j);
    double *d = kv_alloc(j->n + 1, sizeof *d);
    for (size_t i = 0; i < j->n; i++) d[i] = a[i] - b[i];
    struct kv_interval result = kv_bootstrap_mean(r, d, j->n, how->seed, how->draws, confidence);
    free(d);
    kv_resampler_free(r);
    return result;
}

static void add_evidence(struct kv_compared *c, const struct kv_paired *p, const double *a,
                         const double *b, size_t n, const struct kv_comparing *how) {
    struct kv_tost tost = kv_tost_items(a, b, n, how->margin);
    double items = (double)p->n, discordant = (p->won + p->lost) / items;
    c->margin = how->margin;
    c->tost_p = tost.p;
    c->not_worse_p = tost.worse_p;
    if (isnan(p->exact_p)) { // redraws make fractions, whose spread is known
        c->items_needed =
            kv_items_to_clear(items, p->standard_error, fabs(p->difference), alpha, how->power);
        c->smallest_seen = NAN;
    } else {
        c->items_needed = kv_items_for_difference(p->difference, discordant, alpha, how->power);
        c->smallest_seen = kv_difference_seen(items, discordant, alpha, how->power);
    }
}

static bool compare_accuracy(struct kv_compared *c, const struct kv_pairs *j, int scorer,
                             const struct kv_comparing *how) {
    const double *a = j->a[scorer], *b = j->b[scorer];
    struct kv_paired p = kv_paired_compare(a, b, j->n, confidence);
    double sum = 0;
    if (p.n == 0) return false;
    for (size_t i = 0; i < j->n; i++)
        if (!isnan(a[i] - b[i])) sum += a[i];
    *c = (struct kv_compared){.quantity = kv_scorer_names[scorer],
                              .n = p.n,
                              .a = sum / (double)p.n,
                              .b = sum / (double)p.n - p.difference,
                              .difference = p.difference,
                              .interval = p.interval,
                              .bootstrap = bootstrap(j, a, b, how),
                              .only_a = p.won,
                              .only_b = p.lost,
                              .exact_p = p.exact_p,
                              .mid_p = isnan(p.mid_p) ? p.t_p : p.mid_p};
    add_evidence(c, &p, a, b, j->n, how);
    return true;
}

// A measure of divergence, of which no accuracy can be told.
static struct kv_compared of_divergence(const char *quantity, size_t n, double a, double b,
                                        double difference, struct kv_interval interval) {
    return (struct kv_compared){.quantity = quantity,
                                .divergence = true,
                                .n = n,
                                .a = a,
                                .b = b,
                                .difference = difference,
                                .interval = interval,
                                .bootstrap = {NAN, NAN},
                                .only_a = NAN,
                                .only_b = NAN,
                                .exact_p = NAN,
                                .mid_p = NAN,
                                .margin = NAN,
                                .tost_p = NAN,
                                .not_worse_p = NAN,
                                .items_needed = NAN,
                                .smallest_seen = NAN};
}

static bool compare_divergence(struct kv_compared *c, const struct kv_pairs *j,
                               const struct kv_comparing *how) {
    double *d = kv_alloc(j->n + 1, sizeof *d), *share_a = kv_alloc(j->n + 1, sizeof *d);
    double *share_b = kv_alloc(j->n + 1, sizeof *d);
    for (size_t i = 0; i < j->n; i++) d[i] = j->kl_a[i] - j->kl_b[i];
    struct kv_mean m = kv_ratio_interval(d, j->n_scored, j->n, confidence);
    struct kv_mean a = kv_ratio_interval(j->kl_a, j->n_scored, j->n, confidence);
    struct kv_mean tokens = kv_mean_interval(j->n_scored, j->n, confidence);
    for (size_t i = 0; i < j->n; i++) { // items weigh by their tokens
        share_a[i] = j->kl_a[i] * j->n_scored[i] / tokens.mean;
        share_b[i] = j->kl_b[i] * j->n_scored[i] / tokens.mean;
    }
    *c = of_divergence("kl_nats", m.n, a.mean, a.mean - m.mean, m.mean, m.interval);
    c->bootstrap = bootstrap(j, share_a, share_b, how);
    free(d);
    free(share_a);
    free(share_b);
    return m.n > 0;
}

size_t kv_compare(const struct kv_pairs *j, const struct kv_comparing *how,
                  struct kv_compared out[KV_MAX_COMPARED]) {
    size_t n = 0;
    for (int k = 0; k < KV_N_SCORERS; k++) n += compare_accuracy(&out[n], j, k, how);
    return n + compare_divergence(&out[n], j, how);
}

// ---- scored positions -----------------------------------------------------------------

static bool same_rows(const struct kv_window_tokens *a, const struct kv_window_tokens *b) {
    bool same = a->item == b->item && a->n == b->n;
    for (uint32_t i = 0; same && i < a->n; i++) same = a->token[i].row == b->token[i].row;
    return same;
}

size_t kv_compare_tokens(const struct kv_window_tokens *a, size_t n_a,
                         const struct kv_window_tokens *b, size_t n_b,
                         const struct kv_comparing *how,
                         struct kv_compared out[KV_N_TOKEN_MEASURES]) {
    struct kv_token_window *x = kv_alloc(n_a + 1, sizeof *x), *y = kv_alloc(n_a + 1, sizeof *y);
    size_t n = 0, n_out = 0;
    for (size_t i = 0, k = 0; i < n_a; i++) {
        while (k < n_b && b[k].item < a[i].item) k++;
        if (k == n_b || !same_rows(&a[i], &b[k])) continue;
        x[n] = (struct kv_token_window){a[i].token, a[i].n};
        y[n++] = (struct kv_token_window){b[k].token, b[k].n};
    }
    struct kv_token_summary of_a = kv_token_summary(x, n, kv_all_depths, how->seed, 0, confidence),
                            of_b = kv_token_summary(y, n, kv_all_depths, how->seed, 0, confidence),
                            apart = kv_token_difference(x, y, n, kv_all_depths, how->seed,
                                                        how->draws, confidence);
    for (int m = KV_TOKEN_KL_MEDIAN; m < KV_N_TOKEN_MEASURES;
         m++) { // the mean stands there already
        if (isnan(apart.at[m].value)) continue;
        out[n_out++] = of_divergence(kv_token_measure_names[m], apart.n, of_a.at[m].value,
                                     of_b.at[m].value, apart.at[m].value, apart.at[m].interval);
    }
    free(x);
    free(y);
    return n_out;
}
