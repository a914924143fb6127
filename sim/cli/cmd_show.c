// SPDX-License-Identifier: Apache-2.0
// kvsim show: the table of a store, each accuracy with its interval and its difference to 16 bit.
#include <stdlib.h>

#include "analysis/results/notes.h"
#include "analysis/results/widths.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/base/talk.h"
#include "sim/cli/columns.h"
#include "sim/cli/opening.h"
#include "sim/cli/row_options.h"
#include "sim/cli/terminal.h"
#include "sim/model/path.h"

static const struct kv_option options[] = {
    KV_ROWS_OPTIONS,
    {"color", 0, "WHEN", "auto", "auto, always, never: rows on the frontier stand out"},
    {"paired", 0, NULL, NULL,
     "with differences to static 4 bit, paired tests and shares of widths; without prices"},
    {"layers", 0, NULL, NULL, "bits by layer, as the policies answer when asked again"},
    {"trace", 0, "LIST", NULL, "recordings to ask (default: where the store says they were)"},
    {"sort", 0, "KEY", "bits", "order of rows: bits, acc, kl, ms (at the last context) or spec"},
    {"scorers", 0, NULL, NULL, "how the ranking changes with the scorer, instead"},
    {"by", 0, "WHAT", NULL,
     "depth: divergence of text by depth; place: needle and recall by length and depth; instead"},
    {"worst", 0, "N", NULL, "the N tokens of each row that diverge most, in their text, instead"},
    {"model", 'm', "FILE", NULL,
     "whose tokenizer spells them (default: $KVSIM_MODEL, then data/*.gguf)"},
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

// Of KV_SHOW_*, what is not printed in this table.
static unsigned left_out(const struct table *x) {
    size_t width = kv_terminal_width();
    unsigned out = (x->all->device ? 0u : KV_SHOW_PRICED) | (x->layers ? 0u : KV_SHOW_LAYERS) |
                   (any_redrawn(x->rows, x->n) ? 0u : KV_SHOW_REDRAWN);
    bool shuffled = false, tokens = false;
    for (size_t i = 0; i < x->n; i++) tokens = tokens || x->rows[i].n_windows;
    if (!tokens) out |= KV_SHOW_TOKENS;
    if (!kv_for_readers(x->how)) return out;
    for (size_t i = 0; i < x->n; i++) shuffled = shuffled || x->rows[i].shuffle.n_runs;
    return out | (x->paired ? KV_SHOW_PRICED : KV_SHOW_PAIRED) | (shuffled ? 0u : KV_SHOW_NULLED) |
           (x->how == KV_OUT_TEXT && width && width < WIDE_TERMINAL ? KV_SHOW_WIDE : 0u);
}

static bool printed(const struct kv_show_column *c, const struct table *x, unsigned out) {
    bool text = kv_for_readers(x->how);
    return c->when & (text ? KV_SHOW_TEXT : KV_SHOW_MACHINE) && !(c->when & out) &&
           !(text && c->same && all_same(c, x->rows, x->n));
}

// The columns to print, one with prices once a context. names[]: room for theirs.
static void choose_columns(const struct table *x, struct kv_table_column *to, char (*names)[40]) {
    unsigned out = left_out(x);
    size_t n = 0;
    for (const struct kv_show_column *c = kv_show_columns; c->as.name; c++) {
        const char *mark = strstr(c->as.name, "%g");
        size_t copies = !printed(c, x, out) ? 0 : mark ? x->all->n_contexts : 1;
        for (size_t k = 0; k < copies; k++, n++) {
            to[n] = c->as;
            if (!mark) continue;
            snprintf(names[n], sizeof *names, "%.*s%g%s", (int)(mark - c->as.name), c->as.name,
                     x->all->context[k], mark + 2);
            to[n].name = names[n];
            if (k) to[n].cell = NULL;
        }
    }
    to[n] = (struct kv_table_column){0};
}

static int print_rows(const struct table *x, struct kv_error *e) {
    struct kv_table_column columns[KV_MAX_COLUMNS * KV_MAX_CONTEXTS];
    char names[KV_MAX_COLUMNS * KV_MAX_CONTEXTS][40];
    choose_columns(x, columns, names);
    struct kv_table *t = kv_table_begin(columns);
    kv_table_colour(t, x->colour);
    for (size_t i = 0; i < x->n; i++) {
        const struct kv_shown row = {&x->rows[i], x->all, x->on[i],
                                     x->layers ? x->layers[i] : NULL};
        kv_table_add_rows(t, columns, &row, 1, sizeof row);
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
    char **lines = kv_widths_sparklines(trace, rows, n, ITEMS_ASKED, c->jobs);
    kv_trace_close(trace);
    return lines;
}

// Below a recording's table: what its numbers leave out, and what was not measured where it is
// priced.
static void print_notes(const struct table *x, bool priced) {
    const struct kv_row **rows = kv_alloc(x->n + 1, sizeof *rows);
    for (size_t i = 0; i < x->n; i++) {
        char *note = kv_left_out_note(rows[i] = &x->rows[i]);
        if (note)
            kv_table_note(x->how, "left out of %s (%s, %s): %s", rows[i]->label,
                          kv_fidelity_names[rows[i]->s.fidelity], kv_mode_names[rows[i]->s.mode],
                          note);
        free(note);
    }
    char *note = priced ? kv_context_note(rows, x->n, x->all->context, x->all->n_contexts) : NULL;
    if (note) kv_table_note(x->how, "%s", note);
    free(note);
    note = priced ? kv_depth_note(rows, x->n, x->all->context, x->all->n_contexts) : NULL;
    if (note) kv_table_note(x->how, "%s", note);
    free(note);
    free(rows);
}

// What all rows of a trace share, above their table.
static void print_heading(const struct kv_row *rows, size_t n, enum kv_output how) {
    const struct kv_summary *s = &rows[0].s;
    bool fidelity = true, mode = true, items = true;
    struct kv_text t = {0};
    for (size_t i = 1; i < n; i++) {
        fidelity = fidelity && rows[i].s.fidelity == s->fidelity;
        mode =
            mode && rows[i].s.mode == s->mode && !rows[i].mode_mismatch == !rows[0].mode_mismatch;
        items = items && rows[i].s.n_items == s->n_items;
    }
    kv_text_addf(&t, "%s%s%s, %s: %s", s->task, *s->prompt ? ", prompt " : "", s->prompt, s->subset,
                 s->model);
    if (fidelity) kv_text_addf(&t, "; %s", kv_fidelity_names[s->fidelity]);
    if (mode) kv_text_addf(&t, ", %s%s", kv_mode_names[s->mode], rows[0].mode_mismatch ? "*" : "");
    if (items) kv_text_addf(&t, "; n %zu", s->n_items);
    if (!isnan(s->acc_ref[KV_ACC]))
        kv_text_addf(&t, "; 16 bit %.3f, chance %.3f", s->acc_ref[KV_ACC], s->chance);
    kv_table_note(how, "%s", t.s);
    free(t.s);
    if (kv_wilson(s->acc_ref[KV_ACC], (double)s->n_judged, 0.95).low <= s->chance)
        kv_table_note(how, "uninformative: the 95 %% interval of the 16-bit run includes chance");
}

static void print_device(const struct kv_rows *all, enum kv_output how) {
    bool extrapolated = false;
    struct kv_text ceilings = {0};
    if (!all->device) return;
    kv_table_note(how, "ms@T: a token at T tokens of context on %s", all->device->name);
    kv_table_note(how, "%s", kv_device_error_text(all->device));
    for (size_t k = 0; k < all->n_contexts; k++)
        kv_text_addf(&ceilings, "%s %.2f at %g", k ? "," : "", all->row[0].at[k].ceiling_ns / 1e6,
                     all->context[k]);
    kv_table_note(how, "with a cache of no bytes:%s", ceilings.s);
    free(ceilings.s);
    for (size_t i = 0; i < all->n; i++)
        for (size_t k = 0; k < all->n_contexts; k++)
            extrapolated = extrapolated || all->row[i].at[k].extrapolated;
    if (extrapolated)
        kv_table_note(how, "* beyond the contexts, widths, cache types or widths by cell this "
                           "device was measured at");
}

// What the rarer columns mean.
static void print_legend(const struct kv_rows *all, enum kv_output how) {
    size_t width = kv_terminal_width();
    if (how != KV_OUT_TEXT || !width || width >= WIDE_TERMINAL)
        kv_table_note(how, "p, Holm: exact McNemar (paired t where redrawn) against 16 bit by acc, "
                           "adjusted over the rows alike in fidelity and mode");
    for (size_t i = 0; i < all->n; i++)
        if (all->row[i].mode_mismatch) {
            kv_table_note(how, "mode: " KV_MODE_LEGEND);
            break;
        }
    if (any_redrawn(all->row, all->n))
        kv_table_note(how, "rounding %%: of an item's variance of the difference to 16 bit, what "
                           "redraws alone make; of KL %%: the same of kl_nats");
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
                          .how = c->output,
                          .colour = colour,
                          .paired = kv_opt_given(c, "paired"),
                          .on = on + first};
        if (kv_opt_given(c, "layers")) x.layers = ask_layers(c, s, x.rows, x.n);
        if (first) putchar('\n');
        print_heading(x.rows, x.n, c->output);
        code = scorers ? kv_scorers_print(x.rows, x.n, c->output, e) : print_rows(&x, e);
        if (!code) print_notes(&x, all->device && !x.paired && !scorers);
        for (size_t i = 0; x.layers && i < x.n; i++) free(x.layers[i]);
        free(x.layers);
    }
    if (!code && !scorers) {
        print_legend(all, c->output);
        if (!kv_opt_given(c, "paired")) print_device(all, c->output);
    }
    return code ? code : kv_flush_stdout(e);
}

