// SPDX-License-Identifier: Apache-2.0
// Lays out the frontier figures: which panels there are, their points and axes.
#include "reports/draw/frontier.h"
#include "analysis/results/notes.h"
#include "analysis/stats/pareto.h"
#include "reports/draw/frontier_panel.h"
#include "reports/draw/gnuplot.h"

#include <stdlib.h>

enum { ERROR_SHARE = 12 }; // an axis of time is at least so many of the model's errors wide
enum { RIGHT = 24, PANEL = 300, TALLEST_PANEL = 460, NARROW = 420 };
// Costs are compared on an axis of a tenth of them at least: what a model of a device cannot tell
// apart should not fill a figure.
static const double least_span = 0.1;

// ---- points ---------------------------------------------------------------------------

static void panel_new(struct kv_frontier_panel *p, size_t n) {
    *p = (struct kv_frontier_panel){
        .reference = NAN, .chance = NAN, .ceiling = NAN, .context = NAN, .error = NAN};
    double **arrays[] = {&p->x, &p->y, &p->low, &p->high};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        *arrays[i] = kv_alloc(n + 1, sizeof(double));
    p->on = kv_alloc(n + 1, sizeof *p->on);
    p->hollow = kv_alloc(n + 1, sizeof *p->hollow);
    p->labels = kv_alloc(n + 1, sizeof *p->labels);
    p->row_of = kv_alloc(n + 1, sizeof *p->row_of);
}

static void panel_fini(struct kv_frontier_panel *p) {
    free(p->x);
    free(p->y);
    free(p->low);
    free(p->high);
    free(p->on);
    free(p->hollow);
    free(p->labels);
    free(p->row_of);
}

static void fill_accuracy(struct kv_frontier_panel *p, const struct kv_frontier_set *set) {
    for (size_t i = 0; i < set->n; i++) {
        const struct kv_row *r = &set->rows[i];
        p->y[i] = 100 * r->s.acc[KV_ACC];
        p->low[i] = 100 * r->interval[KV_ACC].low;
        p->high[i] = 100 * r->interval[KV_ACC].high;
    }
    p->reference = 100 * set->rows[0].s.acc_ref[KV_ACC];
    p->chance = 100 * set->rows[0].s.chance;
}

static void fill_divergence(struct kv_frontier_panel *p, const struct kv_frontier_set *set,
                            double floor) {
    for (size_t i = 0; i < set->n; i++) {
        const struct kv_row *r = &set->rows[i];
        p->y[i] = fmax(r->kl.mean, floor);
        p->low[i] = fmax(r->kl.interval.low, floor);
        p->high[i] = fmax(r->kl.interval.high, floor);
        if (isnan(r->kl.mean)) p->y[i] = NAN;
    }
}

// Against the time at a context stands the divergence at that depth, where rows know it.
static void deepen(struct kv_frontier_panel *p, const struct kv_frontier_set *set, size_t context,
                   double floor) {
    for (size_t i = 0; i < set->n; i++) {
        const struct kv_token_summary *s = &set->rows[i].depth[context];
        const struct kv_token_estimate *kl = &s->at[KV_TOKEN_KL_MEAN];
        if (s->n == 0) continue;
        p->y[i] = fmax(kl->value, floor);
        p->low[i] = isnan(kl->interval.low) ? p->y[i] : fmax(kl->interval.low, floor);
        p->high[i] = isnan(kl->interval.low) ? p->y[i] : fmax(kl->interval.high, floor);
        p->hollow[i] = false;
    }
}

// A third of the least divergence above zero: where zero is drawn on a logarithmic axis.
static double divergence_floor(const struct kv_frontier_set *set) {
    double least = INFINITY;
    for (size_t i = 0; i < set->n; i++)
        if (set->rows[i].kl.mean > 1e-9) least = fmin(least, set->rows[i].kl.mean);
    return isinf(least) ? 0 : least / 3;
}

