// SPDX-License-Identifier: Apache-2.0
// kvsim show: the table of a store, each accuracy with its interval and its difference to 16 bit.
#include "sim/cli/columns.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/cli/terminal.h"
#include "analysis/results/scorers.h"
#include "analysis/results/widths.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    KV_ROWS_OPTIONS,
    {"color", 0, "WHEN", "auto", "auto, always, never: rows on the frontier stand out"},
    {"paired", 0, NULL, NULL,
     "with differences to static 4 bit, paired tests and shares of widths; without prices"},
    {"layers", 0, NULL, NULL, "bits by layer, as the policies answer when asked again"},
    {"trace", 0, "LIST", NULL, "recordings to ask (default: where the store says they were)"},
    {"sort", 0, "KEY", "bits", "order of rows: bits, acc, kl, ms (at the last context) or spec"},
    {"scorers", 0, NULL, NULL, "how the ranking changes with the scorer, instead"},
    {0}};

enum { WIDE_TERMINAL = 130 };

// ---- tables ---------------------------------------------------------------------------

static bool all_same(const struct kv_show_column *c, const struct kv_row *rows, size_t n) {
    for (size_t i = 1; i < n; i++)
        if (!c->same(&rows[0], &rows[i])) return false;
    return true;
}

static bool any_redrawn(const struct kv_row *rows, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (rows[i].s.n_redraws > 1) return true;
    return false;
}

struct table {
    const struct kv_rows *all;
    const struct kv_row *rows;
    size_t n;
    enum kv_output how;
    bool colour, paired;
    const bool *on; // [n] on the frontier of its recording and setting
    char **layers;  // [n] sparklines; NULL = not asked for
};

static bool printed(const struct kv_show_column *c, const struct table *x) {
    size_t width = kv_terminal_width();
    if (!(c->when & (x->how == KV_OUT_TEXT ? KV_SHOW_TEXT : KV_SHOW_MACHINE))) return false;
    if ((c->when & KV_SHOW_PRICED) && !x->all->device) return false;
    if ((c->when & KV_SHOW_REDRAWN) && !any_redrawn(x->rows, x->n)) return false;
    if ((c->when & KV_SHOW_LAYERS) && !x->layers) return false;
    if (x->how != KV_OUT_TEXT) return true;
    if (x->paired ? c->when & KV_SHOW_PRICED : c->when & KV_SHOW_PAIRED) return false;
    bool shuffled = false;
    for (size_t i = 0; i < x->n; i++) shuffled = shuffled || x->rows[i].shuffle.n_runs;
    if ((c->when & KV_SHOW_NULLED) && !shuffled) return false;
    if ((c->when & KV_SHOW_WIDE) && width && width < WIDE_TERMINAL) return false;
    return !c->same || !all_same(c, x->rows, x->n);
}

static int print_rows(const struct table *x, struct kv_error *e) {
    struct kv_column head[KV_MAX_COLUMNS * KV_MAX_CONTEXTS];
    const struct kv_show_column *from[KV_MAX_COLUMNS * KV_MAX_CONTEXTS];
    size_t context[KV_MAX_COLUMNS * KV_MAX_CONTEXTS], n_head = 0;
    char names[KV_MAX_COLUMNS * KV_MAX_CONTEXTS][40];
    for (size_t c = 0; kv_show_columns[c].name; c++) {
        if (!printed(&kv_show_columns[c], x)) continue;
        for (size_t k = 0; k < (kv_show_columns[c].when & KV_SHOW_PRICED ? x->all->n_contexts : 1);
             k++) {
            const char *mark = strstr(kv_show_columns[c].name, "%g");
            if (mark)
                snprintf(names[n_head], sizeof *names, "%.*s%g%s",
                         (int)(mark - kv_show_columns[c].name), kv_show_columns[c].name,
                         x->all->context[k], mark + 2);
            head[n_head] = (struct kv_column){mark ? names[n_head] : kv_show_columns[c].name,
                                              kv_show_columns[c].align};
            context[n_head] = k;
            from[n_head++] = &kv_show_columns[c];
        }
    }
    struct kv_table *t = kv_table_new(head, n_head);
    kv_table_colour(t, x->colour);
    for (size_t i = 0; i < x->n; i++) {
        if (x->on[i]) kv_table_mark(t);
        for (size_t c = 0; c < n_head; c++)
            from[c]->cell(t, &(struct kv_shown){&x->rows[i], x->all, context[c], x->on[i],
                                                x->layers ? x->layers[i] : NULL});
    }
    return kv_table_print(t, x->how, e);
}

// ---- layers ---------------------------------------------------------------------------

// Sparklines of the rows of one recording; NULL when it is not to be found.
static char **ask_layers(const struct kv_cli *c, struct kv_store *s, const struct kv_row *rows,
                         size_t n) {
    enum { ITEMS_ASKED = 4 };
    struct kv_trace *trace = kv_widths_open(s, &rows[0].s, kv_opt(c, "trace"));
    if (!trace) {
        kv_say(
            "the recording of %s is not here, so its policies cannot be asked (--trace names it)",
            rows[0].s.task);
        return NULL;
    }
    char **lines = kv_alloc(n + 1, sizeof *lines);
    const char **specs = kv_alloc(n + 1, sizeof *specs);
    uint64_t *seeds = kv_alloc(n + 1, sizeof *seeds);
    struct kv_widths *w = kv_alloc(n + 1, sizeof *w);
    for (size_t i = 0; i < n; i++) {
        specs[i] = rows[i].s.spec;
        seeds[i] = rows[i].s.seed;
    }
    kv_widths_read(trace, specs, seeds, n, ITEMS_ASKED, c->jobs, w);
    for (size_t i = 0; i < n; i++)
        lines[i] = kv_widths_sparkline(&w[i], kv_trace_info(trace)->shape.n_layers);
    kv_widths_free(w, n);
    free(w);
    free(specs);
    free(seeds);
    kv_trace_close(trace);
    return lines;
}

