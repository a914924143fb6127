// SPDX-License-Identifier: Apache-2.0
// The page's first sentences: which policy, at what cost, how sure.
#include "analysis/results/front.h"
#include "reports/page/html.h"
#include "reports/page/sections.h"
#include "sim/base/guard.h"

#include <stdlib.h>

enum { DRAWS = 1000 };
// What counts as near to 16 bit, nats a scored token, where nobody has said so: the upper end of
// the interval has to be below.
static const double bound = 0.05;

// A policy that a device could run and that decides: no oracle, and no null of chance.
static bool is_offered(const struct kv_row *r) {
    static const char *const nulls[] = {"shuffle", "random"};
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++)
        if (strncmp(r->s.policy, nulls[i], strlen(nulls[i])) == 0) return false;
    return !r->s.oracle && !isnan(r->kl.mean);
}

static bool keeps(const struct kv_row *r) {
    return is_offered(r) && r->kl.interval.high < bound;
}

// The row of fewest bits that keeps the bound, else the nearest to 16 bit; NULL = none is known.
static const struct kv_row *choose(const struct kv_frontier_set *set) {
    const struct kv_row *best = NULL;
    for (size_t i = 0; i < set->n; i++) {
        const struct kv_row *r = &set->rows[i];
        if (!is_offered(r)) continue;
        bool better = !best || (keeps(r) && !keeps(best));
        if (best && keeps(r) == keeps(best))
            better = keeps(r) ? r->s.effective_bits < best->s.effective_bits ||
                                    (r->s.effective_bits <= best->s.effective_bits &&
                                     r->kl.mean < best->kl.mean)
                              : r->kl.mean < best->kl.mean;
        if (better) best = r;
    }
    return best;
}

static const struct kv_row *sixteen(const struct kv_frontier_set *set) {
    for (size_t i = 0; i < set->n; i++)
        if (set->rows[i].s.effective_bits >= 16) return &set->rows[i];
    return NULL;
}

static void add_time(struct kv_text *t, const struct kv_page *p, const struct kv_frontier_set *set,
                     const struct kv_row *r) {
    const struct kv_device *d = p->all->device;
    const struct kv_row *whole = sixteen(set);
    size_t last = p->all->n_contexts - 1;
    if (!d || p->all->n_contexts == 0) return;
    kv_text_addf(t, " and <b>%.2f ms</b> a token at %g tokens on ", r->at[last].step_ns / 1e6,
                 p->all->context[last]);
    kv_html_text(t, d->name);
    kv_text_addf(t, " (");
    if (whole) kv_text_addf(t, "16 bit: %.2f", whole->at[last].step_ns / 1e6);
    if (!isnan(d->error_median))
        kv_text_addf(t, "%sthe latency model errs by %.1f %% in the median", whole ? "; " : "",
                     100 * d->error_median);
    else
        kv_text_addf(t, "%show far the latency model errs is not known", whole ? "; " : "");
    kv_text_addf(t,
                 r->at[last].extrapolated ? ", and this lies beyond what it was fitted to)" : ")");
}

static void add_certainty(struct kv_text *t, const struct kv_page *p,
                          const struct kv_frontier_set *set, const struct kv_row *r) {
    const struct kv_row **rows = kv_alloc(set->n + 1, sizeof *rows);
    const struct kv_front_value *value = kv_front_values;
    struct kv_front front;
    struct kv_error ignored; // rows without a common item have no frontier
    while (value->scorer != KV_FRONT_KL) value++;
    for (size_t i = 0; i < set->n; i++) rows[i] = &set->rows[i];
    int rc = kv_front_find(&front, p->store, rows, set->n, value, &kv_front_costs[0], 0, p->seed,
                           DRAWS, &ignored);
    free(rows);
    if (kv_tolerate(rc, &ignored)) return;
    for (size_t i = 0; i < front.n; i++)
        if (front.rows[i] == r)
            kv_text_addf(t,
                         " No other policy here is as near with as few bits in %.0f %% of %d "
                         "resamples of the %zu items.",
                         100 * front.frequency[i], DRAWS, front.n_items);
    kv_front_fini(&front);
}

