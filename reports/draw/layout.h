// SPDX-License-Identifier: Apache-2.0
// Where things stand in a figure of panels below each other: pixels of the SVG, axes, and the names
// of points. Figures lay out what they draw here, so that names can be placed before gnuplot runs.
//
//     struct kv_layout l = {.right = 24, .panel_y = 300};
//     struct kv_axes a = kv_axes_new(&l, 0);               the topmost panel; its axes hold nothing
//     kv_axes_take_x(&a, 1), kv_axes_take_x(&a, 8);        all that is to be seen, of y too
//     struct kv_label name = kv_axes_label(&a, 2, 0.3, 0.2, 0.4, "static 4 bit");
//     size_t unreadable = kv_axes_place(&a, &name, 1, NULL, 0);
#ifndef KV_REPORTS_DRAW_LAYOUT_H
#define KV_REPORTS_DRAW_LAYOUT_H

#include "reports/draw/font.h"
#include "reports/draw/labels.h"
#include "sim/base/memory.h"

// Sizes that figures of panels share unless they say otherwise, in pixels: the canvas's width; its
// head has room for title, subtitle and legend, the foot of a panel for its tics and axis title.
enum { KV_CANVAS_X = 1000, KV_LEFT_MARGIN = 74, KV_HEAD = 92, KV_FOOT = 66 };

struct kv_layout {
    double canvas_x, left, head; // 0 = the sizes above
    double right;                // margin
    double panel_y;              // height of a panel's plot area
    double foot;                 // below a panel; 0 = KV_FOOT
};

// A panel's plot area, in pixels from the canvas's left and top, and the ranges of its axes.
struct kv_axes {
    double left, right, top, bottom;
    double x_low, x_high, y_low, y_high;
    double log_y; // 1 = y is logarithmic, 0 = not
};

// The area of panel `i`, counted from the top; its axes hold nothing yet.
struct kv_axes kv_axes_new(const struct kv_layout *l, size_t i);
// Height of head and n panels.
double kv_layout_height(const struct kv_layout *l, size_t n);

// Widens the axes so that x, or y, is inside; NAN is nowhere.
void kv_axes_take_x(struct kv_axes *a, double x);
void kv_axes_take_y(struct kv_axes *a, double y);

double kv_axes_to_x(const struct kv_axes *a, double x); // pixels
double kv_axes_to_y(const struct kv_axes *a, double y);
double kv_axes_from_x(const struct kv_axes *a, double pixels);
double kv_axes_from_y(const struct kv_axes *a, double pixels);

// The label, still to be placed, of a point and its bar (NAN = no bar), in the axes' units; a NULL
// name takes no more room than a dot.
struct kv_label kv_axes_label(const struct kv_axes *a, double x, double y, double low, double high,
                              const char *name);
// Places labels inside the plot area, away from `lines`; returns how many cannot be read.
size_t kv_axes_place(const struct kv_axes *a, struct kv_label *labels, size_t n,
                     const struct kv_segment *lines, size_t n_lines);

// Adds "array NAME[n] = [...]" to a script: n numbers, each `stride` bytes behind the one before;
// -1 for NAN.
void kv_script_array(struct kv_text *t, const char *name, const double *first, size_t n,
                     size_t stride);
// Adds what scripts of panels read of n axes, each `stride` bytes behind the one before: left,
// right, title_x and title_y in parts of the canvas, panels, and arrays over panels of top, bottom
// (in parts of the canvas), x_low, x_high, y_low, y_high and log_y.
void kv_script_panels(struct kv_text *t, const struct kv_axes *first, size_t n, size_t stride,
                      double canvas_x, double canvas_y);

#endif
