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
    double room;                                 // of the label in pixels; 0 = as it needs
    double label_x, label_y, leader_x, leader_y; // of the leader: NAN = none
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
                                  .leader_x = kv_axes_from_x(&p->axes, l->leader_x),
                                  .leader_y = kv_axes_from_y(&p->axes, l->leader_y),
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
        double column = (double)(i / lines) * f->canvas_x / (double)f->list_columns;
        double x = column + KV_LIST_NUMBER - 8;
        double y = f->canvas_y - f->plot_y - KV_LIST_LINE * ((double)(i % lines) + 0.5);
        struct mark mark = {.on = f->panels[0].on[i],
                            .x = NAN,
                            .y = NAN,
                            .low = NAN,
                            .high = NAN,
                            .leader_x = NAN,
                            .leader_y = NAN,
                            .label_y = y / f->canvas_y};
        mark.label = numbers[i];
        mark.label_x = (x - 8) / f->canvas_x;
        mark.justify = -1;
        add_mark(m, mark);
        mark.label = f->set->rows[i].label;
        mark.room = f->canvas_x / (double)f->list_columns - KV_LIST_NUMBER;
        mark.label_x = x / f->canvas_x;
        mark.justify = 1;
        add_mark(m, mark);
    }
}

static void add_number(struct kv_text *t, double x) {
    if (!isnan(x)) kv_text_addf(t, "%.10g", x);
    kv_text_add(t, "\t", 1);
}

static void add_line(struct kv_text *t, const struct mark *m) {
    char *label = kv_text_fit(m->label, KV_TEXT_SIZE, m->room > 0 ? m->room : INFINITY);
    char *clean = kv_gnuplot_text(label);
    kv_text_addf(t, "%zu\t", m->panel);
    add_number(t, m->x);
    add_number(t, m->y);
    add_number(t, m->low);
    add_number(t, m->high);
    kv_text_addf(t, "%d\t%d\t%d\t%s\t%.10g\t%.10g\t%d\t%d\t", m->on, m->hollow, m->oracle, clean,
                 m->label_x, m->label_y, m->justify, m->leader);
    add_number(t, m->leader_x);
    if (!isnan(m->leader_y)) kv_text_addf(t, "%.10g", m->leader_y);
    kv_text_addf(t, "\n");
    free(label);
    free(clean);
}

char *kv_frontier_data(const struct kv_frontier_figure *f) {
    size_t n = f->set->n;
    struct kv_text t = {0};
    struct marks m = {kv_alloc(n * (f->n_panels + 2) + 1, sizeof *m.at), 0};
    char **numbers = kv_alloc(n + 1, sizeof *numbers);
    for (size_t i = 0; i < n; i++) numbers[i] = kv_format_text("%zu", i + 1);
    for (size_t k = 0; k < f->n_panels; k++) mark_points(&m, f, k, numbers);
    if (f->listed) mark_list(&m, f, numbers);
    // gnuplot 5.4 and 6.0 end in a segmentation fault where the one line of the data is no label of
    // the side that is drawn: an empty line of the list keeps it company.
    if (m.n == 1)
        add_mark(&m, (struct mark){.x = NAN,
                                   .y = NAN,
                                   .low = NAN,
                                   .high = NAN,
                                   .leader_x = NAN,
                                   .leader_y = NAN,
                                   .label = ""});
    qsort(m.at, m.n, sizeof *m.at, compare);
    kv_text_addf(&t, "panel\tx\ty\tlow\thigh\ton_frontier\thollow\toracle\tlabel\tlabel_x\tlabel_y"
                     "\tjustify\tleader\tleader_x\tleader_y\n");
    for (size_t i = 0; i < m.n; i++) add_line(&t, &m.at[i]);
    for (size_t i = 0; i < n; i++) free(numbers[i]);
    free(numbers);
    free(m.at);
    return kv_text_take(&t);
}

// ---- the script -----------------------------------------------------------------------

