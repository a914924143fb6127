// SPDX-License-Identifier: Apache-2.0
// The page's split of variance where runs were redrawn: how much of an item's spread is rounding.
#include "reports/page/html.h"
#include "reports/page/sections.h"

static void add_split(struct kv_text *t, const struct kv_variance_split *v) {
    if (isnan(v->rounding_share))
        kv_text_addf(t, "<td></td><td></td><td></td>");
    else
        kv_text_addf(t, "<td>%.3g</td><td>%.3g</td><td>%.0f</td>", sqrt(fmax(0, v->item_variance)),
                     sqrt(v->rounding_variance), 100 * v->rounding_share);
}

void kv_page_redraws(struct kv_text *t, const struct kv_page_part *part) {
    static const char *const quantities[] = {"to 16 bit", "KL"};
    bool any = false;
    for (size_t i = 0; i < part->set.n; i++) any = any || part->set.rows[i].s.n_redraws > 1;
    if (!any) return;
    kv_text_addf(t, "<h4>Items and rounding</h4>\n<p class=\"soft\">Runs that were redrawn under a "
                    "disturbance of 1e-6, split into the spread between items and that of one item "
                    "between redraws (standard deviations of right less right at 16 bit, and of "
                    "KL; share of the variance). Intervals "
                    "contain both already.</p>\n");
    kv_html_wide(t, "Items and rounding");
    kv_text_addf(t, "<table class=\"sort split\"><thead><tr><th scope=\"col\">policy</th>"
                    "<th scope=\"col\">redraws</th>");
    for (size_t q = 0; q < 2; q++)
        kv_text_addf(t,
                     "<th scope=\"col\">%s: items</th><th scope=\"col\">%s: rounding</th>"
                     "<th scope=\"col\">%s: rounding, %%</th>",
                     quantities[q], quantities[q], quantities[q]);
    kv_text_addf(t, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < part->set.n; i++) {
        const struct kv_row *r = &part->set.rows[i];
        if (r->s.n_redraws < 2) continue;
        kv_text_addf(t, "<tr><th scope=\"row\">");
        kv_html_spec(t, r->label);
        kv_text_addf(t, "</th><td>%zu</td>", r->s.n_redraws);
        add_split(t, &r->split);
        add_split(t, &r->split_kl);
        kv_text_addf(t, "</tr>\n");
    }
    kv_text_addf(t, "</tbody></table></div>\n");
}
