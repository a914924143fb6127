// SPDX-License-Identifier: Apache-2.0
// Lays out the frontier figures (axes, panels, names of points), makes their data and runs gnuplot.
#include "reports/draw/frontier.h"
#include "sim/base/memory.h"
#include "reports/draw/labels.h"
#include "analysis/stats/pareto.h"
#include "sim/base/assets.h"
#include "reports/draw/gnuplot.h"

#include <stdlib.h>

// Sizes in pixels of the SVG. Widths of text are estimated for DejaVu Sans at 12 pixels, the widest
// of the fonts asked for.
enum {
    PLOT_X = 1000,
    LEFT = 74,
    RIGHT_MARGIN = 74,
    HEAD = 92,
    PANEL = 300,
    FOOT = 58,
    LINE = 16,
    NUMBER = 40
};
enum { MOST_NAMES = 16, MAX_PANELS = KV_MAX_CONTEXTS, TALLEST_PANEL = 460 };
static const double character = 7.3, text_height = 13;

struct panel {
    double x_low, x_high, y_low, y_high;
    bool log_y, divergence;                     // divergence: y is KL, not accuracy
    double reference, chance, ceiling, context; // NAN = none
    double top, bottom;                         // of the plot area, pixels from the top
    double *x, *y, *low, *high;                 // [n rows]; NAN = not drawn
    bool *on, *hollow;                          // on the frontier; measured at another context
    struct kv_label *labels;                    // [n rows], of those drawn first
    size_t *row_of;                             // the row of each label
    size_t n_labels;
};

struct figure {
    const char *name, *title; // of the asset pair; for the reader
    const struct kv_figure_set *set;
    size_t n_panels;
    struct panel panels[MAX_PANELS];
    double floor; // least divergence drawn
    double canvas_x, canvas_y;
    bool listed;         // points carry numbers; names stand in a list below the panels
    double plot_y;       // height of head and panels, without the list
    size_t list_columns; // of the list, of equal width
};

// ---- points ---------------------------------------------------------------------------

static void panel_new(struct panel *p, size_t n) {
    *p = (struct panel){.reference = NAN, .chance = NAN, .ceiling = NAN, .context = NAN};
    double **arrays[] = {&p->x, &p->y, &p->low, &p->high};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        *arrays[i] = kv_alloc(n + 1, sizeof(double));
    p->on = kv_alloc(n + 1, sizeof *p->on);
    p->hollow = kv_alloc(n + 1, sizeof *p->hollow);
    p->labels = kv_alloc(n + 1, sizeof *p->labels);
    p->row_of = kv_alloc(n + 1, sizeof *p->row_of);
}

static void panel_free(struct panel *p) {
    free(p->x);
    free(p->y);
    free(p->low);
    free(p->high);
    free(p->on);
    free(p->hollow);
    free(p->labels);
    free(p->row_of);
}

static void fill_accuracy(struct panel *p, const struct kv_figure_set *set) {
    for (size_t i = 0; i < set->n; i++) {
        const struct kv_row *r = &set->rows[i];
        p->y[i] = 100 * r->s.acc[KV_ACC];
        p->low[i] = 100 * r->interval[KV_ACC].low;
        p->high[i] = 100 * r->interval[KV_ACC].high;
    }
    p->reference = 100 * set->rows[0].s.acc_ref[KV_ACC];
    p->chance = 100 * set->rows[0].s.chance;
}

static void fill_divergence(struct panel *p, const struct kv_figure_set *set, double floor) {
    for (size_t i = 0; i < set->n; i++) {
        const struct kv_row *r = &set->rows[i];
        p->y[i] = fmax(r->kl.mean, floor);
        p->low[i] = fmax(r->kl.interval.low, floor);
        p->high[i] = fmax(r->kl.interval.high, floor);
        if (isnan(r->kl.mean)) p->y[i] = NAN;
    }
}

// A third of the least divergence above zero: where zero is drawn on a logarithmic axis.
static double divergence_floor(const struct kv_figure_set *set) {
    double least = INFINITY;
    for (size_t i = 0; i < set->n; i++)
        if (set->rows[i].kl.mean > 1e-9) least = fmin(least, set->rows[i].kl.mean);
    return isinf(least) ? 0 : least / 3;
}

