// SPDX-License-Identifier: Apache-2.0
// The page's sections of policies: results against the three nulls, widths, and one item's tokens.
#include "reports/page/html.h"
#include "reports/page/sections.h"
#include "sim/model/model.h"
#include "sim/replay/spec.h"

#include <stdlib.h>

enum { MOST_TOKENS = 400 };

// Classes of width that share a colour; class 0 is dropped tokens, the last float32.
static const struct {
    double most; // bits
    const char *name;
} classes[] = {{0, "dropped"}, {2, "≤2"}, {3, "≤3"},   {4, "≤4"},
               {6, "≤6"},      {8, "≤8"}, {16, "≤16"}, {32, "float32"}};
enum { N_CLASSES = sizeof classes / sizeof *classes };

static size_t class_of(double bits) {
    size_t c = 0;
    while (c + 1 < N_CLASSES && bits > classes[c].most + 1e-6) c++;
    return c;
}

// ---- results --------------------------------------------------------------------------

static void add_points(struct kv_text *t, const struct kv_paired *d) {
    kv_html_interval(t, d->n ? d->difference : NAN, d->interval, true);
}

static void add_result(struct kv_text *t, const struct kv_page_part *part, const struct kv_row *r,
                       bool shuffled) {
    kv_text_addf(t, "<tr><th scope=\"row\">");
    kv_html_text(t, r->s.task);
    kv_text_addf(t, " <small>");
    kv_page_setting(t, part);
    kv_text_addf(t, "</small></th>");
    kv_html_bounded(t, 4, r->kl.mean, r->kl.interval);
    if (shuffled) kv_html_number(t, 4, r->shuffle.n_runs ? r->shuffle.kl.mean : NAN);
    kv_html_number(t, 2, r->s.effective_bits);
    kv_html_interval(t, r->s.acc[KV_ACC], r->interval[KV_ACC], false);
    add_points(t, &r->to16[KV_ACC]);
    add_points(t, &r->static4.acc);
    if (shuffled) add_points(t, &r->shuffle.acc);
    kv_text_addf(t, "</tr>\n");
}

static bool has_shuffle(const struct kv_page *p, const char *spec) {
    for (size_t i = 0; i < p->n_parts; i++)
        for (size_t k = 0; k < p->parts[i].set.n; k++)
            if (strcmp(p->parts[i].set.rows[k].s.spec, spec) == 0 &&
                p->parts[i].set.rows[k].shuffle.n_runs)
                return true;
    return false;
}

static void add_results(struct kv_text *t, const struct kv_page *p, const char *spec) {
    const struct kv_versus *four = NULL, *null = NULL;
    bool shuffled = has_shuffle(p, spec);
    kv_html_wide(t, "Results of this policy");
    kv_text_addf(t,
                 "<table><thead><tr><th scope=\"col\">items</th><th scope=\"col\">KL, nats</th>");
    if (shuffled) kv_text_addf(t, "<th scope=\"col\">KL to its shuffle</th>");
    kv_text_addf(t,
                 "<th scope=\"col\">effective bits</th><th scope=\"col\">accuracy, %%</th>"
                 "<th scope=\"col\">to 16 bit, points</th><th scope=\"col\">to static 4 bit</th>");
    if (shuffled) kv_text_addf(t, "<th scope=\"col\">to its own shuffle</th>");
    kv_text_addf(t, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < p->n_parts; i++)
        for (size_t k = 0; k < p->parts[i].set.n; k++) {
            const struct kv_row *r = &p->parts[i].set.rows[k];
            if (strcmp(r->s.spec, spec) != 0) continue;
            add_result(t, &p->parts[i], r, shuffled);
            if (r->static4.n_runs) four = &r->static4;
            if (r->shuffle.n_runs) null = &r->shuffle;
        }
    kv_text_addf(t, "</tbody></table></div>\n<p class=\"soft\">Differences are paired by item.");
    if (four) {
        kv_text_addf(t, " Static 4 bit is <code>");
        kv_html_spec(t, four->label);
        kv_text_addf(t, "</code>.");
    }
    if (null) {
        kv_text_addf(t, " Its own shuffle puts the same widths on the wrong tokens: <code>");
        kv_html_spec(t, null->label);
        kv_text_addf(t, null->n_runs > 1 ? "</code> and %zu more." : "</code>.", null->n_runs - 1);
    }
    kv_text_addf(t, "</p>\n");
}