static bool zero_drawn(const struct kv_frontier_figure *f) {
    for (size_t i = 0; i < f->set->n; i++)
        if (f->floor > 0 && f->set->rows[i].kl.mean < f->floor) return true;
    return false;
}

// What y shows; that zero stands at the foot is said where it is, and where there is room.
static void add_y_title(struct kv_text *t, const struct kv_frontier_figure *f, size_t i) {
    static const char divergence[] = "KL to 16 bit, nats a token",
                      footed[] = "KL to 16 bit, nats a token (0 at the foot)";
    bool foot = zero_drawn(f) && kv_text_width(footed, KV_TEXT_SIZE) < f->layout.panel_y;
    kv_text_addf(t, "y_title[%zu] = '%s'\n", i + 1,
                 !f->panels[i].divergence ? "accuracy, %"
                 : foot                   ? footed
                                          : divergence);
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
        add_y_title(t, f, i);
    }
}

static char *subtitle_of(const struct kv_frontier_figure *f) {
    const struct kv_summary *s = &f->set->rows[0].s;
    const struct kv_device *device = f->set->all->device;
    char *whole = kv_format_text("%s, %zu items (%s); %s%s%s", s->task, s->n_items, s->subset,
                                 s->model, device ? "; device " : "", device ? device->name : "");
    char *fit = kv_text_fit(whole, KV_TEXT_SIZE, f->canvas_x - 32);
    free(whole);
    return fit;
}

static void add_words(struct kv_text *t, const struct kv_frontier_figure *f) {
    char *title = kv_gnuplot_text(f->title ? f->title : "");
    char *subtitle = f->title ? subtitle_of(f) : kv_strdup("");
    char *clean = kv_gnuplot_text(subtitle);
    kv_text_addf(t, "title_text = '%s'\nsubtitle_text = '%s'\n", title, clean);
    free(title);
    free(subtitle);
    free(clean);
}

// Places in parts of the canvas; -1 = not in this figure.
static void add_legend(struct kv_text *t, const struct kv_frontier_figure *f) {
    double x[KV_N_LEGEND], y[KV_N_LEGEND];
    kv_text_addf(t, "array legend_text[%d]\n", KV_N_LEGEND);
    for (size_t i = 0; i < KV_N_LEGEND; i++) {
        x[i] = f->legend[i].x / f->canvas_x;
        y[i] = 1 - f->legend[i].y / f->canvas_y;
        kv_text_addf(t, "legend_text[%zu] = '%s'\n", i + 1, f->legend[i].words);
    }
    kv_script_array(t, "legend_x", x, KV_N_LEGEND, sizeof *x);
    kv_script_array(t, "legend_y", y, KV_N_LEGEND, sizeof *y);
}

bool kv_frontier_error_below(const struct kv_frontier_figure *f) {
    bool any = false;
    for (size_t i = 0; i < f->n_panels; i++) any |= f->panels[i].error > 0;
    return any && f->canvas_x < KV_CANVAS_X;
}

char *kv_frontier_settings(const struct kv_frontier_figure *f) {
    const struct kv_frontier_panel *p = f->panels;
    struct kv_text t = {0};
    add_words(&t, f);
    add_legend(&t, f);
    kv_text_addf(&t, "listed = %d\n", f->listed);
    kv_script_panels(&t, &p->axes, f->n_panels, sizeof *p, f->canvas_x, f->canvas_y);
    kv_script_array(&t, "reference", &p->reference, f->n_panels, sizeof *p);
    kv_script_array(&t, "chance", &p->chance, f->n_panels, sizeof *p);
    kv_script_array(&t, "ceiling", &p->ceiling, f->n_panels, sizeof *p);
    kv_script_array(&t, "x_error", &p->error, f->n_panels, sizeof *p);
    kv_text_addf(&t, "error_below = %d\n", 37 + (kv_frontier_error_below(f) ? KV_ERROR_LINE : 0));
    add_titles(&t, f);
    return kv_text_take(&t);
}
