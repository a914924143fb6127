// SPDX-License-Identifier: Apache-2.0
// Puts names beside the points of a figure so that they hide neither points nor each other.
#include "reports/draw/labels.h"

#include <stdlib.h>

#include "sim/base/memory.h"

// Candidate places lie on circles around the point; what a place costs is weighed in pixels of
// distance. Labels over labels or points cannot be read and cost more than any distance.
static const double radii[] = {10, 15, 23, 33, 46, 62, 82, 106, 135, 170, 210};
enum { N_RADII = sizeof radii / sizeof *radii, N_ANGLES = 24, SWEEPS = 40 };
static const double leader_from = 14, leader_gap = 3; // between a leader's end and its text
static const double point_radius = 7.5, cap = 4;      // to a diamond's corner; half a bar's end
static const double cost_clash = 3000, cost_leader = 250;

struct kv_box kv_label_box(const struct kv_label *l) {
    double left = l->label_x - (l->justify < 0 ? l->width : l->justify == 0 ? l->width / 2 : 0);
    return (struct kv_box){left, l->label_y - l->height / 2, left + l->width,
                           l->label_y + l->height / 2};
}

static bool overlap(struct kv_box a, struct kv_box b) {
    return a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;
}

static struct kv_box around(double x, double y, double r) {
    return (struct kv_box){x - r, y - r, x + r, y + r};
}

static double cross(double ax, double ay, double bx, double by) {
    return ax * by - ay * bx;
}

static bool segments_cross(struct kv_segment a, struct kv_segment b) {
    double dx = a.x1 - a.x0, dy = a.y1 - a.y0, ex = b.x1 - b.x0, ey = b.y1 - b.y0;
    double side0 = cross(dx, dy, b.x0 - a.x0, b.y0 - a.y0);
    double side1 = cross(dx, dy, b.x1 - a.x0, b.y1 - a.y0);
    double side2 = cross(ex, ey, a.x0 - b.x0, a.y0 - b.y0);
    double side3 = cross(ex, ey, a.x1 - b.x0, a.y1 - b.y0);
    return side0 * side1 < 0 && side2 * side3 < 0;
}

static bool segment_meets(struct kv_segment s, struct kv_box b) {
    if (s.x0 > b.x0 && s.x0 < b.x1 && s.y0 > b.y0 && s.y0 < b.y1) return true;
    if (s.x1 > b.x0 && s.x1 < b.x1 && s.y1 > b.y0 && s.y1 < b.y1) return true;
    return segments_cross(s, (struct kv_segment){b.x0, b.y0, b.x1, b.y1}) ||
           segments_cross(s, (struct kv_segment){b.x0, b.y1, b.x1, b.y0});
}

static struct kv_segment leader_of(const struct kv_label *l) {
    return (struct kv_segment){l->x, l->y, l->leader_x, l->leader_y};
}

// The label's box with the room that is kept free around it.
static struct kv_box clear_box(const struct kv_label *l) {
    struct kv_box b = kv_label_box(l);
    return (struct kv_box){b.x0 - KV_LABEL_MARGIN, b.y0 - KV_LABEL_MARGIN, b.x1 + KV_LABEL_MARGIN,
                           b.y1 + KV_LABEL_MARGIN};
}

// The label moved to candidate place `k`.
static struct kv_label moved(const struct kv_label *from, size_t k) {
    struct kv_label l = *from;
    double r = radii[k / N_ANGLES], angle = 2 * M_PI * (double)(k % N_ANGLES) / N_ANGLES;
    double c = cos(angle), s = sin(angle);
    l.justify = c > 0.25 ? 1 : c < -0.25 ? -1 : 0;
    l.label_x = l.x + r * c;
    l.label_y = l.y + r * s;
    // Above and below, the text's edge and not its middle keeps the distance.
    double side = s > 0 ? 1 : -1;
    if (l.justify == 0) l.label_y += side * 0.35 * l.height;
    l.leader = r > leader_from;
    l.leader_x = l.label_x - leader_gap * l.justify;
    l.leader_y = l.label_y - (l.justify == 0 ? side * (l.height / 2 + leader_gap) : 0);
    return l;
}

