// SPDX-License-Identifier: Apache-2.0
// Divergence of scored positions: means, quantiles, and intervals from resampled blocks.
#include "analysis/stats/tokens.h"

#include <gsl/gsl_cdf.h>
#include <gsl/gsl_sort.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"

const char *const kv_token_measure_names[] = {"kl_mean",  "kl_median", "kl_99", "kl_999",
                                              "same_top", "rms_dp",    NULL};
const struct kv_depths kv_all_depths = {0, UINT32_MAX};

enum { LEAST_BLOCKS = 20, TOO_FEW_BLOCKS = 10, LEAST_RUN = 8, FIRST_BUCKET = 256 };
static const struct kv_interval nothing = {NAN, NAN};

struct kv_depths kv_depths_of(double context) {
    struct kv_depths d = {0, FIRST_BUCKET};
    while (d.upto < context && d.upto < 1u << 30) d = (struct kv_depths){d.upto, 2 * d.upto};
    return d;
}

size_t kv_token_least(enum kv_token_measure m) {
    return m == KV_TOKEN_KL_99 ? 1000 : m == KV_TOKEN_KL_999 ? 10000 : 1;
}

// ---- blocks ---------------------------------------------------------------------------

// A position of these depths, in a or in both runs.
struct point {
    const struct kv_token_outcome *a, *b;
    size_t block;
};

// What is estimated as a mean over positions: KL, same top, squared change.
enum { KL, SAME, SQUARE, N_MEANS };

// Sums over a block's positions, of a and then of b.
struct block {
    double n, sum[2][N_MEANS];
};

struct sample {
    struct point *point; // [n]
    size_t n;
    struct block *block; // [n_blocks]
    size_t n_blocks;
    bool paired;
    size_t *order[2]; // [n] positions by KL, of a and b
};

static void add_window(struct sample *s, const struct kv_token_window *a,
                       const struct kv_token_window *b, struct kv_depths d, size_t runs) {
    size_t first = 0, end = 0;
    while (first < a->n && a->token[first].row + 1u <= d.above) first++;
    for (end = first; end < a->n && a->token[end].row + 1u <= d.upto;) end++;
    size_t n = end - first;
    if (runs > n / LEAST_RUN) runs = n / LEAST_RUN ? n / LEAST_RUN : 1;
    for (size_t i = 0; i < n; i++)
        s->point[s->n++] = (struct point){&a->token[first + i], b ? &b->token[first + i] : NULL,
                                          s->n_blocks + i * runs / n};
    s->n_blocks += n ? runs : 0;
}

static bool reaches(const struct kv_token_window *w, struct kv_depths d) {
    for (size_t i = 0; i < w->n; i++)
        if (w->token[i].row + 1u > d.above && w->token[i].row + 1u <= d.upto) return true;
    return false;
}

static void add_sums(double sum[N_MEANS], const struct kv_token_outcome *t) {
    sum[KL] += (double)t->kl_nats;
    sum[SAME] += !t->other_top;
    sum[SQUARE] += (double)t->dp * (double)t->dp;
}

static void gather(struct sample *s, const struct kv_token_window *a,
                   const struct kv_token_window *b, size_t n, struct kv_depths d) {
    size_t most = 0, n_reach = 0;
    for (size_t i = 0; i < n; i++) {
        most += a[i].n;
        n_reach += reaches(&a[i], d);
    }
    size_t runs = n_reach ? (LEAST_BLOCKS + n_reach - 1) / n_reach : 1;
    s->paired = b != NULL;
    s->point = kv_alloc(most + 1, sizeof *s->point);
    for (size_t i = 0; i < n; i++) add_window(s, &a[i], b ? &b[i] : NULL, d, runs);
    s->block = kv_alloc(s->n_blocks + 1, sizeof *s->block);
    double *kl = kv_alloc(s->n + 1, sizeof *kl);
    for (size_t i = 0; i < s->n; i++) {
        struct block *to = &s->block[s->point[i].block];
        to->n++;
        add_sums(to->sum[0], s->point[i].a);
        if (b) add_sums(to->sum[1], s->point[i].b);
    }
    for (int run = 0; run < (b ? 2 : 1); run++) {
        s->order[run] = kv_alloc(s->n + 1, sizeof *s->order[run]);
        for (size_t i = 0; i < s->n; i++)
            kl[i] = (double)(run ? s->point[i].b : s->point[i].a)->kl_nats;
        gsl_sort_index(s->order[run], kl, 1, s->n);
    }
    free(kl);
}