static void find_frontier(struct panel *p, size_t n, bool less_is_better) {
    double *value = kv_alloc(n + 1, sizeof *value);
    for (size_t i = 0; i < n; i++) value[i] = less_is_better ? -p->y[i] : p->y[i];
    kv_pareto(p->x, value, n, p->on);
    free(value);
}

// ---- axes -----------------------------------------------------------------------------

static void widen(double *low, double *high, double x) {
    if (isnan(x)) return;
    *low = fmin(*low, x);
    *high = fmax(*high, x);
}

static void pad(double *low, double *high, double share, double least) {
    double by = fmax((*high - *low) * share, least);
    *low -= by;
    *high += by;
}

static void set_axes(struct panel *p, size_t n) {
    p->x_low = p->y_low = INFINITY;
    p->x_high = p->y_high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (isnan(p->x[i]) || isnan(p->y[i])) continue;
        widen(&p->x_low, &p->x_high, p->x[i]);
        widen(&p->y_low, &p->y_high, p->y[i]);
        widen(&p->y_low, &p->y_high, p->low[i]);
        widen(&p->y_low, &p->y_high, p->high[i]);
    }
    widen(&p->y_low, &p->y_high, p->reference);
    widen(&p->y_low, &p->y_high, p->chance);
    widen(&p->x_low, &p->x_high, p->ceiling);
    if (p->log_y) {
        p->y_low /= 1.5;
        p->y_high *= 2;
    } else {
        pad(&p->y_low, &p->y_high, 0.06, 1e-6);
    }
    pad(&p->x_low, &p->x_high, 0.04, fmax(1e-3 * fabs(p->x_high), 1e-6));
}

static double to_pixel_x(const struct panel *p, double x) {
    return LEFT + (x - p->x_low) / (p->x_high - p->x_low) * (PLOT_X - LEFT - RIGHT_MARGIN);
}

static double to_pixel_y(const struct panel *p, double y) {
    double share = p->log_y ? log(y / p->y_low) / log(p->y_high / p->y_low)
                            : (y - p->y_low) / (p->y_high - p->y_low);
    return p->bottom - share * (p->bottom - p->top);
}

static double from_pixel_x(const struct panel *p, double x) {
    return p->x_low + (x - LEFT) / (PLOT_X - LEFT - RIGHT_MARGIN) * (p->x_high - p->x_low);
}

static double from_pixel_y(const struct panel *p, double y) {
    double share = (p->bottom - y) / (p->bottom - p->top);
    return p->log_y ? p->y_low * pow(p->y_high / p->y_low, share)
                    : p->y_low + share * (p->y_high - p->y_low);
}

// ---- names ----------------------------------------------------------------------------

static double text_width(const char *s) {
    size_t n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return (double)n * character + 2;
}

// The frontier's steps and the reference lines, which names should not cross.
static struct kv_segment *lines_of(const struct panel *p, size_t n, size_t *n_lines) {
    struct kv_segment *lines = kv_alloc(2 * n + 3, sizeof *lines);
    double last_x = NAN, last_y = NAN, across[] = {p->reference, p->chance};
    *n_lines = 0;
    for (size_t i = 0; i < 2; i++)
        if (!isnan(across[i]))
            lines[(*n_lines)++] = (struct kv_segment){
                LEFT, to_pixel_y(p, across[i]), PLOT_X - RIGHT_MARGIN, to_pixel_y(p, across[i])};
    if (!isnan(p->ceiling))
        lines[(*n_lines)++] = (struct kv_segment){to_pixel_x(p, p->ceiling), p->top,
                                                  to_pixel_x(p, p->ceiling), p->bottom};
    for (;;) { // the next point of the frontier to the right
        size_t next = n;
        for (size_t i = 0; i < n; i++)
            if (p->on[i] && (isnan(last_x) || to_pixel_x(p, p->x[i]) > last_x) &&
                (next == n || p->x[i] < p->x[next]))
                next = i;
        if (next == n) return lines;
        double x = to_pixel_x(p, p->x[next]), y = to_pixel_y(p, p->y[next]);
        if (!isnan(last_x)) {
            lines[(*n_lines)++] = (struct kv_segment){last_x, last_y, x, last_y};
            lines[(*n_lines)++] = (struct kv_segment){x, last_y, x, y};
        }
        last_x = x;
        last_y = y;
    }
}

