// SPDX-License-Identifier: Apache-2.0
// The page's opening: what the store says of published claims.
#include "reports/page/html.h"
#include "reports/page/sections.h"

#include <stdlib.h>

// Answers carry a sign of their own, so that colour is not needed.
static const struct {
    const char *sign, *class;
} looks[] = {[KV_HOLDS] = {"\u2713", "yes"},
             [KV_FAILS] = {"\u2717", "no"},
             [KV_CANNOT_TELL] = {"?", "open"}};

static bool measured(const struct kv_verdict *v) {
    return !isnan(v->estimate);
}

static void add_claim(struct kv_text *t, const struct kv_claim *c) {
    char *region = kv_claim_region_text(c);
    const struct {
        const char *before, *text;
    } parts[] = {
        {"; model ", c->model}, {"; benchmark ", c->benchmark}, {"; ", c->source}, {". ", c->note}};
    kv_text_addf(t, "<p class=\"soft\">Claimed: %s ", c->quantity->name);
    kv_html_text(t, region);
    if (c->quantity->quantity == KV_Q_SAVING) {
        kv_text_addf(t, " on ");
        kv_html_text(t, c->device);
        kv_text_addf(t, " at %g tokens", c->context);
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!parts[i].text) continue;
        kv_text_addf(t, "%s", parts[i].before);
        kv_html_text(t, parts[i].text);
    }
    kv_text_addf(t, "</p>\n");
    free(region);
}

static void add_answer(struct kv_text *t, enum kv_answer answer, const char *more) {
    kv_text_addf(t, "<span class=\"%s\">%s %s%s</span>", looks[answer].class, looks[answer].sign,
                 kv_answer_names[answer], more);
}

static void add_verdict(struct kv_text *t, const struct kv_verdict *v) {
    const char *unit = v->claim->quantity->unit;
    kv_text_addf(t, "<tr><td>");
    add_answer(t, v->answer, measured(v) && !v->here ? " here" : "");
    if (measured(v) && !v->here) {
        kv_text_addf(t, "<br><small>its analogue on this %s: </small>",
                     v->device ? "model and device" : "model");
        add_answer(t, v->analogue, "");
    }
    kv_text_addf(t, "</td><td>");
    if (measured(v)) kv_text_addf(t, "%.4g", fabs(v->estimate) < 1e-9 ? 0 : v->estimate);
    if (measured(v) && !isnan(v->low))
        kv_text_addf(t, " <small>[%.4g %.4g]</small>", v->low, v->high);
    if (measured(v)) kv_text_addf(t, " %s", unit);
    kv_text_addf(t, "</td><th scope=\"row\">");
    if (v->first) kv_html_spec(t, v->first);
    if (v->second) {
        kv_text_addf(t, "<br>against ");
        kv_html_spec(t, v->second);
    }
    kv_text_addf(t, "</th><td>");
    const char *const texts[] = {v->benchmark, v->mode, v->device};
    for (size_t i = 0, n = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!texts[i]) continue;
        if (n++) kv_text_addf(t, ", ");
        kv_html_text(t, texts[i]);
    }
    if (measured(v)) kv_text_addf(t, ", n %zu", v->n);
    kv_text_addf(t, "</td><td>");
    kv_html_text(t, v->because);
    if (measured(v) && !v->here && v->analogue == KV_CANNOT_TELL && isfinite(v->items_needed))
        kv_text_addf(t, " About %.0f items would tell.", v->items_needed);
    kv_text_addf(t, "</td></tr>\n");
}

static bool any_measured(const struct kv_verdict *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (measured(&v[i])) return true;
    return false;
}

// "holds for 2, cannot be told for 3 of 5"; answers[n].
static void add_counts(struct kv_text *t, const enum kv_answer *answers, size_t n) {
    size_t count[KV_CANNOT_TELL + 1] = {0}, said = 0;
    for (size_t i = 0; i < n; i++) count[answers[i]]++;
    for (size_t a = 0; a <= KV_CANNOT_TELL; a++) {
        if (count[a] == 0) continue;
        if (said++) kv_text_addf(t, ", ");
        add_answer(t, (enum kv_answer)a, "");
        if (n > 1) kv_text_addf(t, " for %zu", count[a]);
    }
    if (n > 1) kv_text_addf(t, " of %zu", n);
}

// The answers, or where the claim is about something else, those of its analogue.
static void add_summary(struct kv_text *t, const struct kv_verdict *v, size_t n) {
    enum kv_answer *answers = kv_alloc(n, sizeof *answers);
    size_t n_measured = 0;
    bool here = true;
    for (size_t i = 0; i < n; i++) {
        if (!measured(&v[i])) continue;
        here = here && v[i].here;
        answers[n_measured++] = v[i].here ? v[i].answer : v[i].analogue;
    }
    kv_text_addf(t, "<summary>");
    if (!here) {
        add_answer(t, KV_CANNOT_TELL, " here");
        kv_text_addf(t, ", its analogue ");
    }
    add_counts(t, answers, n_measured);
    kv_text_addf(t, ": ");
    kv_html_text(t, v->claim->claim);
    kv_text_addf(t, "</summary>\n");
    free(answers);
}

// Open for those who read without scripts or on paper.
static void add_judged(struct kv_text *t, const struct kv_verdict *v, size_t n) {
    kv_text_addf(t, "<details class=\"claim\" open>");
    add_summary(t, v, n);
    add_claim(t, v->claim);
    kv_html_wide(t, "Verdict");
    kv_text_addf(t, "<table class=\"text prose\"><thead><tr><th scope=\"col\">verdict</th>"
                    "<th scope=\"col\">measured</th><th scope=\"col\">of</th>"
                    "<th scope=\"col\">on</th><th scope=\"col\">because</th></tr></thead>"
                    "<tbody>\n");
    for (size_t k = 0; k < n; k++) add_verdict(t, &v[k]);
    kv_text_addf(t, "</tbody></table></div></details>\n");
}

void kv_page_verdicts(struct kv_text *t, const struct kv_page *p) {
    struct kv_text untold = {0};
    size_t n_untold = 0;
    for (size_t i = 0, n; i < p->n_verdicts; i += n) {
        const struct kv_verdict *v = &p->verdicts[i];
        for (n = 1; i + n < p->n_verdicts && v[n].claim == v->claim;) n++;
        if (any_measured(v, n)) {
            add_judged(t, v, n);
            continue;
        }
        n_untold++;
        kv_text_addf(&untold, "<li>");
        kv_html_text(&untold, v->claim->claim);
        kv_text_addf(&untold, ": ");
        kv_html_text(&untold, v->because);
        kv_text_addf(&untold, "</li>\n");
    }
    if (n_untold)
        kv_text_addf(
            t,
            "<details><summary>%zu claim%s of which this store says nothing</summary><ul>\n"
            "%s</ul></details>\n",
            n_untold, n_untold == 1 ? "" : "s", untold.s);
    free(untold.s);
}
