// SPDX-License-Identifier: Apache-2.0
// Draws predicted against exact divergence, a panel a predictor.
#include "reports/draw/fidelity.h"

#include <stdlib.h>

#include "reports/draw/gnuplot.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"

enum { N_PANELS = 3 };

struct figure {
    const struct kv_kl_calibration *c;
    struct kv_text data, settings;
    size_t n_panels; // with something to draw
};

// Indices of policies from the least prediction to the greatest: the band is drawn from left to
// right. Caller frees.
static size_t *by_prediction(const double *x, size_t n) {
    size_t *order = kv_alloc(n, sizeof *order);
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        for (; at > 0 && x[order[at - 1]] > x[i]; at--) order[at] = order[at - 1];
        order[at] = i;
    }
    return order;
}

static void add_points(struct figure *f, enum kv_predictor p) {
    const struct kv_fidelity_study *s = f->c->study;
    size_t *order = by_prediction(f->c->by[p], s->n_exact);
    for (size_t i = 0; i < s->n_exact; i++) {
        const struct kv_fidelity_policy *x = &s->at[order[i]];
        if (!(x->kl > 0) || !(x->by[p] > 0)) continue;
        double fit = exp(kv_monotone_at(f->c->curve[p], log(x->by[p])));
        char *label = kv_gnuplot_text(x->label);
        kv_text_addf(&f->data, "%zu\t%s\t%s\t%g\t%g\t%g\t%g\t%g\t%g\t%g\t%d\n", f->n_panels, label,
                     s->families[x->family], x->kl, fmax(x->kl / 10, x->kl - 1.96 * x->kl_error),
                     x->kl + 1.96 * x->kl_error, x->by[p], fit, fit * f->c->band[p][0],
                     fit * f->c->band[p][1], x->outside != NULL);
        free(label);
    }
    free(order);
}

static void add_panel(struct figure *f, enum kv_predictor p, const char *unit) {
    size_t n = f->c->study->n_exact;
    double low = kv_quantile(f->c->by[p], n, 0), high = kv_quantile(f->c->by[p], n, 1);
    if (!(high > 0) || !f->c->curve[p]) return;
    size_t k = ++f->n_panels;
    kv_text_addf(&f->settings,
                 "panel_name[%zu] = \"%s\"\npanel_unit[%zu] = \"%s\"\nidentity[%zu] = %d\n"
                 "x_low[%zu] = %g\nx_high[%zu] = %g\n",
                 k, kv_predictor_names[p], k, unit, k, p <= KV_BY_MENDED, k, fmax(low, 1e-9) / 1.5,
                 k, high * 1.5);
    add_points(f, p);
}

static void add_titles(struct figure *f) {
    const struct kv_fidelity_study *s = f->c->study;
    size_t n = s->n_exact;
    char *task = kv_gnuplot_text(kv_trace_info(s->trace)->task_name);
    kv_text_addf(&f->settings,
                 "panels = %zu\nlow_kl = %g\nhigh_kl = %g\ntitle_text = \"Predicted and exact "
                 "divergence of %zu policies\"\nsubtitle_text = \"%s, %zu items, %zu label draws; "
                 "band: 5 to 95 %% with the policy's family left out; rings: outside validity; "
                 "dotted: predicted = exact\"\n",
                 f->n_panels, kv_quantile(f->c->kl, n, 0) / 1.5, kv_quantile(f->c->kl, n, 1) * 1.5,
                 n, task, n ? s->at[0].n_items : 0, s->n_draws);
    free(task);
}

int kv_fidelity_draw(const struct kv_kl_calibration *c, const char *dir, struct kv_error *e) {
    const enum kv_predictor panels[N_PANELS] = {c->headline, KV_BY_RECONSTRUCTION, KV_BY_OUTPUT};
    static const char *const units[N_PANELS] = {"predicted KL, nats a scored token",
                                                "squared relative error of K and of V",
                                                "squared relative error of attention's output"};
    struct figure f = {.c = c};
    kv_text_addf(&f.data, "panel\tlabel\tfamily\tkl_nats\tkl_low\tkl_high\tpredicted\tcalibrated\t"
                          "low\thigh\toutside\n");
    kv_text_addf(&f.settings, "array panel_name[3]\narray panel_unit[3]\narray x_low[3]\narray "
                              "x_high[3]\narray identity[3]\n");
    for (size_t k = 0; k < N_PANELS; k++) add_panel(&f, panels[k], units[k]);
    add_titles(&f);
    char *settings = kv_text_take(&f.settings), *tsv = kv_text_take(&f.data);
    struct kv_gnuplot g = {.name = "fidelity",
                           .dir = dir,
                           .canvas_x = 1000,
                           .canvas_y = 460,
                           .settings = settings,
                           .data = tsv};
    int rc = kv_make_dir(dir, e);
    if (rc == 0) rc = kv_gnuplot_draw(&g, e);
    if (rc == 0) kv_say("drawn: %s/fidelity.svg", dir);
    free(settings);
    free(tsv);
    return rc;
}