enum { BY_DEPTH, BY_PLACE, BY_NOTHING };
static const char *const subjects[] = {"depth", "place", NULL};

// What is asked for instead of the table.
static int show_instead(const struct kv_cli *c, const struct kv_rows *rows, struct kv_store *s,
                        int by, struct kv_error *e) {
    long most = 0;
    if (by == BY_PLACE) return kv_places_print(rows, kv_opt(c, "db"), c->output, e);
    if (by == BY_DEPTH) return kv_depths_print(rows, kv_opt(c, "db"), c->output, e);
    int code = kv_opt_int(c, "worst", 1, 1000, &most, e);
    char *model = kv_model_path(kv_opt(c, "model"));
    if (!code)
        code = kv_worst_print(rows, s, (size_t)most, kv_opt(c, "trace"), model, kv_opt(c, "db"),
                              c->output, e);
    free(model);
    return code;
}

static int show(struct kv_cli *c, struct kv_error *e) {
    struct kv_rows_options how;
    struct kv_rows rows;
    struct kv_store *s;
    bool colour;
    int by = BY_NOTHING, code = kv_wants_colour(kv_opt(c, "color"), &colour, e);
    if (!code) code = kv_opt_named(c, "by", subjects, &by, e);
    if (!code) code = kv_opt_rows(c, &how, e);
    if (!code) code = kv_opt_blame(c, kv_rows_open(&rows, &s, &how, e), e);
    if (code) return code;
    bool *on = kv_alloc(rows.n + 1, sizeof *on);
    code = kv_rows_sort(&rows, kv_opt(c, "sort"), e);
    if (!code) kv_rows_frontier(rows.row, rows.n, on);
    if (!code)
        code =
            kv_opt(c, "by") || kv_opt(c, "worst") ? show_instead(c, &rows, s, by, e)
            : kv_for_readers(c->output)           ? show_text(&rows, s, c, colour, on, e)
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