static void sample_fini(struct sample *s) {
    free(s->point);
    free(s->block);
    free(s->order[0]);
    free(s->order[1]);
}

// ---- means ----------------------------------------------------------------------------

// Ratio of sums over blocks and its standard error (Cochran, Sampling Techniques, 1977, section
// 2.11), each block taken times[i] times (NULL: once).
struct ratio {
    double mean, error;
};

static double of_block(const struct sample *s, const struct block *b, int which) {
    return b->sum[0][which] - (s->paired ? b->sum[1][which] : 0);
}

static struct ratio ratio_of(const struct sample *s, int which, const uint32_t *times) {
    double n = 0, sum = 0, blocks = 0, squares = 0;
    for (size_t i = 0; i < s->n_blocks; i++) {
        double t = times ? times[i] : 1;
        blocks += t;
        n += t * s->block[i].n;
        sum += t * of_block(s, &s->block[i], which);
    }
    double mean = sum / n;
    for (size_t i = 0; i < s->n_blocks; i++) {
        double apart = of_block(s, &s->block[i], which) - mean * s->block[i].n;
        squares += (times ? times[i] : 1) * apart * apart;
    }
    return (struct ratio){mean, sqrt(squares * blocks / (blocks - 1)) / n};
}

// Bootstrap-t (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5): it
// follows the skewness of a divergence's mean, where percentiles of 20 blocks cover too little.
static struct kv_interval studentized(struct ratio r, double *t, size_t n, double confidence) {
    if (n == 0 || !(r.error > 0))
        return r.error == 0 ? (struct kv_interval){r.mean, r.mean} : nothing;
    struct kv_interval i = kv_percentile_interval(t, n, confidence);
    return (struct kv_interval){r.mean - i.high * r.error, r.mean - i.low * r.error};
}

// ---- quantiles ------------------------------------------------------------------------

static const double fractions[] = {0.5, 0.99, 0.999};
enum { N_FRACTIONS = 3 };

// Quantiles of the positions in ascending KL, each taken as often as its block.
static void quantiles_of(const struct sample *s, int run, const uint32_t *times,
                         double out[N_FRACTIONS]) {
    double n = 0;
    for (size_t i = 0; i < s->n_blocks; i++) n += (times ? times[i] : 1) * s->block[i].n;
    size_t q = 0;
    double seen = 0, before = 0; // value of the last one counted
    bool low_known = false;
    double low = 0;
    for (size_t i = 0; i < s->n && q < N_FRACTIONS; i++) {
        const struct point *p = &s->point[s->order[run][i]];
        double t = times ? times[p->block] : 1, x = (double)(run ? p->b : p->a)->kl_nats;
        if (t == 0) continue;
        seen += t;
        before = x;
        while (q < N_FRACTIONS) {
            double at = fractions[q] * (n - 1), rank = floor(at);
            if (!low_known && seen <= rank) break; // the rank-th from 0 comes later
            if (!low_known) low = x;
            low_known = true;
            if (seen <= rank + 1 && rank + 1 < n) break; // so does the one behind it
            out[q++] = low + (at - rank) * (x - low);
            low_known = false;
        }
    }
    for (; q < N_FRACTIONS; q++) out[q] = before;
}