// Places names (or numbers) in a panel; returns how many cannot be read.
static size_t name_points(struct panel *p, const struct kv_figure_set *set, bool numbers) {
    char digits[24];
    struct kv_box area = {LEFT + 3, p->top + 2, PLOT_X - RIGHT_MARGIN - 2, p->bottom - 2};
    size_t n_lines;
    p->n_labels = 0;
    for (size_t i = 0; i < set->n; i++) {
        if (isnan(p->x[i]) || isnan(p->y[i])) continue;
        snprintf(digits, sizeof digits, "%zu", i + 1);
        p->row_of[p->n_labels] = i;
        p->labels[p->n_labels++] =
            (struct kv_label){.x = to_pixel_x(p, p->x[i]),
                              .y = to_pixel_y(p, p->y[i]),
                              .bar_low = to_pixel_y(p, isnan(p->low[i]) ? p->y[i] : p->low[i]),
                              .bar_high = to_pixel_y(p, isnan(p->high[i]) ? p->y[i] : p->high[i]),
                              .width = text_width(numbers ? digits : set->rows[i].label),
                              .height = text_height};
    }
    struct kv_segment *lines = lines_of(p, set->n, &n_lines);
    size_t unreadable = kv_place_labels(p->labels, p->n_labels, area, lines, n_lines);
    free(lines);
    return unreadable;
}

static size_t list_lines(const struct figure *f) {
    return (f->set->n + f->list_columns - 1) / f->list_columns;
}

// Names at the points where all can be read, else numbers and a list below.
static void name_all(struct figure *f) {
    size_t unreadable = f->set->n > MOST_NAMES;
    double widest = 0;
    for (size_t i = 0; i < f->n_panels && !unreadable; i++)
        unreadable += name_points(&f->panels[i], f->set, false);
    f->listed = unreadable > 0;
    if (!f->listed) return;
    for (size_t i = 0; i < f->n_panels; i++) (void)name_points(&f->panels[i], f->set, true);
    for (size_t i = 0; i < f->set->n; i++) widest = fmax(widest, text_width(f->set->rows[i].label));
    f->list_columns = (size_t)fmax(1, floor(f->canvas_x / (widest + NUMBER)));
    f->canvas_y += (double)list_lines(f) * LINE + LINE;
}

// ---- the tables that the figure's SQL reads -------------------------------------------

#define TEXT(s)                                                                                    \
    (struct kv_sql_value) {                                                                        \
        .kind = KV_SQL_TEXT, .text = (s)                                                           \
    }
#define INT(i)                                                                                     \
    (struct kv_sql_value) {                                                                        \
        .kind = KV_SQL_INT, .n = (long long)(i)                                                    \
    }
#define REAL(r)                                                                                    \
    (struct kv_sql_value) {                                                                        \
        .kind = KV_SQL_REAL, .x = (r)                                                              \
    }
#define COUNT(a) (sizeof(a) / sizeof *(a))

