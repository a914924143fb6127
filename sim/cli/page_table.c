// SPDX-License-Identifier: Apache-2.0
// The page's tables of a part: results, and how the ranking depends on the scorer.
#include "analysis/pareto.h"
#include "sim/cli/html.h"
#include "sim/cli/page.h"

#include <stdlib.h>

enum { DRAWS = 1000 };

// How often each row is on the frontier of accuracy (or divergence) and effective bits when items
// are drawn again.
static int bootstrap(const struct kv_figure_set *set, struct kv_store *s, uint64_t seed,
                     bool accuracy, double *frequency, struct kv_error *e) {
    struct kv_item_result *items;
    size_t n_stored, n_items = set->rows[0].s.n_trace_items;
    int code = kv_store_items(s, set->rows[0].s.family, &items, &n_stored, e);
    if (code) return code;
    uint64_t *cluster = kv_alloc(n_items + 1, sizeof *cluster);
    const char **source = kv_alloc(n_items + 1, sizeof *source);
    double *value = kv_alloc(n_items * set->n + 1, sizeof *value);
    double *weight = kv_alloc(n_items * set->n + 1, sizeof *weight);
    double *bits = kv_alloc(set->n + 1, sizeof *bits);
    for (size_t i = 0; i < n_items; i++) cluster[i] = i;
    for (size_t i = 0; i < n_stored; i++) {
        if (items[i].item >= n_items) continue;
        cluster[items[i].item] = items[i].context_key;
        source[items[i].item] = items[i].source;
    }
    for (size_t r = 0; r < set->n; r++) {
        const struct kv_row *row = &set->rows[r];
        bits[r] = row->s.effective_bits;
        memcpy(&value[r * n_items], accuracy ? row->right : row->item_kl, n_items * sizeof *value);
        memcpy(&weight[r * n_items], row->item_scored, n_items * sizeof *weight);
    }
    struct kv_resampler *again = kv_resampler_new(n_items, cluster, source);
    kv_pareto_bootstrap(&(struct kv_pareto_draws){.resampler = again,
                                                  .x = value,
                                                  .w = accuracy ? NULL : weight,
                                                  .cost = bits,
                                                  .n_points = set->n,
                                                  .n_items = n_items,
                                                  .lower_is_better = !accuracy,
                                                  .seed = seed,
                                                  .draws = DRAWS},
                        frequency, NULL, KV_CONFIDENCE);
    kv_resampler_free(again);
    kv_item_results_free(items, n_stored);
    free(cluster);
    free(source);
    free(value);
    free(weight);
    free(bits);
    return 0;
}

// ---- results --------------------------------------------------------------------------

// What the rows of a part have beside the numbers that all have.
struct extra {
    bool accuracy, shuffle, static4;
    double *frequency, *holm; // [rows]
    bool *on;
    size_t *by, knee; // [rows] the frontier's point that beats it, n = none; the knee, n = none
};

static double p_of(const struct kv_row *r) {
    return isnan(r->to16[KV_ACC].mid_p) ? r->to16[KV_ACC].t_p : r->to16[KV_ACC].mid_p;
}

static void add_head(struct kv_text *t, const struct kv_rows *all, const struct extra *x) {
    static const char *const judged[] = {"accuracy, %", "acc_norm, %", "to 16 bit, points",
                                         "p (mid-p)", "p (Holm)"};
    kv_text_addf(t, "<thead><tr><th scope=\"col\">#</th><th scope=\"col\">policy</th>");
    for (size_t i = 0; x->accuracy && i < sizeof judged / sizeof *judged; i++)
        kv_text_addf(t, "<th scope=\"col\">%s</th>", judged[i]);
    if (x->accuracy && x->static4) kv_text_addf(t, "<th scope=\"col\">to static 4 bit</th>");
    if (x->accuracy && x->shuffle) kv_text_addf(t, "<th scope=\"col\">to its shuffle</th>");
    kv_text_addf(t, "<th scope=\"col\">KL, nats</th>");
    if (x->accuracy) kv_text_addf(t, "<th scope=\"col\">agreement, %%</th>");
    kv_text_addf(t, "<th scope=\"col\">nominal bits</th><th scope=\"col\">effective bits</th>"
                    "<th scope=\"col\">allocated bits</th>");
    for (size_t k = 0; all->device && k < all->n_contexts; k++)
        kv_text_addf(t, "<th scope=\"col\">ms at %g</th>", all->context[k]);
    kv_text_addf(t, "<th scope=\"col\">on frontier, %%</th><th scope=\"col\">beaten by #</th>");
    kv_text_addf(t, "</tr></thead>\n<tbody>\n");
}

