// SPDX-License-Identifier: Apache-2.0
// kvsim fidelity: what predictions are worth, on exact rows of a store; and what they say of
// policies that were not run.
#include <stdlib.h>

#include "reports/draw/gnuplot.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "analysis/studies/fidelity.h"

static const double near_bits[] = {3, 4, 5};
enum { N_NEAR = 3 };

// What the tables share: logarithms, left-out calibrations and fits of accuracy.
struct verdict {
    struct kv_judging j;
    enum kv_predictor headline;
    int *family, *alone;                      // [n_exact]
    double *kl, *by[KV_N_PREDICTORS];         // [n_exact] exact; predicted
    double *left_out[KV_N_PREDICTORS];        // [n_exact] calibrated without the policy's family
    double band[KV_N_PREDICTORS][2];          // 5 % and 95 % of exact / left_out
    double error[KV_N_PREDICTORS][2];         // median and 95 % of |left_out / exact - 1|
    struct kv_monotone *fit[KV_N_PREDICTORS]; // log exact of log predicted
    struct kv_decline acc, agree;             // against the headline's left-out KL
    bool acc_known, agree_known;
};

static double *logs(const double *x, size_t n) {
    double *y = kv_alloc(n + 1, sizeof *y);
    for (size_t i = 0; i < n; i++) y[i] = x[i] > 0 ? log(x[i]) : NAN;
    return y;
}

// A 5 % and a 95 % quantile cannot be seen in fewer left-out policies than this; below it no band
// is given.
enum { BAND_POLICIES = 20 };

static void calibrate(struct verdict *v, enum kv_predictor p) {
    size_t n = v->j.n_exact, judged = 0;
    double *x = logs(v->by[p], n), *y = logs(v->kl, n), *ratio = kv_alloc(n + 1, sizeof *ratio),
           *off = kv_alloc(n + 1, sizeof *off);
    v->left_out[p] = kv_alloc(n + 1, sizeof(double));
    v->fit[p] = kv_monotone_new(x, y, n);
    kv_monotone_left_out(x, y, v->family, n, v->left_out[p]);
    for (size_t i = 0; i < n; i++) {
        v->left_out[p][i] = exp(v->left_out[p][i]);
        ratio[i] = v->kl[i] > 0 ? v->kl[i] / v->left_out[p][i] : NAN;
        off[i] = fabs(1 / ratio[i] - 1);
        judged += !isnan(ratio[i]);
    }
    v->band[p][0] = judged < BAND_POLICIES ? NAN : kv_quantile(ratio, n, 0.05);
    v->band[p][1] = judged < BAND_POLICIES ? NAN : kv_quantile(ratio, n, 0.95);
    v->error[p][0] = kv_quantile(off, n, 0.5);
    v->error[p][1] = kv_quantile(off, n, 0.95);
    free(x);
    free(y);
    free(ratio);
    free(off);
}

static double *column(const struct verdict *v, size_t offset) {
    double *x = kv_alloc(v->j.n_exact + 1, sizeof *x);
    for (size_t i = 0; i < v->j.n_exact; i++)
        memcpy(&x[i], (const char *)&v->j.at[i] + offset, sizeof *x);
    return x;
}
#define COLUMN(v, field) column(v, offsetof(struct kv_judged, field))

static void judge(struct verdict *v) {
    size_t n = v->j.n_exact;
    v->family = kv_alloc(n + 1, sizeof *v->family);
    v->alone = kv_alloc(n + 1, sizeof *v->alone);
    for (size_t i = 0; i < n; i++) {
        v->family[i] = v->j.at[i].family;
        v->alone[i] = (int)i;
    }
    v->kl = COLUMN(v, kl);
    for (size_t p = 0; p < KV_N_PREDICTORS; p++) {
        v->by[p] = column(v, offsetof(struct kv_judged, by) + p * sizeof(double));
        calibrate(v, (enum kv_predictor)p);
    }
    double *acc = COLUMN(v, acc), *agree = COLUMN(v, agree), top = n ? v->j.at[0].acc_ref : NAN;
    v->acc_known =
        kv_decline_fit(&v->acc, v->left_out[v->headline], acc, n, top, v->j.chance, NULL) == 0;
    v->agree_known =
        kv_decline_fit(&v->agree, v->left_out[v->headline], agree, n, 1, v->j.chance, NULL) == 0;
    free(acc);
    free(agree);
}

