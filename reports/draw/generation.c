// SPDX-License-Identifier: Apache-2.0
// Hands survival curves to generation.gp.
#include "reports/draw/generation.h"

#include <stdlib.h>

#include "reports/draw/gnuplot.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"

enum { MOST_ROWS = 15, NARROW = 420, BROAD = 1000 };

size_t kv_generation_group(const struct kv_generation_table *t, size_t first) {
    size_t n = 1;
    while (first + n < t->n && kv_generation_alike(t->row[first].g, t->row[first + n].g)) n++;
    return n;
}

char *kv_generation_figure(const struct kv_generation_table *t, size_t first, bool narrow) {
    size_t number = 1;
    for (size_t at = 0; at < first; at += kv_generation_group(t, at)) number++;
    char *name = number > 1 ? kv_format_text("generation%s-%zu", narrow ? "_narrow" : "", number)
                            : kv_format_text("generation%s", narrow ? "_narrow" : "");
    return name;
}

double kv_generation_height(size_t rows, bool narrow) {
    if (rows > MOST_ROWS) rows = MOST_ROWS;
    return narrow ? 400 + 20.0 * (double)rows : 520;
}

// A row's curve in steps, from all at 0 tokens on, then its intervals at the marks.
static void add_row(struct kv_text *t, const struct kv_generation_row *r, size_t number) {
    double last = r->g->tokens, share = 1;
    kv_text_addf(t, "%zu\t0\t1\t\t\t0\n", number);
    for (size_t i = 0; i < r->curve->n_points; i++) {
        const struct kv_survival_point *p = &r->curve->point[i];
        kv_text_addf(t, "%zu\t%g\t%g\t\t\t0\n", number, p->time, p->share);
        share = p->share;
    }
    if (isfinite(kv_survival_at(r->curve, last).share))
        kv_text_addf(t, "%zu\t%g\t%g\t\t\t0\n", number, last, share);
    for (size_t m = 0; m < KV_GENERATION_MARKS; m++) {
        const struct kv_survival_point *p = &r->at[m];
        if (p->time > last || isnan(p->share) || isnan(p->interval.low)) continue;
        kv_text_addf(t, "%zu\t%g\t%g\t%g\t%g\t1\n", number, p->time, p->share, p->interval.low,
                     p->interval.high);
    }
}

static int draw(const struct kv_generation_table *t, size_t first, size_t n, const char *dir,
                const char *formats, bool narrow, struct kv_error *e) {
    const struct kv_generation *g = t->row[first].g;
    size_t shown = n < MOST_ROWS ? n : MOST_ROWS;
    struct kv_text data = {0}, settings = {0};
    kv_text_addf(&data, "row\ttokens\tshare\tlow\thigh\tmark\n");
    kv_text_addf(&settings, "rows = %zu\narray name_of[%zu]\nkey_below = %d\nlast = %u\n", shown,
                 shown, narrow, g->tokens);
    for (size_t i = 0; i < shown; i++) {
        char *name = kv_gnuplot_text(t->row[first + i].g->label);
        kv_text_addf(&settings, "name_of[%zu] = \"%s\"\n", i + 1, name);
        free(name);
        add_row(&data, &t->row[first + i], i + 1);
    }
    char *subtitle = kv_format_text("%s, %zu prompts of %s, %s", g->model, t->row[first].n, g->task,
                                    g->temperature > 0 ? "drawn" : "the likeliest token"),
         *safe = kv_gnuplot_text(subtitle), *name = kv_generation_figure(t, first, narrow);
    kv_text_addf(&settings, "subtitle_text = \"%.*s\"\n", narrow ? 56 : 120, safe);
    char *lines = kv_text_take(&settings), *rows = kv_text_take(&data);
    const struct kv_gnuplot picture = {.name = "generation",
                                       .file = name,
                                       .dir = dir,
                                       .canvas_x = narrow ? NARROW : BROAD,
                                       .canvas_y = kv_generation_height(n, narrow),
                                       .settings = lines,
                                       .data = rows,
                                       .formats = narrow ? "svg" : formats};
    int rc = kv_gnuplot_draw(&picture, e);
    void *owned[] = {lines, rows, name, safe, subtitle};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    return rc;
}

int kv_generation_draw(const struct kv_generation_table *t, const char *dir, const char *formats,
                       struct kv_error *e) {
    int rc = kv_make_dir(dir, e);
    for (size_t at = 0, n; at < t->n && rc == 0; at += n) {
        n = kv_generation_group(t, at);
        rc = draw(t, at, n, dir, formats, false, e);
        if (rc == 0) rc = draw(t, at, n, dir, formats, true, e);
    }
    return rc;
}
