// SPDX-License-Identifier: Apache-2.0
// Calibrates predictors of divergence on exact rows and says how far they can be trusted.
#include "analysis/studies/calibration.h"

#include <stdlib.h>

#include "sim/base/memory.h"

// A 5 % and a 95 % quantile cannot be seen in fewer left-out policies than this; below it no band
// is given.
enum { BAND_POLICIES = 20 };

static const double near_bits[KV_N_NEAR] = {3, 4, 5}, near_width = 0.15;

// ---- columns --------------------------------------------------------------------------

static double *logs(const double *x, size_t n) {
    double *y = kv_alloc(n + 1, sizeof *y);
    for (size_t i = 0; i < n; i++) y[i] = x[i] > 0 ? log(x[i]) : NAN;
    return y;
}

static double *column(const struct kv_fidelity_study *s, size_t offset) {
    double *x = kv_alloc(s->n_exact + 1, sizeof *x);
    for (size_t i = 0; i < s->n_exact; i++)
        memcpy(&x[i], (const char *)&s->at[i] + offset, sizeof *x);
    return x;
}
#define COLUMN(s, field) column(s, offsetof(struct kv_fidelity_policy, field))

// ---- calibrating ----------------------------------------------------------------------

static void calibrate(struct kv_kl_calibration *c, enum kv_predictor p) {
    size_t n = c->study->n_exact, judged = 0;
    double *x = logs(c->by[p], n), *y = logs(c->kl, n), *ratio = kv_alloc(n + 1, sizeof *ratio);
    c->left_out[p] = kv_alloc(n + 1, sizeof(double));
    c->curve[p] = kv_monotone_new(x, y, n);
    kv_monotone_left_out(x, y, c->family, n, c->left_out[p]);
    for (size_t i = 0; i < n; i++) {
        c->left_out[p][i] = exp(c->left_out[p][i]);
        ratio[i] = c->kl[i] > 0 ? c->kl[i] / c->left_out[p][i] : NAN;
        judged += !isnan(ratio[i]);
    }
    c->band[p][0] = judged < BAND_POLICIES ? NAN : kv_quantile(ratio, n, 0.05);
    c->band[p][1] = judged < BAND_POLICIES ? NAN : kv_quantile(ratio, n, 0.95);
    free(x);
    free(y);
    free(ratio);
}

static bool has(const struct kv_fidelity_study *s, enum kv_predictor p) {
    return s->n && !isnan(s->at[0].by[p]);
}

static enum kv_predictor best_form(const struct kv_fidelity_study *s) {
    static const enum kv_predictor order[] = {KV_BY_MENDED, KV_BY_ELEMENT, KV_BY_CHANNEL};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (has(s, order[i])) return order[i];
    return KV_BY_ISO;
}

static double top_accuracy(const struct kv_fidelity_study *s) {
    return s->n_exact ? s->at[0].acc_ref : NAN;
}

static void fit_declines(struct kv_kl_calibration *c) {
    const struct kv_fidelity_study *s = c->study;
    const double *x = c->left_out[c->headline];
    double *acc = COLUMN(s, acc), *agree = COLUMN(s, agree);
    c->acc_known =
        kv_decline_fit(&c->acc, x, acc, s->n_exact, top_accuracy(s), s->chance, NULL) == 0;
    c->agree_known = kv_decline_fit(&c->agree, x, agree, s->n_exact, 1, s->chance, NULL) == 0;
    free(acc);
    free(agree);
}

int kv_kl_calibrate(struct kv_kl_calibration *c, const struct kv_fidelity_study *s,
                    enum kv_predictor headline, struct kv_error *e) {
    size_t n = s->n_exact;
    *c = (struct kv_kl_calibration){
        .study = s, .headline = headline == KV_N_PREDICTORS ? best_form(s) : headline};
    if (headline == KV_BY_CHANNEL && !has(s, headline))
        return kv_fail(e, KV_EFAIL, kv_trace_info(s->trace)->path,
                       "does not keep what form channel needs: --keep kv,sens, recorded since "
                       "squared gradients are summed by channel");
    if (headline != KV_N_PREDICTORS && !has(s, headline))
        return kv_fail(e, KV_EFAIL, kv_trace_info(s->trace)->path,
                       "does not keep what form %s needs: --keep kv,sens,grad%s",
                       kv_predictor_names[headline], headline == KV_BY_MENDED ? ",q" : "");
    c->family = kv_alloc(n + 1, sizeof *c->family);
    c->alone = kv_alloc(n + 1, sizeof *c->alone);
    for (size_t i = 0; i < n; i++) {
        c->family[i] = s->at[i].family;
        c->alone[i] = (int)i;
    }
    c->kl = COLUMN(s, kl);
    for (size_t p = 0; p < KV_N_PREDICTORS; p++) {
        c->by[p] = column(s, offsetof(struct kv_fidelity_policy, by) + p * sizeof(double));
        calibrate(c, (enum kv_predictor)p);
    }
    fit_declines(c);
    return 0;
}

