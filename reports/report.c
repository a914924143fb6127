// SPDX-License-Identifier: Apache-2.0
// Puts a report together: rows into parts, claims judged, figures drawn, policies asked, the page.
#include "reports/draw/depths.h"
#include "reports/draw/generation.h"
#include "reports/draw/places.h"
#include "reports/report.h"
#include "reports/draw/gnuplot.h"
#include "reports/harness.h"
#include "reports/page/page.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/model/model.h"

#include <stdlib.h>

enum { ITEMS_ASKED = 16 };

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
                if (taken[i] || !drawable(r) || (r->s.fidelity == KV_EXACT) != exact) continue;
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
    const struct kv_row **rows = kv_alloc(n + 1, sizeof *rows);
    struct kv_widths *w = kv_alloc(n + 1, sizeof *w);
    size_t n_asked = 0, taken = 0;
    for (size_t i = 0; i < n; i++) {
        if (policies[i].trace == trace) rows[n_asked++] = policies[i].row;
    }
    kv_widths_read(trace, rows, n_asked, ITEMS_ASKED, jobs, w);
    for (size_t i = 0; i < n; i++)
        if (policies[i].trace == trace) policies[i].widths = w[taken++];
    free(rows);
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

// ---- drawing and writing
// ---------------------------------------------------------------------------

// The model's tokenizer, where a policy's tokens are drawn and the model can be opened.
static struct kv_model *open_tokenizer(struct kv_page *page, const char *path) {
    struct kv_model *model = NULL;
    struct kv_error ignored;
    bool any = false;
    for (size_t i = 0; i < page->n_policies; i++) any = any || page->policies[i].widths.by_token;
    if (!any || !path ||
        kv_tolerate(kv_model_open(&model, path, KV_WEIGHTS_BF16, &ignored), &ignored))
        return NULL;
    page->tokenizer = model->tokenizer;
    kv_hex64(kv_tokenizer_digest(model->tokenizer), page->tokenizer_digest);
    return model;
}

static void open_recordings(const struct kv_page *page, const char *list,
                            struct recordings *traces) {
    for (size_t i = 0; i < page->n_parts; i++) {
        const struct kv_summary *s = &page->parts[i].set.rows[0].s;
        bool known = i && s->trace == page->parts[i - 1].set.rows[0].s.trace;
        traces->at[i] = known ? traces->at[i - 1] : kv_widths_open(page->store, s, list);
    }
}

static void close_recordings(struct recordings *traces) {
    for (size_t i = 0; i < traces->n; i++)
        if (i == 0 || traces->at[i] != traces->at[i - 1]) kv_trace_close(traces->at[i]);
    free(traces->at);
}

// The panel for a paper of every part that knows what it shows.
static int draw_paper(const struct kv_paper *paper, struct kv_page_part *parts, size_t n,
                      struct kv_error *e) {
    int code = 0;
    bool any = false;
    for (size_t i = 0; paper && !code && i < n; i++) {
        code = kv_paper_draw(&parts[i].set, paper, &parts[i].paper, e);
        any = any || parts[i].paper;
    }
    return code || any || !paper ? code
                                 : kv_fail(e, KV_EUSAGE, "--panel", "no row has a value for %s",
                                           kv_paper_panels[paper->panel]);
}

