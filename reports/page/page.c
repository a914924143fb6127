// SPDX-License-Identifier: Apache-2.0
// The report's page: puts its sections together and fills the template.
#include "reports/page/page.h"
#include "sim/base/files.h"
#include "sim/base/version.h"
#include "sim/base/assets.h"
#include "reports/draw/generation.h"
#include "reports/page/html.h"
#include "reports/page/sections.h"

#include <stdlib.h>

// ---- a part ---------------------------------------------------------------------------

static int add_figure(struct kv_text *t, const struct kv_page *p, const struct kv_drawn *drawn,
                      struct kv_error *e) {
    const char *label =
        drawn->places   ? "Answers written whole, and their margin to 16 bit, by length of the "
                          "context and depth of the fact in it; the table by length and depth below "
                          "says where policies first differ"
        : drawn->depths ? "Divergence from 16 bit against the tokens that a position sees; the "
                          "table by depth below holds the numbers"
        : drawn->times  ? "Divergence from 16 bit, and accuracy, against milliseconds a token, "
                          "a panel for each context; the table below holds the numbers"
                        : "Divergence from 16 bit, and accuracy, against effective bits; the "
                          "table below holds the numbers";
    kv_text_addf(t, "<figure>\n");
    int code = kv_page_drawing(t, p, drawn->name, drawn->plot_y, "broad", label, e);
    if (!code) code = kv_page_drawing(t, p, drawn->narrow, drawn->narrow_y, "narrow", label, e);
    kv_text_addf(t, "</figure>\n");
    return code;
}

static bool same_trace(const struct kv_page_part *a, const struct kv_page_part *b) {
    return a->set.rows[0].s.trace == b->set.rows[0].s.trace;
}

// What is said once of a recording.
static void add_recording(struct kv_text *t, const struct kv_page_part *part) {
    const struct kv_summary *s = &part->set.rows[0].s;
    double reference = s->acc_ref[KV_ACC];
    kv_text_addf(t, "<h2>");
    kv_html_text(t, s->task);
    kv_text_addf(t, "</h2>\n<p>%zu items (", s->n_trace_items);
    kv_html_text(t, s->subset);
    kv_text_addf(t, "), ");
    kv_html_text(t, s->model);
    kv_text_addf(t, "; about %.0f tokens a sequence.", s->context_tokens);
    if (!isnan(reference))
        kv_text_addf(t, " The 16-bit run is right on %.1f %%, a guess on %.1f %%.", 100 * reference,
                     100 * s->chance);
    kv_text_addf(t, " Trace <code>");
    kv_html_text(t, s->trace_digest);
    kv_text_addf(t, "</code>.</p>\n");
    if (kv_wilson(reference, (double)s->n_judged, KV_CONFIDENCE).low <= s->chance)
        kv_text_addf(t, "<p class=\"warn\">Uninformative: the interval of the 16-bit run includes "
                        "chance, so no accuracy here can tell policies apart.</p>\n");
}

static int add_part(struct kv_text *t, const struct kv_page *p, size_t i, struct kv_error *e) {
    const struct kv_page_part *part = &p->parts[i];
    const struct kv_summary *s = &part->set.rows[0].s;
    bool opens = i == 0 || !same_trace(part, part - 1);
    bool closes = i + 1 == p->n_parts || !same_trace(part, part + 1);
    int code = 0;
    if (opens) {
        kv_text_addf(t, "<section id=\"t%zu\">\n", i + 1);
        add_recording(t, part);
    }
    kv_text_addf(t, "<h3>");
    kv_page_setting(t, part);
    kv_text_addf(t, "</h3>\n");
    if (s->n_items < s->n_trace_items)
        kv_text_addf(t, "<p class=\"soft\">On %zu of the items.</p>\n", s->n_items);
    if (s->fidelity != KV_EXACT)
        kv_text_addf(t, "<p class=\"warn\">Predictions, not runs: what they are worth on these "
                        "items is what <code>kvsim fidelity</code> measures.</p>\n");
    for (size_t k = 0; !code && k < part->n_figures; k++)
        code = add_figure(t, p, &part->figures[k], e);
    kv_page_table(t, p, part);
    kv_page_scorers(t, part);
    kv_page_redraws(t, part);
    kv_page_depths(t, part);
    kv_page_places(t, part);
    if (closes) kv_text_addf(t, "</section>\n");
    return code;
}

// ---- the page -------------------------------------------------------------------------

static char *navigation(const struct kv_page *p) {
    struct kv_text t = {0};
    for (size_t i = 0; i < p->n_parts; i++) {
        if (i && same_trace(&p->parts[i], &p->parts[i - 1])) continue;
        kv_text_addf(&t, "<a href=\"#t%zu\">", i + 1);
        kv_html_text(&t, p->parts[i].set.rows[0].s.task);
        kv_text_addf(&t, "</a>\n");
    }
    for (size_t at = 0; p->generations && at < p->generations->n;
         at += kv_generation_group(p->generations, at))
        kv_text_addf(&t, "<a href=\"#g%zu\">generated</a>\n", at + 1);
    if (p->n_policies) kv_text_addf(&t, "<a href=\"#policies\">Policies</a>\n");
    return kv_text_take(&t);
}

// The template with each @name@ replaced.
static char *fill(const char *text, const char *const names[], char *const values[], size_t n) {
    struct kv_text t = {0};
    while (*text) {
        size_t used = 0, plain = strcspn(text, "@");
        kv_text_add(&t, text, plain);
        text += plain;
        for (size_t i = 0; *text && i < n && !used; i++)
            if (strncmp(text, names[i], strlen(names[i])) == 0) {
                kv_text_add(&t, values[i], strlen(values[i]));
                used = strlen(names[i]);
            }
        if (*text && !used) {
            kv_text_add(&t, text, 1);
            used = 1;
        }
        text += used;
    }
    return kv_text_take(&t);
}

int kv_page_write(const struct kv_page *p, struct kv_error *e) {
    static const char *const names[] = {"@lead@",     "@verdicts@",   "@nav@",     "@parts@",
                                        "@policies@", "@provenance@", "@rebuild@", "@version@"};
    enum { N = sizeof names / sizeof *names };
    const struct kv_asset *page = kv_asset_find("reports/page/page.html");
    struct kv_text parts = {0}, policies = {0}, provenance = {0}, rebuild = {0}, verdicts = {0},
                   lead = {0};
    int code = page ? 0 : kv_fail(e, KV_EFAIL, "report", "the page's template was not built in");
    for (size_t i = 0; !code && i < p->n_parts; i++) code = add_part(&parts, p, i, e);
    if (!code) code = kv_page_generations(&parts, p, e);
    if (!code) code = kv_page_provenance(&provenance, p, e);
    kv_page_lead(&lead, p);
    kv_page_verdicts(&verdicts, p);
    kv_page_policies(&policies, p);
    kv_page_rebuild(&rebuild, p);
    char *values[N] = {kv_text_take(&lead),    kv_text_take(&verdicts), navigation(p),
                       kv_text_take(&parts),   kv_text_take(&policies), kv_text_take(&provenance),
                       kv_text_take(&rebuild), kv_strdup(KV_VERSION)};
    if (!code) {
        char *html = fill((const char *)page->data, names, values, N);
        char *path = kv_format_text("%s/index.html", p->dir);
        code = kv_write_file(path, html, strlen(html), e);
        free(path);
        free(html);
    }
    for (size_t i = 0; i < N; i++) free(values[i]);
    return code;
}
