// SPDX-License-Identifier: Apache-2.0
// Lays out the frontier figures: which panels there are, their points and axes, and names of
// points.
#include "reports/draw/frontier.h"
#include "analysis/results/notes.h"
#include "analysis/stats/pareto.h"
#include "reports/draw/frontier_panel.h"
#include "reports/draw/gnuplot.h"

#include <stdlib.h>

enum { ERROR_SHARE = 12 }; // an axis of time is at least so many of the model's errors wide
enum { RIGHT = 74, PANEL = 300, TALLEST_PANEL = 460, MOST_NAMES = 16 };

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

static void panel_free(struct kv_frontier_panel *p) {
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
    pad(&a->x_low, &a->x_high, 0.04, fmax(1e-3 * fabs(a->x_high), 1e-6));
}

// ---- names ----------------------------------------------------------------------------

// The frontier's steps and the reference lines, which names should not cross.
static struct kv_segment *lines_of(const struct kv_frontier_panel *p, size_t n, size_t *n_lines) {
    const struct kv_axes *a = &p->axes;
    struct kv_segment *lines = kv_alloc(2 * n + 3, sizeof *lines);
    double last_x = NAN, last_y = NAN, across[] = {p->reference, p->chance};
    *n_lines = 0;
    for (size_t i = 0; i < 2; i++)
        if (!isnan(across[i]))
            lines[(*n_lines)++] = (struct kv_segment){a->left, kv_axes_to_y(a, across[i]), a->right,
                                                      kv_axes_to_y(a, across[i])};
    if (!isnan(p->ceiling))
        lines[(*n_lines)++] = (struct kv_segment){kv_axes_to_x(a, p->ceiling), a->top,
                                                  kv_axes_to_x(a, p->ceiling), a->bottom};
    for (;;) { // the next point of the frontier to the right
        size_t next = n;
        for (size_t i = 0; i < n; i++)
            if (p->on[i] && (isnan(last_x) || kv_axes_to_x(a, p->x[i]) > last_x) &&
                (next == n || p->x[i] < p->x[next]))
                next = i;
        if (next == n) return lines;
        double x = kv_axes_to_x(a, p->x[next]), y = kv_axes_to_y(a, p->y[next]);
        if (!isnan(last_x)) {
            lines[(*n_lines)++] = (struct kv_segment){last_x, last_y, x, last_y};
            lines[(*n_lines)++] = (struct kv_segment){x, last_y, x, y};
        }
        last_x = x;
        last_y = y;
    }
}

// Places names (or numbers) in a panel; returns how many cannot be read.
static size_t name_points(struct kv_frontier_panel *p, const struct kv_frontier_set *set,
                          bool numbers) {
    char digits[24];
    size_t n_lines;
    p->n_labels = 0;
    for (size_t i = 0; i < set->n; i++) {
        if (isnan(p->x[i]) || isnan(p->y[i])) continue;
        snprintf(digits, sizeof digits, "%zu", i + 1);
        p->row_of[p->n_labels] = i;
        p->labels[p->n_labels++] = kv_axes_label(&p->axes, p->x[i], p->y[i], p->low[i], p->high[i],
                                                 numbers ? digits : set->rows[i].label);
    }
    struct kv_segment *lines = lines_of(p, set->n, &n_lines);
    size_t unreadable = kv_axes_place(&p->axes, p->labels, p->n_labels, lines, n_lines);
    free(lines);
    return unreadable;
}

// Names at the points where all can be read, else numbers and a list below.
static void name_all(struct kv_frontier_figure *f) {
    size_t unreadable = f->set->n > MOST_NAMES;
    double widest = 0;
    for (size_t i = 0; i < f->n_panels && !unreadable; i++)
        unreadable += name_points(&f->panels[i], f->set, false);
    f->listed = unreadable > 0;
    if (!f->listed) return;
    for (size_t i = 0; i < f->n_panels; i++) (void)name_points(&f->panels[i], f->set, true);
    for (size_t i = 0; i < f->set->n; i++)
        widest = fmax(widest, kv_text_width(f->set->rows[i].label));
    f->list_columns = (size_t)fmax(1, floor(KV_CANVAS_X / (widest + KV_LIST_NUMBER)));
    f->canvas_y += ((double)kv_frontier_list_lines(f) + 1) * KV_LIST_LINE;
}

// ---- a figure --------------------------------------------------------------------------

