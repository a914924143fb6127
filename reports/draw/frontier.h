// SPDX-License-Identifier: Apache-2.0
// The frontier figures of a report: divergence and accuracy against the size of the cache and
// against the time of a token; and one panel of them for a paper.
#ifndef KV_REPORTS_DRAW_FRONTIER_H
#define KV_REPORTS_DRAW_FRONTIER_H

#include "analysis/results/rows.h"

// The rows of one trace that are drawn together.
struct kv_frontier_set {
    const struct kv_rows *all;
    const struct kv_row *rows;
    size_t n;
    char suffix[24];     // added to file names where a report has several traces: "-2"
    const char *dir;     // exists
    const char *formats; // of the pictures, as gnuplot.h says
};

struct kv_drawn {
    // Of the files, without ending: the figure, and the same for a screen of 420 pixels, of which
    // there is only an SVG. Caller frees.
    char *name, *narrow;
    double plot_y, narrow_y; // heights of head and panels in pixels; a list of names may follow
    bool times;              // against time, not bits
    bool depths;             // divergence by depth (depths.h)
    bool places;             // facts by length and depth (places.h)
};

// Draws frontier_bits and, with a device, frontier_latency into the set's folder: what
// kv_gnuplot_draw writes of each. drawn: at most 2. Errors: gnuplot missing or failing, a folder
// that cannot be written.
KV_MUST_CHECK int kv_frontier_draw(const struct kv_frontier_set *set, struct kv_drawn drawn[2],
                                   size_t *n_drawn, struct kv_error *e);

// ---- for a paper ----------------------------------------------------------------------

enum kv_paper_panel { KV_PANEL_KL_BITS, KV_PANEL_ACC_BITS, KV_PANEL_KL_MS, KV_PANEL_ACC_MS };
extern const char *const kv_paper_panels[]; // "kl-bits", ...; NULL ends it

// One panel without a title, its text KV_PAPER_POINTS high in print.
enum { KV_PAPER_POINTS = 7 };
struct kv_paper {
    enum kv_paper_panel panel; // against time: at the last context
    double width_mm;
    double height_mm; // 0 = as suits the width
};

// Reads "84mm", "84x60mm", "8.4cm" or "3.3in". KV_EUSAGE says what can be.
KV_MUST_CHECK int kv_paper_size(const char *text, struct kv_paper *paper, struct kv_error *e);

// Draws the panel as DIR/PANEL.{tsv,gp,...} in the set's formats. *name: of the files, without
// ending; caller frees; NULL = the set knows nothing of what the panel shows. Errors as above;
// KV_EUSAGE when the size has no room, or a panel of times no device.
KV_MUST_CHECK int kv_paper_draw(const struct kv_frontier_set *set, const struct kv_paper *paper,
                                char **name, struct kv_error *e);

#endif
