// SPDX-License-Identifier: Apache-2.0
// The page's tables of a part: results, and how the ranking depends on the scorer.
#include "analysis/results/front.h"
#include "analysis/results/notes.h"
#include "reports/page/html.h"
#include "reports/page/sections.h"
#include "analysis/results/scorers.h"

#include <stdlib.h>
#include "sim/base/guard.h"

enum { DRAWS = 1000 };

// What the rows of a part have beside the numbers that all have.
struct extra {
    bool accuracy, divergence, shuffle, static4;
    bool known; // the frontier is
    struct kv_front front;
};

// Where the frontier has a row; front.n: nowhere, as of those that no item judges.
static size_t place_of(const struct extra *x, const struct kv_row *r) {
    size_t at = 0;
    while (at < x->front.n && x->front.rows[at] != r) at++;
    return at;
}

static double p_of(const struct kv_row *r) {
    return isnan(r->to16[KV_ACC].mid_p) ? r->to16[KV_ACC].t_p : r->to16[KV_ACC].mid_p;
}

// Divergence and cost first; how policies answer questions stands behind.
static void add_head(struct kv_text *t, const struct kv_rows *all, const struct extra *x) {
    static const char *const judged[] = {"accuracy, %", "to 16 bit, points", "p (mid-p)",
                                         "p (Holm)",    "acc_norm, %",       "agreement, %"};
    kv_text_addf(t, "<thead><tr><th scope=\"col\">#</th><th scope=\"col\">policy</th>"
                    "<th scope=\"col\">KL, nats</th><th scope=\"col\">effective bits</th>");
    for (size_t k = 0; all->device && k < all->n_contexts; k++)
        kv_text_addf(t, "<th scope=\"col\">ms at %g</th>", all->context[k]);
    kv_text_addf(t, "<th scope=\"col\">on frontier, %%</th><th scope=\"col\">beaten by #</th>");
    for (size_t i = 0; x->accuracy && i < sizeof judged / sizeof *judged; i++)
        kv_text_addf(t, "<th scope=\"col\">%s</th>", judged[i]);
    if (x->accuracy && x->static4) kv_text_addf(t, "<th scope=\"col\">to static 4 bit</th>");
    if (x->accuracy && x->shuffle) kv_text_addf(t, "<th scope=\"col\">to its shuffle</th>");
    kv_text_addf(t, "<th scope=\"col\">nominal bits</th><th scope=\"col\">allocated bits</th>");
    kv_text_addf(t, "</tr></thead>\n<tbody>\n");
}

static void add_name(struct kv_text *t, const struct kv_page *p, const struct kv_row *r) {
    size_t number = kv_page_policy_number(p, r->s.spec);
    kv_text_addf(t, "<th scope=\"row\" title=\"");
    kv_html_text(t, r->s.spec);
    kv_text_addf(t, "\"><a href=\"#p%zu\">", number);
    kv_html_spec(t, r->label);
    kv_text_addf(t, "</a>%s%s", r->newest ? " (newest)" : "", r->s.oracle ? " (oracle)" : "");
    if (r->mode_mismatch) kv_text_addf(t, " (published in mode %s)", r->published);
    kv_text_addf(t, "</th>");
}

static void add_versus(struct kv_text *t, const struct kv_versus *v) {
    kv_html_interval(t, v->n_runs ? v->acc.difference : NAN, v->acc.interval, true);
}

static void add_judged(struct kv_text *t, const struct kv_row *r, const struct extra *x) {
    kv_html_interval(t, r->s.acc[KV_ACC], r->interval[KV_ACC], false);
    kv_html_interval(t, r->to16[KV_ACC].difference, r->to16[KV_ACC].interval, true);
    kv_html_number(t, 3, p_of(r));
    kv_html_number(t, 3, r->holm_p);
    kv_html_interval(t, r->s.acc[KV_ACC_NORM], r->interval[KV_ACC_NORM], false);
    kv_html_number(t, 1, 100 * r->s.agree);
    if (x->static4) add_versus(t, &r->static4);
    if (x->shuffle) add_versus(t, &r->shuffle);
}

