// SPDX-License-Identifier: Apache-2.0
// The report's page: figures and tables of a store in one HTML file that needs nothing else.
#include "sim/cli/page.h"
#include "analysis/pareto.h"
#include "sim/base/assets.h"

#include <stdlib.h>

enum { DRAWS = 1000 };

// ---- escaping -------------------------------------------------------------------------

static void add_escaped(struct kv_text *t, const char *s) {
    static const struct {
        char c;
        const char *as;
    } special[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
    for (; *s; s++) {
        const char *as = NULL;
        for (size_t i = 0; i < sizeof special / sizeof *special; i++)
            if (*s == special[i].c) as = special[i].as;
        if (as)
            kv_text_addf(t, "%s", as);
        else
            kv_text_add(t, (unsigned char)*s < 0x20 ? "?" : s, 1);
    }
}

static void add_base64(struct kv_text *t, const unsigned char *data, size_t n) {
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        unsigned x = (unsigned)data[i] << 16 | (i + 1 < n ? (unsigned)data[i + 1] << 8 : 0) |
                     (i + 2 < n ? data[i + 2] : 0);
        char four[4] = {digit[x >> 18], digit[x >> 12 & 63], i + 1 < n ? digit[x >> 6 & 63] : '=',
                        i + 2 < n ? digit[x & 63] : '='};
        kv_text_add(t, four, 4);
    }
}

// ---- parts ----------------------------------------------------------------------------

static int add_figure(struct kv_text *t, const char *dir, const char *name, struct kv_error *e) {
    char *path = kv_format_text("%s/%s.svg", dir, name), *svg;
    size_t n;
    int code = kv_read_file(path, &svg, &n, e);
    free(path);
    if (code) return code;
    bool latency = strncmp(name, "frontier_latency", 16) == 0;
    kv_text_addf(t,
                 "<figure><img alt=\"%s; the table below holds the numbers\" "
                 "src=\"data:image/svg+xml;base64,",
                 latency ? "Accuracy against milliseconds a token, a panel for each context"
                         : "Accuracy, and divergence from 16 bit, against effective bits");
    add_base64(t, (const unsigned char *)svg, n);
    kv_text_addf(t, "\"></figure>\n");
    free(svg);
    return 0;
}

// How often each row is on the frontier of accuracy and effective bits when items are drawn again.
static int bootstrap(const struct kv_figure_set *set, struct kv_store *s, uint64_t seed,
                     double *frequency, struct kv_error *e) {
    struct kv_item_result *items;
    size_t n_stored, n_items = set->rows[0].s.n_trace_items;
    int code = kv_store_items(s, set->rows[0].s.family, &items, &n_stored, e);
    if (code) return code;
    uint64_t *cluster = kv_alloc(n_items + 1, sizeof *cluster);
    const char **source = kv_alloc(n_items + 1, sizeof *source);
    double *right = kv_alloc(n_items * set->n + 1, sizeof *right);
    double *bits = kv_alloc(set->n + 1, sizeof *bits);
    for (size_t i = 0; i < n_items; i++) cluster[i] = i;
    for (size_t i = 0; i < n_stored; i++) {
        if (items[i].item >= n_items) continue;
        cluster[items[i].item] = items[i].context_key;
        source[items[i].item] = items[i].source;
    }
    for (size_t r = 0; r < set->n; r++) {
        bits[r] = set->rows[r].s.effective_bits;
        memcpy(&right[r * n_items], set->rows[r].right, n_items * sizeof *right);
    }
    struct kv_resampler *again = kv_resampler_new(n_items, cluster, source);
    kv_pareto_frequency(again, right, bits, set->n, n_items, seed, DRAWS, frequency);
    kv_resampler_free(again);
    kv_item_results_free(items, n_stored);
    free(cluster);
    free(source);
    free(right);
    free(bits);
    return 0;
}

static void add_number(struct kv_text *t, int decimals, double x) {
    kv_text_addf(t, "<td>");
    if (!isnan(x)) kv_text_addf(t, "%.*f", decimals, x);
    kv_text_addf(t, "</td>");
}

static void add_interval(struct kv_text *t, double x, struct kv_interval i, bool sign) {
    kv_text_addf(t, "<td>");
    if (!isnan(x) && sign) kv_text_addf(t, "%+.1f", 100 * x);
    if (!isnan(x) && !sign) kv_text_addf(t, "%.1f", 100 * x);
    if (!isnan(i.low) && sign)
        kv_text_addf(t, " <small>[%+.1f %+.1f]</small>", 100 * i.low, 100 * i.high);
    if (!isnan(i.low) && !sign)
        kv_text_addf(t, " <small>[%.1f %.1f]</small>", 100 * i.low, 100 * i.high);
    kv_text_addf(t, "</td>");
}

