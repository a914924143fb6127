// SPDX-License-Identifier: Apache-2.0
// Hands matches and margins by place to places.gp.
#include "reports/draw/places.h"

#include <stdlib.h>

#include "analysis/results/places.h"
#include "reports/draw/gnuplot.h"
#include "sim/base/memory.h"

enum { MOST_ROWS = 14, NARROW = 420, BROAD = 1000, HEAD = 116, ROW = 26, NAME = 34 };

struct axes {
    size_t n_sizes, n_depths;
    double size[64], depth[64]; // ascending
    bool pairs;
};

static void add_number(double *list, size_t *n, double x) {
    size_t at = 0;
    while (at < *n && list[at] < x) at++;
    if (*n == 64 || (at < *n && list[at] == x)) return;
    memmove(list + at + 1, list + at, (*n - at) * sizeof *list);
    list[at] = x;
    ++*n;
}

static double size_of(const struct kv_fact_place *p) {
    return p->pairs ? p->pairs : p->length;
}

static size_t index_of(const double *list, size_t n, double x) {
    size_t at = 0;
    while (at < n && list[at] != x) at++;
    return at;
}

static struct axes find_axes(const struct kv_frontier_set *set) {
    struct axes a = {0};
    for (size_t i = 0; i < set->n; i++)
        for (size_t k = 0; k < set->rows[i].n_places; k++) {
            const struct kv_fact_place *p = &set->rows[i].place[k].place;
            add_number(a.size, &a.n_sizes, size_of(p));
            add_number(a.depth, &a.n_depths, p->depth);
            a.pairs = p->pairs > 0;
        }
    return a;
}

static char *tics(const double *list, size_t n) {
    struct kv_text t = {0};
    for (size_t i = 0; i < n; i++) kv_text_addf(&t, "%s'%g' %zu", i ? ", " : "", list[i], i);
    return kv_text_take(&t);
}

// One cell: the row's, or with `reference` the 16-bit run's.
static void add_cell(struct kv_text *t, const struct axes *a, size_t panel,
                     const struct kv_place_result *r, bool reference, double most) {
    double margin = reference ? 0 : r->margin_to16.mean, match = reference ? r->match16 : r->match;
    bool differs =
        !reference && (r->match_holm < KV_PLACE_LEVEL || r->margin_holm < KV_PLACE_LEVEL);
    kv_text_addf(t, "%zu\t%zu\t%zu\t%g\t", panel, index_of(a->depth, a->n_depths, r->place.depth),
                 index_of(a->size, a->n_sizes, size_of(&r->place)), margin);
    if (isfinite(match)) kv_text_addf(t, "%.0f", 100 * match);
    kv_text_addf(t, "%s\t%d\n", differs ? "*" : "",
                 fabs(margin) > 0.7 * most ? 0xFFFFFF : 0x222222);
}

static double largest(const struct kv_frontier_set *set) {
    double most = 0.1;
    for (size_t i = 0; i < set->n; i++)
        for (size_t k = 0; k < set->rows[i].n_places; k++)
            most = fmax(most, fabs(set->rows[i].place[k].margin_to16.mean));
    return most;
}

static void add_name(struct kv_text *names, size_t panel, const char *label) {
    char *safe = kv_gnuplot_text(label);
    kv_text_addf(names, "name_of[%zu] = \"%.*s\"\n", panel, NAME, safe);
    free(safe);
}

// Data of all panels; *panels: how many.
static char *data_of(const struct kv_frontier_set *set, const struct axes *a, double most,
                     struct kv_text *names, size_t *panels) {
    struct kv_text t = {0};
    *panels = 0;
    kv_text_addf(&t, "panel\tx\ty\tmargin\ttext\tink\n");
    for (size_t i = 0; i < set->n && *panels <= MOST_ROWS; i++) {
        const struct kv_row *row = &set->rows[i];
        if (row->n_places == 0) continue;
        for (size_t k = 0; k < row->n_places && *panels == 0; k++)
            add_cell(&t, a, 1, &row->place[k], true, most);
        if (*panels == 0) add_name(names, ++*panels, "16 bit");
        ++*panels;
        for (size_t k = 0; k < row->n_places; k++)
            add_cell(&t, a, *panels, &row->place[k], false, most);
        char *name = kv_row_name(row);
        add_name(names, *panels, name);
        free(name);
    }
    return kv_text_take(&t);
}

static int draw(const struct kv_frontier_set *set, const char *file, bool narrow, double *canvas_y,
                const struct axes *a, double most, const char *names, size_t panels,
                const char *data, struct kv_error *e) {
    const struct kv_summary *s = &set->rows[0].s;
    size_t across = narrow ? 1 : 3, down = (panels + across - 1) / across;
    double high = ROW * (double)a->n_sizes, step = high + 62;
    char *subtitle = kv_format_text("%s: %s", s->task, s->model), *safe = kv_gnuplot_text(subtitle),
         *depth_tics = tics(a->depth, a->n_depths), *size_tics = tics(a->size, a->n_sizes);
    *canvas_y = HEAD + (double)down * step;
    char *legend = kv_format_text(
        narrow
            ? "%s by depth in %%"
            : "%s of context by depth in %%; numbers: answers that greedy decoding writes whole, "
              "%%; *: p < .01 against 16 bit",
        a->pairs ? "pairs" : "tokens");
    char *settings = kv_format_text(
        "panels = %zu\narray name_of[%zu]\n%ssubtitle_text = \"%.*s\"\nacross = %zu\ndepths = %zu\n"
        "lengths = %zu\ndepth_tics = \"%s\"\nlength_tics = \"%s\"\nlegend_text = \"%s\"\n"
        "most = %g\ntop_y = %d.0\nwide = %d.0\nhigh = %g\nstep_x = %d.0\nstep_y = %g\n",
        panels, panels, names, narrow ? 24 : 90, safe, across, a->n_depths, a->n_sizes, depth_tics,
        size_tics, legend, most, HEAD, narrow ? 320 : 240, high, 312, step);
    const struct kv_gnuplot g = {.name = "places",
                                 .file = file,
                                 .dir = set->dir,
                                 .canvas_x = narrow ? NARROW : BROAD,
                                 .canvas_y = *canvas_y,
                                 .settings = settings,
                                 .data = data,
                                 .formats = narrow ? "svg" : set->formats};
    int code = kv_gnuplot_draw(&g, e);
    free(settings);
    free(legend);
    free(depth_tics);
    free(size_tics);
    free(safe);
    free(subtitle);
    return code;
}

int kv_places_draw(const struct kv_frontier_set *set, struct kv_drawn *drawn, size_t *n_drawn,
                   struct kv_error *e) {
    struct axes a = find_axes(set);
    struct kv_text names = {0};
    double most = largest(set);
    size_t panels;
    char *data = data_of(set, &a, most, &names, &panels), *list = kv_text_take(&names);
    int code = 0;
    if (panels) {
        *drawn = (struct kv_drawn){.name = kv_format_text("places%s", set->suffix),
                                   .narrow = kv_format_text("places_narrow%s", set->suffix),
                                   .places = true};
        ++*n_drawn;
        code = draw(set, drawn->name, false, &drawn->plot_y, &a, most, list, panels, data, e);
        if (!code)
            code =
                draw(set, drawn->narrow, true, &drawn->narrow_y, &a, most, list, panels, data, e);
    }
    free(list);
    free(data);
    return code;
}
