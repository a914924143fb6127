// SPDX-License-Identifier: Apache-2.0
// kvsim show: the table of a store, each accuracy with its interval and its difference to 16 bit.
#include "sim/cli/scorers.h"
#include "sim/cli/widths.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    KV_ROWS_OPTIONS,
    {"color", 0, "WHEN", "auto", "auto, always, never: rows on the frontier stand out"},
    {"layers", 0, NULL, NULL, "bits by layer, as the policies answer when asked again"},
    {"trace", 0, "LIST", NULL, "recordings to ask (default: where the store says they were)"},
    {"sort", 0, "KEY", "bits", "order of rows: bits, acc, kl, ms (at the last context) or spec"},
    {"scorers", 0, NULL, NULL, "how the ranking changes with the scorer, instead"},
    {0}};

// When a column is printed. WIDE: in text only on a wide terminal; PRICED: only with a device, once
// a context; NULLED: in text only where a row has its own shuffle beside it; LAYERS: when asked
// for; REDRAWN: only where a row was redrawn.
enum { WIDE = 1, TEXT = 2, MACHINE = 4, PRICED = 8, NULLED = 16, LAYERS = 32, REDRAWN = 64 };
enum { WIDE_TERMINAL = 130 };

// ---- what a column says ---------------------------------------------------------------

struct cell_of {
    const struct kv_row *row;
    const struct kv_rows *rows;
    size_t context;
    bool on_frontier;
    const char *layers; // sparkline, or NULL
};

// "0.415 [0.372 0.459]"
static char *range_text(double x, struct kv_interval i) {
    if (isnan(x)) return NULL;
    return isnan(i.low) ? kv_format_text("%.3f", x)
                        : kv_format_text("%.3f [%.3f %.3f]", x, i.low, i.high);
}

// "+0.008 [-0.023 +0.046]"
static char *signed_range_text(double x, struct kv_interval i) {
    if (isnan(x)) return NULL;
    if (fabs(x) < 0.0005) x = 0; // no "-0.000"
    return isnan(i.low) ? kv_format_text("%+.3f", x)
                        : kv_format_text("%+.3f [%+.3f %+.3f]", x, i.low, i.high);
}

static void take_text(struct kv_table *t, char *s) {
    kv_table_text(t, s);
    free(s);
}