static void find_frontier(struct kv_frontier_panel *p, size_t n, bool less_is_better) {
    double *value = kv_alloc(n + 1, sizeof *value);
    for (size_t i = 0; i < n; i++) value[i] = less_is_better ? -p->y[i] : p->y[i];
    kv_pareto(p->x, value, n, p->on);
    free(value);
}

// ---- axes -----------------------------------------------------------------------------

static void pad(double *low, double *high, double share, double least) {
    double by = fmax((*high - *low) * share, least);
    *low -= by;
    *high += by;
}

static void set_axes(struct kv_frontier_panel *p, size_t n) {
    struct kv_axes *a = &p->axes;
    double span;
    for (size_t i = 0; i < n; i++) {
        if (isnan(p->x[i]) || isnan(p->y[i])) continue;
        kv_axes_take_x(a, p->x[i]);
        kv_axes_take_y(a, p->y[i]);
        kv_axes_take_y(a, p->low[i]);
        kv_axes_take_y(a, p->high[i]);
    }
    kv_axes_take_y(a, p->reference);
    kv_axes_take_y(a, p->chance);
    kv_axes_take_x(a, p->ceiling);
    // The model's error is drawn, and no axis is so narrow that it fills it.
    double middle = (a->x_low + a->x_high) / 2, least = ERROR_SHARE * p->error * middle;
    if (a->x_high - a->x_low < least) {
        a->x_low = middle - least / 2;
        a->x_high = middle + least / 2;
    }
    if (a->log_y > 0) {
        a->y_low /= 1.5;
        a->y_high *= 2;
    } else {
        pad(&a->y_low, &a->y_high, 0.06, 1e-6);
    }
    span = least_span * a->x_high - (a->x_high - a->x_low);
    if (span > 0) pad(&a->x_low, &a->x_high, 0, span / 2);
    pad(&a->x_low, &a->x_high, 0.04, fmax(1e-3 * fabs(a->x_high), 1e-6));
}

// ---- panels ---------------------------------------------------------------------------

static bool is_known(const struct kv_frontier_set *set, bool divergence) {
    for (size_t i = 0; i < set->n; i++)
        if (!isnan(divergence ? set->rows[i].kl.mean : set->rows[i].s.acc[KV_ACC])) return true;
    return false;
}

void kv_frontier_add_panel(struct kv_frontier_figure *f, bool divergence, size_t context,
                           bool times) {
    const struct kv_frontier_set *set = f->set;
    if (!is_known(set, divergence)) return;
    struct kv_frontier_panel *p = &f->panels[f->n_panels++];
    panel_new(p, set->n);
    p->divergence = divergence;
    f->floor = divergence_floor(set);
    if (times) {
        p->context = set->all->context[context];
        p->ceiling = set->rows[0].at[context].ceiling_ns / 1e6;
        p->error = set->all->device->error_median;
    }
    for (size_t i = 0; i < set->n; i++) {
        const struct kv_row *r = &set->rows[i];
        p->x[i] = times ? r->at[context].step_ns / 1e6 : r->s.effective_bits;
        p->hollow[i] = times && !kv_measured_at(r, p->context);
    }
    if (divergence) {
        fill_divergence(p, set, f->floor);
        if (times) deepen(p, set, context, f->floor);
    }
    if (!divergence) fill_accuracy(p, set);
    find_frontier(p, set->n, divergence);
}

static void add_bits(struct kv_frontier_figure *f) {
    kv_frontier_add_panel(f, true, 0, false);
    kv_frontier_add_panel(f, false, 0, false);
}

// Divergence at each context, accuracy at the last; without divergences accuracy at each.
static void add_times(struct kv_frontier_figure *f) {
    const struct kv_rows *all = f->set->all;
    bool divergence = is_known(f->set, true);
    if (!all->device) return;
    for (size_t k = 0; k < all->n_contexts; k++) kv_frontier_add_panel(f, divergence, k, true);
    if (divergence && all->n_contexts) kv_frontier_add_panel(f, false, all->n_contexts - 1, true);
}

