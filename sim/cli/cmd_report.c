// SPDX-License-Identifier: Apache-2.0
// kvsim report: figures, one page and result files of a store.
#include "reports/draw/gnuplot.h"
#include "sim/base/files.h"
#include "sim/base/hash.h"
#include "sim/base/talk.h"
#include "reports/harness.h"
#include "reports/page/page.h"
#include "analysis/studies/sweep.h"
#include "sim/model/model.h"

#include <stdlib.h>

enum { ITEMS_ASKED = 16 };

static const struct kv_option options[] = {
    KV_ROWS_OPTIONS,
    {"out", 'o', "DIR", "work/report", "folder for figures and page; made when missing"},
    {"claims", 0, "LIST", NULL,
     "claim files to judge (default: those that are shipped; \"\" = none)"},
    {"format", 0, "LIST", "svg,png", "of the figures: svg (which the page needs), png, pdf"},
    {"trace", 0, "LIST", NULL,
     "recordings to ask for decisions (default: where the store says they were)"},
    {"model", 'm', "MODEL", NULL,
     "model whose tokenizer spells tokens (default: $KVSIM_MODEL, then data/*.gguf)"},
    {0}};

// ---- parts ----------------------------------------------------------------------------

static bool drawable(const struct kv_row *r) {
    return !isnan(r->s.acc[KV_ACC]) || !isnan(r->kl.mean);
}

static bool same_label(const struct kv_row *a, const struct kv_row *b) {
    return a != b && kv_rows_alike(a, b) && strcmp(a->label, b->label) == 0;
}

// Rows of one part that read alike say how they differ: seed, else commit.
static void tell_apart(struct kv_rows *all) {
    bool *alike = kv_alloc(all->n + 1, sizeof *alike);
    for (size_t i = 0; i < all->n; i++)
        for (size_t k = 0; k < all->n; k++)
            alike[i] = alike[i] || same_label(&all->row[i], &all->row[k]);
    for (size_t i = 0; i < all->n; i++) {
        struct kv_row *r = &all->row[i];
        if (!alike[i]) continue;
        char *label = kv_format_text("%s, seed %llu, %.7s", r->label, (unsigned long long)r->s.seed,
                                     r->s.commit);
        free(r->label);
        r->label = label;
    }
    free(alike);
}

// Splits rows (sorted by trace) into a part for each recording and setting, exact ones first; rows
// keep their order within. rows[all->n] holds them.
static size_t make_parts(const struct kv_rows *all, const char *dir, const char *formats,
                         struct kv_row *rows, struct kv_page_part *parts) {
    bool *taken = kv_alloc(all->n + 1, sizeof *taken);
    size_t n = 0, n_rows = 0;
    for (size_t first = 0, last; first < all->n; first = last) {
        for (last = first; last < all->n && all->row[last].s.trace == all->row[first].s.trace;)
            last++;
        for (int exact = 1; exact >= 0; exact--)
            for (size_t i = first; i < last; i++) {
                const struct kv_row *r = &all->row[i];
                if (taken[i] || !drawable(r) || (strcmp(r->s.fidelity, "exact") == 0) != exact)
                    continue;
                struct kv_page_part part = {
                    .set = {.all = all, .rows = rows + n_rows, .dir = dir, .formats = formats}};
                for (size_t k = i; k < last; k++) {
                    if (taken[k] || !drawable(&all->row[k]) || !kv_rows_alike(r, &all->row[k]))
                        continue;
                    taken[k] = true;
                    rows[n_rows++] = all->row[k];
                    part.set.n++;
                }
                if (n) snprintf(part.set.suffix, sizeof part.set.suffix, "-%zu", n + 1);
                parts[n++] = part;
            }
    }
    free(taken);
    return n;
}

// ---- policies -------------------------------------------------------------------------

struct recordings {
    size_t n;
    struct kv_trace **at;
};