#define CELL(name) static void name(struct kv_table *t, const struct cell_of *c)
CELL(spec) {
    kv_table_text(t, c->row->s.spec);
}
CELL(label) {
    take_text(t, kv_format_text("%s%s", c->row->label, c->row->s.oracle ? " (oracle)" : ""));
}
CELL(tag) {
    kv_table_text(t, c->row->s.tag);
}
CELL(oracle) {
    kv_table_count(t, c->row->s.oracle);
}
CELL(fidelity) {
    kv_table_text(t, c->row->s.fidelity);
}
CELL(mode) {
    kv_table_text(t, c->row->s.mode);
}
CELL(own) {
    kv_table_text(t, c->row->s.self);
}
CELL(compute) {
    kv_table_text(t, c->row->s.compute);
}
CELL(variant) {
    kv_table_text(t, c->row->s.variant);
}
CELL(seed) {
    kv_table_count(t, (long long)c->row->s.seed);
}
CELL(redraws) {
    kv_table_count(t, (long long)c->row->s.n_redraws);
}
CELL(count) {
    kv_table_count(t, (long long)c->row->s.n_items);
}
CELL(acc) {
    kv_table_number(t, c->row->s.acc[KV_ACC], 6);
}
CELL(acc_low) {
    kv_table_number(t, c->row->interval[KV_ACC].low, 6);
}
CELL(acc_high) {
    kv_table_number(t, c->row->interval[KV_ACC].high, 6);
}
CELL(acc_text) {
    take_text(t, range_text(c->row->s.acc[KV_ACC], c->row->interval[KV_ACC]));
}
CELL(acc_norm) {
    kv_table_number(t, c->row->s.acc[KV_ACC_NORM], 6);
}
CELL(acc_norm_low) {
    kv_table_number(t, c->row->interval[KV_ACC_NORM].low, 6);
}
CELL(acc_norm_high) {
    kv_table_number(t, c->row->interval[KV_ACC_NORM].high, 6);
}
CELL(acc_norm_text) {
    kv_table_number(t, c->row->s.acc[KV_ACC_NORM], 3);
}
CELL(acc_bytes) {
    kv_table_number(t, c->row->s.acc[KV_ACC_BYTES], 6);
}
CELL(acc_token) {
    kv_table_number(t, c->row->s.acc[KV_ACC_TOKEN], 6);
}
CELL(diff) {
    kv_table_number(t, c->row->to16[KV_ACC].difference, 6);
}
CELL(diff_low) {
    kv_table_number(t, c->row->to16[KV_ACC].interval.low, 6);
}
CELL(diff_high) {
    kv_table_number(t, c->row->to16[KV_ACC].interval.high, 6);
}
CELL(diff_text) {
    take_text(t, signed_range_text(c->row->to16[KV_ACC].difference, c->row->to16[KV_ACC].interval));
}
CELL(won) {
    kv_table_number(t, c->row->to16[KV_ACC].n ? c->row->to16[KV_ACC].won : NAN, -1);
}
CELL(lost) {
    kv_table_number(t, c->row->to16[KV_ACC].n ? c->row->to16[KV_ACC].lost : NAN, -1);
}
CELL(mid_p) {
    kv_table_number(t, c->row->to16[KV_ACC].mid_p, 6);
}
CELL(holm_p) {
    kv_table_number(t, c->row->holm_p, 6);
}
CELL(holm_p_text) {
    kv_table_number(t, c->row->holm_p, 3);
}
CELL(rounding) {
    kv_table_number(t, c->row->split.rounding_share, 4);
}
CELL(rounding_kl) {
    kv_table_number(t, c->row->split_kl.rounding_share, 4);
}
CELL(rounding_text) {
    kv_table_number(t, 100 * c->row->split.rounding_share, 0);
}
CELL(rounding_kl_text) {
    kv_table_number(t, 100 * c->row->split_kl.rounding_share, 0);
}
CELL(kl) {
    kv_table_number(t, c->row->kl.mean, 6);
}
CELL(kl_text) {
    kv_table_number(t, c->row->kl.mean, 4);
}
CELL(kl_low) {
    kv_table_number(t, c->row->kl.interval.low, 6);
}
CELL(kl_high) {
    kv_table_number(t, c->row->kl.interval.high, 6);
}
CELL(agree) {
    kv_table_number(t, c->row->s.agree, 6);
}
CELL(agree_text) {
    kv_table_number(t, c->row->s.agree, 3);
}
CELL(nominal) {
    kv_table_number(t, c->row->s.nominal_bits, 6);
}
CELL(effective) {
    kv_table_number(t, c->row->s.effective_bits, 6);
}
CELL(allocated) {
    kv_table_number(t, c->row->s.allocated_bits, 6);
}
CELL(entropy) {
    kv_table_number(t, c->row->s.entropy_bits, 6);
}
CELL(nominal_text) {
    kv_table_number(t, c->row->s.nominal_bits, 2);
}
CELL(effective_text) {
    kv_table_number(t, c->row->s.effective_bits, 2);
}
CELL(allocated_text) {
    kv_table_number(t, c->row->s.allocated_bits, 2);
}
CELL(bytes) {
    kv_table_number(t, c->row->s.bytes_per_token, 1);
}
CELL(ms) {
    kv_table_number(t, c->row->at[c->context].step_ns / 1e6, 6);
}
CELL(ceiling) {
    kv_table_number(t, c->row->at[c->context].ceiling_ns / 1e6, 6);
}
CELL(extrapolated) {
    kv_table_count(t, c->row->at[c->context].extrapolated);
}
CELL(ms_text) {
    const struct kv_latency *l = &c->row->at[c->context];
    take_text(t, kv_format_text("%.2f%s", l->step_ns / 1e6, l->extrapolated ? "*" : " "));
}
CELL(shuffle_diff) {
    kv_table_number(t, c->row->shuffle.n_runs ? c->row->shuffle.acc.difference : NAN, 6);
}
CELL(shuffle_low) {
    kv_table_number(t, c->row->shuffle.n_runs ? c->row->shuffle.acc.interval.low : NAN, 6);
}
CELL(shuffle_high) {
    kv_table_number(t, c->row->shuffle.n_runs ? c->row->shuffle.acc.interval.high : NAN, 6);
}
CELL(shuffle_kl) {
    kv_table_number(t, c->row->shuffle.n_runs ? c->row->shuffle.kl.mean : NAN, 6);
}
CELL(shuffle_runs) {
    kv_table_count(t, (long long)c->row->shuffle.n_runs);
}
CELL(shuffle_text) {
    const struct kv_versus *v = &c->row->shuffle;
    take_text(t, v->n_runs ? signed_range_text(v->acc.difference, v->acc.interval) : NULL);
}
CELL(frontier) {
    kv_table_count(t, c->on_frontier);
}
CELL(layers) {
    kv_table_text(t, c->layers);
}
CELL(task) {
    kv_table_text(t, c->row->s.task);
}
CELL(prompt) {
    kv_table_text(t, c->row->s.prompt);
}
CELL(subset) {
    kv_table_text(t, c->row->s.subset);
}
CELL(model) {
    kv_table_text(t, c->row->s.model);
}
CELL(chance) {
    kv_table_number(t, c->row->s.chance, 6);
}
CELL(digest) {
    kv_table_text(t, c->row->s.trace_digest);
}
CELL(version) {
    kv_table_text(t, c->row->s.version);
}
CELL(commit) {
    kv_table_text(t, c->row->s.commit);
}