// ---- widths ---------------------------------------------------------------------------

// A bar of shares by class, with the number where there is room.
static void add_bar(struct kv_text *t, const char *name, const double share[N_CLASSES]) {
    kv_text_addf(t, "<div class=\"row\"><span>%s</span><span class=\"bar\">", name);
    for (size_t c = 0; c < N_CLASSES; c++)
        if (share[c] >= 0.0005)
            kv_text_addf(t, "<i class=\"b%zu\" style=\"width:%.1f%%\" title=\"%s: %.1f %%\">%s</i>",
                         c, 100 * share[c], classes[c].name, 100 * share[c],
                         share[c] > 0.1 ? classes[c].name : "");
    kv_text_addf(t, "</span></div>\n");
}

static void add_shares(struct kv_text *t, const struct kv_row *r, const struct kv_widths *w) {
    static const char *const sides[] = {"keys", "values"};
    for (int side = 0; side < 2; side++) {
        double share[N_CLASSES] = {0};
        for (size_t b = 0; b < KV_WIDTH_BINS; b++)
            share[class_of(kv_bits_of_bin(b))] += r->s.ledger.share[side][b];
        add_bar(t, sides[side], share);
    }
    if (!w->known || !w->by_token) return;
    double share[N_CLASSES] = {0};
    for (size_t b = 0; b < sizeof w->share / sizeof *w->share; b++)
        share[class_of((double)b)] += w->share[b];
    add_bar(t, "tokens", share);
}

// One bar a value, in a strip of its own: the outline of n columns up to `most` bits.
static void add_columns(struct kv_text *t, const char *colour, const double *x, size_t n,
                        double most, double from, double width, size_t step) {
    kv_text_addf(t, "<path fill=\"var(--%s)\" d=\"", colour);
    for (size_t i = 0; i < n; i++) {
        double h = isnan(x[i]) ? 0 : 40 * x[i] / most;
        kv_text_addf(t, "M%.4g 42h%.3gv%.4gh-%.3gz", (double)(i * step) + from, width, -h, width);
    }
    kv_text_addf(t, "\"/>");
}

static double largest(const double *x, size_t n, double most) {
    for (size_t i = 0; i < n; i++)
        if (x[i] > most) most = x[i];
    return most;
}

static void add_layers(struct kv_text *t, const struct kv_widths *w, size_t layers) {
    double most = largest(w->layer[1], layers, largest(w->layer[0], layers, 1));
    kv_text_addf(t,
                 "<figure class=\"strip\"><figcaption>bits by layer, 0 to %zu: keys left, values "
                 "right; highest %.3g</figcaption><svg viewBox=\"0 0 %zu 43\" height=\"52\" "
                 "preserveAspectRatio=\"none\" role=\"img\" "
                 "aria-label=\"mean bits by layer\">",
                 layers - 1, most, layers * 10);
    add_columns(t, "blue", w->layer[0], layers, most, 1, 4, 10);
    add_columns(t, "orange", w->layer[1], layers, most, 5, 4, 10);
    kv_text_addf(t, "<path d=\"M0 42.5h%zu\" stroke=\"var(--soft)\"/></svg></figure>\n",
                 layers * 10);
}

static void add_places(struct kv_text *t, const struct kv_widths *w) {
    double most = largest(w->place, KV_N_PLACES, 1);
    kv_text_addf(
        t,
        "<figure class=\"strip\"><figcaption>bits by position in the sequence, in %d equal "
        "parts; highest %.3g</figcaption><svg viewBox=\"0 0 %d 43\" height=\"52\" "
        "preserveAspectRatio=\"none\" role=\"img\" "
        "aria-label=\"mean bits by position\">",
        KV_N_PLACES, most, KV_N_PLACES * 25);
    add_columns(t, "green", w->place, KV_N_PLACES, most, 2, 21, 25);
    kv_text_addf(t, "<path d=\"M0 42.5h%d\" stroke=\"var(--soft)\"/></svg></figure>\n",
                 KV_N_PLACES * 25);
}

