// SPDX-License-Identifier: Apache-2.0
// Draws the errors of formats against their effective bits, keys above values.
#include "reports/draw/labels.h"
#include "analysis/stats/pareto.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "reports/draw/gnuplot.h"
#include "analysis/studies/coding_error.h"

#include <stdlib.h>

// Pixels of the SVG; widths of text as estimated for DejaVu Sans at 12 pixels.
enum { CANVAS_X = 1000, LEFT = 74, RIGHT = 24, HEAD = 92, PANEL = 440, FOOT = 58 };
static const double character = 7.3, text_height = 13;

struct panel {
    double x_low, x_high, y_low, y_high, top, bottom;
    size_t n, *row; // rows drawn here, series after series
    bool *on;
    struct kv_label *labels; // of the same rows; a name or, where none is shown, a dot
    bool *named;
};

static double to_x(const struct panel *p, double bits) {
    return LEFT + (bits - p->x_low) / (p->x_high - p->x_low) * (CANVAS_X - LEFT - RIGHT);
}
static double from_x(const struct panel *p, double x) {
    return p->x_low + (x - LEFT) / (CANVAS_X - LEFT - RIGHT) * (p->x_high - p->x_low);
}
static double to_y(const struct panel *p, double error) {
    return p->bottom - log(error / p->y_low) / log(p->y_high / p->y_low) * (p->bottom - p->top);
}
static double from_y(const struct panel *p, double y) {
    return p->y_low * pow(p->y_high / p->y_low, (p->bottom - y) / (p->bottom - p->top));
}

static bool drawable(const struct kv_quant_row *r) {
    return r->relative > 0 && isfinite(r->relative) && r->bits < 16;
}

// A format's name stands once, at its greatest width, where lines lie apart.
static bool is_named(const struct kv_quant_row *rows, const struct panel *p, size_t k) {
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(rows[p->row[i]].spec, rows[p->row[k]].spec) == 0 &&
            rows[p->row[i]].bits > rows[p->row[k]].bits)
            return false;
    return true;
}

static void fill_panel(struct panel *p, const struct kv_quant_row *rows, size_t n,
                       enum kv_side side) {
    double *cost = kv_alloc(n + 1, sizeof *cost), *value = kv_alloc(n + 1, sizeof *value);
    p->row = kv_alloc(n + 1, sizeof *p->row);
    p->on = kv_alloc(n + 1, sizeof *p->on);
    p->named = kv_alloc(n + 1, sizeof *p->named);
    p->labels = kv_alloc(n + 1, sizeof *p->labels);
    p->y_low = INFINITY;
    p->y_high = 0;
    p->x_low = INFINITY;
    p->x_high = 0;
    for (size_t i = 0; i < n; i++) {
        const struct kv_quant_row *r = &rows[i];
        if (r->side != side || !drawable(r)) continue;
        cost[p->n] = r->effective_bits;
        value[p->n] = -r->relative;
        p->row[p->n++] = i;
        p->y_low = fmin(p->y_low, r->relative / 1.5);
        p->y_high = fmax(p->y_high, r->relative * 1.5);
        p->x_low = fmin(p->x_low, r->effective_bits - 0.4);
        p->x_high = fmax(p->x_high, r->effective_bits + 0.9);
    }
    kv_pareto(cost, value, p->n, p->on);
    for (size_t k = 0; k < p->n; k++) {
        const struct kv_quant_row *r = &rows[p->row[k]];
        double y = to_y(p, r->relative);
        p->named[k] = is_named(rows, p, k);
        p->labels[k] =
            (struct kv_label){.x = to_x(p, r->effective_bits),
                              .y = y,
                              .bar_low = y,
                              .bar_high = y,
                              .width = p->named[k] ? (double)strlen(r->spec) * character + 2 : 1,
                              .height = p->named[k] ? text_height : 1};
    }
    struct kv_box area = {LEFT + 3, p->top + 2, CANVAS_X - RIGHT - 2, p->bottom - 2};
    (void)kv_place_labels(p->labels, p->n, area, NULL, 0);
    free(cost);
    free(value);
}