#define SAME(name, test)                                                                           \
    static bool same_##name(const struct kv_row *a, const struct kv_row *b) {                      \
        return test;                                                                               \
    }
SAME(fidelity, strcmp(a->s.fidelity, b->s.fidelity) == 0)
SAME(mode, strcmp(a->s.mode, b->s.mode) == 0)
SAME(own, strcmp(a->s.self, b->s.self) == 0)
SAME(compute, strcmp(a->s.compute, b->s.compute) == 0)
SAME(variant, strcmp(a->s.variant, b->s.variant) == 0)
SAME(seed, a->s.seed == b->s.seed)
SAME(redraws, a->s.n_redraws == b->s.n_redraws)
SAME(count, a->s.n_items == b->s.n_items)

static const struct show_column {
    const char *name; // "%g" stands for the context
    enum kv_align align;
    unsigned when;
    void (*cell)(struct kv_table *t, const struct cell_of *c);
    // In text a column in which all rows agree is said above the table instead.
    bool (*same)(const struct kv_row *a, const struct kv_row *b);
} columns[] = {
    {"spec", KV_LEFT, MACHINE, spec, NULL},
    {"spec", KV_LEFT, TEXT, label, NULL},
    {"fidelity", KV_LEFT, MACHINE | TEXT, fidelity, same_fidelity},
    {"mode", KV_LEFT, MACHINE | TEXT, mode, same_mode},
    {"n", KV_RIGHT, MACHINE | TEXT, count, same_count},
    {"acc", KV_RIGHT, MACHINE, acc, NULL},
    {"acc_low", KV_RIGHT, MACHINE, acc_low, NULL},
    {"acc_high", KV_RIGHT, MACHINE, acc_high, NULL},
    {"acc [95 %]     ", KV_RIGHT, TEXT, acc_text, NULL},
    {"acc_norm", KV_RIGHT, MACHINE, acc_norm, NULL},
    {"acc_norm_low", KV_RIGHT, MACHINE, acc_norm_low, NULL},
    {"acc_norm_high", KV_RIGHT, MACHINE, acc_norm_high, NULL},
    {"acc_norm", KV_RIGHT, TEXT | WIDE, acc_norm_text, NULL},
    {"acc_bytes", KV_RIGHT, MACHINE, acc_bytes, NULL},
    {"acc_token", KV_RIGHT, MACHINE, acc_token, NULL},
    {"diff16", KV_RIGHT, MACHINE, diff, NULL},
    {"diff16_low", KV_RIGHT, MACHINE, diff_low, NULL},
    {"diff16_high", KV_RIGHT, MACHINE, diff_high, NULL},
    {"to 16 bit [95 %]  ", KV_RIGHT, TEXT, diff_text, NULL},
    {"to its shuffle    ", KV_RIGHT, TEXT | NULLED, shuffle_text, NULL},
    {"won", KV_RIGHT, MACHINE, won, NULL},
    {"lost", KV_RIGHT, MACHINE, lost, NULL},
    {"mid_p", KV_RIGHT, MACHINE, mid_p, NULL},
    {"holm_p", KV_RIGHT, MACHINE, holm_p, NULL},
    {"p, Holm", KV_RIGHT, TEXT | WIDE, holm_p_text, NULL},
    {"rounding_share", KV_RIGHT, MACHINE, rounding, NULL},
    {"kl_rounding_share", KV_RIGHT, MACHINE, rounding_kl, NULL},
    {"rounding %", KV_RIGHT, TEXT | REDRAWN, rounding_text, NULL},
    {"of KL %", KV_RIGHT, TEXT | REDRAWN, rounding_kl_text, NULL},
    {"kl_nats", KV_RIGHT, MACHINE, kl, NULL},
    {"kl_nats_low", KV_RIGHT, MACHINE, kl_low, NULL},
    {"kl_nats_high", KV_RIGHT, MACHINE, kl_high, NULL},
    {"kl_nats", KV_RIGHT, TEXT, kl_text, NULL},
    {"agree", KV_RIGHT, MACHINE, agree, NULL},
    {"agree", KV_RIGHT, TEXT | WIDE, agree_text, NULL},
    {"nominal_bits", KV_RIGHT, MACHINE, nominal, NULL},
    {"effective_bits", KV_RIGHT, MACHINE, effective, NULL},
    {"allocated_bits", KV_RIGHT, MACHINE, allocated, NULL},
    {"entropy_bits", KV_RIGHT, MACHINE, entropy, NULL},
    {"nominal", KV_RIGHT, TEXT | WIDE, nominal_text, NULL},
    {"effective", KV_RIGHT, TEXT, effective_text, NULL},
    {"allocated", KV_RIGHT, TEXT | WIDE, allocated_text, NULL},
    {"bytes_per_token", KV_RIGHT, MACHINE, bytes, NULL},
    {"ms_%g", KV_RIGHT, MACHINE | PRICED, ms, NULL},
    {"ceiling_ms_%g", KV_RIGHT, MACHINE | PRICED, ceiling, NULL},
    {"extrapolated_%g", KV_RIGHT, MACHINE | PRICED, extrapolated, NULL},
    {"ms@%g ", KV_RIGHT, TEXT | PRICED, ms_text, NULL},
    {"bits by layer", KV_LEFT, TEXT | LAYERS, layers, NULL},
    {"shuffle_diff", KV_RIGHT, MACHINE, shuffle_diff, NULL},
    {"shuffle_diff_low", KV_RIGHT, MACHINE, shuffle_low, NULL},
    {"shuffle_diff_high", KV_RIGHT, MACHINE, shuffle_high, NULL},
    {"shuffle_kl_diff", KV_RIGHT, MACHINE, shuffle_kl, NULL},
    {"shuffle_runs", KV_RIGHT, MACHINE, shuffle_runs, NULL},
    {"on_frontier", KV_RIGHT, MACHINE, frontier, NULL},
    {"tag", KV_LEFT, MACHINE, tag, NULL},
    {"oracle", KV_RIGHT, MACHINE, oracle, NULL},
    {"self", KV_LEFT, MACHINE | TEXT, own, same_own},
    {"compute", KV_LEFT, MACHINE | TEXT, compute, same_compute},
    {"variant", KV_LEFT, MACHINE | TEXT, variant, same_variant},
    {"seed", KV_RIGHT, MACHINE | TEXT, seed, same_seed},
    {"redraws", KV_RIGHT, MACHINE | TEXT, redraws, same_redraws},
    {"chance", KV_RIGHT, MACHINE, chance, NULL},
    {"task", KV_LEFT, MACHINE, task, NULL},
    {"prompt", KV_LEFT, MACHINE, prompt, NULL},
    {"subset", KV_LEFT, MACHINE, subset, NULL},
    {"model", KV_LEFT, MACHINE, model, NULL},
    {"trace", KV_LEFT, MACHINE, digest, NULL},
    {"version", KV_LEFT, MACHINE, version, NULL},
    {"commit", KV_LEFT, MACHINE, commit, NULL},
};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