// ---- a figure -------------------------------------------------------------------------

void kv_frontier_lay(struct kv_frontier_figure *f, double panel_y) {
    bool line = kv_frontier_error_below(f);
    // More points than names need room.
    double height = PANEL + 4 * fmax(0, (double)f->set->n - 16), top = f->title ? 60 : 4;
    f->layout = (struct kv_layout){.canvas_x = f->canvas_x,
                                   .left = KV_FRONTIER_LEFT,
                                   .right = RIGHT,
                                   .foot = KV_FOOT + (line ? KV_ERROR_LINE : 0),
                                   .head = top + kv_frontier_legend(f, top) + 12};
    f->layout.panel_y = panel_y > 0 ? panel_y : fmin(height, TALLEST_PANEL);
    f->canvas_y = f->plot_y = kv_layout_height(&f->layout, f->n_panels);
    for (size_t i = 0; i < f->n_panels; i++) {
        struct kv_frontier_panel *p = &f->panels[i];
        p->axes = kv_axes_new(&f->layout, i);
        p->axes.log_y = p->divergence && f->floor > 0;
        set_axes(p, f->set->n);
    }
    kv_frontier_name(f);
}

int kv_frontier_write(struct kv_frontier_figure *f, const char *file, const char *formats,
                      struct kv_error *e) {
    char *data = kv_frontier_data(f), *settings = kv_frontier_settings(f);
    int code = kv_gnuplot_draw(&(struct kv_gnuplot){.name = "frontier",
                                                    .file = file,
                                                    .dir = f->set->dir,
                                                    .command = "kvsim report",
                                                    .canvas_x = f->canvas_x,
                                                    .canvas_y = f->canvas_y,
                                                    .width_mm = f->width_mm,
                                                    .settings = settings,
                                                    .data = data,
                                                    .formats = formats},
                               e);
    free(data);
    free(settings);
    return code;
}

void kv_frontier_fini(struct kv_frontier_figure *f) {
    for (size_t i = 0; i < f->n_panels; i++) panel_fini(&f->panels[i]);
}

// ---- the two figures ------------------------------------------------------------------

static const struct kind {
    const char *name, *title;
    void (*add)(struct kv_frontier_figure *f);
} kinds[] = {
    {"frontier_bits", "Divergence and accuracy against the size of the cache", add_bits},
    {"frontier_latency", "Divergence and accuracy against the time of a token", add_times},
};

// As wide as a page, or without its title as a telephone. *name stays NULL where there is nothing.
static int draw(const struct kv_frontier_set *set, const struct kind *kind, bool narrow,
                char **name, double *plot_y, struct kv_error *e) {
    struct kv_frontier_figure f = {.title = narrow ? NULL : kind->title,
                                   .set = set,
                                   .canvas_x = narrow ? NARROW : KV_CANVAS_X};
    int code = 0;
    kind->add(&f);
    if (f.n_panels) {
        kv_frontier_lay(&f, 0);
        *name = kv_format_text("%s%s%s", kind->name, set->suffix, narrow ? "-narrow" : "");
        *plot_y = f.plot_y;
        code = kv_frontier_write(&f, *name, narrow ? "svg" : set->formats, e);
    }
    kv_frontier_fini(&f);
    return code;
}

int kv_frontier_draw(const struct kv_frontier_set *set, struct kv_drawn drawn[2], size_t *n_drawn,
                     struct kv_error *e) {
    int code = 0;
    *n_drawn = 0;
    for (size_t i = 0; !code && i < sizeof kinds / sizeof *kinds; i++) {
        struct kv_drawn d = {.times = i == 1};
        code = draw(set, &kinds[i], false, &d.name, &d.plot_y, e);
        if (!code) code = draw(set, &kinds[i], true, &d.narrow, &d.narrow_y, e);
        if (d.name) drawn[(*n_drawn)++] = d;
    }
    return code;
}