// Layers across, heads down, keys above values; runs of one class are one rectangle.
static void add_heads(struct kv_text *t, const struct kv_widths *w, size_t layers, size_t heads) {
    size_t height = 2 * heads * 8 + 4;
    kv_text_addf(t,
                 "<figure class=\"strip\"><figcaption>bits by layer (across) and KV head (down): "
                 "keys above, values below</figcaption><svg viewBox=\"0 0 %zu %zu\" height=\"%zu\" "
                 "preserveAspectRatio=\"none\" role=\"img\" "
                 "aria-label=\"mean bits by layer and head\">",
                 layers * 10, height, height);
    for (size_t side = 0; side < 2; side++)
        for (size_t h = 0; h < heads; h++)
            for (size_t l = 0, end; l < layers; l = end) {
                size_t c = class_of(w->head[side][l * heads + h]);
                for (end = l; end < layers && class_of(w->head[side][end * heads + h]) == c;) end++;
                kv_text_addf(t, "<path class=\"b%zu\" d=\"M%zu %zuh%zuv8h-%zuz\"/>", c, l * 10,
                             side * (heads * 8 + 4) + h * 8, (end - l) * 10, (end - l) * 10);
            }
    kv_text_addf(t, "</svg></figure>\n");
}

// ---- an item --------------------------------------------------------------------------

static void add_token_text(struct kv_text *t, const struct kv_page *p, const struct kv_trace *trace,
                           uint32_t id, uint8_t kind) {
    // Without a tokenizer the token's class stands for its text.
    static const char *const signs[KV_N_KINDS] = {" word", "rest", "1", ".", " ", "first"};
    if (!p->tokenizer || strcmp(kv_trace_info(trace)->tokenizer_digest, p->tokenizer_digest) != 0) {
        kv_text_addf(t, "%s", kind < KV_N_KINDS ? signs[kind] : "?");
        return;
    }
    size_t n;
    const char *bytes = kv_tokenizer_bytes(p->tokenizer, id, &n);
    bool space = true;
    for (size_t i = 0; i < n; i++) space = space && (bytes[i] == ' ' || bytes[i] == '\n');
    if (space)
        kv_text_addf(t, memchr(bytes, '\n', n) ? "\u21b5" : "\u2423");
    else
        kv_html_textn(t, bytes, n);
}

static void add_segment(struct kv_text *t, const struct kv_page *p, const struct kv_page_policy *x,
                        const struct kv_trace_item *it, size_t from, size_t to, size_t *last) {
    for (size_t row = from; row < to; row++) {
        double bits = (double)x->widths.token[row];
        size_t c = class_of(bits);
        kv_text_addf(t, "<b class=\"b%zu\">", c);
        if (c != *last) kv_text_addf(t, "<sub>%.3g</sub>", bits);
        add_token_text(t, p, x->trace, it->ids[row], it->kinds[row]);
        kv_text_addf(t, "</b>");
        *last = c;
    }
}

static void add_legend(struct kv_text *t) {
    kv_text_addf(t, "<p class=\"legend\" aria-hidden=\"true\">bits a value, mean over layers and "
                    "heads: ");
    for (size_t c = 0; c < N_CLASSES; c++)
        kv_text_addf(t, "<b class=\"b%zu\">%s</b> ", c, classes[c].name);
    kv_text_addf(t, "</p>\n");
}

static void add_item(struct kv_text *t, const struct kv_page *p, const struct kv_page_policy *x) {
    const struct kv_trace_item *it = kv_trace_item(x->trace, x->widths.item);
    size_t last = N_CLASSES, count[N_CLASSES] = {0};
    for (size_t row = 0; row < it->n_tokens; row++) count[class_of((double)x->widths.token[row])]++;
    kv_text_addf(t, "<p>Item <code>");
    kv_html_text(t, it->id);
    kv_text_addf(t, "</code> token by token: ");
    for (size_t c = 0, n = 0; c < N_CLASSES; c++)
        if (count[c])
            kv_text_addf(t, "%s%zu %s%s%s", n++ ? ", " : "", count[c], c ? "at " : "",
                         classes[c].name, c && c + 1 < N_CLASSES ? " bits" : "");
    kv_text_addf(t, ".</p>\n");
    add_legend(t);
    size_t context = it->n_choices ? it->n_context : it->n_tokens;
    kv_text_addf(t, "<div class=\"tokens\"><p>");
    add_segment(t, p, x, it, 0, context < MOST_TOKENS ? context : MOST_TOKENS, &last);
    if (context > MOST_TOKENS) kv_text_addf(t, " and %zu tokens more", context - MOST_TOKENS);
    kv_text_addf(t, "</p>\n");
    if (it->n_choices) kv_text_addf(t, "<ol>\n");
    for (uint32_t c = 0; c < it->n_choices; c++) {
        last = N_CLASSES;
        kv_text_addf(t, "<li>");
        add_segment(t, p, x, it, it->first[c], it->first[c + 1], &last);
        kv_text_addf(t, (int32_t)c == it->gold ? " <small>(right)</small></li>\n" : "</li>\n");
    }
    kv_text_addf(t, it->n_choices ? "</ol></div>\n" : "</div>\n");
}

