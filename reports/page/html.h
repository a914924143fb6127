// SPDX-License-Identifier: Apache-2.0
// Writing HTML: escaping, table cells, and gnuplot's SVG as part of a page.
#ifndef KV_REPORTS_PAGE_HTML_H
#define KV_REPORTS_PAGE_HTML_H

#include "analysis/stats/stats.h"
#include "sim/base/memory.h"

// Adds n bytes (or a string) as text or attribute value: markup is escaped, control characters and
// what is not UTF-8 become "?".
void kv_html_textn(struct kv_text *t, const char *s, size_t n);
void kv_html_text(struct kv_text *t, const char *s);

// The same for a spec, which may be broken behind its commas, colons and "@".
void kv_html_spec(struct kv_text *t, const char *spec);

// Adds an SVG that gnuplot wrote: elements and attributes that draw, nothing else; ids get `prefix`
// so that many can stand in one page; the shared style's colours become variables of the page
// (--ink, --paper, ...), so that it can be dark. Only the topmost `height` pixels are shown. label:
// what it shows, for those who cannot see it.
void kv_html_svg(struct kv_text *t, const char *svg, const char *prefix, double height,
                 const char *label);

// Opens a box as wide as the page whose content scrolls, also by keyboard; "</div>" closes it.
void kv_html_wide(struct kv_text *t, const char *label);

// Opens a box as above and in it a table that its readers can sort, with a head of each text (as
// markup); "</tbody></table></div>" closes both.
void kv_html_table(struct kv_text *t, const char *label, const char *const *heads, size_t n);

// "<td>" with a number, empty when NAN.
void kv_html_number(struct kv_text *t, int decimals, double x);
// The same with the interval behind it, where there is one.
void kv_html_bounded(struct kv_text *t, int decimals, double x, struct kv_interval i);
// "<td>" with 100 x and its interval in percent, signed for differences.
void kv_html_interval(struct kv_text *t, double x, struct kv_interval i, bool sign);

#endif