// Asks the policies that are to be asked about this recording.
static void ask(struct kv_page_policy *policies, size_t n, const struct kv_trace *trace,
                unsigned jobs) {
    const char **specs = kv_alloc(n + 1, sizeof *specs);
    uint64_t *seeds = kv_alloc(n + 1, sizeof *seeds);
    struct kv_widths *w = kv_alloc(n + 1, sizeof *w);
    size_t n_asked = 0, taken = 0;
    for (size_t i = 0; i < n; i++) {
        if (policies[i].trace != trace) continue;
        specs[n_asked] = policies[i].row->s.spec;
        seeds[n_asked++] = policies[i].row->s.seed;
    }
    kv_widths_read(trace, specs, seeds, n_asked, ITEMS_ASKED, jobs, w);
    for (size_t i = 0; i < n; i++)
        if (policies[i].trace == trace) policies[i].widths = w[taken++];
    free(specs);
    free(seeds);
    free(w);
}

// The specs of all parts, each once, asked about the first recording that has it and can be read.
static size_t find_policies(const struct kv_page_part *parts, size_t n_parts,
                            const struct recordings *traces, unsigned jobs,
                            struct kv_page_policy *policies) {
    size_t n = 0;
    for (size_t i = 0; i < n_parts; i++)
        for (size_t k = 0; k < parts[i].set.n; k++) {
            const struct kv_row *r = &parts[i].set.rows[k];
            size_t known = 0;
            while (known < n && strcmp(policies[known].row->s.spec, r->s.spec) != 0) known++;
            if (known == n) policies[n++] = (struct kv_page_policy){.row = r};
            if (!policies[known].trace && traces->at[i]) {
                policies[known].row = r;
                policies[known].trace = traces->at[i];
            }
        }
    for (size_t i = 0; i < n_parts; i++)
        if (traces->at[i] && (i == 0 || traces->at[i] != traces->at[i - 1]))
            ask(policies, n, traces->at[i], jobs);
    return n;
}

// ---- report ---------------------------------------------------------------------------

static int draw(struct kv_page *page, struct kv_page_part *parts, const struct kv_cli *c,
                struct kv_error *e) {
    struct recordings traces = {page->n_parts, kv_alloc(page->n_parts, sizeof *traces.at)};
    struct kv_page_policy *policies = kv_alloc(page->all->n + 1, sizeof *policies);
    struct kv_model *model = NULL;
    int code = 0;
    for (size_t i = 0; i < page->n_parts; i++) {
        const struct kv_summary *s = &parts[i].set.rows[0].s;
        bool known = i && s->trace == parts[i - 1].set.rows[0].s.trace;
        traces.at[i] =
            known ? traces.at[i - 1] : kv_widths_open(page->store, s, kv_opt(c, "trace"));
    }
    for (size_t i = 0; !code && i < page->n_parts; i++)
        code =
            kv_figures_draw(&parts[i].set, page->store, parts[i].figures, &parts[i].n_figures, e);
    if (!code) {
        page->policies = policies;
        page->n_policies = find_policies(parts, page->n_parts, &traces, c->jobs, policies);
        struct kv_error ignored;
        bool any = false;
        for (size_t i = 0; i < page->n_policies; i++) any = any || policies[i].widths.by_token;
        char *path = any ? kv_model_path(kv_opt(c, "model")) : NULL;
        if (path && kv_model_open(&model, path, KV_WEIGHTS_BF16, &ignored) == 0) {
            page->tokenizer = model->tokenizer;
            kv_hex64(kv_tokenizer_digest(model->tokenizer), page->tokenizer_digest);
        }
        free(path);
        code = kv_page_write(page, e);
    }
    for (size_t i = 0; i < page->n_policies; i++) kv_widths_free(&policies[i].widths, 1);
    for (size_t i = 0; i < page->n_parts; i++)
        if (i == 0 || traces.at[i] != traces.at[i - 1]) kv_trace_close(traces.at[i]);
    kv_model_close(model);
    free(policies);
    free(traces.at);
    return code;
}