// ---- tables ---------------------------------------------------------------------------

static bool all_same(const struct show_column *c, const struct kv_row *rows, size_t n) {
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
    bool colour;
    const bool *on; // [n] on the frontier of its recording and setting
    char **layers;  // [n] sparklines; NULL = not asked for
};

static bool printed(const struct show_column *c, const struct table *x) {
    size_t width = kv_terminal_width();
    if (!(c->when & (x->how == KV_OUT_TEXT ? TEXT : MACHINE))) return false;
    if ((c->when & PRICED) && !x->all->device) return false;
    if ((c->when & REDRAWN) && !any_redrawn(x->rows, x->n)) return false;
    if ((c->when & LAYERS) && !x->layers) return false;
    if (x->how != KV_OUT_TEXT) return true;
    bool shuffled = false;
    for (size_t i = 0; i < x->n; i++) shuffled = shuffled || x->rows[i].shuffle.n_runs;
    if ((c->when & NULLED) && !shuffled) return false;
    if ((c->when & WIDE) && width && width < WIDE_TERMINAL) return false;
    return !c->same || !all_same(c, x->rows, x->n);
}

static int print_rows(const struct table *x, struct kv_error *e) {
    struct kv_column head[N_COLUMNS * KV_MAX_CONTEXTS];
    const struct show_column *from[N_COLUMNS * KV_MAX_CONTEXTS];
    size_t context[N_COLUMNS * KV_MAX_CONTEXTS], n_head = 0;
    char names[N_COLUMNS * KV_MAX_CONTEXTS][40];
    for (size_t c = 0; c < N_COLUMNS; c++) {
        if (!printed(&columns[c], x)) continue;
        for (size_t k = 0; k < (columns[c].when & PRICED ? x->all->n_contexts : 1); k++) {
            const char *mark = strstr(columns[c].name, "%g");
            if (mark)
                snprintf(names[n_head], sizeof *names, "%.*s%g%s", (int)(mark - columns[c].name),
                         columns[c].name, x->all->context[k], mark + 2);
            head[n_head] =
                (struct kv_column){mark ? names[n_head] : columns[c].name, columns[c].align};
            context[n_head] = k;
            from[n_head++] = &columns[c];
        }
    }
    struct kv_table *t = kv_table_new(head, n_head);
    kv_table_colour(t, x->colour);
    for (size_t i = 0; i < x->n; i++) {
        if (x->on[i]) kv_table_mark(t);
        for (size_t c = 0; c < n_head; c++)
            from[c]->cell(t, &(struct cell_of){&x->rows[i], x->all, context[c], x->on[i],
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
    for (size_t c = 0; c < N_COLUMNS; c++) {
        if (!columns[c].same || !all_same(&columns[c], rows, n)) continue;
        if (columns[c].same == same_count) printf("; n %zu", s->n_items);
        if (columns[c].same == same_fidelity) printf("; %s", s->fidelity);
        if (columns[c].same == same_mode) printf(", %s", s->mode);
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
        puts("p, Holm: mid-p McNemar against 16 bit by acc, adjusted over the rows that it could "
             "have been");
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
        print_device(all);
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
    .example = "kvsim show --db build/demo.db --context 128,2048",
    .options = options,
    .run = show};
