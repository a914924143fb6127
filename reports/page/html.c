// SPDX-License-Identifier: Apache-2.0
// Writing HTML: escaping, table cells, and gnuplot's SVG as part of a page.
#include "reports/page/html.h"
#include "sim/base/utf8.h"

#include <ctype.h>
#include <stdlib.h>

void kv_html_textn(struct kv_text *t, const char *s, size_t n) {
    static const char *const special[128] = {
        ['&'] = "&amp;", ['<'] = "&lt;", ['>'] = "&gt;", ['"'] = "&quot;", ['\''] = "&#39;"};
    for (size_t i = 0; i < n;) {
        size_t from = i;
        uint32_t c = kv_utf8_next(s, n, &i);
        if (c < 128 && special[c])
            kv_text_addf(t, "%s", special[c]);
        else if (c == KV_UTF8_BAD || c < 0x20 || (c >= 0x7F && c < 0xA0))
            kv_text_add(t, "?", 1);
        else
            kv_text_add(t, s + from, i - from);
        if (c == KV_UTF8_BAD) i++;
    }
}

void kv_html_text(struct kv_text *t, const char *s) {
    kv_html_textn(t, s, strlen(s));
}

void kv_html_spec(struct kv_text *t, const char *spec) {
    for (size_t n; *spec; spec += n) {
        n = strcspn(spec, ",:@/");
        n += spec[n] != '\0';
        kv_html_textn(t, spec, n);
        kv_text_addf(t, "<wbr>");
    }
}

// ---- cells ----------------------------------------------------------------------------

void kv_html_number(struct kv_text *t, int decimals, double x) {
    kv_text_addf(t, "<td>");
    if (!isnan(x)) kv_text_addf(t, "%.*f", decimals, x);
    kv_text_addf(t, "</td>");
}

void kv_html_bounded(struct kv_text *t, int decimals, double x, struct kv_interval i) {
    kv_text_addf(t, "<td>");
    if (!isnan(x)) kv_text_addf(t, "%.*f", decimals, x);
    if (!isnan(x) && !isnan(i.low))
        kv_text_addf(t, " <small>[%.*f %.*f]</small>", decimals, i.low, decimals, i.high);
    kv_text_addf(t, "</td>");
}

// In percent with one decimal, and no sign on a zero.
static void add_percent(struct kv_text *t, double x, bool sign) {
    double tenths = round(1000 * x);
    kv_text_addf(t, sign && tenths != 0 ? "%+.1f" : "%.1f", tenths == 0 ? 0 : tenths / 10);
}

void kv_html_interval(struct kv_text *t, double x, struct kv_interval i, bool sign) {
    kv_text_addf(t, "<td>");
    if (!isnan(x)) add_percent(t, x, sign);
    if (!isnan(x) && !isnan(i.low)) {
        kv_text_addf(t, " <small>[");
        add_percent(t, i.low, sign);
        kv_text_addf(t, " ");
        add_percent(t, i.high, sign);
        kv_text_addf(t, "]</small>");
    }
    kv_text_addf(t, "</td>");
}

