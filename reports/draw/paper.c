// SPDX-License-Identifier: Apache-2.0
// One panel of a frontier figure as a paper prints it: its size in millimetres, its text in points.
#include "reports/draw/frontier_panel.h"

#include <stdlib.h>

const char *const kv_paper_panels[] = {[KV_PANEL_KL_BITS] = "kl-bits",
                                       [KV_PANEL_ACC_BITS] = "acc-bits",
                                       [KV_PANEL_KL_MS] = "kl-ms",
                                       [KV_PANEL_ACC_MS] = "acc-ms",
                                       NULL};

// A pixel of the layout in print: its text of KV_TEXT_SIZE pixels is KV_PAPER_POINTS high.
static const double pixel_mm = 25.4 / 72 * KV_PAPER_POINTS / KV_TEXT_SIZE;
enum { LEAST_MM = 40, MOST_MM = 600, LEAST_PANEL = 100 }; // of a side; pixels of a panel's height

int kv_paper_size(const char *text, struct kv_paper *paper, struct kv_error *e) {
    static const struct {
        const char *name;
        double mm;
    } units[] = {{"mm", 1}, {"cm", 10}, {"in", 25.4}};
    char *end;
    double width = strtod(text, &end), height = 0;
    if (end != text && *end == 'x') {
        const char *from = end + 1;
        height = strtod(from, &end);
        if (end == from) height = -1;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].name) != 0) continue;
        paper->width_mm = width * units[i].mm;
        paper->height_mm = height * units[i].mm;
        bool fits = paper->width_mm >= LEAST_MM && paper->width_mm <= MOST_MM &&
                    (height == 0 || (paper->height_mm >= LEAST_MM && paper->height_mm <= MOST_MM));
        if (fits) return 0;
    }
    return kv_fail(e, KV_EUSAGE, "--size",
                   "'%s' is not a width such as 84mm, or 84x60mm, 8.4cm, 3.3in, of %d to %d mm",
                   text, LEAST_MM, MOST_MM);
}

// Lays the figure out so that it is as high as wanted, its list of names included.
static int lay(struct kv_frontier_figure *f, const struct kv_paper *paper, struct kv_error *e) {
    kv_frontier_lay(f, f->canvas_x * 0.6);
    if (paper->height_mm <= 0) return 0;
    // Less height may turn names into a list, which takes height again.
    for (int i = 0; i < 3; i++) {
        double panel_y = f->layout.panel_y + paper->height_mm / pixel_mm - f->canvas_y;
        if (fabs(panel_y - f->layout.panel_y) < 1e-6) break;
        if (panel_y < LEAST_PANEL)
            return kv_fail(e, KV_EUSAGE, "--size",
                           "%g mm is too low for the panel, its legend and names: %g mm would do",
                           paper->height_mm,
                           ceil(paper->height_mm + (LEAST_PANEL - panel_y) * pixel_mm));
        kv_frontier_lay(f, panel_y);
    }
    return 0;
}

int kv_paper_draw(const struct kv_frontier_set *set, const struct kv_paper *paper, char **name,
                  struct kv_error *e) {
    const char *panel = kv_paper_panels[paper->panel];
    bool times = paper->panel == KV_PANEL_KL_MS || paper->panel == KV_PANEL_ACC_MS;
    bool divergence = paper->panel == KV_PANEL_KL_BITS || paper->panel == KV_PANEL_KL_MS;
    struct kv_frontier_figure f = {
        .set = set, .canvas_x = paper->width_mm / pixel_mm, .width_mm = paper->width_mm};
    if (times && (!set->all->device || set->all->n_contexts == 0))
        return kv_fail(e, KV_EUSAGE, "--panel", "%s needs a device and a context", panel);
    kv_frontier_add_panel(&f, divergence, times ? set->all->n_contexts - 1 : 0, times);
    int code = f.n_panels ? lay(&f, paper, e) : 0;
    if (!code && f.n_panels) {
        *name = kv_format_text("%s%s", panel, set->suffix);
        code = kv_frontier_write(&f, *name, set->formats, e);
    }
    kv_frontier_fini(&f);
    return code;
}