// Order statistics that bound a quantile of n independent positions with the confidence, each side
// alone having half of what is left over.
static struct kv_interval order_bounds(const struct sample *s, double f, double confidence) {
    struct kv_interval b = nothing;
    double tail = (1 - confidence) / 2;
    unsigned n = (unsigned)s->n;
    for (unsigned k = 0; k < n; k++) { // k positions lie below the k-th from 0
        double x = (double)s->point[s->order[0][k]].a->kl_nats;
        double below = gsl_cdf_binomial_P(k, f, n); // that no more do
        if (gsl_cdf_binomial_Q(k, f, n) >= 1 - tail) b.low = x;
        if (below >= 1 - tail) {
            b.high = x;
            break;
        }
    }
    return b;
}

// ---- together -------------------------------------------------------------------------

struct draws {
    size_t n;
    double *t[N_MEANS], *quantile[N_FRACTIONS]; // [n]
    size_t n_t[N_MEANS];
};

static void draw_all(struct draws *d, const struct sample *s, const struct ratio whole[N_MEANS],
                     uint64_t seed) {
    uint32_t *times = kv_alloc(s->n_blocks + 1, sizeof *times);
    for (size_t k = 0; k < d->n; k++) {
        double q[2][N_FRACTIONS] = {{0}};
        memset(times, 0, s->n_blocks * sizeof *times);
        for (size_t i = 0; i < s->n_blocks; i++)
            times[(size_t)(kv_draw(seed, k, i) * (double)s->n_blocks)]++;
        for (int m = 0; m < N_MEANS; m++) {
            struct ratio r = ratio_of(s, m, times);
            if (r.error > 0) d->t[m][d->n_t[m]++] = (r.mean - whole[m].mean) / r.error;
        }
        quantiles_of(s, 0, times, q[0]);
        if (s->paired) quantiles_of(s, 1, times, q[1]);
        for (int f = 0; f < N_FRACTIONS; f++) d->quantile[f][k] = q[0][f] - q[1][f];
    }
    free(times);
}

static double root(double x) {
    return x > 0 ? sqrt(x) : 0;
}

static void put_means(struct kv_token_summary *out, const struct sample *s, struct draws *d,
                      const struct ratio whole[N_MEANS], double confidence) {
    static const enum kv_token_measure measure[N_MEANS] = {KV_TOKEN_KL_MEAN, KV_TOKEN_SAME_TOP,
                                                           KV_TOKEN_RMS_DP};
    for (int m = 0; m < N_MEANS; m++) {
        struct kv_token_estimate *to = &out->at[measure[m]];
        to->value = whole[m].mean;
        if (s->n_blocks >= TOO_FEW_BLOCKS)
            to->interval = studentized(whole[m], d->t[m], d->n_t[m], confidence);
    }
    if (s->paired) return;
    struct kv_token_estimate *same = &out->at[KV_TOKEN_SAME_TOP], *rms = &out->at[KV_TOKEN_RMS_DP],
                             *kl = &out->at[KV_TOKEN_KL_MEAN];
    if (kl->interval.low < 0) kl->interval.low = 0;
    if (same->interval.high > 1) same->interval.high = 1;
    if (s->n_blocks >= TOO_FEW_BLOCKS && whole[SAME].error == 0 &&
        whole[SQUARE].error > 0) // all alike says little of few blocks
        same->interval = kv_wilson(same->value, (double)s->n_blocks, confidence);
    rms->value = root(rms->value);
    if (isnan(rms->interval.low)) return;
    rms->interval = (struct kv_interval){root(rms->interval.low), root(rms->interval.high)};
}