static void add_name(struct kv_text *t, const struct kv_page *p, const struct kv_row *r) {
    size_t number = kv_page_policy_number(p, r->s.spec);
    kv_text_addf(t, "<th scope=\"row\" title=\"");
    kv_html_text(t, r->s.spec);
    kv_text_addf(t, "\"><a href=\"#p%zu\">", number);
    kv_html_spec(t, r->label);
    kv_text_addf(t, "</a>%s</th>", r->s.oracle ? " (oracle)" : "");
}

static void add_versus(struct kv_text *t, const struct kv_versus *v) {
    kv_html_interval(t, v->n_runs ? v->acc.difference : NAN, v->acc.interval, true);
}

static void add_row(struct kv_text *t, const struct kv_page *p, const struct kv_page_part *part,
                    size_t i, const struct extra *x) {
    const struct kv_row *r = &part->set.rows[i];
    kv_text_addf(t, "<tr%s><td>%zu</td>", x->on[i] ? " class=\"best\"" : "", i + 1);
    add_name(t, p, r);
    if (x->accuracy) {
        kv_html_interval(t, r->s.acc[KV_ACC], r->interval[KV_ACC], false);
        kv_html_interval(t, r->s.acc[KV_ACC_NORM], r->interval[KV_ACC_NORM], false);
        kv_html_interval(t, r->to16[KV_ACC].difference, r->to16[KV_ACC].interval, true);
        kv_html_number(t, 3, p_of(r));
        kv_html_number(t, 3, x->holm[i]);
        if (x->static4) add_versus(t, &r->static4);
        if (x->shuffle) add_versus(t, &r->shuffle);
    }
    kv_html_number(t, 4, r->kl.mean);
    if (x->accuracy) kv_html_number(t, 1, 100 * r->s.agree);
    kv_html_number(t, 2, r->s.nominal_bits);
    kv_html_number(t, 2, r->s.effective_bits);
    kv_html_number(t, 2, r->s.allocated_bits);
    for (size_t k = 0; p->all->device && k < p->all->n_contexts; k++)
        kv_text_addf(t, "<td>%.2f%s</td>", r->at[k].step_ns / 1e6,
                     r->at[k].extrapolated ? "*" : "");
    kv_html_number(t, 0, 100 * x->frequency[i]);
    kv_text_addf(t, "<td>");
    if (x->by[i] < part->set.n) kv_text_addf(t, "%zu", x->by[i] + 1);
    if (x->knee == i) kv_text_addf(t, "knee");
    kv_text_addf(t, "</td></tr>\n");
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

int kv_page_table(struct kv_text *t, const struct kv_page *p, const struct kv_page_part *part,
                  struct kv_error *e) {
    const struct kv_figure_set *set = &part->set;
    struct extra x = {.frequency = kv_alloc(set->n + 1, sizeof(double)),
                      .holm = kv_alloc(set->n + 1, sizeof(double)),
                      .on = kv_alloc(set->n + 1, sizeof(bool)),
                      .by = kv_alloc(set->n + 1, sizeof(size_t))};
    double *bits = kv_alloc(set->n + 1, sizeof *bits), *acc = kv_alloc(set->n + 1, sizeof *acc);
    double *p_value = kv_alloc(set->n + 1, sizeof *p_value);
    for (size_t i = 0; i < set->n; i++) {
        const struct kv_row *r = &set->rows[i];
        bits[i] = r->s.effective_bits;
        acc[i] = isnan(r->s.acc[KV_ACC]) ? -r->kl.mean : r->s.acc[KV_ACC];
        p_value[i] = p_of(r);
        x.accuracy = x.accuracy || !isnan(r->s.acc[KV_ACC]);
        x.shuffle = x.shuffle || r->shuffle.n_runs;
        x.static4 = x.static4 || r->static4.n_runs;
    }
    kv_holm(p_value, set->n, x.holm);
    kv_pareto(bits, acc, set->n, x.on);
    kv_pareto_dominators(bits, acc, set->n, x.by);
    x.knee = kv_pareto_knee(bits, acc, set->n);
    int code = bootstrap(set, p->store, p->seed, x.accuracy, x.frequency, e);
    kv_text_addf(t,
                 "<p class=\"soft\">Numbers are those of the figures; rows in colour are on the "
                 "frontier of %s and effective bits.",
                 x.accuracy ? "accuracy" : "divergence");
    add_ceiling(t, p, &set->rows[0]);
    kv_text_addf(t, "</p>\n");
    kv_html_wide(t, "Results");
    kv_text_addf(t, "<table class=\"sort\">\n");
    add_head(t, p->all, &x);
    for (size_t i = 0; !code && i < set->n; i++) add_row(t, p, part, i, &x);
    kv_text_addf(t, "</tbody></table></div>\n");
    free(x.frequency);
    free(x.holm);
    free(x.on);
    free(x.by);
    free(bits);
    free(acc);
    free(p_value);
    return code;
}

// ---- ranking by scorer ----------------------------------------------------------------

static double score_of(const struct kv_row *r, int scorer) {
    return scorer < KV_N_SCORERS ? r->s.acc[scorer] : -r->kl.mean;
}

// 1 = best; equal scores share the better place. 0 = not judged.
static size_t place_of(const struct kv_figure_set *set, size_t row, int scorer) {
    size_t place = 1;
    double own = score_of(&set->rows[row], scorer);
    for (size_t i = 0; i < set->n; i++) place += score_of(&set->rows[i], scorer) > own;
    return isnan(own) ? 0 : place;
}

void kv_page_scorers(struct kv_text *t, const struct kv_page_part *part) {
    const struct kv_figure_set *set = &part->set;
    if (isnan(set->rows[0].s.acc[KV_ACC])) return;
    kv_text_addf(t,
                 "<details><summary>Ranking by scorer</summary><p class=\"soft\">Place by each "
                 "rule that turns log-probabilities into a pick, and by divergence; the accuracy "
                 "beside it, in %%.</p>");
    kv_html_wide(t, "Ranking by scorer");
    kv_text_addf(t, "<table class=\"sort\"><thead><tr><th scope=\"col\">#</th>"
                    "<th scope=\"col\">policy</th>");
    for (int k = 0; k < KV_N_SCORERS; k++)
        kv_text_addf(t, "<th scope=\"col\">%s</th>", kv_scorer_names[k]);
    kv_text_addf(t, "<th scope=\"col\">KL</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < set->n; i++) {
        kv_text_addf(t, "<tr><td>%zu</td><th scope=\"row\">", i + 1);
        kv_html_spec(t, set->rows[i].label);
        kv_text_addf(t, "</th>");
        for (int k = 0; k <= KV_N_SCORERS; k++) {
            size_t place = place_of(set, i, k);
            kv_text_addf(t, "<td>");
            if (place) kv_text_addf(t, "%zu", place);
            if (place && k < KV_N_SCORERS)
                kv_text_addf(t, " <small>%.1f</small>", 100 * set->rows[i].s.acc[k]);
            kv_text_addf(t, "</td>");
        }
        kv_text_addf(t, "</tr>\n");
    }
    kv_text_addf(t, "</tbody></table></div></details>\n");
}