static void add_row(struct kv_text *t, const struct kv_page *p, const struct kv_page_part *part,
                    size_t i, const struct extra *x) {
    const struct kv_row *r = &part->set.rows[i];
    size_t at = x->known ? place_of(x, r) : 0;
    bool known = x->known && at < x->front.n;
    kv_text_addf(t, "<tr%s><td>%zu</td>", known && x->front.on[at] ? " class=\"best\"" : "", i + 1);
    add_name(t, p, r);
    kv_html_bounded(t, 4, r->kl.mean, r->kl.interval);
    kv_html_number(t, 2, r->s.effective_bits);
    for (size_t k = 0; p->all->device && k < p->all->n_contexts; k++)
        kv_text_addf(t, "<td>%.2f%s</td>", r->at[k].step_ns / 1e6,
                     r->at[k].extrapolated ? "*" : "");
    kv_html_number(t, 0, known ? 100 * x->front.frequency[at] : NAN);
    kv_text_addf(t, "<td>");
    if (known && x->front.by[at] < x->front.n)
        kv_text_addf(t, "%zu", (size_t)(x->front.rows[x->front.by[at]] - part->set.rows) + 1);
    if (known && x->front.knee == at) kv_text_addf(t, "knee");
    kv_text_addf(t, "</td>");
    if (x->accuracy) add_judged(t, r, x);
    kv_html_number(t, 2, r->s.nominal_bits);
    kv_html_number(t, 2, r->s.allocated_bits);
    kv_text_addf(t, "</tr>\n");
}

static void add_ceiling(struct kv_text *t, const struct kv_page *p, const struct kv_row *r) {
    if (!p->all->device) return;
    kv_text_addf(t, " Times on ");
    kv_html_text(t, p->all->device->name);
    kv_text_addf(t, ", which with a cache of no bytes would take");
    for (size_t k = 0; k < p->all->n_contexts; k++)
        kv_text_addf(t, "%s %.2f ms at %g tokens", k ? "," : "", r->at[k].ceiling_ns / 1e6,
                     p->all->context[k]);
    kv_text_addf(t, ".");
}

// The sign that some times carry.
static void add_beyond(struct kv_text *t, const struct kv_page *p,
                       const struct kv_frontier_set *set) {
    for (size_t i = 0; p->all->device && i < set->n; i++)
        for (size_t k = 0; k < p->all->n_contexts; k++)
            if (set->rows[i].at[k].extrapolated) {
                kv_text_addf(t, " A time with * lies beyond the contexts, widths, cache types or "
                                "widths by cell "
                                "that the device was measured at.");
                return;
            }
}

// What the numbers leave out, and at what length quality was measured.
static void add_notes(struct kv_text *t, const struct kv_page *p,
                      const struct kv_frontier_set *set) {
    const struct kv_row **rows = kv_alloc(set->n + 1, sizeof *rows);
    for (size_t i = 0; i < set->n; i++) rows[i] = &set->rows[i];
    char *note =
        p->all->device ? kv_context_note(rows, set->n, p->all->context, p->all->n_contexts) : NULL;
    if (note) kv_text_addf(t, " %c%s.", note[0] - 'a' + 'A', note + 1);
    free(note);
    note = p->all->device ? kv_depth_note(rows, set->n, p->all->context, p->all->n_contexts) : NULL;
    if (note) kv_text_addf(t, " In the figures against time: %s.", note);
    free(note);
    for (size_t i = 0; i < set->n; i++) {
        if (!(note = kv_left_out_note(rows[i]))) continue;
        kv_text_addf(t, " Left out of #%zu: ", i + 1);
        kv_html_text(t, note);
        kv_text_addf(t, ".");
        free(note);
    }
    free(rows);
}