void kv_html_wide(struct kv_text *t, const char *label) {
    kv_text_addf(t, "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"");
    kv_html_text(t, label);
    kv_text_addf(t, "\">");
}

void kv_html_table(struct kv_text *t, const char *label, const char *const *heads, size_t n) {
    kv_html_wide(t, label);
    kv_text_addf(t, "<table class=\"sort\"><thead><tr>");
    for (size_t k = 0; k < n; k++) kv_text_addf(t, "<th scope=\"col\">%s</th>", heads[k]);
    kv_text_addf(t, "</tr></thead>\n<tbody>\n");
}

// ---- SVG ------------------------------------------------------------------------------

// A tag as it stands in the file: <name attributes>.
struct tag {
    const char *name, *rest, *end; // end: behind ">"
    size_t n_name;
    bool closing, empty;
};

static struct tag read_tag(const char *p) {
    struct tag t = {0};
    char quote = 0;
    p++;
    t.closing = *p == '/';
    t.name = p + t.closing;
    while (isalnum((unsigned char)t.name[t.n_name])) t.n_name++;
    t.rest = t.name + t.n_name;
    for (p = t.rest; *p && (quote || *p != '>'); p++) {
        if (!quote && (*p == '"' || *p == '\''))
            quote = *p;
        else if (*p == quote)
            quote = 0;
    }
    t.empty = p[-1] == '/';
    t.end = *p ? p + 1 : p;
    return t;
}

static bool is(const struct tag *t, const char *name) {
    return strlen(name) == t->n_name && strncmp(t->name, name, t->n_name) == 0;
}

static bool draws(const struct tag *t) {
    static const char *const kept[] = {"g",    "defs",  "path",    "circle",   "rect",    "use",
                                       "text", "tspan", "polygon", "polyline", "clipPath"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (is(t, kept[i])) return true;
    return false;
}

// The variable that stands for a colour of reports/draw/style.gp; NULL = none does.
static const char *variable(const char *value, size_t n) {
    static const struct {
        unsigned rgb;
        const char *name;
    } colours[] = {{0x222222, "--ink"},    {0xFFFFFF, "--paper"}, {0x8A8A8A, "--soft"},
                   {0xC9C9C9, "--pale"},   {0xEBEBEB, "--grid"},  {0x0072B2, "--blue"},
                   {0xD55E00, "--orange"}, {0x009E73, "--green"}, {0xA84600, "--best"},
                   {0xF0B48C, "--band"}};
    char text[40];
    unsigned r, g, b, rgb;
    if (n == 5 && strncmp(value, "black", n) == 0) return "--ink";
    if (n >= sizeof text) return NULL;
    memcpy(text, value, n);
    text[n] = '\0';
    if (sscanf(text, "rgb( %u , %u , %u )", &r, &g, &b) == 3)
        rgb = r << 16 | g << 8 | b;
    else if (sscanf(text, "#%6x", &rgb) != 1 || n != 7)
        return NULL;
    for (size_t i = 0; i < sizeof colours / sizeof *colours; i++)
        if (colours[i].rgb == rgb) return colours[i].name;
    return NULL;
}

static void add_attribute(struct kv_text *t, const char *name, size_t n_name, const char *value,
                          size_t n, const char *prefix) {
    static const char *const kept[] = {"id",
                                       "d",
                                       "x",
                                       "y",
                                       "width",
                                       "height",
                                       "cx",
                                       "cy",
                                       "r",
                                       "points",
                                       "transform",
                                       "fill",
                                       "stroke",
                                       "color",
                                       "fill-opacity",
                                       "font-size",
                                       "stroke-width",
                                       "stroke-dasharray",
                                       "text-anchor",
                                       "clip-path",
                                       "opacity",
                                       "font-weight",
                                       "font-style"};
    static const char link[] = "xlink:href";
    bool known = n_name == strlen(link) && strncmp(name, link, n_name) == 0 && *value == '#';
    if (known) {
        kv_text_addf(t, " href=\"#%s", prefix);
        kv_html_textn(t, value + 1, n - 1);
        kv_text_add(t, "\"", 1);
        return;
    }
    for (size_t i = 0; i < sizeof kept / sizeof *kept && !known; i++)
        known = strlen(kept[i]) == n_name && strncmp(name, kept[i], n_name) == 0;
    if (!known) return;
    const char *colour = variable(value, n);
    kv_text_addf(t, " %.*s=\"", (int)n_name, name);
    if (colour) {
        kv_text_addf(t, "var(%s)", colour);
    } else if (n > 5 && strncmp(value, "url(#", 5) == 0) {
        kv_text_addf(t, "url(#%s", prefix);
        kv_html_textn(t, value + 5, n - 5);
    } else {
        if (n_name == 2 && strncmp(name, "id", 2) == 0) kv_text_addf(t, "%s", prefix);
        for (size_t used; n; value += used, n -= used) { // paths are broken into lines
            for (used = 0; used < n && !isspace((unsigned char)value[used]);) used++;
            kv_html_textn(t, value, used);
            size_t word = used;
            while (used < n && isspace((unsigned char)value[used])) used++;
            if (used > word && used < n) kv_text_add(t, " ", 1);
        }
    }
    kv_text_add(t, "\"", 1);
}

static void add_tag(struct kv_text *t, const struct tag *tag, const char *prefix) {
    kv_text_addf(t, "<%s%.*s", tag->closing ? "/" : "", (int)tag->n_name, tag->name);
    for (const char *p = tag->rest; p < tag->end && !tag->closing;) {
        if (!isalpha((unsigned char)*p)) {
            p++;
            continue;
        }
        const char *name = p;
        while (p < tag->end && (isalnum((unsigned char)*p) || *p == '-' || *p == ':')) p++;
        size_t n_name = (size_t)(p - name);
        p += strspn(p, " \n");
        if (*p != '=') continue;
        p += 1 + strspn(p + 1, " \n");
        char quote = *p++;
        if (quote != '"' && quote != '\'') continue;
        const char *value = p;
        while (p < tag->end && *p != quote) p++;
        add_attribute(t, name, n_name, value, (size_t)(p - value), prefix);
        if (p < tag->end) p++;
    }
    kv_text_addf(t, tag->empty ? "/>" : ">");
}

static double view_box(const char *svg, const char *name) {
    const char *at = strstr(svg, name);
    return at ? strtod(at + strlen(name), NULL) : 0;
}

void kv_html_svg(struct kv_text *t, const char *svg, const char *prefix, double height,
                 const char *label) {
    struct kv_text group = {0}; // an opened group, not yet known to hold anything
    const char *p = strstr(svg, "<svg");
    bool in_text = false;
    if (!p) return;
    kv_text_addf(t, "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"",
                 view_box(p, "width=\""), fmin(height, view_box(p, "height=\"")));
    kv_html_text(t, label);
    kv_text_addf(t, "\">");
    for (p = read_tag(p).end; *p;) {
        if (*p != '<') {
            if (in_text) kv_text_add(t, p, 1);
            p++;
            continue;
        }
        struct tag tag = read_tag(p);
        p = tag.end;
        if (!draws(&tag)) continue;
        if (is(&tag, "text") || is(&tag, "tspan")) in_text = !tag.closing;
        if (is(&tag, "g") && tag.closing && group.n) {
            group.n = 0;
            continue;
        }
        if (group.n) kv_text_add(t, group.s, group.n);
        group.n = 0;
        add_tag(is(&tag, "g") && !tag.closing ? &group : t, &tag, prefix);
    }
    kv_text_addf(t, "</svg>");
    free(group.s);
}