static void add_head(struct kv_text *t, const struct kv_rows *all) {
    kv_text_addf(t, "<thead><tr><th scope=\"col\">#</th><th scope=\"col\">spec</th>"
                    "<th scope=\"col\">accuracy, %%</th><th scope=\"col\">acc_norm, %%</th>"
                    "<th scope=\"col\">to 16 bit, points</th><th scope=\"col\">mid-p</th>"
                    "<th scope=\"col\">KL, nats</th><th scope=\"col\">agreement, %%</th>"
                    "<th scope=\"col\">nominal bits</th><th scope=\"col\">effective</th>"
                    "<th scope=\"col\">allocated</th>");
    for (size_t k = 0; all->device && k < all->n_contexts; k++)
        kv_text_addf(t, "<th scope=\"col\">ms at %g</th>", all->context[k]);
    kv_text_addf(t, "<th scope=\"col\">on frontier, %%</th></tr></thead>\n<tbody>\n");
}

static void add_row(struct kv_text *t, const struct kv_rows *all, const struct kv_row *r,
                    size_t number, bool best, double frequency) {
    double p = isnan(r->to16[KV_ACC].mid_p) ? r->to16[KV_ACC].t_p : r->to16[KV_ACC].mid_p;
    kv_text_addf(t, "<tr%s><td>%zu</td><td title=\"", best ? " class=\"best\"" : "", number);
    add_escaped(t, r->s.spec);
    kv_text_addf(t, "\">");
    add_escaped(t, r->label);
    kv_text_addf(t, "%s</td>", r->s.oracle ? " (oracle)" : "");
    add_interval(t, r->s.acc[KV_ACC], r->interval[KV_ACC], false);
    add_interval(t, r->s.acc[KV_ACC_NORM], r->interval[KV_ACC_NORM], false);
    add_interval(t, r->to16[KV_ACC].difference, r->to16[KV_ACC].interval, true);
    add_number(t, 3, p);
    add_number(t, 4, r->kl.mean);
    add_number(t, 1, 100 * r->s.agree);
    add_number(t, 2, r->s.nominal_bits);
    add_number(t, 2, r->s.effective_bits);
    add_number(t, 2, r->s.allocated_bits);
    for (size_t k = 0; all->device && k < all->n_contexts; k++)
        kv_text_addf(t, "<td>%.2f%s</td>", r->at[k].step_ns / 1e6,
                     r->at[k].extrapolated ? "*" : "");
    add_number(t, 0, 100 * frequency);
    kv_text_addf(t, "</tr>\n");
}

static void add_ceiling(struct kv_text *t, const struct kv_figure_set *set) {
    const struct kv_rows *all = set->all;
    if (!all->device) return;
    kv_text_addf(t, " Times on ");
    add_escaped(t, all->device->name);
    kv_text_addf(t, ", which with a cache of no bytes would take");
    for (size_t k = 0; k < all->n_contexts; k++)
        kv_text_addf(t, "%s %.2f ms at %g tokens", k ? "," : "",
                     set->rows[0].at[k].ceiling_ns / 1e6, all->context[k]);
    kv_text_addf(t, ".");
}

static int add_table(struct kv_text *t, const struct kv_figure_set *set, struct kv_store *s,
                     uint64_t seed, struct kv_error *e) {
    double *frequency = kv_alloc(set->n + 1, sizeof *frequency);
    double *bits = kv_alloc(set->n + 1, sizeof *bits), *acc = kv_alloc(set->n + 1, sizeof *acc);
    bool *on = kv_alloc(set->n + 1, sizeof *on);
    int code = bootstrap(set, s, seed, frequency, e);
    for (size_t i = 0; i < set->n; i++) {
        bits[i] = set->rows[i].s.effective_bits;
        acc[i] = set->rows[i].s.acc[KV_ACC];
    }
    kv_pareto(bits, acc, set->n, on);
    kv_text_addf(t, "<div class=\"wide\" tabindex=\"0\"><table><caption>Numbers are those of the "
                    "figures; rows in colour are on the frontier of accuracy and effective bits.");
    add_ceiling(t, set);
    kv_text_addf(t, "</caption>\n");
    add_head(t, set->all);
    for (size_t i = 0; !code && i < set->n; i++)
        add_row(t, set->all, &set->rows[i], i + 1, on[i], frequency[i]);
    kv_text_addf(t, "</tbody></table></div>\n");
    free(frequency);
    free(bits);
    free(acc);
    free(on);
    return code;
}

