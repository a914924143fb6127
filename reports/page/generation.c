// SPDX-License-Identifier: Apache-2.0
// The page's section on generated text: how long it stays the 16-bit run's, and whether divergence
// grows on a policy's own path.
#include "reports/draw/generation.h"

#include <stdlib.h>

#include "reports/page/html.h"
#include "reports/page/sections.h"

static void add_cell(struct kv_text *t, double x, const struct kv_interval *i, int decimals) {
    if (isnan(x))
        kv_text_addf(t, "<td></td>");
    else if (!i || isnan(i->low))
        kv_text_addf(t, "<td>%.*f</td>", decimals, x);
    else
        kv_text_addf(t, "<td>%.*f <span class=\"soft\">[%.*f, %.*f]</span></td>", decimals, x,
                     decimals, i->low, decimals, i->high);
}

static void add_row(struct kv_text *t, const struct kv_generation_row *r) {
    kv_text_addf(t, "<tr><th scope=\"row\">");
    kv_html_spec(t, r->g->label);
    kv_text_addf(t, "</th><td>%zu</td>", r->n);
    if (isfinite(r->median))
        kv_text_addf(t, "<td>%.0f</td>", r->median);
    else
        kv_text_addf(t, "<td>none</td>");
    for (size_t m = 0; m < KV_GENERATION_MARKS; m++)
        add_cell(t, r->at[m].share, &r->at[m].interval, 2);
    add_cell(t, r->agreement, &r->agreement_interval, 2);
    add_cell(t, r->all.own, NULL, 5);
    add_cell(t, r->all.forced, NULL, 5);
    add_cell(t, r->all.ratio, &r->all.interval, 2);
    kv_text_addf(t, "</tr>\n");
}

static void add_table(struct kv_text *t, const struct kv_generation_table *g, size_t first,
                      size_t n) {
    static const char *const heads[] = {"policy",       "prompts",     "first other token",
                                        "equal at 16",  "equal at 32", "equal at 64",
                                        "equal at 128", "same tokens", "KL, own path",
                                        "KL, forced",   "own / forced"};
    kv_html_table(t, "Generation", heads, sizeof heads / sizeof *heads);
    for (size_t i = first; i < first + n; i++) add_row(t, &g->row[i]);
    kv_text_addf(t, "</tbody></table></div>\n");
}

// Whether answers are right, of tasks that have some.
static void add_answers(struct kv_text *t, const struct kv_generation_table *g, size_t first,
                        size_t n) {
    static const char *const heads[] = {"policy", "answers",    "judged",     "right",
                                        "16 bit", "difference", "McNemar's p"};
    bool begun = false;
    for (size_t i = 0; i < g->n_answers; i++) {
        const struct kv_generation_answers *a = &g->answers[i];
        if (a->g < g->row[first].g || a->g > g->row[first + n - 1].g) continue;
        if (!begun) {
            if (isfinite(a->g->floor))
                kv_text_addf(t, "<p>Always giving the commonest answer would get %.3f right.</p>\n",
                             a->g->floor);
            kv_html_table(t, "Answers", heads, sizeof heads / sizeof *heads);
            begun = true;
        }
        kv_text_addf(t, "<tr><th scope=\"row\">");
        kv_html_spec(t, a->g->label);
        kv_text_addf(t, "</th><td>%s</td><td>%zu</td>", a->filter, a->n);
        add_cell(t, a->right, &a->interval, 3);
        add_cell(t, a->right16, NULL, 3);
        add_cell(t, a->to16.difference, &a->to16.interval, 3);
        add_cell(t, a->to16.exact_p, NULL, 4);
        kv_text_addf(t, "</tr>\n");
    }
    if (begun) kv_text_addf(t, "</tbody></table></div>\n");
}

static int add_group(struct kv_text *t, const struct kv_page *p, size_t first, size_t n,
                     struct kv_error *e) {
    static const char label[] = "Share of prompts whose generated text is still the 16-bit run's, "
                                "against tokens; the table below holds the numbers";
    const struct kv_generation *g = p->generations->row[first].g;
    bool on_cpu = strcmp(g->compute, KV_COMPUTE_CPU) == 0;
    char *broad = kv_generation_figure(p->generations, first, false),
         *narrow = kv_generation_figure(p->generations, first, true);
    kv_text_addf(t, "<section id=\"g%zu\">\n<h2>Generated from ", first + 1);
    kv_html_text(t, g->task);
    kv_text_addf(t, "</h2>\n<p>");
    kv_html_text(t, g->model);
    kv_text_addf(t,
                 ", up to %u tokens, %s; mode %s%s%s. KL(16 bit || policy) in nats a token, along "
                 "each policy's own tokens and along the 16-bit run's, at the same positions: a "
                 "ratio above 1 says that errors add up. In brackets 95 %% intervals "
                 "(Kaplan-Meier on log(-log); bootstrap over prompts).</p>\n<figure>\n",
                 g->tokens, g->temperature > 0 ? "drawn with common noise" : "the likeliest each",
                 g->mode, on_cpu ? "" : "; products by ", on_cpu ? "" : g->compute);
    int code = kv_page_drawing(t, p, broad, kv_generation_height(n, false), "broad", label, e);
    if (!code)
        code = kv_page_drawing(t, p, narrow, kv_generation_height(n, true), "narrow", label, e);
    kv_text_addf(t, "</figure>\n");
    add_table(t, p->generations, first, n);
    add_answers(t, p->generations, first, n);
    kv_text_addf(t, "</section>\n");
    free(broad);
    free(narrow);
    return code;
}

int kv_page_generations(struct kv_text *t, const struct kv_page *p, struct kv_error *e) {
    int code = 0;
    for (size_t at = 0, n; p->generations && at < p->generations->n && !code; at += n) {
        n = kv_generation_group(p->generations, at);
        code = add_group(t, p, at, n, e);
    }
    return code;
}