// The frontier of divergence, or without divergences of accuracy, and effective bits.
static bool find_front(struct extra *x, const struct kv_page *p,
                       const struct kv_frontier_set *set) {
    struct kv_error ignored; // rows without a common item have no frontier
    const struct kv_row **rows = kv_alloc(set->n + 1, sizeof *rows);
    const struct kv_front_value *value = kv_front_values;
    for (size_t i = 0; i < set->n; i++) rows[i] = &set->rows[i];
    while (x->divergence && value->scorer != KV_FRONT_KL) value++;
    int rc = kv_front_find(&x->front, p->store, rows, set->n, value, &kv_front_costs[0], 0, p->seed,
                           DRAWS, &ignored);
    free(rows);
    return kv_tolerate(rc, &ignored) == 0;
}

void kv_page_table(struct kv_text *t, const struct kv_page *p, const struct kv_page_part *part) {
    const struct kv_frontier_set *set = &part->set;
    struct extra x = {0};
    for (size_t i = 0; i < set->n; i++) {
        const struct kv_row *r = &set->rows[i];
        x.accuracy = x.accuracy || !isnan(r->s.acc[KV_ACC]);
        x.divergence = x.divergence || !isnan(r->kl.mean);
        x.shuffle = x.shuffle || r->shuffle.n_runs;
        x.static4 = x.static4 || r->static4.n_runs;
    }
    x.known = find_front(&x, p, set);
    kv_text_addf(t,
                 "<p class=\"soft\">Numbers are those of the figures; rows in colour are on the "
                 "frontier of %s and effective bits",
                 x.divergence ? "divergence" : "accuracy");
    if (x.known && x.front.n_left_out)
        kv_text_addf(t, " on the %zu items that all rows hold with finite results",
                     x.front.n_items);
    kv_text_addf(t, ".");
    add_ceiling(t, p, &set->rows[0]);
    add_beyond(t, p, set);
    add_notes(t, p, set);
    kv_text_addf(t, "</p>\n");
    kv_html_wide(t, "Results");
    kv_text_addf(t, "<table class=\"sort\">\n");
    add_head(t, p->all, &x);
    for (size_t i = 0; i < set->n; i++) add_row(t, p, part, i, &x);
    kv_text_addf(t, "</tbody></table></div>\n");
    if (x.known) kv_front_fini(&x.front);
}

// ---- ranking by scorer ----------------------------------------------------------------

void kv_page_scorers(struct kv_text *t, const struct kv_page_part *part) {
    const struct kv_frontier_set *set = &part->set;
    if (isnan(set->rows[0].s.acc[KV_ACC])) return;
    kv_text_addf(t,
                 "<details><summary>Ranking by scorer</summary><p class=\"soft\">Place by each "
                 "rule that turns log-probabilities into a pick, and by divergence; the accuracy "
                 "beside it, in %%.</p>");
    kv_html_wide(t, "Ranking by scorer");
    kv_text_addf(t, "<table class=\"sort\"><thead><tr><th scope=\"col\">#</th>"
                    "<th scope=\"col\">policy</th>");
    for (int k = 0; k < KV_N_RANKINGS; k++)
        kv_text_addf(t, "<th scope=\"col\">%s</th>", kv_ranking_names[k]);
    kv_text_addf(t, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < set->n; i++) {
        kv_text_addf(t, "<tr><td>%zu</td><th scope=\"row\">", i + 1);
        kv_html_spec(t, set->rows[i].label);
        kv_text_addf(t, "</th>");
        for (int k = 0; k < KV_N_RANKINGS; k++) {
            size_t place = kv_ranking_place(set->rows, set->n, i, k);
            kv_text_addf(t, "<td>");
            if (place) kv_text_addf(t, "%zu", place);
            if (place && k < KV_N_SCORERS)
                kv_text_addf(t, " <small>%.1f</small>", 100 * set->rows[i].s.acc[k]);
            kv_text_addf(t, "</td>");
        }
        kv_text_addf(t, "</tr>\n");
    }
    kv_text_addf(t, "</tbody></table></div><p class=\"soft\">Agreement with the ranking by acc "
                    "(Kendall's tau-b):");
    for (int k = 1; k < KV_N_RANKINGS; k++)
        kv_text_addf(t, "%s %s %.2f", k > 1 ? "," : "", kv_ranking_names[k],
                     kv_ranking_agreement(set->rows, set->n, KV_ACC, k));
    kv_text_addf(t, ".</p></details>\n");
}
