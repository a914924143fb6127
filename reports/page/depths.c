// SPDX-License-Identifier: Apache-2.0
// The page's table of scored positions by depth.
#include "analysis/results/depths.h"

#include <stdlib.h>

#include "reports/page/html.h"
#include "reports/page/sections.h"

static void add_estimate(struct kv_text *t, const struct kv_token_estimate *x) {
    const struct kv_interval *i = &x->interval;
    if (x->bound && !isnan(i->low))
        kv_text_addf(t, isnan(i->high) ? "<td>&gt; %.4f</td>" : "<td>%.4f to %.4f</td>", i->low,
                     i->high);
    else if (isnan(x->value))
        kv_text_addf(t, "<td></td>");
    else if (isnan(i->low))
        kv_text_addf(t, "<td>%.4f</td>", x->value);
    else
        kv_text_addf(t, "<td>%.4f <span class=\"soft\">[%.4f, %.4f]</span></td>", x->value, i->low,
                     i->high);
}

void kv_page_depths(struct kv_text *t, const struct kv_page_part *part) {
    static const char *const heads[] = {"policy", "context", "positions", "mean KL",     "median",
                                        "99 %",   "99.9 %",  "same top",  "RMS &Delta;p"};
    size_t n;
    struct kv_depth_row *d = kv_rows_by_depth(part->set.rows, part->set.n, &n);
    if (n) {
        kv_text_addf(t,
                     "<h4>By depth</h4>\n<p class=\"soft\">Scored positions by how many tokens "
                     "they see: divergence from 16 bit in nats, share whose likeliest token is "
                     "the same, root mean square change of the next token's probability; in "
                     "brackets 95 %% intervals from resampled blocks of tokens. The 99 %% quantile "
                     "asks for 1,000 positions, the 99.9 %% one for 10,000: below that stands a "
                     "bound by order statistics.</p>\n");
        kv_html_table(t, "By depth", heads, sizeof heads / sizeof *heads);
        for (size_t i = 0; i < n; i++) {
            kv_text_addf(t, "<tr><th scope=\"row\">");
            kv_html_spec(t, d[i].row->label);
            kv_text_addf(t, "</th><td>%u to %u</td><td>%zu</td>", d[i].depths.above + 1,
                         d[i].depths.upto, d[i].s.n);
            for (int m = 0; m < KV_N_TOKEN_MEASURES; m++) add_estimate(t, &d[i].s.at[m]);
            kv_text_addf(t, "</tr>\n");
        }
        kv_text_addf(t, "</tbody></table></div>\n");
    }
    free(d);
}
