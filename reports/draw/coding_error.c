// SPDX-License-Identifier: Apache-2.0
// Draws the errors of formats against their effective bits, keys above values.
#include "reports/draw/layout.h"
#include "analysis/stats/pareto.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "reports/draw/coding_error.h"
#include "reports/draw/gnuplot.h"

#include <stdlib.h>

enum { RIGHT = 24, PANEL = 440 };

struct panel {
    struct kv_axes axes;
    size_t n, *row; // rows drawn here, series after series
    bool *on;
    struct kv_label *labels; // of the same rows; a name or, where none is shown, a dot
    bool *named;
};

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

// The lines that join a format's widths.
static struct kv_segment *lines_of(const struct panel *p, const struct kv_quant_row *rows,
                                   size_t *n_lines) {
    struct kv_segment *lines = kv_alloc(p->n + 1, sizeof *lines);
    *n_lines = 0;
    for (size_t k = 1; k < p->n; k++)
        if (strcmp(rows[p->row[k - 1]].spec, rows[p->row[k]].spec) == 0)
            lines[(*n_lines)++] = (struct kv_segment){p->labels[k - 1].x, p->labels[k - 1].y,
                                                      p->labels[k].x, p->labels[k].y};
    return lines;
}

static void fill_panel(struct panel *p, const struct kv_quant_row *rows, size_t n,
                       enum kv_side side) {
    double *cost = kv_alloc(n + 1, sizeof *cost), *value = kv_alloc(n + 1, sizeof *value);
    p->row = kv_alloc(n + 1, sizeof *p->row);
    p->on = kv_alloc(n + 1, sizeof *p->on);
    p->named = kv_alloc(n + 1, sizeof *p->named);
    p->labels = kv_alloc(n + 1, sizeof *p->labels);
    for (size_t i = 0; i < n; i++) {
        const struct kv_quant_row *r = &rows[i];
        if (r->side != side || !drawable(r)) continue;
        cost[p->n] = r->effective_bits;
        value[p->n] = -r->relative;
        p->row[p->n++] = i;
        kv_axes_take_y(&p->axes, r->relative / 1.5);
        kv_axes_take_y(&p->axes, r->relative * 1.5);
        kv_axes_take_x(&p->axes, r->effective_bits - 0.4);
        kv_axes_take_x(&p->axes, r->effective_bits + 0.9);
    }
    kv_pareto(cost, value, p->n, p->on);
    for (size_t k = 0; k < p->n; k++) {
        const struct kv_quant_row *r = &rows[p->row[k]];
        p->named[k] = is_named(rows, p, k);
        p->labels[k] = kv_axes_label(&p->axes, r->effective_bits, r->relative, NAN, NAN,
                                     p->named[k] ? r->spec : NULL);
    }
    size_t n_lines;
    struct kv_segment *lines = lines_of(p, rows, &n_lines);
    (void)kv_axes_place(&p->axes, p->labels, p->n, lines, n_lines);
    free(lines);
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
            kv_text_addf(t, "%.6g\t%.6g\t%d\t%d\t%.6g\t%.6g\n",
                         kv_axes_from_x(&p->axes, l->label_x), kv_axes_from_y(&p->axes, l->label_y),
                         l->justify, l->leader, kv_axes_from_x(&p->axes, l->leader_x),
                         kv_axes_from_y(&p->axes, l->leader_y));
        else
            kv_text_addf(t, "\t\t\t\t\t\n");
        free(name);
    }
    kv_text_addf(t, "\n");
}

static char *settings(const struct panel p[2], const struct kv_quant_source *source,
                      double height) {
    struct kv_text t = {0};
    char *subtitle = kv_gnuplot_text(source->title);
    kv_text_addf(&t, "subtitle_text = '%s'\n", subtitle);
    kv_script_panels(&t, &p->axes, 2, sizeof *p, KV_CANVAS_X, height);
    free(subtitle);
    return kv_text_take(&t);
}

int kv_quant_draw(const struct kv_quant_row *rows, size_t n, const struct kv_quant_source *source,
                  const char *dir, struct kv_error *e) {
    struct panel panels[2] = {0};
    struct kv_text t = {0};
    const struct kv_layout layout = {.right = RIGHT, .panel_y = PANEL};
    double height = kv_layout_height(&layout, 2);
    kv_text_addf(&t,
                 "panel\tformat\twidth_bits\teffective_bits\trelative_error\ton_frontier\tlabel\t"
                 "label_x\tlabel_y\tjustify\tleader\tleader_x\tleader_y\n");
    int rc = kv_make_dir(dir, e);
    for (int k = 0; k < 2; k++) {
        panels[k].axes = kv_axes_new(&layout, (size_t)k);
        panels[k].axes.log_y = 1;
        fill_panel(&panels[k], rows, n, (enum kv_side)k);
        add_points(&t, &panels[k], (size_t)k + 1, rows);
    }
    if (rc == 0 && (panels[0].n == 0 || panels[1].n == 0))
        rc = kv_fail(e, KV_EFAIL, dir, "no format below 16 bits has an error to draw");
    char *data = kv_text_take(&t), *script = settings(panels, source, height);
    if (rc == 0)
        rc = kv_gnuplot_draw(&(struct kv_gnuplot){.name = "quant_error",
                                                  .dir = dir,
                                                  .command = "kvsim quant",
                                                  .canvas_x = KV_CANVAS_X,
                                                  .canvas_y = height,
                                                  .settings = script,
                                                  .data = data},
                             e);
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