static int draw(struct kv_page *page, struct kv_page_part *parts, const struct kv_report *r,
                struct kv_error *e) {
    struct recordings traces = {page->n_parts, kv_alloc(page->n_parts, sizeof *traces.at)};
    struct kv_page_policy *policies = kv_alloc(page->all->n + 1, sizeof *policies);
    struct kv_model *model = NULL;
    int code = 0;
    open_recordings(page, r->traces, &traces);
    struct kv_progress *progress = kv_progress_start("drawing", page->n_parts, "parts");
    for (size_t i = 0; !code && i < page->n_parts; i++) {
        code = kv_frontier_draw(&parts[i].set, parts[i].figures, &parts[i].n_figures, e);
        if (!code)
            code = kv_depths_draw(&parts[i].set, &parts[i].figures[parts[i].n_figures],
                                  &parts[i].n_figures, e);
        if (!code)
            code = kv_places_draw(&parts[i].set, &parts[i].figures[parts[i].n_figures],
                                  &parts[i].n_figures, e);
        kv_progress_step(progress, 1);
        if (!code && kv_interrupted()) code = kv_fail(e, KV_EINTR, "report", "interrupted");
    }
    kv_progress_end(progress);
    if (!code) code = draw_paper(r->paper, parts, page->n_parts, e);
    if (!code) {
        page->policies = policies;
        page->n_policies = find_policies(parts, page->n_parts, &traces, r->jobs, policies);
        model = open_tokenizer(page, r->model);
        code = kv_page_write(page, e);
    }
    for (size_t i = 0; i < page->n_policies; i++) kv_widths_free(&policies[i].widths, 1);
    close_recordings(&traces);
    kv_model_close(model);
    free(policies);
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

static int write_page(struct kv_page *page, struct kv_page_part *parts, const struct kv_report *r,
                      struct kv_error *e) {
    struct kv_claim *claims = NULL;
    struct kv_verdict *verdicts = NULL;
    size_t n_claims = 0, n_verdicts = 0;
    int code = open_claims(r->claims, &claims, &n_claims, e);
    if (!code && n_claims)
        code = kv_verdicts_judge(page->store, claims, n_claims, page->all->device, r->seed, DRAWS,
                                 &verdicts, &n_verdicts, e);
    page->verdicts = verdicts;
    page->n_verdicts = n_verdicts;
    if (!code) code = draw(page, parts, r, e);
    kv_verdicts_free(verdicts, n_verdicts);
    kv_claims_free(claims, n_claims);
    return code;
}

// ---- the whole ------------------------------------------------------------------------

// Says what was drawn, unless the report failed, and lets go of it.
static void end_figures(struct kv_page_part *parts, size_t n, const char *dir, const char *formats,
                        bool say) {
    for (size_t i = 0; i < n; i++) {
        if (say && parts[i].paper) kv_say("%s/%s.{%s}", dir, parts[i].paper, formats);
        free(parts[i].paper);
        for (size_t k = 0; k < parts[i].n_figures; k++) {
            if (say) kv_say("%s/%s.{%s}", dir, parts[i].figures[k].name, formats);
            free(parts[i].figures[k].name);
            free(parts[i].figures[k].narrow);
        }
    }
}

int kv_report_write(const struct kv_report *r, struct kv_rows *all, struct kv_store *s,
                    struct kv_error *e) {
    struct kv_row *rows = kv_alloc(all->n + 1, sizeof *rows);
    struct kv_page_part *parts = kv_alloc(all->n + 1, sizeof *parts);
    struct kv_generation_table generations = {0};
    char *formats = kv_format_text("%s%s", strstr(r->formats, "svg") ? "" : "svg,", r->formats);
    int code = kv_gnuplot_formats(r->formats, e);
    tell_apart(all);
    struct kv_page page = {.all = all,
                           .parts = parts,
                           .n_parts = make_parts(all, r->dir, formats, rows, parts),
                           .generations = &generations,
                           .store = s,
                           .dir = r->dir,
                           .db = r->db,
                           .seed = r->seed};
    if (!code) code = kv_generation_table(s, r->seed, &generations, e);
    if (!code)
        code = page.n_parts || generations.n
                   ? kv_make_dir(r->dir, e)
                   : kv_fail(e, KV_EFAIL, r->db,
                             "no row has an accuracy or a divergence, so there is nothing to draw");
    if (!code && generations.n) code = kv_generation_draw(&generations, r->dir, formats, e);
    if (!code) code = write_page(&page, parts, r, e);
    end_figures(parts, page.n_parts, r->dir, formats, !code);
    if (!code && all->n) code = kv_harness_write(all, r->dir, e);
    if (!code && all->n) kv_say("%s/results.{json,tsv}", r->dir);
    if (!code) kv_say("%s/index.html", r->dir);
    kv_generation_table_fini(&generations);
    free(formats);
    free(parts);
    free(rows);
    return code;
}
