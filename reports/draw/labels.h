// SPDX-License-Identifier: Apache-2.0
// Puts names beside the points of a figure so that they hide neither points nor each other.
//
//     struct kv_label l[2] = {{.x = 40, .y = 50, .width = 80, .height = 12}, ...};
//     size_t left = kv_place_labels(l, 2, (struct kv_box){0, 0, 600, 300}, NULL, 0);
//     ... l[0].label_x, l[0].label_y, l[0].justify           where its text goes
#ifndef KV_REPORTS_DRAW_LABELS_H
#define KV_REPORTS_DRAW_LABELS_H

#include "policies/policy.h"

struct kv_box {
    double x0, y0, x1, y1;
};

// A point with its error bar and the size of its text, all in pixels.
struct kv_label {
    double x, y;
    double bar_low, bar_high; // y of the bar's ends; both y = no bar
    double width, height;
    // Found: the text's anchor (vertical middle) and on which side of it the text lies: -1 the
    // text ends there, 0 it is centred, 1 it begins there. leader: far enough to need a line.
    double label_x, label_y;
    int justify;
    bool leader;
    double leader_x, leader_y; // where the line from the point to the text ends, clear of the text
};

struct kv_segment {
    double x0, y0, x1, y1;
};

// Places n labels inside `area`, away from points, other labels, bars, leaders and the lines given,
// with KV_LABEL_MARGIN pixels between. The same input gives the same places. Returns how many
// labels still meet any of these: 0 = all can be read. O(n^2) a sweep over n labels; fine for
// hundreds.
#define KV_LABEL_MARGIN 1.5
size_t kv_place_labels(struct kv_label *labels, size_t n, struct kv_box area,
                       const struct kv_segment *lines, size_t n_lines);

// The box that a placed label's text covers.
struct kv_box kv_label_box(const struct kv_label *l);

#endif
