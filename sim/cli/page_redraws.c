// SPDX-License-Identifier: Apache-2.0
// The page's split of variance where runs were redrawn: how much of an item's spread is rounding.
#include "analysis/evidence.h"
#include "sim/cli/html.h"
#include "sim/cli/page.h"

#include <stdlib.h>

enum { N_QUANTITIES = 3 };

// One value a redraw of an item, items together.
struct values {
    size_t n;
    uint32_t *item;
    double *y[N_QUANTITIES]; // how right, margin, divergence
};

static int take(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                struct kv_error *e) {
    struct values *x = self;
    (void)n, (void)names, (void)e;
    x->item = kv_grow(x->item, x->n + 1, sizeof *x->item);
    x->item[x->n] = (uint32_t)v[0].n;
    for (size_t q = 0; q < N_QUANTITIES; q++) {
        const struct kv_sql_value *value = &v[q + 1];
        x->y[q] = kv_grow(x->y[q], x->n + 1, sizeof(double));
        x->y[q][x->n] = value->kind == KV_SQL_NULL  ? NAN
                        : value->kind == KV_SQL_INT ? (double)value->n
                                                    : value->x;
    }
    x->n++;
    return 0;
}

static int read_values(struct kv_store *s, long long family, struct values *x, struct kv_error *e) {
    const struct kv_sql_value of = {.kind = KV_SQL_INT, .n = family};
    return kv_store_query(
        s,
        "SELECT o.item, CASE WHEN i.gold >= 0 THEN o.pick_acc = i.gold END, o.margin, o.kl_nats "
        "FROM outcome_item AS o JOIN family AS f ON f.run = o.run JOIN run AS r ON r.id = o.run "
        "JOIN item AS i ON i.trace = r.trace AND i.item = o.item "
        "WHERE f.family = ? ORDER BY o.item, o.run",
        &of, 1, take, x, e);
}

static void add_split(struct kv_text *t, const struct values *x, size_t q) {
    struct kv_variance_split v = kv_split_variance(x->item, x->y[q], x->n);
    if (isnan(v.rounding_share))
        kv_text_addf(t, "<td></td><td></td><td></td>");
    else
        kv_text_addf(t, "<td>%.3g</td><td>%.3g</td><td>%.0f</td>", sqrt(fmax(0, v.item_variance)),
                     sqrt(v.rounding_variance), 100 * v.rounding_share);
}

static int add_row(struct kv_text *t, const struct kv_page *p, const struct kv_row *r,
                   struct kv_error *e) {
    struct values x = {0};
    int code = read_values(p->store, r->s.family, &x, e);
    kv_text_addf(t, "<tr><th scope=\"row\">");
    kv_html_spec(t, r->label);
    kv_text_addf(t, "</th><td>%zu</td>", r->s.n_redraws);
    for (size_t q = 0; !code && q < N_QUANTITIES; q++) add_split(t, &x, q);
    kv_text_addf(t, "</tr>\n");
    free(x.item);
    for (size_t q = 0; q < N_QUANTITIES; q++) free(x.y[q]);
    return code;
}

int kv_page_redraws(struct kv_text *t, const struct kv_page *p, const struct kv_page_part *part,
                    struct kv_error *e) {
    static const char *const quantities[N_QUANTITIES] = {"right", "margin", "KL"};
    bool any = false;
    int code = 0;
    for (size_t i = 0; i < part->set.n; i++) any = any || part->set.rows[i].s.n_redraws > 1;
    if (!any) return 0;
    kv_text_addf(t, "<h4>Items and rounding</h4>\n<p class=\"soft\">Runs that were redrawn under a "
                    "disturbance of 1e-6, split into the spread between items and that of one item "
                    "between redraws (standard deviations; share of the variance). Intervals "
                    "contain both already.</p>\n");
    kv_html_wide(t, "Items and rounding");
    kv_text_addf(t, "<table class=\"sort split\"><thead><tr><th scope=\"col\">policy</th>"
                    "<th scope=\"col\">redraws</th>");
    for (size_t q = 0; q < N_QUANTITIES; q++)
        kv_text_addf(t,
                     "<th scope=\"col\">%s: items</th><th scope=\"col\">%s: rounding</th>"
                     "<th scope=\"col\">%s: rounding, %%</th>",
                     quantities[q], quantities[q], quantities[q]);
    kv_text_addf(t, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; !code && i < part->set.n; i++)
        if (part->set.rows[i].s.n_redraws > 1) code = add_row(t, p, &part->set.rows[i], e);
    kv_text_addf(t, "</tbody></table></div>\n");
    return code;
}
