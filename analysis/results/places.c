// SPDX-License-Identifier: Apache-2.0
// Rows by place: matches and margins against 16 bit, and where they first differ.
#include "analysis/results/places.h"

#include <stdio.h>
#include <stdlib.h>

#include "analysis/results/rows.h"
#include "sim/base/memory.h"

bool kv_place_read(const char *source, struct kv_fact_place *p) {
    *p = (struct kv_fact_place){0};
    return sscanf(source, "length=%u,depth=%lf", &p->length, &p->depth) == 2 ||
           sscanf(source, "pairs=%u,depth=%lf", &p->pairs, &p->depth) == 2;
}

static int compare(const struct kv_fact_place *a, const struct kv_fact_place *b) {
    if (a->pairs != b->pairs) return a->pairs < b->pairs ? -1 : 1;
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    return (a->depth > b->depth) - (a->depth < b->depth);
}

static bool same_length(const struct kv_fact_place *a, const struct kv_fact_place *b) {
    return a->pairs == b->pairs && a->length == b->length;
}

static int by_place(const void *a, const void *b) {
    const struct kv_place_item *x = a, *y = b;
    return compare(&x->place, &y->place);
}

static double mean(const double *x, size_t n) {
    return kv_mean_interval(x, n, KV_CONFIDENCE).mean;
}

// ---- one row's places -----------------------------------------------------------------

static struct kv_place_result judge(const struct kv_place_item *items, size_t n) {
    struct kv_place_result r = {.place = items[0].place, .n = n};
    double *column = kv_alloc(5 * n, sizeof *column), *match16 = column + n, *margin = match16 + n,
           *margin16 = margin + n, *change = margin16 + n;
    for (size_t i = 0; i < n; i++) {
        column[i] = items[i].match;
        match16[i] = items[i].match16;
        margin[i] = items[i].margin;
        margin16[i] = items[i].margin16;
        change[i] = items[i].margin - items[i].margin16;
    }
    r.match = mean(column, n);
    r.match16 = mean(match16, n);
    r.match_to16 = kv_paired_compare(column, match16, n, KV_CONFIDENCE);
    r.margin = mean(margin, n);
    r.margin16 = mean(margin16, n);
    r.margin_to16 = kv_mean_interval(change, n, KV_CONFIDENCE);
    r.margin_p = kv_mean_p(&r.margin_to16);
    free(column);
    return r;
}

// Whether 16 bit matches often enough at the length of p[at].
static bool counts(const struct kv_place_result *p, size_t n, size_t at) {
    double matches = 0, items = 0;
    for (size_t i = 0; i < n; i++) {
        if (!same_length(&p[i].place, &p[at].place) || isnan(p[i].match16)) continue;
        matches += p[i].match16 * (double)p[i].n;
        items += (double)p[i].n;
    }
    return items > 0 && matches >= KV_PLACE_LEAST_MATCH * items;
}

struct kv_place_result *kv_places_judge(const struct kv_place_item *items, size_t n,
                                        size_t *n_out) {
    struct kv_place_item *sorted = kv_alloc(n + 1, sizeof *sorted);
    struct kv_place_result *out = kv_alloc(n + 1, sizeof *out);
    size_t n_sorted = 0;
    *n_out = 0;
    for (size_t i = 0; i < n; i++)
        if (isfinite(items[i].margin) && isfinite(items[i].margin16)) sorted[n_sorted++] = items[i];
    qsort(sorted, n_sorted, sizeof *sorted, by_place);
    for (size_t from = 0, to; from < n_sorted; from = to) {
        for (to = from; to < n_sorted && compare(&sorted[to].place, &sorted[from].place) == 0;)
            to++;
        out[(*n_out)++] = judge(sorted + from, to - from);
    }
    free(sorted);
    double *p = kv_alloc(2 * *n_out + 1, sizeof *p), *adjusted = p + *n_out;
    for (size_t i = 0; i < *n_out; i++) {
        const struct kv_paired *d = &out[i].match_to16;
        p[i] = !counts(out, *n_out, i) ? NAN : isnan(d->exact_p) ? d->t_p : d->exact_p;
    }
    kv_holm(p, *n_out, adjusted);
    for (size_t i = 0; i < *n_out; i++) out[i].match_holm = adjusted[i];
    for (size_t i = 0; i < *n_out; i++) p[i] = out[i].margin_p;
    kv_holm(p, *n_out, adjusted);
    for (size_t i = 0; i < *n_out; i++) out[i].margin_holm = adjusted[i];
    free(p);
    return out;
}

// ---- the first that differs -----------------------------------------------------------