static int draw(struct kv_frontier_figure *f, struct kv_drawn *drawn, struct kv_error *e) {
    // More points than names need room.
    double height = PANEL + (f->set->n > MOST_NAMES ? 4 * (double)(f->set->n - MOST_NAMES) : 0);
    const struct kv_layout layout = {.right = RIGHT, .panel_y = fmin(height, TALLEST_PANEL)};
    f->canvas_y = f->plot_y = kv_layout_height(&layout, f->n_panels);
    for (size_t i = 0; i < f->n_panels; i++) {
        struct kv_frontier_panel *p = &f->panels[i];
        p->axes = kv_axes_new(&layout, i);
        p->axes.log_y = p->divergence && f->floor > 0;
        set_axes(p, f->set->n);
    }
    name_all(f);
    drawn->name = kv_format_text("%s%s", f->name, f->set->suffix);
    drawn->plot_y = f->plot_y;
    char *data = kv_frontier_data(f), *settings = kv_frontier_settings(f);
    int code = kv_gnuplot_draw(&(struct kv_gnuplot){.name = "frontier",
                                                    .file = drawn->name,
                                                    .dir = f->set->dir,
                                                    .command = "kvsim report",
                                                    .canvas_x = KV_CANVAS_X,
                                                    .canvas_y = f->canvas_y,
                                                    .settings = settings,
                                                    .data = data,
                                                    .formats = f->set->formats},
                               e);
    free(data);
    free(settings);
    return code;
}

// ---- the two figures ------------------------------------------------------------------

static void lay_bits(struct kv_frontier_figure *f) {
    bool known[2] = {false, false}; // accuracy, divergence
    const struct kv_frontier_set *set = f->set;
    f->floor = divergence_floor(set);
    for (size_t i = 0; i < set->n; i++) {
        known[0] = known[0] || !isnan(set->rows[i].s.acc[KV_ACC]);
        known[1] = known[1] || !isnan(set->rows[i].kl.mean);
    }
    for (int divergence = 0; divergence < 2; divergence++) {
        if (!known[divergence]) continue;
        struct kv_frontier_panel *p = &f->panels[f->n_panels++];
        panel_new(p, set->n);
        p->divergence = divergence;
        for (size_t i = 0; i < set->n; i++) p->x[i] = set->rows[i].s.effective_bits;
        if (divergence)
            fill_divergence(p, set, f->floor);
        else
            fill_accuracy(p, set);
        find_frontier(p, set->n, divergence);
    }
}

static void lay_latency(struct kv_frontier_figure *f) {
    const struct kv_frontier_set *set = f->set;
    bool judged = false;
    for (size_t i = 0; i < set->n; i++) judged = judged || !isnan(set->rows[i].s.acc[KV_ACC]);
    f->n_panels = judged ? set->all->n_contexts : 0;
    for (size_t k = 0; k < f->n_panels; k++) {
        struct kv_frontier_panel *p = &f->panels[k];
        panel_new(p, set->n);
        fill_accuracy(p, set);
        p->context = set->all->context[k];
        p->ceiling = set->rows[0].at[k].ceiling_ns / 1e6;
        p->error = set->all->device->error_median;
        for (size_t i = 0; i < set->n; i++) {
            p->x[i] = set->rows[i].at[k].step_ns / 1e6;
            p->hollow[i] = !kv_measured_at(&set->rows[i], p->context);
        }
        find_frontier(p, set->n, false);
    }
}

int kv_frontier_draw(const struct kv_frontier_set *set, struct kv_drawn drawn[2], size_t *n_drawn,
                     struct kv_error *e) {
    static const struct {
        const char *name, *title;
        void (*lay)(struct kv_frontier_figure *f);
        bool priced;
    } figures[] = {
        {"frontier_bits", "Accuracy and divergence against the size of the cache", lay_bits, false},
        {"frontier_latency", "Accuracy against the time of a token", lay_latency, true},
    };
    int code = 0;
    *n_drawn = 0;
    for (size_t i = 0; !code && i < sizeof figures / sizeof *figures; i++) {
        if (figures[i].priced && !set->all->device) continue;
        struct kv_frontier_figure f = {
            .name = figures[i].name, .title = figures[i].title, .set = set};
        figures[i].lay(&f);
        if (f.n_panels == 0) continue;
        code = draw(&f, &drawn[*n_drawn], e);
        (*n_drawn)++;
        for (size_t k = 0; k < f.n_panels; k++) panel_free(&f.panels[k]);
    }
    return code;
}