// The difference of roots has an interval of its own: that of the squares says only its sign.
static void put_rms_difference(struct kv_token_summary *out, const struct sample *s,
                               struct draws *d, double confidence, uint64_t seed) {
    double mean[2] = {0}, n = 0;
    uint32_t *times = kv_alloc(s->n_blocks + 1, sizeof *times);
    for (size_t k = 0; k <= d->n; k++) { // the last is the sample itself
        double sum[2] = {0};
        n = 0;
        for (size_t i = 0; i < s->n_blocks; i++) times[i] = k == d->n;
        for (size_t i = 0; i < s->n_blocks && k < d->n; i++)
            times[(size_t)(kv_draw(seed, k, i) * (double)s->n_blocks)]++;
        for (size_t i = 0; i < s->n_blocks; i++) {
            n += times[i] * s->block[i].n;
            for (int run = 0; run < 2; run++) sum[run] += times[i] * s->block[i].sum[run][SQUARE];
        }
        for (int run = 0; run < 2; run++) mean[run] = root(sum[run] / n);
        if (k < d->n) d->t[SQUARE][k] = mean[0] - mean[1];
    }
    free(times);
    out->at[KV_TOKEN_RMS_DP].value = mean[0] - mean[1];
    if (s->n_blocks >= TOO_FEW_BLOCKS)
        out->at[KV_TOKEN_RMS_DP].interval = kv_percentile_interval(
            d->t[SQUARE], d->n, kv_expanded_confidence((double)s->n_blocks, confidence));
}

static void put_quantiles(struct kv_token_summary *out, const struct sample *s, struct draws *d,
                          double confidence) {
    double q[2][N_FRACTIONS] = {{0}},
           wide = kv_expanded_confidence((double)s->n_blocks, confidence);
    quantiles_of(s, 0, NULL, q[0]);
    if (s->paired) quantiles_of(s, 1, NULL, q[1]);
    for (int f = 0; f < N_FRACTIONS; f++) {
        enum kv_token_measure m = (enum kv_token_measure)(KV_TOKEN_KL_MEDIAN + f);
        struct kv_token_estimate *to = &out->at[m];
        if (s->n < kv_token_least(m)) {
            to->bound = !s->paired;
            if (to->bound) to->interval = order_bounds(s, fractions[f], confidence);
            continue;
        }
        to->value = q[0][f] - q[1][f];
        if (s->n_blocks >= TOO_FEW_BLOCKS)
            to->interval = kv_percentile_interval(d->quantile[f], d->n, wide);
    }
}

static struct kv_token_summary summarize(const struct kv_token_window *a,
                                         const struct kv_token_window *b, size_t n,
                                         struct kv_depths depths, uint64_t seed, size_t draws,
                                         double confidence) {
    struct kv_token_summary out = {0}, empty;
    for (int m = 0; m < KV_N_TOKEN_MEASURES; m++)
        out.at[m] = (struct kv_token_estimate){NAN, nothing, false};
    empty = out;
    KV_GUARD_ELSE(return empty);
    struct sample s = {0};
    gather(&s, a, b, n, depths);
    out.n = s.n;
    out.n_blocks = s.n_blocks;
    if (s.n > 0) {
        struct draws d = {.n = s.n_blocks >= TOO_FEW_BLOCKS ? draws : 0};
        struct ratio whole[N_MEANS];
        for (int m = 0; m < N_MEANS; m++) whole[m] = ratio_of(&s, m, NULL);
        for (int m = 0; m < N_MEANS; m++) d.t[m] = kv_alloc(draws + 1, sizeof(double));
        for (int f = 0; f < N_FRACTIONS; f++) d.quantile[f] = kv_alloc(draws + 1, sizeof(double));
        draw_all(&d, &s, whole, seed);
        put_means(&out, &s, &d, whole, confidence);
        put_quantiles(&out, &s, &d, confidence);
        if (b) put_rms_difference(&out, &s, &d, confidence, seed);
        for (int m = 0; m < N_MEANS; m++) free(d.t[m]);
        for (int f = 0; f < N_FRACTIONS; f++) free(d.quantile[f]);
    }
    sample_fini(&s);
    return out;
}

struct kv_token_summary kv_token_summary(const struct kv_token_window *windows, size_t n,
                                         struct kv_depths depths, uint64_t seed, size_t draws,
                                         double confidence) {
    return summarize(windows, NULL, n, depths, seed, draws, confidence);
}

struct kv_token_summary kv_token_difference(const struct kv_token_window *a,
                                            const struct kv_token_window *b, size_t n,
                                            struct kv_depths depths, uint64_t seed, size_t draws,
                                            double confidence) {
    return summarize(a, b, n, depths, seed, draws, confidence);
}