static int add_part(struct kv_text *t, const struct kv_page_part *part, struct kv_store *s,
                    const char *dir, uint64_t seed, struct kv_error *e) {
    const struct kv_summary *first = &part->set.rows[0].s;
    double n = (double)first->n_judged, reference = first->acc_ref[KV_ACC];
    int code = 0;
    kv_text_addf(t, "<h2>");
    add_escaped(t, first->task);
    kv_text_addf(t, "</h2>\n<p>%zu items (", first->n_items);
    add_escaped(t, first->subset);
    kv_text_addf(t, "), ");
    add_escaped(t, first->model);
    kv_text_addf(t, ", fidelity ");
    add_escaped(t, first->fidelity);
    kv_text_addf(t, ", mode ");
    add_escaped(t, first->mode);
    kv_text_addf(t, "; about %.0f tokens a sequence.", first->context_tokens);
    if (!isnan(reference))
        kv_text_addf(t, " The 16-bit run is right on %.1f %%, a guess on %.1f %%.", 100 * reference,
                     100 * first->chance);
    kv_text_addf(t, " Trace <code>");
    add_escaped(t, first->trace_digest);
    kv_text_addf(t, "</code>.</p>\n");
    if (kv_wilson(reference, n, 0.95).low <= first->chance)
        kv_text_addf(t, "<p class=\"warn\">Uninformative: the interval of the 16-bit run includes "
                        "chance, so no accuracy here can tell policies apart.</p>\n");
    for (size_t i = 0; !code && i < part->n_figures; i++)
        code = add_figure(t, dir, part->figures[i], e);
    return code ? code : add_table(t, &part->set, s, seed, e);
}

// ---- the page -------------------------------------------------------------------------

// The template with each @name@ replaced.
static char *fill(const char *text, const char *const names[], const char *const values[],
                  size_t n) {
    struct kv_text t = {0};
    while (*text) {
        size_t used = 0;
        for (size_t i = 0; *text == '@' && i < n && !used; i++)
            if (strncmp(text, names[i], strlen(names[i])) == 0) {
                kv_text_addf(&t, "%s", values[i]);
                used = strlen(names[i]);
            }
        if (!used) kv_text_add(&t, text, 1);
        text += used ? used : 1;
    }
    return kv_text_take(&t);
}

int kv_page_write(const struct kv_page_part *parts, size_t n, struct kv_store *s, const char *dir,
                  const char *db, uint64_t seed, struct kv_error *e) {
    static const char *const names[] = {"@title@", "@lead@", "@body@", "@foot@"};
    const struct kv_asset *page = kv_asset_find("reports/page.html");
    struct kv_text title = {0}, lead = {0}, body = {0}, foot = {0};
    size_t n_rows = 0;
    int code = page ? 0 : kv_fail(e, KV_EFAIL, "report", "the page's template was not built in");
    for (size_t i = 0; !code && i < n; i++) {
        n_rows += parts[i].set.n;
        code = add_part(&body, &parts[i], s, dir, seed, e);
    }
    kv_text_addf(&title, "KV-cache precision: accuracy, bytes and milliseconds");
    kv_text_addf(&lead, "%zu replays of %zu recording%s.", n_rows, n, n == 1 ? "" : "s");
    kv_text_addf(&foot, "kvsim " KV_VERSION ". Draw it again: <code>kvsim report --db ");
    add_escaped(&foot, db);
    kv_text_addf(&foot, "</code>; outcomes computed by kvsim ");
    if (n) add_escaped(&foot, parts[0].set.rows[0].s.version);
    kv_text_addf(&foot, ", commit <code>");
    if (n) add_escaped(&foot, parts[0].set.rows[0].s.commit);
    kv_text_addf(&foot, "</code>.");
    char *values[] = {kv_text_take(&title), kv_text_take(&lead), kv_text_take(&body),
                      kv_text_take(&foot)};
    if (!code) {
        char *html = fill((const char *)page->data, names, (const char *const *)values, 4);
        char *path = kv_format_text("%s/index.html", dir);
        code = kv_write_file(path, html, strlen(html), e);
        free(path);
        free(html);
    }
    for (size_t i = 0; i < 4; i++) free(values[i]);
    return code;
}