static void verdict_free(struct verdict *v) {
    for (size_t p = 0; p < KV_N_PREDICTORS; p++) {
        free(v->by[p]);
        free(v->left_out[p]);
        kv_monotone_free(v->fit[p]);
    }
    free(v->kl);
    free(v->family);
    free(v->alone);
    kv_judging_close(&v->j);
}

// ---- tables ---------------------------------------------------------------------------

static int print_policies(const struct verdict *v, enum kv_output how, struct kv_error *e) {
    static const struct kv_column columns[] = {{"spec", KV_LEFT},
                                               {"family", KV_LEFT},
                                               {"n", KV_RIGHT},
                                               {"bits", KV_RIGHT},
                                               {"kl_nats", KV_RIGHT},
                                               {"kl_error", KV_RIGHT},
                                               {"iso", KV_RIGHT},
                                               {"element", KV_RIGHT},
                                               {"vector", KV_RIGHT},
                                               {"mended", KV_RIGHT},
                                               {"ratio", KV_RIGHT},
                                               {"cross_terms", KV_RIGHT},
                                               {"worst_layer", KV_RIGHT},
                                               {"left_out", KV_RIGHT},
                                               {"left_out_pct", KV_RIGHT},
                                               {"reconstruction", KV_RIGHT},
                                               {"output", KV_RIGHT},
                                               {"attention_kl", KV_RIGHT},
                                               {"acc", KV_RIGHT},
                                               {"acc_predicted", KV_RIGHT},
                                               {"agree", KV_RIGHT},
                                               {"agree_predicted", KV_RIGHT},
                                               {"outside_validity", KV_LEFT}};
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < v->j.n_exact; i++) {
        const struct kv_judged *x = &v->j.at[i];
        double calibrated = v->left_out[v->headline][i];
        kv_table_text(t, x->label);
        kv_table_text(t, v->j.families[x->family]);
        kv_table_count(t, (long long)x->n_items);
        kv_table_number(t, x->bits, 3);
        kv_table_number(t, x->kl, 6);
        kv_table_number(t, x->kl_error, 6);
        for (int p = KV_BY_ISO; p <= KV_BY_VECTOR; p++) kv_table_number(t, x->by[p], 6);
        kv_table_number(t, x->by[KV_BY_MENDED], 6);
        kv_table_number(t, x->by[v->headline] / x->kl, 3);
        kv_table_number(t, x->cross, 3);
        kv_table_number(t, x->worst_layer, 3);
        kv_table_number(t, calibrated, 6);
        kv_table_number(t, 100 * (calibrated / x->kl - 1), 1);
        for (int p = KV_BY_RECONSTRUCTION; p < KV_N_PREDICTORS; p++)
            kv_table_number(t, x->by[p], 6);
        kv_table_number(t, x->acc, 4);
        kv_table_number(t, v->acc_known ? kv_decline_at(&v->acc, calibrated) : NAN, 4);
        kv_table_number(t, x->agree, 4);
        kv_table_number(t, v->agree_known ? kv_decline_at(&v->agree, calibrated) : NAN, 4);
        kv_table_text(t, x->outside);
    }
    return kv_table_print(t, how, e);
}

