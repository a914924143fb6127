// SPDX-License-Identifier: Apache-2.0
// What frontier.c lays out and frontier_files.c writes: the panels of one figure.
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

struct kv_frontier_figure {
    const char *name, *title; // of the files; for the reader
    const struct kv_frontier_set *set;
    size_t n_panels;
    struct kv_frontier_panel panels[KV_MAX_CONTEXTS];
    double floor; // least divergence drawn
    double canvas_y;
    double plot_y;       // height of head and panels, without the list
    bool listed;         // points carry numbers; names stand in a list below the panels
    size_t list_columns; // of the list, of equal width
};

// The list of names: pixels of a line, and of the number before a name.
enum { KV_LIST_LINE = 16, KV_LIST_NUMBER = 40 };
size_t kv_frontier_list_lines(const struct kv_frontier_figure *f);

// The figure's points, names and list as TSV, and what its script needs to know. Caller frees.
char *kv_frontier_data(const struct kv_frontier_figure *f);
char *kv_frontier_settings(const struct kv_frontier_figure *f);

#endif