void kv_kl_calibration_fini(struct kv_kl_calibration *c) {
    for (size_t p = 0; p < KV_N_PREDICTORS; p++) {
        free(c->by[p]);
        free(c->left_out[p]);
        kv_monotone_free(c->curve[p]);
    }
    free(c->kl);
    free(c->family);
    free(c->alone);
    *c = (struct kv_kl_calibration){0};
}

// ---- policies that were run -----------------------------------------------------------

struct kv_policy_told *kv_kl_policies_told(const struct kv_kl_calibration *c) {
    const struct kv_fidelity_study *s = c->study;
    struct kv_policy_told *told = kv_alloc(s->n_exact + 1, sizeof *told);
    for (size_t i = 0; i < s->n_exact; i++) {
        double left_out = c->left_out[c->headline][i];
        told[i] = (struct kv_policy_told){
            .policy = &s->at[i],
            .family = s->families[s->at[i].family],
            .by = s->at[i].by[c->headline],
            .left_out = left_out,
            .acc = c->acc_known ? kv_decline_at(&c->acc, left_out) : NAN,
            .agree = c->agree_known ? kv_decline_at(&c->agree, left_out) : NAN};
    }
    return told;
}

// ---- predictors and draws -------------------------------------------------------------

// Agreement of a predictor among policies near so many bits.
static struct kv_agreement near(const struct kv_kl_calibration *c, enum kv_predictor p,
                                double bits) {
    size_t n = c->study->n_exact;
    double *x = kv_alloc(n + 1, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = fabs(c->study->at[i].bits - bits) <= near_width ? c->by[p][i] : NAN;
    struct kv_agreement a = kv_agreement(x, c->kl, n);
    free(x);
    return a;
}

static struct kv_predictor_told tell_predictor(const struct kv_kl_calibration *c,
                                               enum kv_predictor p, bool inside) {
    struct kv_predictor_told told = {.predictor = p, .inside = inside};
    size_t n = c->study->n_exact;
    double *x = kv_alloc(n + 1, sizeof *x), *off = kv_alloc(n + 1, sizeof *off);
    for (size_t i = 0; i < n; i++) {
        bool in = !inside || !c->study->at[i].outside;
        x[i] = in ? c->by[p][i] : NAN;
        off[i] = in ? fabs(c->left_out[p][i] / c->kl[i] - 1) : NAN;
    }
    told.all = kv_agreement(x, c->kl, n);
    if (p > KV_BY_MENDED) told.all.ratio_5 = told.all.ratio_median = told.all.ratio_95 = NAN;
    for (size_t b = 0; b < KV_N_NEAR; b++)
        told.near[b] = inside ? (struct kv_agreement){.spearman = NAN} : near(c, p, near_bits[b]);
    told.off_median = kv_quantile(off, n, 0.5);
    told.off_95 = kv_quantile(off, n, 0.95);
    free(x);
    free(off);
    return told;
}

struct kv_predictor_told *kv_kl_predictors_told(const struct kv_kl_calibration *c, size_t *n) {
    struct kv_predictor_told *told = kv_alloc(2 * KV_N_PREDICTORS, sizeof *told);
    *n = 0;
    for (int p = 0; p < KV_N_PREDICTORS; p++)
        for (int inside = 0; inside < 2; inside++) {
            told[*n] = tell_predictor(c, (enum kv_predictor)p, inside);
            *n += told[*n].all.n > 0;
        }
    return told;
}

static struct kv_draws_told tell_draws(const struct kv_kl_calibration *c, size_t form,
                                       size_t level) {
    size_t n = c->study->n_exact;
    double *x = column(c->study, offsetof(struct kv_fidelity_policy, draws) +
                                     (form * KV_DRAW_LEVELS + level) * sizeof(double)),
           *log_x = logs(x, n), *log_kl = logs(c->kl, n), *off = kv_alloc(n + 1, sizeof *off);
    struct kv_draws_told told = {
        .form = kv_draw_forms[form], .draws = (size_t)1 << level, .all = kv_agreement(x, c->kl, n)};
    kv_monotone_left_out(log_x, log_kl, c->family, n, off);
    for (size_t i = 0; i < n; i++) off[i] = fabs(exp(off[i]) / c->kl[i] - 1);
    told.off_median = kv_quantile(off, n, 0.5);
    free(x);
    free(log_x);
    free(log_kl);
    free(off);
    return told;
}

struct kv_draws_told *kv_kl_draws_told(const struct kv_kl_calibration *c, size_t *n) {
    struct kv_draws_told *told = kv_alloc(KV_DRAW_FORMS * KV_DRAW_LEVELS, sizeof *told);
    *n = 0;
    for (size_t form = 0; form < KV_DRAW_FORMS; form++)
        for (size_t k = 0; k < KV_DRAW_LEVELS && (size_t)1 << k <= c->study->n_draws; k++) {
            told[*n] = tell_draws(c, form, k);
            *n += told[*n].all.n > 0;
        }
    return told;
}

// ---- accuracy and agreement -----------------------------------------------------------

static bool tell_decline(const struct kv_kl_calibration *c, bool agree, bool predicted,
                         struct kv_decline_told *told) {
    const struct kv_fidelity_study *s = c->study;
    size_t n = s->n_exact;
    double *y = agree ? COLUMN(s, agree) : COLUMN(s, acc), *off = kv_alloc(n + 1, sizeof *off),
           top = agree ? 1 : top_accuracy(s);
    const double *x = predicted ? c->left_out[c->headline] : c->kl;
    bool known = kv_decline_fit(&told->decline, x, y, n, top, s->chance, NULL) == 0;
    if (known) {
        kv_decline_left_out(x, y, c->alone, n, top, s->chance, off);
        for (size_t i = 0; i < n; i++) off[i] = 100 * fabs(off[i] - y[i]);
        told->measure = agree ? "agree16" : "acc";
        told->from = predicted ? kv_predictor_names[c->headline] : "exact KL";
        told->off_median_points = kv_quantile(off, n, 0.5);
        told->off_95_points = kv_quantile(off, n, 0.95);
    }
    free(y);
    free(off);
    return known;
}

struct kv_decline_told *kv_kl_declines_told(const struct kv_kl_calibration *c, size_t *n) {
    struct kv_decline_told *told = kv_alloc(4, sizeof *told);
    *n = 0;
    for (int agree = 0; agree < 2; agree++)
        for (int predicted = 0; predicted < 2; predicted++)
            *n += tell_decline(c, agree, predicted, &told[*n]);
    return told;
}

// ---- policies that were not run -------------------------------------------------------

static struct kv_interval interval(const struct kv_decline *d, bool known, double kl) {
    return known && kl > 0 ? kv_decline_interval(d, kl, 0.9) : (struct kv_interval){NAN, NAN};
}

struct kv_policy_foretold *kv_kl_policies_foretold(const struct kv_kl_calibration *c, size_t *n) {
    const struct kv_fidelity_study *s = c->study;
    struct kv_policy_foretold *told = kv_alloc(s->n - s->n_exact + 1, sizeof *told);
    enum kv_predictor p = c->headline;
    *n = s->n - s->n_exact;
    for (size_t i = 0; i < *n; i++) {
        const struct kv_fidelity_policy *x = &s->at[s->n_exact + i];
        double kl =
            c->curve[p] && x->by[p] > 0 ? exp(kv_monotone_at(c->curve[p], log(x->by[p]))) : NAN;
        told[i] = (struct kv_policy_foretold){
            .policy = x,
            .by = x->by[p],
            .kl = kl,
            .kl_low = kl * c->band[p][0],
            .kl_high = kl * c->band[p][1],
            .acc = c->acc_known && kl > 0 ? kv_decline_at(&c->acc, kl) : NAN,
            .agree = c->agree_known && kl > 0 ? kv_decline_at(&c->agree, kl) : NAN,
            .acc_in = interval(&c->acc, c->acc_known, kl),
            .agree_in = interval(&c->agree, c->agree_known, kl)};
    }
    return told;
}
