// SPDX-License-Identifier: Apache-2.0
// The files of a frontier figure: its points and names as TSV, and the settings of its script.
#include "reports/draw/frontier_panel.h"
#include "reports/draw/gnuplot.h"

#include <stdlib.h>

// ---- data -----------------------------------------------------------------------------

// A line of the data: a point with its name, or (panel 0) a line of the list.
struct mark {
    size_t panel, order; // order: in which they were made
    bool on, hollow, oracle, leader;
    double x, y, low, high; // NAN = empty
    const char *label;
    double label_x, label_y;
    int justify;
};

struct marks {
    struct mark *at;
    size_t n;
};

static void add_mark(struct marks *m, struct mark mark) {
    mark.order = m->n;
    m->at[m->n++] = mark;
}

// By panel, then those on the frontier last and from left to right, as a line joins them.
static int compare(const void *a, const void *b) {
    const struct mark *p = a, *q = b;
    if (p->panel != q->panel) return p->panel < q->panel ? -1 : 1;
    if (p->on != q->on) return p->on ? 1 : -1;
    if (p->x < q->x || p->x > q->x) return p->x < q->x ? -1 : 1;
    if (p->label_y < q->label_y || p->label_y > q->label_y) return p->label_y < q->label_y ? -1 : 1;
    return p->order < q->order ? -1 : 1;
}

static void mark_points(struct marks *m, const struct kv_frontier_figure *f, size_t panel,
                        char *const *numbers) {
    const struct kv_frontier_panel *p = &f->panels[panel];
    for (size_t i = 0; i < p->n_labels; i++) {
        const struct kv_label *l = &p->labels[i];
        size_t row = p->row_of[i];
        const struct kv_row *r = &f->set->rows[row];
        struct kv_interval known = p->divergence ? r->kl.interval : r->interval[KV_ACC];
        add_mark(m, (struct mark){.panel = panel + 1,
                                  .on = p->on[row],
                                  .hollow = p->hollow[row],
                                  .oracle = r->s.oracle,
                                  .leader = l->leader,
                                  .x = p->x[row],
                                  .y = p->y[row],
                                  .low = isnan(known.low) ? NAN : p->low[row],
                                  .high = isnan(known.high) ? NAN : p->high[row],
                                  .label = f->listed ? numbers[row] : r->label,
                                  .label_x = kv_axes_from_x(&p->axes, l->label_x),
                                  .label_y = kv_axes_from_y(&p->axes, l->label_y),
                                  .justify = l->justify});
    }
}

size_t kv_frontier_list_lines(const struct kv_frontier_figure *f) {
    return (f->set->n + f->list_columns - 1) / f->list_columns;
}

// The list below the panels: a number that ends where its name begins, in parts of the canvas.
static void mark_list(struct marks *m, const struct kv_frontier_figure *f, char *const *numbers) {
    size_t lines = kv_frontier_list_lines(f);
    for (size_t i = 0; i < f->set->n; i++) {
        double column = (double)(i / lines) * KV_CANVAS_X / (double)f->list_columns;
        double x = column + KV_LIST_NUMBER - 8;
        double y = f->canvas_y - f->plot_y - KV_LIST_LINE * ((double)(i % lines) + 0.5);
        struct mark mark = {.on = f->panels[0].on[i],
                            .x = NAN,
                            .y = NAN,
                            .low = NAN,
                            .high = NAN,
                            .label_y = y / f->canvas_y};
        mark.label = numbers[i];
        mark.label_x = (x - 8) / KV_CANVAS_X;
        mark.justify = -1;
        add_mark(m, mark);
        mark.label = f->set->rows[i].label;
        mark.label_x = x / KV_CANVAS_X;
        mark.justify = 1;
        add_mark(m, mark);
    }
}

static void add_number(struct kv_text *t, double x) {
    if (!isnan(x)) kv_text_addf(t, "%.10g", x);
    kv_text_add(t, "\t", 1);
}

static void add_line(struct kv_text *t, const struct mark *m) {
    char *label = kv_gnuplot_text(m->label);
    kv_text_addf(t, "%zu\t", m->panel);
    add_number(t, m->x);
    add_number(t, m->y);
    add_number(t, m->low);
    add_number(t, m->high);
    kv_text_addf(t, "%d\t%d\t%d\t%s\t%.10g\t%.10g\t%d\t%d\n", m->on, m->hollow, m->oracle, label,
                 m->label_x, m->label_y, m->justify, m->leader);
    free(label);
}

