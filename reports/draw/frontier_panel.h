// SPDX-License-Identifier: Apache-2.0
// What the files of frontier figures share: frontier.c says which panels there are and lays them
// out, frontier_names.c places names, frontier_files.c writes, paper.c draws one panel alone.
#ifndef KV_REPORTS_DRAW_FRONTIER_PANEL_H
#define KV_REPORTS_DRAW_FRONTIER_PANEL_H

#include "reports/draw/frontier.h"
#include "reports/draw/layout.h"

struct kv_frontier_panel {
    struct kv_axes axes;
    bool divergence;                            // y is KL, not accuracy
    double reference, chance, ceiling, context; // NAN = none
    double error;                               // of x, relative, either way; NAN = not known
    double *x, *y, *low, *high;                 // [n rows]; NAN = not drawn
    bool *on, *hollow;                          // on the frontier; measured at another context
    struct kv_label *labels;                    // [n rows], of those drawn first
    size_t *row_of;                             // the row of each label
    size_t n_labels;
};

// Left margin: room for the tics of divergences, such as 0.0001, and the axis's title.
enum { KV_FRONTIER_LEFT = 84 };
// Entries of the legend, in its order.
enum {
    KV_LEGEND_ON,
    KV_LEGEND_BEATEN,
    KV_LEGEND_INTERVAL,
    KV_LEGEND_REFERENCE,
    KV_LEGEND_CHANCE,
    KV_LEGEND_CEILING,
    KV_LEGEND_ORACLE,
    KV_LEGEND_HOLLOW,
    KV_N_LEGEND
};

enum { KV_FRONTIER_PANELS = KV_MAX_CONTEXTS + 2 };

struct kv_frontier_figure {
    const char *title; // NULL = neither title nor subtitle
    const struct kv_frontier_set *set;
    size_t n_panels;
    struct kv_frontier_panel panels[KV_FRONTIER_PANELS];
    double floor; // least divergence drawn
    struct kv_layout layout;
    double canvas_x, canvas_y;
    double width_mm;     // in print; 0 = a figure of pixels
    double plot_y;       // height of head and panels, without the list
    bool listed;         // points carry numbers; names stand in a list below the panels
    size_t list_columns; // of the list, of equal width
    struct {
        double x, y; // pixels; NAN = not in this figure
        char words[64];
    } legend[KV_N_LEGEND];
};

// Adds the panel of a quantity at a context (NAN = against bits), if the set knows it.
void kv_frontier_add_panel(struct kv_frontier_figure *f, bool divergence, size_t context,
                           bool times);
// Lays out a figure whose panels, set, title and canvas_x are given, panels `panel_y` high (0 = as
// the points need).
void kv_frontier_lay(struct kv_frontier_figure *f, double panel_y);
// Whether the bar of the latency model's error takes a line of its own below the axis's title, so
// many pixels high; a figure as wide as a page has room for it beside the title.
enum { KV_ERROR_LINE = 22 };
bool kv_frontier_error_below(const struct kv_frontier_figure *f);
// Writes and draws it. file: name of the files.
KV_MUST_CHECK int kv_frontier_write(struct kv_frontier_figure *f, const char *file,
                                    const char *formats, struct kv_error *e);
void kv_frontier_fini(struct kv_frontier_figure *f);

// Names at the points where all can be read, else numbers and a list below, for which the canvas
// grows.
void kv_frontier_name(struct kv_frontier_figure *f);
// The list of names: pixels of a line, and of the number before a name.
enum { KV_LIST_LINE = 16, KV_LIST_NUMBER = 40 };
size_t kv_frontier_list_lines(const struct kv_frontier_figure *f);

// Which entries the legend has, and where from `top` on; returns its height in pixels.
double kv_frontier_legend(struct kv_frontier_figure *f, double top);

// The figure's points, names and list as TSV, and what its script needs to know. Caller frees.
char *kv_frontier_data(const struct kv_frontier_figure *f);
char *kv_frontier_settings(const struct kv_frontier_figure *f);

#endif