static void add_accuracy(struct kv_text *t, const struct kv_row *r) {
    const struct kv_paired *d = &r->to16[KV_ACC];
    if (isnan(r->s.acc[KV_ACC]) || d->n == 0) return;
    kv_text_addf(t, " Its accuracy is %.1f %%, ", 100 * r->s.acc[KV_ACC]);
    kv_text_addf(t, "%+.1f points from 16 bit's", 100 * d->difference + 0.0);
    if (!isnan(d->interval.low))
        kv_text_addf(t, " <small>[%+.1f %+.1f]</small>", 100 * d->interval.low,
                     100 * d->interval.high);
    kv_text_addf(t, ".");
}

static void add_answer(struct kv_text *t, const struct kv_page *p,
                       const struct kv_page_part *part) {
    const struct kv_frontier_set *set = &part->set;
    const struct kv_row *r = choose(set);
    size_t offered = 0;
    if (!r) return;
    for (size_t i = 0; i < set->n; i++) offered += is_offered(&set->rows[i]);
    kv_text_addf(t, "<p class=\"answer\">On ");
    kv_html_text(t, r->s.task);
    kv_text_addf(t,
                 keeps(r) ? ", of %zu policies that could run, the smallest cache within %g nats a "
                            "token of 16 bit, interval and all, is that of "
                          : ", of %zu policies that could run, none is within %g nats a token of "
                            "16 bit, interval and all; the nearest is ",
                 offered, bound);
    kv_text_addf(t, "<a href=\"#p%zu\">", kv_page_policy_number(p, r->s.spec));
    kv_html_spec(t, r->label);
    kv_text_addf(t, "</a>: <b>%.3g nats</b>", r->kl.mean);
    if (!isnan(r->kl.interval.low))
        kv_text_addf(t, " <small>[%.3g %.3g]</small>", r->kl.interval.low, r->kl.interval.high);
    kv_text_addf(t, " at <b>%.2f bits</b> a cached value, %.1f times smaller than 16 bit,",
                 r->s.effective_bits, 16 / r->s.effective_bits);
    add_time(t, p, set, r);
    kv_text_addf(t, ".");
    add_certainty(t, p, set, r);
    add_accuracy(t, r);
    kv_text_addf(t, "</p>\n");
}

// Of a store that holds generated texts alone.
static void add_texts(struct kv_text *t, const struct kv_generation_table *g) {
    size_t n = 0;
    for (size_t i = 0; i < g->n; i++) n += g->row[i].n;
    kv_text_addf(t, "<p class=\"soft\">%zu texts generated by ", n);
    kv_html_text(t, g->list[0].model);
    kv_text_addf(t, ", each beside the 16-bit run of its prompt.</p>\n");
}

void kv_page_lead(struct kv_text *t, const struct kv_page *p) {
    size_t n_rows = 0, n_traces = 0;
    if (p->n_parts == 0) {
        add_texts(t, p->generations);
        return;
    }
    for (size_t i = 0; i < p->n_parts; i++) {
        const struct kv_page_part *part = &p->parts[i];
        bool opens = i == 0 || part->set.rows[0].s.trace != part[-1].set.rows[0].s.trace;
        n_rows += part->set.n;
        n_traces += opens;
        if (opens && part->set.rows[0].s.fidelity == KV_EXACT) add_answer(t, p, part);
    }
    kv_text_addf(t, "<p class=\"soft\">%zu replays of %zu polic%s on %zu recording%s of ", n_rows,
                 p->n_policies, p->n_policies == 1 ? "y" : "ies", n_traces,
                 n_traces == 1 ? "" : "s");
    kv_html_text(t, p->parts[0].set.rows[0].s.model);
    kv_text_addf(t, ". Square brackets: 95 %% intervals.</p>\n");
}
