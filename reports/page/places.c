// SPDX-License-Identifier: Apache-2.0
// The page's table of needle and recall tasks: where each policy first differs from 16 bit.
#include "analysis/results/places.h"

#include <stdlib.h>

#include "reports/page/html.h"
#include "reports/page/sections.h"

// Means over all places, weighed by their items.
static double overall(const struct kv_row *row, bool reference) {
    double sum = 0, n = 0;
    for (size_t i = 0; i < row->n_places; i++) {
        const struct kv_place_result *p = &row->place[i];
        sum += (reference ? p->match16 : p->match) * (double)p->n;
        n += (double)p->n;
    }
    return sum / n;
}

static void add_share(struct kv_text *t, double share) {
    if (isnan(share))
        kv_text_addf(t, "<td></td>");
    else
        kv_text_addf(t, "<td>%.1f %%</td>", 100 * share);
}

void kv_page_places(struct kv_text *t, const struct kv_page_part *part) {
    static const char *const heads[] = {"policy",        "places",
                                        "items",         "16 bit",
                                        "written whole", "differs from 16 bit at p &lt; .01"};
    bool any = false;
    for (size_t i = 0; i < part->set.n; i++) any = any || part->set.rows[i].n_places;
    if (!any) return;
    kv_text_addf(t, "<h4>By length and depth</h4>\n<p class=\"soft\">Facts at a depth of a context "
                    "of some length: how many answers greedy decoding writes whole, and the first "
                    "place that differs: by match (exact McNemar) and by margin (paired t on the "
                    "answer's log-prob minus the best other choice's), both adjusted over the "
                    "places by Holm.</p>\n");
    kv_html_table(t, "By length and depth", heads, sizeof heads / sizeof *heads);
    for (size_t i = 0; i < part->set.n; i++) {
        const struct kv_row *row = &part->set.rows[i];
        size_t items = 0;
        if (row->n_places == 0) continue;
        for (size_t k = 0; k < row->n_places; k++) items += row->place[k].n;
        char *first = kv_places_text(row->place, row->n_places);
        kv_text_addf(t, "<tr><th scope=\"row\">");
        kv_html_spec(t, row->label);
        kv_text_addf(t, "</th><td>%zu</td><td>%zu</td>", row->n_places, items);
        add_share(t, overall(row, true));
        add_share(t, overall(row, false));
        kv_text_addf(t, "<td class=\"left\">");
        kv_html_text(t, first);
        kv_text_addf(t, "</td></tr>\n");
        free(first);
    }
    kv_text_addf(t, "</tbody></table></div>\n");
}
