// SPDX-License-Identifier: Apache-2.0
// The frontier figures of a report: accuracy and divergence against the size of the cache, and
// accuracy against the time of a token.
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
    char *name;    // of the files, without ending; caller frees
    double plot_y; // height of head and panels in pixels; a list of names may stand below
};

// Draws frontier_bits and, with a device, frontier_latency into the set's folder: what
// kv_gnuplot_draw writes of each. drawn: at most 2. Errors: gnuplot missing or failing, a folder
// that cannot be written.
KV_MUST_CHECK int kv_frontier_draw(const struct kv_frontier_set *set, struct kv_drawn drawn[2],
                                   size_t *n_drawn, struct kv_error *e);

#endif
