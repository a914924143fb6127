// SPDX-License-Identifier: Apache-2.0
// Counts what cannot be read in figures: texts that a line, a point or another text comes nearer
// than a pixel, and texts that the edge of the picture cuts. It reads the SVG that gnuplot wrote,
// knows nothing of how names were placed, and measures texts by the font's own widths.
//
//     crossings FIGURE.svg...        a line for each, exit 1 where there is any
//
// Grid lines lie pale behind everything and are not counted; nor are filled areas.
#include "reports/draw/font.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"

#include <stdio.h>
#include <stdlib.h>

static const double margin = 1;

struct text {
    double x0, y0, x1, y1;
    char *s;
};

// From a to b; a point of the data is a segment of no length with a radius.
struct stroke {
    double x0, y0, x1, y1, radius;
};

struct figure {
    double width, height;
    struct text *texts;
    struct stroke *strokes;
    size_t n_texts, n_strokes, room_texts, room_strokes;
};

static void *grown(void *at, size_t n, size_t *room, size_t size) {
    if (n < *room) return at;
    *room = 2 * n + 64;
    void *more = realloc(at, *room * size);
    if (!more) abort();
    return more;
}

static void add_stroke(struct figure *f, struct stroke s) {
    f->strokes = grown(f->strokes, f->n_strokes, &f->room_strokes, sizeof s);
    f->strokes[f->n_strokes++] = s;
}

// ---- reading --------------------------------------------------------------------------

// The attribute's value in the tag that begins at p; NULL = it has none.
static const char *attribute(const char *p, const char *name) {
    const char *end = strchr(p, '>');
    size_t n = strlen(name);
    for (const char *at = p; (at = strstr(at, name)) && at < end; at += n)
        if (at[-1] == ' ' && at[n] == '=') return at + n + 2;
    return NULL;
}

static bool begins(const char *s, const char *with) {
    return s && strncmp(s, with, strlen(with)) == 0;
}

// Text without markup, its entities read.
static char *plain(const char *from, const char *to) {
    static const struct {
        const char *name, *is;
    } entities[] = {{"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&#39;", "'"}};
    struct kv_text t = {0};
    kv_text_add(&t, "", 0);
    while (from < to) {
        size_t used = 0;
        if (*from == '<') used = strcspn(from, ">") + 1;
        for (size_t i = 0; !used && i < sizeof entities / sizeof *entities; i++)
            if (begins(from, entities[i].name)) {
                used = strlen(entities[i].name);
                kv_text_addf(&t, "%s", entities[i].is);
            }
        if (!used) {
            kv_text_add(&t, from, 1);
            used = 1;
        }
        from += used;
    }
    return kv_text_take(&t);
}

// A group that holds text: its place, size and turn stand in its own attributes.
static void read_text(struct figure *f, const char *group) {
    const char *transform = attribute(group, "transform"), *size_at = attribute(group, "font-size");
    const char *anchor = attribute(group, "text-anchor");
    const char *from = strstr(group, "<text"), *to = from ? strstr(from, "</text>") : NULL;
    double x, y, turn = 0;
    if (!to || !transform || sscanf(transform, "translate(%lf,%lf) rotate(%lf", &x, &y, &turn) < 2)
        return;
    double size = size_at ? strtod(size_at, NULL) : KV_TEXT_SIZE;
    struct text t = {.s = plain(strchr(from, '>') + 1, to)};
    double width = kv_text_width(t.s, size);
    double left = begins(anchor, "end") ? width : begins(anchor, "middle") ? width / 2 : 0;
    if (fabs(turn) < 1)
        t = (struct text){x - left, y - KV_TEXT_ABOVE * size, x - left + width,
                          y + KV_TEXT_BELOW * size, t.s};
    else // reads upwards
        t = (struct text){x - KV_TEXT_ABOVE * size, y + left - width, x + KV_TEXT_BELOW * size,
                          y + left, t.s};
    if (strspn(t.s, " ") == strlen(t.s)) {
        free(t.s);
        return;
    }
    f->texts = grown(f->texts, f->n_texts, &f->room_texts, sizeof t);
    f->texts[f->n_texts++] = t;
}

static void read_path(struct figure *f, const char *path) {
    const char *d = attribute(path, "d"), *fill = attribute(path, "fill");
    double at_x = 0, at_y = 0, x, y;
    int used;
    if (!d || begins(attribute(path, "class"), "gridline") || attribute(path, "id")) return;
    if (fill && !begins(fill, "none")) return;
    for (char step; sscanf(d, " %c%lf,%lf%n", &step, &x, &y, &used) == 3; d += used) {
        if (step == 'L') add_stroke(f, (struct stroke){at_x, at_y, x, y, 0});
        at_x = x;
        at_y = y;
    }
}