static void add_points(struct kv_text *t, const struct panel *p, size_t panel,
                       const struct kv_quant_row *rows) {
    const char *series = NULL;
    for (size_t k = 0; k < p->n; k++) {
        const struct kv_quant_row *r = &rows[p->row[k]];
        const struct kv_label *l = &p->labels[k];
        char *name = kv_gnuplot_text(r->spec);
        if (series && strcmp(series, r->spec) != 0) kv_text_addf(t, "\n"); // lines break here
        series = r->spec;
        kv_text_addf(t, "%zu\t%s\t%u\t%.6g\t%.6g\t%d\t%s\t", panel, name, r->bits,
                     r->effective_bits, r->relative, p->on[k], p->named[k] ? name : "");
        if (p->named[k])
            kv_text_addf(t, "%.6g\t%.6g\t%d\t%d\n", from_x(p, l->label_x), from_y(p, l->label_y),
                         l->justify, l->leader);
        else
            kv_text_addf(t, "\t\t\t\n");
        free(name);
    }
    kv_text_addf(t, "\n");
}

static char *settings(const struct panel p[2], const struct kv_quant_source *source,
                      double height) {
    struct kv_text t = {0};
    char *subtitle = kv_gnuplot_text(source->title);
    kv_text_addf(&t,
                 "# Drawn by kvsim quant. Again: gnuplot -e \"format='png'\" quant_error.gp\n"
                 "if (!exists(\"format\")) format = \"svg\"\n"
                 "name = 'quant_error'\ndata = 'quant_error.tsv'\nsubtitle_text = '%s'\n"
                 "canvas_x = %d\ncanvas_y = %.0f\nleft = %.6f\nright = %.6f\ntitle_x = %.6f\n"
                 "title_y = %.6f\n",
                 subtitle, CANVAS_X, height, (double)LEFT / CANVAS_X,
                 (double)(CANVAS_X - RIGHT) / CANVAS_X, 16.0 / CANVAS_X, 1 - 20 / height);
    for (int k = 0; k < 2; k++)
        kv_text_addf(&t,
                     "%s\ntop_%d = %.6f\nbottom_%d = %.6f\nx_low_%d = %.6g\nx_high_%d = %.6g\n"
                     "y_low_%d = %.6g\ny_high_%d = %.6g\n",
                     k ? "# values" : "# keys", k + 1, 1 - p[k].top / height, k + 1,
                     1 - p[k].bottom / height, k + 1, p[k].x_low, k + 1, p[k].x_high, k + 1,
                     p[k].y_low, k + 1, p[k].y_high);
    free(subtitle);
    return kv_text_take(&t);
}

int kv_quant_draw(const struct kv_quant_row *rows, size_t n, const struct kv_quant_source *source,
                  const char *dir, struct kv_error *e) {
    struct panel panels[2] = {{0}};
    struct kv_text t = {0};
    double height = HEAD + 2.0 * (PANEL + FOOT);
    kv_text_addf(&t,
                 "panel\tformat\twidth_bits\teffective_bits\trelative_error\ton_frontier\tlabel\t"
                 "label_x\tlabel_y\tjustify\tleader\n");
    int rc = kv_make_dir(dir, e);
    for (int k = 0; k < 2; k++) {
        panels[k].top = HEAD + k * (PANEL + FOOT);
        panels[k].bottom = panels[k].top + PANEL;
        fill_panel(&panels[k], rows, n, (enum kv_side)k);
        add_points(&t, &panels[k], (size_t)k + 1, rows);
    }
    if (rc == 0 && (panels[0].n == 0 || panels[1].n == 0))
        rc = kv_fail(e, KV_EFAIL, dir, "no format below 16 bits has an error to draw");
    char *data = kv_text_take(&t), *script = settings(panels, source, height);
    if (rc == 0)
        rc = kv_gnuplot_draw(&(struct kv_gnuplot){.name = "quant_error",
                                                  .file = "quant_error",
                                                  .dir = dir,
                                                  .settings = script,
                                                  .data = data},
                             NULL, e);
    if (rc == 0) kv_say("%s/quant_error.svg and .png", dir);
    free(data);
    free(script);
    for (int k = 0; k < 2; k++) {
        free(panels[k].row);
        free(panels[k].on);
        free(panels[k].named);
        free(panels[k].labels);
    }
    return rc;
}
