// SPDX-License-Identifier: Apache-2.0
// Names of the points of a frontier figure, its list where they have no room, and its legend.
#include "reports/draw/frontier_panel.h"

#include <stdlib.h>

enum { MOST_NAMES = 16 };

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

// Intervals of beaten points are left out where they leave no room for numbers.
static void drop_intervals(struct kv_frontier_figure *f) {
    for (size_t i = 0; i < f->n_panels; i++)
        for (size_t k = 0; k < f->set->n; k++)
            if (!f->panels[i].on[k]) f->panels[i].low[k] = f->panels[i].high[k] = NAN;
}

static size_t name_all(struct kv_frontier_figure *f, bool numbers) {
    size_t unreadable = 0;
    for (size_t i = 0; i < f->n_panels && (numbers || !unreadable); i++)
        unreadable += name_points(&f->panels[i], f->set, numbers);
    return unreadable;
}

void kv_frontier_name(struct kv_frontier_figure *f) {
    double widest = 0;
    f->listed = f->set->n > MOST_NAMES || name_all(f, false) > 0;
    if (!f->listed) return;
    if (name_all(f, true) > 0) {
        drop_intervals(f);
        (void)name_all(f, true);
    }
    for (size_t i = 0; i < f->set->n; i++)
        widest = fmax(widest, kv_text_width(f->set->rows[i].label, KV_TEXT_SIZE));
    f->list_columns = (size_t)fmax(1, floor(f->canvas_x / (widest + KV_LIST_NUMBER)));
    f->canvas_y += ((double)kv_frontier_list_lines(f) + 1) * KV_LIST_LINE;
}

// ---- legend ---------------------------------------------------------------------------

static bool any_hollow(const struct kv_frontier_figure *f) {
    for (size_t k = 0; k < f->n_panels; k++)
        for (size_t i = 0; i < f->set->n; i++)
            if (f->panels[k].hollow[i]) return true;
    return false;
}

static bool any_oracle(const struct kv_frontier_figure *f) {
    for (size_t i = 0; i < f->set->n; i++)
        if (f->set->rows[i].s.oracle) return true;
    return false;
}

static bool any_line(const struct kv_frontier_figure *f, size_t which) {
    for (size_t k = 0; k < f->n_panels; k++) {
        const struct kv_frontier_panel *p = &f->panels[k];
        const double lines[] = {p->reference, p->chance, p->ceiling};
        if (!isnan(lines[which])) return true;
    }
    return false;
}

double kv_frontier_legend(struct kv_frontier_figure *f, double top) {
    enum { SIGN = 14, GAP = 20, LINE = 20 };
    static const char *const words[KV_N_LEGEND] = {"no other beats it",
                                                   "beaten",
                                                   "95 % interval",
                                                   "16 bit",
                                                   "chance",
                                                   "a cache of no bytes",
                                                   "oracle: reads the future",
                                                   NULL};
    const bool there[KV_N_LEGEND] = {true,           true,           true,          any_line(f, 0),
                                     any_line(f, 1), any_line(f, 2), any_oracle(f), any_hollow(f)};
    double left = f->title ? KV_FRONTIER_LEFT : 16, x = left, y = top + LINE / 2.0;
    for (size_t i = 0; i < KV_N_LEGEND; i++) {
        f->legend[i].x = f->legend[i].y = NAN;
        if (!there[i]) continue;
        if (words[i])
            snprintf(f->legend[i].words, sizeof f->legend[i].words, "%s", words[i]);
        else
            snprintf(f->legend[i].words, sizeof f->legend[i].words,
                     "quality measured at about %.0f tokens", f->set->rows[0].s.context_tokens);
        double width = SIGN + kv_text_width(f->legend[i].words, KV_TEXT_SIZE);
        if (x > left && x + width > f->canvas_x - 8) {
            x = left;
            y += LINE;
        }
        f->legend[i].x = x;
        f->legend[i].y = y;
        x += width + GAP;
    }
    return y + LINE / 2.0 - top;
}