static int store_points(const struct kv_figure_set *set, struct kv_store *s, struct kv_error *e) {
    int code = kv_store_query(
        s,
        "DROP TABLE IF EXISTS temp.point; DROP TABLE IF EXISTS temp.price; "
        "DROP TABLE IF EXISTS temp.mark;"
        "CREATE TEMP TABLE point (id INTEGER PRIMARY KEY, spec, label, oracle, acc, acc_low, "
        "acc_high, kl_nats, kl_low, kl_high, effective_bits, context_tokens);"
        "CREATE TEMP TABLE price (id, panel, context, step_ns, ceiling_ns, extrapolated);"
        "CREATE TEMP TABLE mark (figure, panel, quantity, id, on_frontier, hollow, label, label_x, "
        "label_y, "
        "justify, leader);",
        NULL, 0, NULL, NULL, e);
    for (size_t i = 0; !code && i < set->n; i++) {
        const struct kv_row *r = &set->rows[i];
        const struct kv_sql_value point[] = {INT(i),
                                             TEXT(r->s.spec),
                                             TEXT(r->label),
                                             INT(r->s.oracle),
                                             REAL(r->s.acc[KV_ACC]),
                                             REAL(r->interval[KV_ACC].low),
                                             REAL(r->interval[KV_ACC].high),
                                             REAL(r->kl.mean),
                                             REAL(r->kl.interval.low),
                                             REAL(r->kl.interval.high),
                                             REAL(r->s.effective_bits),
                                             REAL(r->s.context_tokens)};
        code = kv_store_query(s, "INSERT INTO point VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                              point, COUNT(point), NULL, NULL, e);
        for (size_t k = 0; !code && set->all->device && k < set->all->n_contexts; k++) {
            const struct kv_latency *l = &r->at[k];
            const struct kv_sql_value price[] = {
                INT(i),           INT(k + 1),          REAL(set->all->context[k]),
                REAL(l->step_ns), REAL(l->ceiling_ns), INT(l->extrapolated)};
            code = kv_store_query(s, "INSERT INTO price VALUES (?, ?, ?, ?, ?, ?)", price,
                                  COUNT(price), NULL, NULL, e);
        }
    }
    return code;
}

static int store_mark(const struct figure *f, struct kv_store *s, size_t panel, size_t row, bool on,
                      bool hollow, const char *label, double x, double y, int justify, bool leader,
                      struct kv_error *e) {
    char *clean = kv_gnuplot_text(label);
    const struct kv_sql_value mark[] = {
        TEXT(f->name),
        INT(panel),
        TEXT(panel && f->panels[panel - 1].divergence ? "kl_nats" : "acc"),
        INT(row),
        INT(on),
        INT(hollow),
        TEXT(clean),
        REAL(x),
        REAL(y),
        INT(justify),
        INT(leader)};
    int code = kv_store_query(s, "INSERT INTO mark VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", mark,
                              COUNT(mark), NULL, NULL, e);
    free(clean);
    return code;
}

static int store_marks(const struct figure *f, struct kv_store *s, struct kv_error *e) {
    int code = 0;
    char digits[24];
    for (size_t k = 0; k < f->n_panels; k++)
        for (size_t i = 0; !code && i < f->panels[k].n_labels; i++) {
            const struct panel *p = &f->panels[k];
            const struct kv_label *l = &p->labels[i];
            size_t row = p->row_of[i];
            snprintf(digits, sizeof digits, "%zu", row + 1);
            code = store_mark(f, s, k + 1, row, p->on[row], p->hollow[row],
                              f->listed ? digits : f->set->rows[row].label,
                              from_pixel_x(p, l->label_x), from_pixel_y(p, l->label_y), l->justify,
                              l->leader, e);
        }
    for (size_t i = 0; f->listed && !code && i < f->set->n; i++) {
        size_t column = i / list_lines(f), line = i % list_lines(f);
        double x = (double)column * f->canvas_x / (double)f->list_columns + NUMBER - 8;
        double y = f->canvas_y - f->plot_y - LINE * ((double)line + 0.5);
        bool on = f->panels[0].on[i];
        snprintf(digits, sizeof digits, "%zu", i + 1);
        code =
            store_mark(f, s, 0, i, on, 0, digits, (x - 8) / f->canvas_x, y / f->canvas_y, -1, 0, e);
        if (!code)
            code = store_mark(f, s, 0, i, on, 0, f->set->rows[i].label, x / f->canvas_x,
                              y / f->canvas_y, 1, 0, e);
    }
    return code;
}

// ---- the script -----------------------------------------------------------------------

static void add_array(struct kv_text *t, const struct figure *f, const char *name,
                      double (*value)(const struct figure *f, const struct panel *p)) {
    kv_text_addf(t, "array %s[%zu] = [", name, f->n_panels);
    for (size_t i = 0; i < f->n_panels; i++) {
        double x = value(f, &f->panels[i]);
        kv_text_addf(t, "%s%.9g", i ? ", " : "", isnan(x) ? -1 : x);
    }
    kv_text_addf(t, "]\n");
}

#define VALUE(name, expression)                                                                    \
    static double name##_of(const struct figure *f, const struct panel *p) {                       \
        (void)f;                                                                                   \
        return expression;                                                                         \
    }
