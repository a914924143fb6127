// SPDX-License-Identifier: Apache-2.0
// Draws what keys and values look like by layer and channel, and where coding damages them.
#include "reports/draw/anatomy.h"

#include <stdlib.h>

#include "reports/draw/gnuplot.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"

static const struct {
    const char *name, *title;
    enum kv_side side;
    bool recorded; // needs a trace
} panels[] = {{"mean", "keys: |mean| of a channel before RoPE", KV_KEY, false},
              {"range", "keys: widest range of a channel as cached", KV_KEY, true},
              {"damage", "keys: damage, nats a scored position", KV_KEY, true},
              {"damage", "values: damage, nats a scored position", KV_VALUE, true}};
enum { N_PANELS = sizeof panels / sizeof *panels };

static const double *channels_of(const struct kv_anatomy *a, size_t panel) {
    return strcmp(panels[panel].name, "mean") == 0    ? a->mean
           : strcmp(panels[panel].name, "range") == 0 ? a->range
                                                      : a->damage;
}

static size_t n_panels(const struct kv_anatomy *a) {
    size_t n = 0;
    while (n < N_PANELS && (a->options.trace || !panels[n].recorded)) n++;
    return n;
}

// Row y of a map is a channel, heads one above the other.
static char *data_of(const struct kv_anatomy *a) {
    struct kv_text t = {0};
    size_t d = a->head_dim, rows = a->n_heads * d;
    kv_text_addf(&t, "panel\tlayer\tchannel\tvalue\n");
    for (size_t p = 0; p < n_panels(a); p++)
        for (size_t l = 0; l < a->n_layers; l++)
            for (size_t y = 0; y < rows; y++)
                kv_text_addf(
                    &t, "%zu\t%zu\t%zu\t%.6g\n", p + 1, l, y,
                    channels_of(a, p)[((l * a->n_heads + y / d) * 2 + panels[p].side) * d + y % d]);
    return kv_text_take(&t);
}

// From a thousandth of the largest on: what lies below is white.
static void add_range(struct kv_text *t, const struct kv_anatomy *a, size_t p) {
    size_t n = a->n_layers * a->n_heads * 2 * a->head_dim;
    double most = 0;
    for (size_t i = 0; i < n; i++)
        if ((i / a->head_dim) % 2 == (size_t)panels[p].side)
            most = fmax(most, channels_of(a, p)[i]);
    kv_text_addf(t, "most[%zu] = %.6g\ntitles[%zu] = \"%s\"\n", p + 1, most > 0 ? most : 1, p + 1,
                 panels[p].title);
}

static char *settings_of(const struct kv_anatomy *a) {
    struct kv_text t = {0};
    size_t n = n_panels(a);
    const struct kv_trace_info *in = a->options.trace ? kv_trace_info(a->options.trace) : NULL;
    char *model = kv_gnuplot_text(in ? in->model_name : a->options.model->name),
         *format = kv_gnuplot_text(a->options.format);
    kv_text_addf(&t, "layers = %zu\nheads = %zu\ndim = %zu\npanels = %zu\n", a->n_layers,
                 a->n_heads, a->head_dim, n);
    kv_text_addf(&t, "array most[%zu]\narray titles[%zu]\n", n, n);
    for (size_t p = 0; p < n; p++) add_range(&t, a, p);
    kv_text_addf(&t, "title_text = \"Anatomy of %s\"\n", model);
    if (in)
        kv_text_addf(&t, "subtitle_text = \"%s at %u bits on %zu tokens\"\n", format,
                     a->options.bits, a->n_tokens);
    else
        kv_text_addf(&t, "subtitle_text = \"the bias of the key projection: weights alone\"\n");
    free(model);
    free(format);
    return kv_text_take(&t);
}

int kv_anatomy_draw(const struct kv_anatomy *a, const char *dir, struct kv_error *e) {
    char *settings = settings_of(a), *tsv = data_of(a);
    struct kv_gnuplot g = {.name = "anatomy",
                           .dir = dir,
                           .command = "kvsim anatomy",
                           .canvas_x = 1000,
                           .canvas_y = n_panels(a) > 1 ? 820 : 460,
                           .settings = settings,
                           .data = tsv};
    int rc = kv_make_dir(dir, e);
    if (rc == 0) rc = kv_gnuplot_draw(&g, e);
    if (rc == 0) kv_say("drawn: %s/anatomy.svg", dir);
    free(settings);
    free(tsv);
    return rc;
}