// ---- a policy -------------------------------------------------------------------------

static void add_description(struct kv_text *t, const struct kv_summary *s) {
    const struct kv_policy *known;
    size_t n = strcspn(s->policy, ":(");
    kv_text_addf(t, "<p><code>");
    kv_html_spec(t, s->spec);
    kv_text_addf(t, "</code>");
    for (size_t i = 0; (known = kv_policy_at(i)); i++) {
        if (strlen(known->name) != n || strncmp(known->name, s->policy, n) != 0) continue;
        kv_text_addf(t, "<br>");
        kv_html_text(t, known->summary);
        if (known->citation) {
            kv_text_addf(t, " <span class=\"soft\">(");
            kv_html_text(t, known->citation);
            kv_text_addf(t, ")</span>");
        }
    }
    if (s->oracle)
        kv_text_addf(t, "<br><strong>Oracle: it reads the future, which no device can.</strong>");
    kv_text_addf(t, "</p>\n");
}

static void add_decisions(struct kv_text *t, const struct kv_page *p,
                          const struct kv_page_policy *x) {
    const struct kv_widths *w = &x->widths;
    size_t judged = x->row->s.n_items - x->row->n_left_out;
    kv_text_addf(t, "<div class=\"shares\">\n");
    add_shares(t, x->row, w);
    kv_text_addf(t, "</div>\n");
    if (!w->known) {
        kv_text_addf(t, "<p class=\"soft\">Its decisions are not drawn: ");
        kv_html_text(t, *w->why ? w->why : "the recording is not here (--trace names it)");
        kv_text_addf(t, "</p>\n");
        return;
    }
    const struct kv_shape *shape = &kv_trace_info(x->trace)->shape;
    if (!w->by_token && !w->by_layer && !w->by_head) {
        kv_text_addf(t,
                     "<p class=\"soft\">Every token, layer and head alike: keys at %.3g bits, "
                     "values at %.3g.</p>\n",
                     w->mean[0], w->mean[1]);
        return;
    }
    kv_text_addf(t, "<p class=\"soft\">As decided on %s%zu of the %zu items that its results of ",
                 w->n_items == judged ? "all " : "", w->n_items, judged);
    kv_html_text(t, x->row->s.task);
    kv_text_addf(t, " come from (%zu tokens)", w->n_tokens);
    kv_text_addf(t, "%s.", w->by_layer ? "" : "; every layer alike");
    if (w->by_token)
        kv_text_addf(t,
                     " The bar of tokens is of these items, as decided; those of keys and values "
                     "are of all items of the results, as stored, exact windows included.");
    kv_text_addf(t, "</p>\n<div class=\"strips\">\n");
    if (w->by_layer) add_layers(t, w, shape->n_layers);
    if (w->by_head) add_heads(t, w, shape->n_layers, shape->n_kv_heads);
    if (w->by_token) add_places(t, w);
    kv_text_addf(t, "</div>\n");
    if (w->by_token) add_item(t, p, x);
}

void kv_page_policies(struct kv_text *t, const struct kv_page *p) {
    if (p->n_policies == 0) return;
    kv_text_addf(t, "<section id=\"policies\">\n<h2>Policies</h2>\n<p class=\"soft\">Each with its "
                    "paired differences, the widths that it gave, and, where widths differ by "
                    "token, one item drawn token by token.</p>\n");
    for (size_t i = 0; i < p->n_policies; i++) {
        const struct kv_page_policy *x = &p->policies[i];
        kv_text_addf(t, "<article id=\"p%zu\"><h3>", i + 1);
        kv_html_spec(t, x->row->label);
        kv_text_addf(t, "</h3>\n");
        add_description(t, &x->row->s);
        add_results(t, p, x->row->s.spec);
        add_decisions(t, p, x);
        kv_text_addf(t, "</article>\n");
    }
    kv_text_addf(t, "</section>\n");
}