VALUE(top, 1 - p->top / f->canvas_y)
VALUE(bottom, 1 - p->bottom / f->canvas_y)
VALUE(x_low, p->x_low)
VALUE(x_high, p->x_high)
VALUE(y_low, p->y_low)
VALUE(y_high, p->y_high)
VALUE(log_y, p->log_y)
VALUE(divergence, p->divergence)
VALUE(has_lines, !isnan(p->reference))
VALUE(reference, p->reference)
VALUE(chance, p->chance)
VALUE(ceiling, p->ceiling)
VALUE(context, p->context)

static bool any_hollow(const struct figure *f) {
    for (size_t k = 0; k < f->n_panels; k++)
        for (size_t i = 0; i < f->set->n; i++)
            if (f->panels[k].hollow[i]) return true;
    return false;
}

static bool any_oracle(const struct figure *f) {
    for (size_t i = 0; i < f->set->n; i++)
        if (f->set->rows[i].s.oracle) return true;
    return false;
}

static bool zero_drawn(const struct figure *f) {
    for (size_t i = 0; i < f->set->n; i++)
        if (f->floor > 0 && f->set->rows[i].kl.mean < f->floor) return true;
    return false;
}

static char *script_settings(const struct figure *f, const char *file) {
    static const struct {
        const char *name;
        double (*value)(const struct figure *f, const struct panel *p);
    } arrays[] = {{"top", top_of},
                  {"bottom", bottom_of},
                  {"x_low", x_low_of},
                  {"x_high", x_high_of},
                  {"y_low", y_low_of},
                  {"y_high", y_high_of},
                  {"log_y", log_y_of},
                  {"divergence", divergence_of},
                  {"has_lines", has_lines_of},
                  {"reference", reference_of},
                  {"chance", chance_of},
                  {"ceiling", ceiling_of},
                  {"context", context_of}};
    const struct kv_summary *s = &f->set->rows[0].s;
    struct kv_text t = {0};
    char *title = kv_gnuplot_text(f->title);
    char *subtitle = kv_format_text("%s, %zu items (%s); %s%s%s", s->task, s->n_items, s->subset,
                                    s->model, f->set->all->device ? "; device " : "",
                                    f->set->all->device ? f->set->all->device->name : "");
    char *clean = kv_gnuplot_text(subtitle);
    kv_text_addf(&t,
                 "# Drawn by kvsim report. Again: gnuplot -e \"format='png'\" %s.gp\n"
                 "if (!exists(\"format\")) format = \"svg\"\n"
                 "name = '%s'\ndata = '%s.tsv'\ntitle_text = '%s'\nsubtitle_text = '%s'\n",
                 file, file, file, title, clean);
    kv_text_addf(&t,
                 "hollow_text = 'accuracy measured at about %.0f tokens'\n"
                 "canvas_x = %.0f\ncanvas_y = %.0f\ntitle_x = %.6f\ntitle_y = %.6f\n"
                 "left = %.6f\nright = %.6f\npanels = %zu\nlisted = %d\n"
                 "any_hollow = %d\nany_oracle = %d\nzero_drawn = %d\n",
                 s->context_tokens, f->canvas_x, f->canvas_y, 16 / f->canvas_x,
                 1 - 20 / f->canvas_y, LEFT / f->canvas_x, (PLOT_X - RIGHT_MARGIN) / f->canvas_x,
                 f->n_panels, f->listed, any_hollow(f), any_oracle(f), zero_drawn(f));
    for (size_t i = 0; i < COUNT(arrays); i++) add_array(&t, f, arrays[i].name, arrays[i].value);
    kv_text_addf(&t, "array x_title[%zu]\narray y_title[%zu]\narray y_format[%zu]\n", f->n_panels,
                 f->n_panels, f->n_panels);
    free(title);
    free(subtitle);
    free(clean);
    return kv_text_take(&t);
}

