// SPDX-License-Identifier: Apache-2.0
// The geometry that figures share: panels, axes to pixels and back, room for names.
#include "reports/draw/layout.h"

#include <stdlib.h>

static const double text_height = 13;

// ---- panels ---------------------------------------------------------------------------

static double or_else(double size, double usual) {
    return size > 0 ? size : usual;
}

struct kv_axes kv_axes_new(const struct kv_layout *l, size_t i) {
    double top = or_else(l->head, KV_HEAD) + (double)i * (l->panel_y + or_else(l->foot, KV_FOOT));
    return (struct kv_axes){.left = or_else(l->left, KV_LEFT_MARGIN),
                            .right = or_else(l->canvas_x, KV_CANVAS_X) - l->right,
                            .top = top,
                            .bottom = top + l->panel_y,
                            .x_low = INFINITY,
                            .x_high = -INFINITY,
                            .y_low = INFINITY,
                            .y_high = -INFINITY};
}

double kv_layout_height(const struct kv_layout *l, size_t n) {
    return or_else(l->head, KV_HEAD) + (double)n * (l->panel_y + or_else(l->foot, KV_FOOT));
}

// ---- axes -----------------------------------------------------------------------------

static void widen(double *low, double *high, double x) {
    *low = fmin(*low, x);
    *high = fmax(*high, x);
}

void kv_axes_take_x(struct kv_axes *a, double x) {
    widen(&a->x_low, &a->x_high, x);
}

void kv_axes_take_y(struct kv_axes *a, double y) {
    widen(&a->y_low, &a->y_high, y);
}

double kv_axes_to_x(const struct kv_axes *a, double x) {
    return a->left + (x - a->x_low) / (a->x_high - a->x_low) * (a->right - a->left);
}

double kv_axes_to_y(const struct kv_axes *a, double y) {
    double share = a->log_y > 0 ? log(y / a->y_low) / log(a->y_high / a->y_low)
                                : (y - a->y_low) / (a->y_high - a->y_low);
    return a->bottom - share * (a->bottom - a->top);
}

double kv_axes_from_x(const struct kv_axes *a, double pixels) {
    return a->x_low + (pixels - a->left) / (a->right - a->left) * (a->x_high - a->x_low);
}

double kv_axes_from_y(const struct kv_axes *a, double pixels) {
    double share = (a->bottom - pixels) / (a->bottom - a->top);
    return a->log_y > 0 ? a->y_low * pow(a->y_high / a->y_low, share)
                        : a->y_low + share * (a->y_high - a->y_low);
}

// ---- names ----------------------------------------------------------------------------

struct kv_label kv_axes_label(const struct kv_axes *a, double x, double y, double low, double high,
                              const char *name) {
    return (struct kv_label){.x = kv_axes_to_x(a, x),
                             .y = kv_axes_to_y(a, y),
                             .bar_low = kv_axes_to_y(a, isnan(low) ? y : low),
                             .bar_high = kv_axes_to_y(a, isnan(high) ? y : high),
                             .width = name ? kv_text_width(name, KV_TEXT_SIZE) : 1,
                             .height = name ? text_height : 1};
}

size_t kv_axes_place(const struct kv_axes *a, struct kv_label *labels, size_t n,
                     const struct kv_segment *lines, size_t n_lines) {
    struct kv_box area = {a->left + 3, a->top + 2, a->right - 2, a->bottom - 2};
    return kv_place_labels(labels, n, area, lines, n_lines);
}

// ---- the script -----------------------------------------------------------------------

void kv_script_array(struct kv_text *t, const char *name, const double *first, size_t n,
                     size_t stride) {
    kv_text_addf(t, "array %s[%zu] = [", name, n);
    for (size_t i = 0; i < n; i++) {
        double x = *(const double *)((const char *)first + i * stride);
        kv_text_addf(t, "%s%.9g", i ? ", " : "", isnan(x) ? -1 : x);
    }
    kv_text_addf(t, "]\n");
}

// An edge of the panels as the part of the canvas that lies below it.
static void add_edges(struct kv_text *t, const char *name, const double *first, size_t n,
                      size_t stride, double canvas_y) {
    double *share = kv_alloc(n, sizeof *share);
    for (size_t i = 0; i < n; i++)
        share[i] = 1 - *(const double *)((const char *)first + i * stride) / canvas_y;
    kv_script_array(t, name, share, n, sizeof *share);
    free(share);
}

void kv_script_panels(struct kv_text *t, const struct kv_axes *first, size_t n, size_t stride,
                      double canvas_x, double canvas_y) {
    kv_text_addf(t, "title_x = %.6f\ntitle_y = %.6f\nleft = %.6f\nright = %.6f\npanels = %zu\n",
                 16.0 / canvas_x, 1 - 20 / canvas_y, first->left / canvas_x,
                 first->right / canvas_x, n);
    add_edges(t, "top", &first->top, n, stride, canvas_y);
    add_edges(t, "bottom", &first->bottom, n, stride, canvas_y);
    kv_script_array(t, "x_low", &first->x_low, n, stride);
    kv_script_array(t, "x_high", &first->x_high, n, stride);
    kv_script_array(t, "y_low", &first->y_low, n, stride);
    kv_script_array(t, "y_high", &first->y_high, n, stride);
    kv_script_array(t, "log_y", &first->log_y, n, stride);
}
