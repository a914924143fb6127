// SPDX-License-Identifier: Apache-2.0
// Draws where bits matter: maps over layers and heads, bars over positions, classes and distances.
#include "reports/draw/atlas.h"

#include <stdlib.h>

#include "reports/draw/gnuplot.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"

static double damage(const struct kv_atlas_bin *b) {
    return b->damage[0] + b->damage[1];
}

static void add_maps(struct kv_text *t, const struct kv_atlas *a) {
    double mean = damage(&a->all) / (double)(2 * a->n[KV_ATLAS_HEAD]);
    for (size_t h = 0; h < a->n[KV_ATLAS_HEAD]; h++) {
        const struct kv_atlas_bin *b = &a->bin[KV_ATLAS_HEAD][h];
        kv_text_addf(t, "head\t%zu\t%zu\t\t%g\t%g\n", h / a->n_heads, h % a->n_heads,
                     b->damage[0] / mean, b->damage[1] / mean);
    }
}

static void add_bar(struct kv_text *t, const struct kv_atlas *a, enum kv_atlas_axis axis,
                    size_t i) {
    const struct kv_atlas_bin *b = &a->bin[axis][i];
    double mean = damage(&a->all) / a->all.tokens;
    char place[KV_ATLAS_PLACE_BYTES];
    kv_atlas_place(a, axis, i, place);
    if (b->tokens > 0)
        kv_text_addf(t, "%s\t%zu\t0\t%s\t%g\t%g\n", kv_atlas_axes[axis], i, place,
                     b->damage[0] / b->tokens / mean, b->damage[1] / b->tokens / mean);
}

static char *data_of(const struct kv_atlas *a) {
    struct kv_text t = {0};
    kv_text_addf(&t, "panel\tx\ty\tplace\tkey\tvalue\n");
    add_maps(&t, a);
    for (size_t b = 0; b < a->n[KV_ATLAS_POSITION]; b++) {
        add_bar(&t, a, KV_ATLAS_POSITION, b);
        add_bar(&t, a, KV_ATLAS_DISTANCE, b);
    }
    for (size_t b = 0; b < a->n[KV_ATLAS_CLASS]; b++) add_bar(&t, a, KV_ATLAS_CLASS, b);
    return kv_text_take(&t);
}

// The names below a panel's bars, as gnuplot's xtics take them.
static void add_tics(struct kv_text *t, const struct kv_atlas *a, enum kv_atlas_axis axis,
                     int panel) {
    char place[KV_ATLAS_PLACE_BYTES];
    kv_text_addf(t, "tics[%d] = \"", panel);
    for (size_t i = 0; i < a->n[axis]; i++) {
        if (a->bin[axis][i].tokens == 0) continue;
        kv_atlas_place(a, axis, i, place);
        kv_text_addf(t, "'%s' %zu, ", place, i);
    }
    kv_text_addf(t, "'' -1\"\n");
}

static char *settings_of(const struct kv_atlas *a) {
    const struct kv_trace_info *in = kv_trace_info(a->trace);
    char *task = kv_gnuplot_text(in->task_name), *model = kv_gnuplot_text(in->model_name);
    struct kv_text t = {0};
    kv_text_addf(&t, "array tics[3]\n");
    add_tics(&t, a, KV_ATLAS_POSITION, 1);
    add_tics(&t, a, KV_ATLAS_CLASS, 2);
    add_tics(&t, a, KV_ATLAS_DISTANCE, 3);
    kv_text_addf(&t,
                 "layers = %zu\nheads = %zu\n"
                 "title_text = \"Where bits matter: predicted damage of %u bits, %s\"\n"
                 "subtitle_text = \"%s, %s, %zu items; 1 = the mean over cells or tokens; keys "
                 "blue, values orange\"\n",
                 a->n_layers, a->n_heads, a->options.bits, a->options.format, model, task,
                 in->n_items);
    free(task);
    free(model);
    return kv_text_take(&t);
}

int kv_atlas_draw(const struct kv_atlas *a, const char *dir, struct kv_error *e) {
    char *settings = settings_of(a), *tsv = data_of(a);
    struct kv_gnuplot g = {.name = "atlas",
                           .dir = dir,
                           .canvas_x = 1000,
                           .canvas_y = 760,
                           .settings = settings,
                           .data = tsv};
    int rc = kv_make_dir(dir, e);
    if (rc == 0) rc = kv_gnuplot_draw(&g, e);
    if (rc == 0) kv_say("drawn: %s/atlas.svg", dir);
    free(settings);
    free(tsv);
    return rc;
}