// gnuplot's symbols reach one unit of their scale from their middle, diamonds (12) to a corner.
static void read_point(struct figure *f, const char *use) {
    const char *transform = attribute(use, "transform"), *link = attribute(use, "xlink:href");
    double x, y, scale;
    if (!transform || sscanf(transform, "translate(%lf,%lf) scale(%lf)", &x, &y, &scale) != 3)
        return;
    bool diamond = begins(link, "#gpPt11") || begins(link, "#gpPt12");
    add_stroke(f, (struct stroke){x, y, x, y, diamond ? sqrt(2) * scale : scale});
}

static void read_figure(struct figure *f, const char *svg) {
    const char *p = strstr(svg, "<svg"), *box = p ? attribute(p, "viewBox") : NULL;
    if (!box || sscanf(box, "0 0 %lf %lf", &f->width, &f->height) != 2) {
        fprintf(stderr, "crossings: not an SVG of gnuplot's\n");
        exit(2);
    }
    for (; (p = strchr(p, '<')); p++) {
        if (begins(p, "<g transform")) read_text(f, p);
        if (begins(p, "<path")) read_path(f, p);
        if (begins(p, "<use")) read_point(f, p);
    }
}

// ---- counting -------------------------------------------------------------------------

// Clips the segment to a box, side by side (Liang and Barsky, 1984): whether any of it is left.
static bool meets(struct stroke s, double x0, double y0, double x1, double y1) {
    double dx = s.x1 - s.x0, dy = s.y1 - s.y0, from = 0, to = 1;
    const double p[] = {-dx, dx, -dy, dy};
    const double q[] = {s.x0 - x0, x1 - s.x0, s.y0 - y0, y1 - s.y0};
    for (size_t i = 0; i < 4; i++) {
        if (fabs(p[i]) < 1e-12) {
            if (q[i] < 0) return false;
        } else if (p[i] < 0) {
            from = fmax(from, q[i] / p[i]);
        } else {
            to = fmin(to, q[i] / p[i]);
        }
    }
    return from < to;
}

static size_t count(const struct figure *f, const char *name) {
    size_t found = 0;
    for (size_t i = 0; i < f->n_texts; i++) {
        const struct text *t = &f->texts[i];
        if (t->x0 < 0 || t->y0 < 0 || t->x1 > f->width || t->y1 > f->height) {
            printf("%s: '%s' is cut by the edge\n", name, t->s);
            found++;
        }
        for (size_t k = i + 1; k < f->n_texts; k++) {
            const struct text *o = &f->texts[k];
            if (t->x0 - margin < o->x1 && o->x0 < t->x1 + margin && t->y0 - margin < o->y1 &&
                o->y0 < t->y1 + margin) {
                printf("%s: '%s' meets '%s'\n", name, t->s, o->s);
                found++;
            }
        }
        for (size_t k = 0; k < f->n_strokes; k++) {
            const struct stroke *s = &f->strokes[k];
            double by = margin + s->radius;
            if (s->radius > 0 ? s->x0 > t->x0 - by && s->x0 < t->x1 + by && s->y0 > t->y0 - by &&
                                    s->y0 < t->y1 + by
                              : meets(*s, t->x0 - by, t->y0 - by, t->x1 + by, t->y1 + by)) {
                printf("%s: '%s' is crossed by a %s at %.1f, %.1f\n", name, t->s,
                       s->radius > 0 ? "point" : "line", s->x0, s->y0);
                found++;
            }
        }
    }
    return found;
}

int main(int argc, char **argv) {
    size_t found = 0, texts = 0;
    for (int i = 1; i < argc; i++) {
        struct figure f = {0};
        struct kv_error e = {0};
        char *svg;
        size_t n;
        if (kv_read_file(argv[i], &svg, &n, &e)) {
            fprintf(stderr, "crossings: %s: %s\n", e.where, e.msg);
            return 2;
        }
        read_figure(&f, svg);
        found += count(&f, argv[i]);
        texts += f.n_texts;
        for (size_t k = 0; k < f.n_texts; k++) free(f.texts[k].s);
        free(f.texts);
        free(f.strokes);
        free(svg);
    }
    printf("%zu crossings of %zu texts in %d figures\n", found, texts, argc - 1);
    return found || texts == 0;
}