char *kv_frontier_data(const struct kv_frontier_figure *f) {
    size_t n = f->set->n;
    struct kv_text t = {0};
    struct marks m = {kv_alloc(n * (f->n_panels + 2) + 1, sizeof *m.at), 0};
    char **numbers = kv_alloc(n + 1, sizeof *numbers);
    for (size_t i = 0; i < n; i++) numbers[i] = kv_format_text("%zu", i + 1);
    for (size_t k = 0; k < f->n_panels; k++) mark_points(&m, f, k, numbers);
    if (f->listed) mark_list(&m, f, numbers);
    qsort(m.at, m.n, sizeof *m.at, compare);
    kv_text_addf(&t, "panel\tx\ty\tlow\thigh\ton_frontier\thollow\toracle\tlabel\tlabel_x\tlabel_y"
                     "\tjustify\tleader\n");
    for (size_t i = 0; i < m.n; i++) add_line(&t, &m.at[i]);
    for (size_t i = 0; i < n; i++) free(numbers[i]);
    free(numbers);
    free(m.at);
    return kv_text_take(&t);
}

// ---- the script -----------------------------------------------------------------------

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

static bool zero_drawn(const struct kv_frontier_figure *f) {
    for (size_t i = 0; i < f->set->n; i++)
        if (f->floor > 0 && f->set->rows[i].kl.mean < f->floor) return true;
    return false;
}

static void add_titles(struct kv_text *t, const struct kv_frontier_figure *f) {
    kv_text_addf(t, "array x_title[%zu]\narray y_title[%zu]\n", f->n_panels, f->n_panels);
    for (size_t i = 0; i < f->n_panels; i++) {
        const struct kv_frontier_panel *p = &f->panels[i];
        if (isnan(p->context))
            kv_text_addf(t, "x_title[%zu] = 'effective bits a cached value'\n", i + 1);
        else
            kv_text_addf(t, "x_title[%zu] = 'ms a token at a context of %g tokens'\n", i + 1,
                         p->context);
        kv_text_addf(t, "y_title[%zu] = '%s%s'\n", i + 1,
                     p->divergence ? "KL to 16 bit, nats a token" : "accuracy, %",
                     p->divergence && zero_drawn(f) ? " (0 at the foot)" : "");
    }
}

static void add_words(struct kv_text *t, const struct kv_frontier_figure *f) {
    const struct kv_summary *s = &f->set->rows[0].s;
    const struct kv_device *device = f->set->all->device;
    char *title = kv_gnuplot_text(f->title);
    char *subtitle =
        kv_format_text("%s, %zu items (%s); %s%s%s", s->task, s->n_items, s->subset, s->model,
                       device ? "; device " : "", device ? device->name : "");
    char *clean = kv_gnuplot_text(subtitle);
    kv_text_addf(t,
                 "title_text = '%s'\nsubtitle_text = '%s'\n"
                 "hollow_text = 'accuracy measured at about %.0f tokens'\n",
                 title, clean, s->context_tokens);
    free(title);
    free(subtitle);
    free(clean);
}

char *kv_frontier_settings(const struct kv_frontier_figure *f) {
    const struct kv_frontier_panel *p = f->panels;
    struct kv_text t = {0};
    add_words(&t, f);
    kv_text_addf(&t, "listed = %d\nany_hollow = %d\nany_oracle = %d\n", f->listed, any_hollow(f),
                 any_oracle(f));
    kv_script_panels(&t, &p->axes, f->n_panels, sizeof *p, f->canvas_y);
    kv_script_array(&t, "reference", &p->reference, f->n_panels, sizeof *p);
    kv_script_array(&t, "chance", &p->chance, f->n_panels, sizeof *p);
    kv_script_array(&t, "ceiling", &p->ceiling, f->n_panels, sizeof *p);
    kv_script_array(&t, "x_error", &p->error, f->n_panels, sizeof *p);
    add_titles(&t, f);
    return kv_text_take(&t);
}