static int draw(struct figure *f, struct kv_store *s, struct kv_drawn *drawn, struct kv_error *e) {
    const struct kv_sql_value values[] = {TEXT(f->name), REAL(f->floor)};
    // More points than names need room.
    double height = PANEL + (f->set->n > MOST_NAMES ? 4 * (double)(f->set->n - MOST_NAMES) : 0);
    height = fmin(height, TALLEST_PANEL);
    f->canvas_x = PLOT_X;
    f->canvas_y = f->plot_y = HEAD + (double)f->n_panels * (height + FOOT);
    for (size_t i = 0; i < f->n_panels; i++) {
        f->panels[i].top = HEAD + (double)i * (height + FOOT);
        f->panels[i].bottom = f->panels[i].top + height;
        set_axes(&f->panels[i], f->set->n);
    }
    name_all(f);
    drawn->name = kv_format_text("%s%s", f->name, f->set->suffix);
    drawn->plot_y = f->plot_y;
    char *settings = script_settings(f, drawn->name);
    int code = store_marks(f, s, e);
    if (!code)
        code = kv_gnuplot_draw(&(struct kv_gnuplot){.name = f->name,
                                                    .file = drawn->name,
                                                    .dir = f->set->dir,
                                                    .formats = f->set->formats,
                                                    .settings = settings,
                                                    .values = values,
                                                    .n_values = COUNT(values)},
                               s, e);
    free(settings);
    return code;
}

// ---- the two figures ------------------------------------------------------------------

static void lay_bits(struct figure *f) {
    bool known[2] = {false, false}; // accuracy, divergence
    const struct kv_figure_set *set = f->set;
    f->floor = divergence_floor(set);
    for (size_t i = 0; i < set->n; i++) {
        known[0] = known[0] || !isnan(set->rows[i].s.acc[KV_ACC]);
        known[1] = known[1] || !isnan(set->rows[i].kl.mean);
    }
    for (int divergence = 0; divergence < 2; divergence++) {
        if (!known[divergence]) continue;
        struct panel *p = &f->panels[f->n_panels++];
        panel_new(p, set->n);
        p->divergence = divergence;
        p->log_y = divergence && f->floor > 0;
        for (size_t i = 0; i < set->n; i++) p->x[i] = set->rows[i].s.effective_bits;
        if (divergence)
            fill_divergence(p, set, f->floor);
        else
            fill_accuracy(p, set);
        find_frontier(p, set->n, divergence);
    }
}

static void lay_latency(struct figure *f) {
    const struct kv_figure_set *set = f->set;
    bool judged = false;
    for (size_t i = 0; i < set->n; i++) judged = judged || !isnan(set->rows[i].s.acc[KV_ACC]);
    f->n_panels = judged ? set->all->n_contexts : 0;
    for (size_t k = 0; k < f->n_panels; k++) {
        struct panel *p = &f->panels[k];
        panel_new(p, set->n);
        fill_accuracy(p, set);
        p->context = set->all->context[k];
        p->ceiling = set->rows[0].at[k].ceiling_ns / 1e6;
        for (size_t i = 0; i < set->n; i++) {
            double measured = set->rows[i].s.context_tokens;
            p->x[i] = set->rows[i].at[k].step_ns / 1e6;
            p->hollow[i] =
                measured * KV_SAME_CONTEXT < p->context || measured > p->context * KV_SAME_CONTEXT;
        }
        find_frontier(p, set->n, false);
    }
}

int kv_figures_draw(const struct kv_figure_set *set, struct kv_store *s, struct kv_drawn drawn[2],
                    size_t *n_drawn, struct kv_error *e) {
    static const struct {
        const char *name, *title;
        void (*lay)(struct figure *f);
        bool priced;
    } figures[] = {
        {"frontier_bits", "Accuracy and divergence against the size of the cache", lay_bits, false},
        {"frontier_latency", "Accuracy against the time of a token", lay_latency, true},
    };
    int code = store_points(set, s, e);
    *n_drawn = 0;
    for (size_t i = 0; !code && i < COUNT(figures); i++) {
        if (figures[i].priced && !set->all->device) continue;
        struct figure f = {.name = figures[i].name, .title = figures[i].title, .set = set};
        figures[i].lay(&f);
        if (f.n_panels == 0) continue;
        code = draw(&f, s, &drawn[*n_drawn], e);
        (*n_drawn)++;
        for (size_t k = 0; k < f.n_panels; k++) panel_free(&f.panels[k]);
    }
    return code;
}
