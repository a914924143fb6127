// SPDX-License-Identifier: Apache-2.0
// A figure's picture inside the page.
#include <stdlib.h>

#include "reports/page/html.h"
#include "reports/page/sections.h"
#include "sim/base/files.h"

int kv_page_drawing(struct kv_text *t, const struct kv_page *p, const char *name, double plot_y,
                    const char *class, const char *label, struct kv_error *e) {
    char *path = kv_format_text("%s/%s.svg", p->dir, name), *svg;
    size_t n;
    int code = kv_read_file(path, &svg, &n, e);
    free(path);
    if (code) return code;
    char *prefix = kv_format_text("%s-", name);
    kv_text_addf(t, "<div class=\"%s\">", class);
    kv_html_svg(t, svg, prefix, plot_y, label);
    kv_text_addf(t, "</div>\n");
    free(prefix);
    free(svg);
    return 0;
}