// What all rows of a trace share, above their table.
static void print_heading(const struct kv_row *rows, size_t n) {
    const struct kv_summary *s = &rows[0].s;
    printf("%s%s%s, %s: %s", s->task, *s->prompt ? ", prompt " : "", s->prompt, s->subset,
           s->model);
    for (size_t c = 0; kv_show_columns[c].name; c++) {
        if (!kv_show_columns[c].same || !all_same(&kv_show_columns[c], rows, n)) continue;
        if (strcmp(kv_show_columns[c].name, "n") == 0) printf("; n %zu", s->n_items);
        if (strcmp(kv_show_columns[c].name, "fidelity") == 0) printf("; %s", s->fidelity);
        if (strcmp(kv_show_columns[c].name, "mode") == 0) printf(", %s", s->mode);
    }
    if (!isnan(s->acc_ref[KV_ACC]))
        printf("; 16 bit %.3f, chance %.3f", s->acc_ref[KV_ACC], s->chance);
    putchar('\n');
    if (kv_wilson(s->acc_ref[KV_ACC], (double)s->n_judged, 0.95).low <= s->chance)
        puts("uninformative: the 95 % interval of the 16-bit run includes chance");
}

static void print_device(const struct kv_rows *all) {
    bool extrapolated = false;
    if (!all->device) return;
    printf("ms@T: a token at T tokens of context on %s\n", all->device->name);
    printf("with a cache of no bytes:");
    for (size_t k = 0; k < all->n_contexts; k++)
        printf("%s %.2f at %g", k ? "," : "", all->row[0].at[k].ceiling_ns / 1e6, all->context[k]);
    putchar('\n');
    for (size_t i = 0; i < all->n; i++)
        for (size_t k = 0; k < all->n_contexts; k++)
            extrapolated = extrapolated || all->row[i].at[k].extrapolated;
    if (extrapolated) puts("* beyond the contexts or widths this device was measured at");
}

// What the rarer columns mean.
static void print_legend(const struct kv_rows *all) {
    size_t width = kv_terminal_width();
    if (!width || width >= WIDE_TERMINAL)
        puts("p, Holm: mid-p McNemar (paired t where redrawn) against 16 bit by acc, adjusted over "
             "the rows alike in fidelity and mode");
    if (any_redrawn(all->row, all->n))
        puts("rounding %: of an item's variance of the difference to 16 bit, what redraws alone "
             "make; of KL %: the same of kl_nats");
}

// A table for each recording.
static int show_text(const struct kv_rows *all, struct kv_store *s, const struct kv_cli *c,
                     bool colour, const bool *on, struct kv_error *e) {
    bool scorers = kv_opt_given(c, "scorers");
    int code = 0;
    for (size_t first = 0, last; !code && first < all->n; first = last) {
        for (last = first; last < all->n && all->row[last].s.trace == all->row[first].s.trace;)
            last++;
        struct table x = {.all = all,
                          .rows = &all->row[first],
                          .n = last - first,
                          .how = KV_OUT_TEXT,
                          .colour = colour,
                          .paired = kv_opt_given(c, "paired"),
                          .on = on + first};
        if (kv_opt_given(c, "layers")) x.layers = ask_layers(c, s, x.rows, x.n);
        if (first) putchar('\n');
        print_heading(x.rows, x.n);
        code = scorers ? kv_scorers_print(x.rows, x.n, KV_OUT_TEXT, e) : print_rows(&x, e);
        for (size_t i = 0; x.layers && i < x.n; i++) free(x.layers[i]);
        free(x.layers);
    }
    if (!code && !scorers) {
        print_legend(all);
        if (!kv_opt_given(c, "paired")) print_device(all);
    }
    return code ? code : kv_flush_stdout(e);
}

static int show(struct kv_cli *c, struct kv_error *e) {
    struct kv_rows rows;
    struct kv_store *s;
    bool colour;
    int code = kv_wants_colour(kv_opt(c, "color"), &colour, e);
    if (!code) code = kv_rows_open(&rows, &s, c, e);
    if (code) return code;
    bool *on = kv_alloc(rows.n + 1, sizeof *on);
    code = kv_rows_sort(&rows, kv_opt(c, "sort"), e);
    if (!code) kv_rows_frontier(rows.row, rows.n, on);
    if (!code)
        code =
            c->output == KV_OUT_TEXT ? show_text(&rows, s, c, colour, on, e)
            : kv_opt_given(c, "scorers")
                ? kv_scorers_print(rows.row, rows.n, c->output, e)
                : print_rows(
                      &(struct table){
                          .all = &rows, .rows = rows.row, .n = rows.n, .how = c->output, .on = on},
                      e);
    free(on);
    kv_rows_fini(&rows);
    kv_store_abandon(s);
    return code;
}

const struct kv_command kv_cmd_show = {
    .name = "show",
    .summary = "prints the table of a store: accuracy, divergence, bits and time of each spec",
    .usage = "",
    .example = "kvsim show --db work/demo.db --context 128,2048",
    .options = options,
    .run = show};