size_t kv_places_first(const struct kv_place_result *p, size_t n, bool by_match) {
    size_t i = 0;
    while (i < n && !((by_match ? p[i].match_holm : p[i].margin_holm) < KV_PLACE_LEVEL)) i++;
    return i;
}

static void add_first(struct kv_text *t, const struct kv_place_result *p, size_t n, bool by_match) {
    size_t at = kv_places_first(p, n, by_match);
    const struct kv_fact_place *x = at < n ? &p[at].place : NULL;
    if (!x)
        kv_text_addf(t, "%s nowhere", by_match ? "by match" : "by margin");
    else
        kv_text_addf(t, "%s first at %s %u, depth %g %% (p %.2g)",
                     by_match ? "by match" : "by margin", x->pairs ? "pairs" : "length",
                     x->pairs ? x->pairs : x->length, x->depth,
                     by_match ? p[at].match_holm : p[at].margin_holm);
}

// Items that must be lost, none being won, before McNemar's test of one of so many places says so.
static unsigned least_lost(size_t n_places) {
    unsigned lost = 1;
    while (kv_mcnemar(0, lost).exact_p * (double)n_places >= KV_PLACE_LEVEL) lost++;
    return lost;
}

char *kv_places_text(const struct kv_place_result *p, size_t n) {
    struct kv_text t = {0};
    size_t judged = 0, unknown = 0, least = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        unknown += isnan(p[i].match16);
        if (isnan(p[i].match_holm)) continue;
        judged++;
        if (p[i].n < least) least = p[i].n;
    }
    if (judged) {
        add_first(&t, p, n, true);
        kv_text_addf(&t, "; ");
    }
    add_first(&t, p, n, false);
    unsigned lost = judged ? least_lost(judged) : 0;
    if (judged && lost <= least)
        kv_text_addf(&t, "; a match tells from %u of %zu items lost, none won", lost, least);
    else if (judged)
        kv_text_addf(&t, "; %zu items a place are too few for a match to tell", least);
    if (judged + unknown < n)
        kv_text_addf(&t, "; %zu of %zu places by margin alone (16 bit matches below %g %%)",
                     n - judged - unknown, n, 100 * KV_PLACE_LEAST_MATCH);
    if (unknown) kv_text_addf(&t, "; matches of %zu of %zu places are not known", unknown, n);
    return kv_text_take(&t);
}

// ---- from a store ---------------------------------------------------------------------

// Adds one redraw of an item, whose choices c[n] are.
static void add_redraw(struct kv_place_item *to, const struct kv_choice_result *c, size_t n) {
    double rival = -INFINITY, rival16 = -INFINITY;
    const struct kv_choice_outcome *gold = NULL;
    for (size_t i = 0; i < n; i++) {
        if ((int32_t)c[i].choice == c[i].gold) {
            gold = &c[i].outcome;
            continue;
        }
        rival = fmax(rival, c[i].outcome.logprob);
        rival16 = fmax(rival16, c[i].outcome.logprob_ref);
    }
    to->match += gold ? kv_match_share(gold->match) : NAN;
    to->match16 += gold ? kv_match_share(gold->match_ref) : NAN;
    to->margin += gold ? gold->logprob - rival : NAN;
    to->margin16 += gold ? gold->logprob_ref - rival16 : NAN;
}

int kv_row_read_places(struct kv_row *row, const struct kv_item_result *items, size_t n,
                       struct kv_store *s, struct kv_error *e) {
    struct kv_fact_place first;
    struct kv_choice_result *c;
    size_t n_choices, n_out = 0;
    if (n == 0 || !kv_place_read(items[0].source, &first)) return 0;
    int code = kv_store_choices(s, row->s.run_group, &c, &n_choices, e);
    if (code) return code;
    struct kv_place_item *out = kv_alloc(n + 1, sizeof *out);
    for (size_t i = 0, from = 0; i < n; i++) {
        struct kv_place_item *x = &out[n_out];
        size_t redraws = 0;
        if (!kv_place_read(items[i].source, &x->place)) continue;
        while (from < n_choices && c[from].item < items[i].item) from++;
        for (size_t to; from < n_choices && c[from].item == items[i].item; from = to, redraws++) {
            for (to = from;
                 to < n_choices && c[to].item == c[from].item && c[to].redraw == c[from].redraw;)
                to++;
            add_redraw(x, c + from, to - from);
        }
        if (redraws == 0) continue;
        x->match /= (double)redraws;
        x->match16 /= (double)redraws;
        x->margin /= (double)redraws;
        x->margin16 /= (double)redraws;
        n_out++;
    }
    row->place = kv_places_judge(out, n_out, &row->n_places);
    free(out);
    kv_choice_results_free(c, n_choices);
    return 0;
}