// How much of the way to the point's right the place is turned: the place readers expect first.
static double turn_cost(size_t k) {
    double angle = 2 * M_PI * (double)(k % N_ANGLES) / N_ANGLES;
    return 2 * (1 - cos(angle)) + (sin(angle) < 0 ? 0.5 : 0);
}

// How many things hide label i at this place or are hidden by it.
static size_t clashes(const struct kv_label *l, const struct kv_label *all, size_t n, size_t i,
                      const struct kv_segment *lines, size_t n_lines) {
    struct kv_box box = clear_box(l);
    struct kv_segment leader = leader_of(l);
    size_t count = 0;
    for (size_t j = 0; j < n; j++) {
        const struct kv_label *o = &all[j];
        count += overlap(box, around(o->x, o->y, point_radius));
        if (o->bar_low < o->bar_high || o->bar_low > o->bar_high)
            count += overlap(box, (struct kv_box){o->x - cap, fmin(o->bar_low, o->bar_high),
                                                  o->x + cap, fmax(o->bar_low, o->bar_high)});
        if (j == i) continue;
        struct kv_box other = clear_box(o);
        count += overlap(box, kv_label_box(o));
        count += l->leader && segment_meets(leader, other);
        count += o->leader && segment_meets(leader_of(o), box);
    }
    for (size_t s = 0; s < n_lines; s++) count += segment_meets(lines[s], box);
    return count;
}

// What is not wrong but not pretty: leaders that cross, or pass through another point.
static double tangle_cost(const struct kv_label *l, const struct kv_label *all, size_t n,
                          size_t i) {
    double cost = 0;
    for (size_t j = 0; l->leader && j < n; j++) {
        if (j == i) continue;
        if (all[j].leader && segments_cross(leader_of(l), leader_of(&all[j]))) cost += cost_leader;
        if (segment_meets(leader_of(l), around(all[j].x, all[j].y, point_radius - 2)))
            cost += cost_leader / 2;
    }
    return cost;
}

static bool is_inside(struct kv_box box, struct kv_box area) {
    return box.x0 >= area.x0 && box.x1 <= area.x1 && box.y0 >= area.y0 && box.y1 <= area.y1;
}

static double place_cost(const struct kv_label *l, const struct kv_label *all, size_t n, size_t i,
                         size_t k, struct kv_box area, const struct kv_segment *lines,
                         size_t n_lines) {
    if (!is_inside(kv_label_box(l), area)) return INFINITY;
    return radii[k / N_ANGLES] + turn_cost(k) + tangle_cost(l, all, n, i) +
           cost_clash * (double)clashes(l, all, n, i, lines, n_lines);
}

size_t kv_place_labels(struct kv_label *labels, size_t n, struct kv_box area,
                       const struct kv_segment *lines, size_t n_lines) {
    size_t *place = kv_alloc(n + 1, sizeof *place);
    for (size_t i = 0; i < n; i++) labels[i] = moved(&labels[i], 0);
    bool changed = true;
    for (size_t sweep = 0; sweep < SWEEPS && changed; sweep++) {
        changed = false;
        for (size_t i = 0; i < n; i++) {
            double least = INFINITY;
            size_t best = place[i];
            for (size_t k = 0; k < (size_t)N_RADII * N_ANGLES; k++) {
                if (radii[k / N_ANGLES] >= least) break; // no farther place can be cheaper
                struct kv_label l = moved(&labels[i], k);
                double cost = place_cost(&l, labels, n, i, k, area, lines, n_lines);
                if (cost < least) {
                    least = cost;
                    best = k;
                }
            }
            changed = changed || best != place[i];
            place[i] = best;
            labels[i] = moved(&labels[i], best);
        }
    }
    free(place);
    size_t unreadable = 0;
    for (size_t i = 0; i < n; i++)
        unreadable += !is_inside(kv_label_box(&labels[i]), area) ||
                      clashes(&labels[i], labels, n, i, lines, n_lines) > 0;
    return unreadable;
}
