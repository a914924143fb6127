// SPDX-License-Identifier: Apache-2.0
// The page's opening: what the store says of published claims.
#include "sim/cli/html.h"
#include "sim/cli/page.h"

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
    kv_text_addf(t, "<h3>");
    kv_html_text(t, c->claim);
    kv_text_addf(t, "</h3>\n<p class=\"soft\">Claimed: %s ", c->quantity->name);
    kv_html_text(t, region);
    if (c->quantity->quantity == KV_Q_SAVING) {
        kv_text_addf(t, " on ");
        kv_html_text(t, c->device);
        kv_text_addf(t, " at %g tokens", c->context);
    }
    const char *const texts[] = {c->model, c->benchmark, c->source};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!texts[i]) continue;
        kv_text_addf(t, i ? ", " : "; ");
        kv_html_text(t, texts[i]);
    }
    kv_text_addf(t, ".");
    if (c->note) {
        kv_text_addf(t, " ");
        kv_html_text(t, c->note);
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
    if (measured(v)) kv_text_addf(t, "%.4g", v->estimate);
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
    if (measured(v) && v->analogue == KV_CANNOT_TELL && isfinite(v->items_needed))
        kv_text_addf(t, " About %.0f items would tell.", v->items_needed);
    kv_text_addf(t, "</td></tr>\n");
}

void kv_page_verdicts(struct kv_text *t, const struct kv_page *p) {
    size_t untold = 0;
    for (size_t i = 0, end; i < p->n_verdicts; i = end) {
        bool any = false;
        for (end = i; end < p->n_verdicts && p->verdicts[end].claim == p->verdicts[i].claim; end++)
            any = any || measured(&p->verdicts[end]);
        if (!any) {
            untold++;
            continue;
        }
        add_claim(t, p->verdicts[i].claim);
        kv_html_wide(t, "Verdict");
        kv_text_addf(t, "<table class=\"text prose\"><thead><tr><th scope=\"col\">verdict</th>"
                        "<th scope=\"col\">measured</th><th scope=\"col\">of</th>"
                        "<th scope=\"col\">on</th><th scope=\"col\">because</th></tr></thead>"
                        "<tbody>\n");
        for (size_t k = i; k < end; k++) add_verdict(t, &p->verdicts[k]);
        kv_text_addf(t, "</tbody></table></div>\n");
    }
    if (untold == 0) return;
    kv_text_addf(t,
                 "<details><summary>%zu claim%s of which this store says nothing</summary><ul>\n",
                 untold, untold == 1 ? "" : "s");
    for (size_t i = 0, end; i < p->n_verdicts; i = end) {
        bool any = false;
        for (end = i; end < p->n_verdicts && p->verdicts[end].claim == p->verdicts[i].claim; end++)
            any = any || measured(&p->verdicts[end]);
        if (any) continue;
        kv_text_addf(t, "<li>");
        kv_html_text(t, p->verdicts[i].claim->claim);
        kv_text_addf(t, ": ");
        kv_html_text(t, p->verdicts[i].because);
        kv_text_addf(t, "</li>\n");
    }
    kv_text_addf(t, "</ul></details>\n");
}