// ---- claims ---------------------------------------------------------------------------

enum { DRAWS = 2000 };

// All claims of a list of files, or (NULL) of those shipped.
static int open_claims(const char *list, struct kv_claim **all, size_t *n, struct kv_error *e) {
    char *copy = kv_strdup(list ? list : ""), *rest = copy, *word;
    const char *shipped;
    int code = 0;
    *all = NULL;
    *n = 0;
    for (size_t i = 0; !list && !code && (shipped = kv_shipped_claim(i)); i++)
        code = kv_claims_add(shipped, all, n, e);
    while (list && *list && !code && (word = strsep(&rest, ",")))
        code = kv_claims_add(word, all, n, e);
    free(copy);
    return code;
}

static int write_page(struct kv_page *page, struct kv_page_part *parts, const struct kv_cli *c,
                      struct kv_error *e) {
    struct kv_claim *claims;
    struct kv_verdict *verdicts = NULL;
    size_t n_claims, n_verdicts = 0;
    int code = open_claims(kv_opt(c, "claims"), &claims, &n_claims, e);
    if (!code && n_claims)
        code = kv_verdicts_judge(page->store, claims, n_claims, page->all->device, c->seed, DRAWS,
                                 &verdicts, &n_verdicts, e);
    page->verdicts = verdicts;
    page->n_verdicts = n_verdicts;
    if (!code) code = draw(page, parts, c, e);
    kv_verdicts_free(verdicts, n_verdicts);
    kv_claims_free(claims, n_claims);
    return code;
}

static int write_report(struct kv_rows *all, struct kv_store *s, const struct kv_cli *c,
                        struct kv_error *e) {
    const char *dir = kv_opt(c, "out");
    struct kv_row *rows = kv_alloc(all->n + 1, sizeof *rows);
    struct kv_page_part *parts = kv_alloc(all->n + 1, sizeof *parts);
    const char *given = kv_opt(c, "format");
    char *formats = kv_format_text("%s%s", strstr(given, "svg") ? "" : "svg,", given);
    int code = kv_gnuplot_formats(given, e);
    tell_apart(all);
    struct kv_page page = {.all = all,
                           .parts = parts,
                           .n_parts = make_parts(all, dir, formats, rows, parts),
                           .store = s,
                           .dir = dir,
                           .db = kv_opt(c, "db"),
                           .seed = c->seed};
    if (!code)
        code = page.n_parts
                   ? kv_make_dir(dir, e)
                   : kv_fail(e, KV_EFAIL, kv_opt(c, "db"),
                             "no row has an accuracy or a divergence, so there is nothing to draw");
    if (!code) code = write_page(&page, parts, c, e);
    for (size_t i = 0; i < page.n_parts; i++)
        for (size_t k = 0; k < parts[i].n_figures; k++) {
            if (!code) kv_say("%s/%s.{%s}", dir, parts[i].figures[k].name, formats);
            free(parts[i].figures[k].name);
        }
    if (!code) code = kv_harness_write(all, dir, e);
    if (!code) kv_say("%s/results.{json,tsv}\n%s/index.html", dir, dir);
    free(formats);
    free(parts);
    free(rows);
    return code;
}

static int report(struct kv_cli *c, struct kv_error *e) {
    struct kv_rows rows;
    struct kv_store *s;
    int code = kv_rows_open(&rows, &s, c, e);
    if (code) return code;
    code = kv_rows_sort(&rows, "bits", e);
    if (!code) code = write_report(&rows, s, c, e);
    kv_rows_fini(&rows);
    kv_store_abandon(s);
    return code;
}

const struct kv_command kv_cmd_report = {
    .name = "report",
    .summary = "draws the frontier figures of a store and writes a page about it",
    .usage = "",
    .example = "kvsim report --db work/demo.db -o work/report",
    .options = options,
    .run = report};