// Spearman of a predictor among policies near so many bits.
static struct kv_agreement near(const struct verdict *v, enum kv_predictor p, double bits) {
    size_t n = v->j.n_exact;
    double *x = kv_alloc(n + 1, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = fabs(v->j.at[i].bits - bits) <= 0.15 ? v->by[p][i] : NAN;
    struct kv_agreement a = kv_agreement(x, v->kl, n);
    free(x);
    return a;
}

static int print_predictors(const struct verdict *v, enum kv_output how, struct kv_error *e) {
    static const struct kv_column columns[] = {{"predictor", KV_LEFT},
                                               {"policies", KV_LEFT},
                                               {"n", KV_RIGHT},
                                               {"log_correlation", KV_RIGHT},
                                               {"spearman", KV_RIGHT},
                                               {"ratio_5", KV_RIGHT},
                                               {"ratio_median", KV_RIGHT},
                                               {"ratio_95", KV_RIGHT},
                                               {"spearman_3_bits", KV_RIGHT},
                                               {"n_3_bits", KV_RIGHT},
                                               {"spearman_4_bits", KV_RIGHT},
                                               {"n_4_bits", KV_RIGHT},
                                               {"spearman_5_bits", KV_RIGHT},
                                               {"n_5_bits", KV_RIGHT},
                                               {"left_out_median_pct", KV_RIGHT},
                                               {"left_out_95_pct", KV_RIGHT}};
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    size_t n = v->j.n_exact;
    double *x = kv_alloc(n + 1, sizeof *x), *off = kv_alloc(n + 1, sizeof *off);
    for (int p = 0; p < KV_N_PREDICTORS; p++)
        for (int inside = 0; inside < 2; inside++) {
            for (size_t i = 0; i < n; i++) {
                bool in = !inside || !v->j.at[i].outside;
                x[i] = in ? v->by[p][i] : NAN;
                off[i] = in ? fabs(v->left_out[p][i] / v->kl[i] - 1) : NAN;
            }
            struct kv_agreement a = kv_agreement(x, v->kl, n);
            if (a.n == 0) continue;
            bool form = p <= KV_BY_MENDED; // rivals have units of their own
            kv_table_text(t, kv_predictor_names[p]);
            kv_table_text(t, inside ? "inside validity" : "all");
            kv_table_count(t, (long long)a.n);
            kv_table_number(t, a.log_correlation, 4);
            kv_table_number(t, a.spearman, 4);
            kv_table_number(t, form ? a.ratio_5 : NAN, 3);
            kv_table_number(t, form ? a.ratio_median : NAN, 3);
            kv_table_number(t, form ? a.ratio_95 : NAN, 3);
            for (int b = 0; b < N_NEAR; b++) {
                struct kv_agreement some = near(v, (enum kv_predictor)p, near_bits[b]);
                kv_table_number(t, inside ? NAN : some.spearman, 3);
                kv_table_count(t, inside ? 0 : (long long)some.n);
            }
            kv_table_number(t, 100 * kv_quantile(off, n, 0.5), 1);
            kv_table_number(t, 100 * kv_quantile(off, n, 0.95), 1);
        }
    free(x);
    free(off);
    return kv_table_print(t, how, e);
}

static int print_forms(const struct verdict *v, enum kv_output how, struct kv_error *e) {
    static const struct kv_column columns[] = {{"form", KV_LEFT},
                                               {"draws", KV_RIGHT},
                                               {"n", KV_RIGHT},
                                               {"log_correlation", KV_RIGHT},
                                               {"spearman", KV_RIGHT},
                                               {"ratio_5", KV_RIGHT},
                                               {"ratio_median", KV_RIGHT},
                                               {"ratio_95", KV_RIGHT},
                                               {"left_out_median_pct", KV_RIGHT}};
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    size_t n = v->j.n_exact;
    double *y = logs(v->kl, n), *left_out = kv_alloc(n + 1, sizeof *left_out);
    for (size_t form = 0; form < KV_DRAW_FORMS; form++)
        for (size_t k = 0; k < KV_DRAW_LEVELS && (size_t)1 << k <= v->j.n_draws; k++) {
            double *x = column(v, offsetof(struct kv_judged, draws) +
                                      (form * KV_DRAW_LEVELS + k) * sizeof(double));
            struct kv_agreement a = kv_agreement(x, v->kl, n);
            double *log_x = logs(x, n);
            kv_monotone_left_out(log_x, y, v->family, n, left_out);
            for (size_t i = 0; i < n; i++) left_out[i] = fabs(exp(left_out[i]) / v->kl[i] - 1);
            if (a.n > 0) {
                kv_table_text(t, kv_draw_forms[form]);
                kv_table_count(t, 1ll << k);
                kv_table_count(t, (long long)a.n);
                kv_table_number(t, a.log_correlation, 4);
                kv_table_number(t, a.spearman, 4);
                kv_table_number(t, a.ratio_5, 3);
                kv_table_number(t, a.ratio_median, 3);
                kv_table_number(t, a.ratio_95, 3);
                kv_table_number(t, 100 * kv_quantile(left_out, n, 0.5), 1);
            }
            free(x);
            free(log_x);
        }
    free(y);
    free(left_out);
    return kv_table_print(t, how, e);
}

static int print_accuracy(const struct verdict *v, enum kv_output how, struct kv_error *e) {
    static const struct kv_column columns[] = {{"measure", KV_LEFT},
                                               {"from", KV_LEFT},
                                               {"n", KV_RIGHT},
                                               {"top", KV_RIGHT},
                                               {"floor", KV_RIGHT},
                                               {"half_kl_nats", KV_RIGHT},
                                               {"slope", KV_RIGHT},
                                               {"sd_points", KV_RIGHT},
                                               {"left_out_median_points", KV_RIGHT},
                                               {"left_out_95_points", KV_RIGHT}};
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    size_t n = v->j.n_exact;
    double *left_out = kv_alloc(n + 1, sizeof *left_out);
    for (int measure = 0; measure < 2; measure++)
        for (int from = 0; from < 2; from++) {
            double *y = measure ? COLUMN(v, agree) : COLUMN(v, acc),
                   top = measure ? 1 : v->j.at[0].acc_ref, floor = v->j.chance;
            const double *x = from ? v->left_out[v->headline] : v->kl;
            struct kv_decline d;
            if (kv_decline_fit(&d, x, y, n, top, floor, NULL) == 0) {
                kv_decline_left_out(x, y, v->alone, n, top, floor, left_out);
                for (size_t i = 0; i < n; i++) left_out[i] = 100 * fabs(left_out[i] - y[i]);
                kv_table_text(t, measure ? "agree16" : "acc");
                kv_table_text(t, from ? kv_predictor_names[v->headline] : "exact KL");
                kv_table_count(t, (long long)d.n);
                kv_table_number(t, d.top, 4);
                kv_table_number(t, d.floor, 4);
                kv_table_number(t, d.half, 4);
                kv_table_number(t, d.slope, 3);
                kv_table_number(t, 100 * d.sd, 2);
                kv_table_number(t, kv_quantile(left_out, n, 0.5), 2);
                kv_table_number(t, kv_quantile(left_out, n, 0.95), 2);
            }
            free(y);
        }
    free(left_out);
    return kv_table_print(t, how, e);
}

// Policies that were not run: what the fits say of them.
static int print_predicted(const struct verdict *v, enum kv_output how, struct kv_error *e) {
    static const struct kv_column columns[] = {
        {"spec", KV_LEFT},          {"n", KV_RIGHT},           {"bits", KV_RIGHT},
        {"predicted", KV_RIGHT},    {"kl_nats", KV_RIGHT},     {"kl_low", KV_RIGHT},
        {"kl_high", KV_RIGHT},      {"acc", KV_RIGHT},         {"acc_low", KV_RIGHT},
        {"acc_high", KV_RIGHT},     {"agree16", KV_RIGHT},     {"agree16_low", KV_RIGHT},
        {"agree16_high", KV_RIGHT}, {"cross_terms", KV_RIGHT}, {"outside_validity", KV_LEFT}};
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    enum kv_predictor p = v->headline;
    for (size_t i = v->j.n_exact; i < v->j.n; i++) {
        const struct kv_judged *x = &v->j.at[i];
        double kl = v->fit[p] && x->by[p] > 0 ? exp(kv_monotone_at(v->fit[p], log(x->by[p]))) : NAN;
        kv_table_text(t, x->label);
        kv_table_count(t, (long long)x->n_items);
        kv_table_number(t, x->bits, 3);
        kv_table_number(t, x->by[p], 6);
        kv_table_number(t, kl, 6);
        kv_table_number(t, kl * v->band[p][0], 6);
        kv_table_number(t, kl * v->band[p][1], 6);
        for (int m = 0; m < 2; m++) {
            const struct kv_decline *d = m ? &v->agree : &v->acc;
            bool known = (m ? v->agree_known : v->acc_known) && kl > 0;
            struct kv_interval in = {NAN, NAN};
            if (known) in = kv_decline_interval(d, kl, 0.9);
            kv_table_number(t, known ? kv_decline_at(d, kl) : NAN, 4);
            kv_table_number(t, in.low, 4);
            kv_table_number(t, in.high, 4);
        }
        kv_table_number(t, x->cross, 3);
        kv_table_text(t, x->outside);
    }
    return kv_table_print(t, how, e);
}

// ---- figure ---------------------------------------------------------------------------

static int draw(const struct verdict *v, const char *dir, struct kv_error *e) {
    const enum kv_predictor panels[] = {v->headline, KV_BY_RECONSTRUCTION, KV_BY_OUTPUT};
    static const char *const units[] = {"predicted KL, nats a scored token",
                                        "squared relative error of K and of V",
                                        "squared relative error of attention's output"};
    struct kv_text data = {0}, set = {0};
    size_t n = v->j.n_exact, n_panels = 0;
    double low = kv_quantile(v->kl, n, 0), high = kv_quantile(v->kl, n, 1);
    kv_text_addf(&data, "panel\tlabel\tfamily\tkl_nats\tkl_low\tkl_high\tpredicted\tcalibrated\tlow"
                        "\thigh\toutside\n");
    kv_text_addf(&set, "name = \"fidelity\"\ncanvas_x = 1000\ncanvas_y = 460\ndata = "
                       "\"fidelity.tsv\"\narray panel_name[3]\narray panel_unit[3]\narray "
                       "x_low[3]\narray x_high[3]\narray identity[3]\n");
    for (size_t k = 0; k < 3; k++) {
        enum kv_predictor p = panels[k];
        double x_low = kv_quantile(v->by[p], n, 0), x_high = kv_quantile(v->by[p], n, 1);
        if (!(x_high > 0) || !v->fit[p]) continue;
        size_t *order = kv_alloc(n, sizeof *order); // the band is drawn from left to right
        for (size_t i = 0; i < n; i++) {
            size_t at = i;
            for (; at > 0 && v->by[p][order[at - 1]] > v->by[p][i]; at--) order[at] = order[at - 1];
            order[at] = i;
        }
        n_panels++;
        kv_text_addf(&set,
                     "panel_name[%zu] = \"%s\"\npanel_unit[%zu] = \"%s\"\nidentity[%zu] = %d\n"
                     "x_low[%zu] = %g\nx_high[%zu] = %g\n",
                     n_panels, kv_predictor_names[p], n_panels, units[k], n_panels,
                     p <= KV_BY_MENDED, n_panels, fmax(x_low, 1e-9) / 1.5, n_panels, x_high * 1.5);
        for (size_t i = 0; i < n; i++) {
            const struct kv_judged *x = &v->j.at[order[i]];
            if (!(x->kl > 0) || !(x->by[p] > 0)) continue;
            double fit = exp(kv_monotone_at(v->fit[p], log(x->by[p])));
            char *label = kv_gnuplot_text(x->label);
            kv_text_addf(&data, "%zu\t%s\t%s\t%g\t%g\t%g\t%g\t%g\t%g\t%g\t%d\n", n_panels, label,
                         v->j.families[x->family], x->kl,
                         fmax(x->kl / 10, x->kl - 1.96 * x->kl_error), x->kl + 1.96 * x->kl_error,
                         x->by[p], fit, fit * v->band[p][0], fit * v->band[p][1],
                         x->outside != NULL);
            free(label);
        }
        free(order);
    }
    const struct kv_trace_info *in = kv_trace_info(v->j.trace);
    char *task = kv_gnuplot_text(in->task_name);
    kv_text_addf(&set,
                 "panels = %zu\nlow_kl = %g\nhigh_kl = %g\ntitle_text = \"Predicted and exact "
                 "divergence of %zu policies\"\nsubtitle_text = \"%s, %zu items, %zu label draws; "
                 "band: 5 to 95 %% with the policy's family left out; rings: outside validity; "
                 "dotted: predicted = exact\"\n",
                 n_panels, low / 1.5, high * 1.5, n, task, n ? v->j.at[0].n_items : 0,
                 v->j.n_draws);
    free(task);
    char *settings = kv_text_take(&set), *tsv = kv_text_take(&data);
    struct kv_gnuplot g = {
        .name = "fidelity", .file = "fidelity", .dir = dir, .settings = settings};
    int rc = kv_make_dir(dir, e);
    g.data = tsv;
    if (rc == 0) rc = kv_gnuplot_draw(&g, e);
    if (rc == 0) kv_say("drawn: %s/fidelity.svg", dir);
    free(settings);
    free(tsv);
    return rc;
}

// ---- command --------------------------------------------------------------------------

static const struct {
    const char *name, *heading;
    int (*print)(const struct verdict *, enum kv_output, struct kv_error *);
} tables[] = {
    {"policies", "policies, by exact divergence", print_policies},
    {"predictors", "predictors of divergence", print_predictors},
    {"forms", "forms of fisher replay and label draws", print_forms},
    {"accuracy", "accuracy and agreement with the 16-bit run, from divergence", print_accuracy},
    {"predicted", "policies that were not run", print_predicted},
};
enum { N_TABLES = sizeof tables / sizeof *tables };

static int choose_tables(const struct kv_cli *c, const struct verdict *v, bool *chosen,
                         struct kv_error *e) {
    const char *list = kv_opt(c, "table");
    bool text = c->output == KV_OUT_TEXT;
    for (size_t i = 0; i < N_TABLES && !list; i++)
        chosen[i] = text ? i + 1 < N_TABLES || v->j.n > v->j.n_exact : i == 0;
    char *copy = kv_strdup(list ? list : ""), *rest = copy, *word;
    size_t n = 0;
    int rc = 0;
    while (list && rc == 0 && (word = strsep(&rest, ","))) {
        size_t i = 0;
        while (i < N_TABLES && strcmp(tables[i].name, word) != 0) i++;
        if (i < N_TABLES)
            chosen[i] = true;
        else
            rc =
                kv_fail(e, KV_EUSAGE, "--table",
                        "%s: policies, predictors, forms, accuracy or predicted is expected", word);
        n++;
    }
    if (rc == 0 && !text && n > 1)
        rc = kv_fail(e, KV_EUSAGE, "--table", "--tsv and --json print one table at a time");
    free(copy);
    return rc;
}

// Default: the best that the trace allows.
static int choose_form(const struct kv_cli *c, struct verdict *v, struct kv_error *e) {
    const char *form = kv_opt(c, "form");
    const double *by = v->j.at[0].by;
    for (v->headline = KV_BY_MENDED; v->headline > KV_BY_ISO && !form; v->headline--)
        if (v->headline != KV_BY_TOTAL && v->headline != KV_BY_VECTOR && !isnan(by[v->headline]))
            break;
    if (!form) return 0;
    for (v->headline = KV_BY_ISO; v->headline <= KV_BY_MENDED; v->headline++)
        if (strcmp(kv_predictor_names[v->headline], form) == 0)
            return !isnan(by[v->headline])
                       ? 0
                       : kv_fail(e, KV_EFAIL, c->args[0],
                                 "does not keep what form %s needs: --keep kv,sens,grad%s", form,
                                 v->headline == KV_BY_MENDED ? ",q" : "");
    return kv_fail(e, KV_EUSAGE, "--form", "%s: iso, element, vector, total or mended is expected",
                   form);
}

static int fidelity(struct kv_cli *c, struct kv_error *e) {
    struct verdict v = {0};
    bool chosen[N_TABLES] = {false};
    int rc = kv_judging_open(&v.j, c, e);
    if (rc) return rc;
    rc = choose_form(c, &v, e);
    if (rc == 0) rc = choose_tables(c, &v, chosen, e);
    if (rc == 0) judge(&v);
    for (size_t i = 0, printed = 0; i < N_TABLES && rc == 0; i++) {
        if (!chosen[i]) continue;
        if (c->output == KV_OUT_TEXT) printf("%s%s\n", printed++ ? "\n" : "", tables[i].heading);
        rc = tables[i].print(&v, c->output, e);
    }
    if (rc == 0 && kv_opt(c, "out")) rc = draw(&v, kv_opt(c, "out"), e);
    verdict_free(&v);
    return rc;
}

static const struct kv_option options[] = {
    KV_JUDGING_OPTIONS,
    {"form", 0, "FORM", NULL,
     "the form that is calibrated: iso, element, vector, total, mended (default: mended where "
     "whole gradients and queries were kept, else element, else iso)"},
    {"table", 't', "LIST", NULL, "which tables: policies, predictors, forms, accuracy, predicted"},
    {"out", 'o', "DIR", NULL, "also draws predicted against exact there"},
    {0}};

const struct kv_command kv_cmd_fidelity = {
    .name = "fidelity",
    .summary = "judges predictions of divergence by the exact rows of a store",
    .usage = "TRACE [SPEC...]",
    .example = "kvsim fidelity work/samples.trace --db work/demo.db 'static:k=5,v=3@asym:group=32'",
    .options = options,
    .min_args = 1,
    .max_args = 100000,
    .run = fidelity};
