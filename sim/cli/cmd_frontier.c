// SPDX-License-Identifier: Apache-2.0
// kvsim frontier: which policies no other beats, how surely, and by how much the others are beaten.
#include <stdlib.h>

#include "analysis/results/front.h"
#include "analysis/results/notes.h"
#include "sim/base/args.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/cli/opening.h"
#include "sim/cli/row_options.h"

static const struct kv_option options[] = {
    KV_ROWS_OPTIONS,
    {"value", 0, "NAME", "acc", "what is gained: acc, acc_norm, acc_bytes, acc_token, agree or kl"},
    {"cost", 0, "NAME", "bits",
     "what is paid: bits (effective), allocated, bytes (a token) or ms (at each context)"},
    {"draws", 0, "N", "1000", "bootstrap draws over items"},
    {"oracles", 0, NULL, NULL, "let policies that read the future compete"},
    {0}};

struct asked {
    const struct kv_front_value *value;
    const struct kv_front_cost *cost;
    size_t draws;
    uint64_t seed;
    enum kv_output how;
};

// ---- columns --------------------------------------------------------------------------

// Row p of a frontier.
struct point {
    const struct kv_front *f;
    size_t p;
    const struct asked *asked;
    double context;
    const struct kv_row *row, *by; // by: the row that beats it, or NULL
    int decimals;                  // of values in text
};
static double saved(const struct point *x) {
    return x->by ? x->f->cost[x->p] - x->f->cost[x->f->by[x->p]] : NAN;
}
static char *better(const struct point *x) {
    const struct kv_mean *gain = &x->f->gain[x->p];
    return x->by ? kv_format_text("%.*f [%+.*f %+.*f]", x->decimals, gain->mean, x->decimals,
                                  gain->interval.low, x->decimals, gain->interval.high)
                 : NULL;
}
static const char *standing(const struct point *x) {
    return x->p == x->f->knee ? "knee" : x->f->on[x->p] ? "yes" : NULL;
}

// All rows have one mode, which stands above them: who was published in another has the star.
static char *name_of(const struct kv_row *row) {
    char *name = kv_row_name(row),
         *marked = kv_format_text("%s%s", name, row->mode_mismatch ? "*" : "");
    free(name);
    return marked;
}

#define CELL(name, add) KV_CELL(name, struct point, add)
#define TEXT(name, value) CELL(name, kv_table_text(t, value))
#define NUMBER(name, value, decimals) CELL(name, kv_table_number(t, value, decimals))
TEXT(spec, row->row->s.spec)
NUMBER(cost, row->f->cost[row->p], 6)
NUMBER(value, row->f->value[row->p], 6)
CELL(on, kv_table_count(t, row->f->on[row->p]))
NUMBER(frequency, row->f->frequency[row->p], 4)
CELL(knee, kv_table_count(t, row->p == row->f->knee))
TEXT(beaten_by, row->by ? row->by->s.spec : NULL)
NUMBER(better_by, row->f->gain[row->p].mean, 6)
NUMBER(better_low, row->f->gain[row->p].interval.low, 6)
NUMBER(better_high, row->f->gain[row->p].interval.high, 6)
NUMBER(cheaper_by, saved(row), 6)
CELL(items, kv_table_count(t, (long long)row->f->n_items))
CELL(left_out, kv_table_count(t, (long long)row->f->n_left_out))
NUMBER(measured, row->row->s.context_tokens, 1)
TEXT(cost_name, row->asked->cost->name)
NUMBER(context, row->asked->cost->by_context ? row->context : NAN, -1)
TEXT(value_name, row->asked->value->name)
TEXT(fidelity, kv_fidelity_names[row->row->s.fidelity])
TEXT(mode, kv_mode_names[row->row->s.mode])
TEXT(own, kv_self_names[row->row->s.self])
TEXT(digest, row->row->s.trace_digest)

CELL(label, kv_table_take(t, name_of(row->row)))
TEXT(published, row->row->published)
TEXT(short_name, row->row->label)
NUMBER(cost_text, row->f->cost[row->p], 2)
NUMBER(value_text, row->f->value[row->p], row->decimals)
TEXT(standing_text, standing(row))
NUMBER(frequency_text, row->f->frequency[row->p], 2)
TEXT(beaten_by_text, row->by ? row->by->label : NULL)
CELL(better_text, kv_table_take(t, better(row)))
NUMBER(cheaper_text, saved(row), 2)

static const struct kv_table_column columns[] = {{"spec", KV_LEFT, spec},
                                                 {"cost", KV_RIGHT, cost},
                                                 {"value", KV_RIGHT, value},
                                                 {"on_frontier", KV_RIGHT, on},
                                                 {"frequency", KV_RIGHT, frequency},
                                                 {"knee", KV_RIGHT, knee},
                                                 {"beaten_by", KV_LEFT, beaten_by},
                                                 {"better_by", KV_RIGHT, better_by},
                                                 {"better_low", KV_RIGHT, better_low},
                                                 {"better_high", KV_RIGHT, better_high},
                                                 {"cheaper_by", KV_RIGHT, cheaper_by},
                                                 {"n", KV_RIGHT, items},
                                                 {"cost_name", KV_LEFT, cost_name},
                                                 {"context", KV_RIGHT, context},
                                                 {"value_name", KV_LEFT, value_name},
                                                 {"fidelity", KV_LEFT, fidelity},
                                                 {"mode", KV_LEFT, mode},
                                                 {"self", KV_LEFT, own},
                                                 {"trace", KV_LEFT, digest},
                                                 {"left_out", KV_RIGHT, left_out},
                                                 {"measured_tokens", KV_RIGHT, measured},
                                                 {"published_mode", KV_LEFT, published},
                                                 {"label", KV_LEFT, short_name},
                                                 {0}};
static const struct kv_table_column text_columns[] = {
    {"spec", KV_LEFT, label},
    {"cost", KV_RIGHT, cost_text},
    {"value", KV_RIGHT, value_text},
    {"on it", KV_LEFT, standing_text},
    {"in draws", KV_RIGHT, frequency_text},
    {"beaten by", KV_LEFT, beaten_by_text},
    {"better by [95 %]      ", KV_RIGHT, better_text},
    {"cheaper by", KV_RIGHT, cheaper_text},
    {0}};

static void add_rows(struct kv_table *t, const struct kv_table_column *list,
                     const struct kv_front *f, const struct asked *asked, double context) {
    for (size_t p = 0; p < f->n; p++) {
        const struct point x = {.f = f,
                                .p = p,
                                .asked = asked,
                                .context = context,
                                .row = f->rows[p],
                                .by = f->by[p] < f->n ? f->rows[f->by[p]] : NULL,
                                .decimals = asked->value->scorer == KV_FRONT_KL ? 4 : 3};
        kv_table_add_rows(t, list, &x, 1, sizeof x);
    }
}

// ---- one frontier ---------------------------------------------------------------------

static void print_heading(const struct kv_front *f, const struct asked *asked,
                          const struct kv_rows *all, size_t context) {
    const struct kv_summary *s = &f->rows[0]->s;
    const char *space = *asked->value->unit ? ", " : "";
    kv_table_note(asked->how, "%s, %s: %s; %s, %s, own step %s; %zu items%s", s->task, s->subset,
                  s->model, kv_fidelity_names[s->fidelity], kv_mode_names[s->mode],
                  kv_self_names[s->self], f->n_items, f->n_left_out ? " that all rows hold" : "");
    if (f->n_left_out)
        kv_table_note(asked->how,
                      "%zu items are left out: not every row holds them with finite results",
                      f->n_left_out);
    char *place = asked->cost->by_context ? kv_format_text(" at %g tokens on %s",
                                                           all->context[context], all->device->name)
                                          : kv_strdup("");
    kv_table_note(asked->how, "value: %s%s%s; cost: %s%s", asked->value->name, space,
                  asked->value->unit, asked->cost->unit, place);
    free(place);
}

static int print_for_readers(const struct kv_front *f, const struct asked *asked,
                             const struct kv_rows *all, size_t context, struct kv_error *e) {
    print_heading(f, asked, all, context);
    struct kv_table *t = kv_table_begin(text_columns);
    add_rows(t, text_columns, f, asked, all->context[context]);
    int code = kv_table_print(t, asked->how, e);
    if (code) return code;
    char *note =
        asked->cost->by_context ? kv_context_note(f->rows, f->n, &all->context[context], 1) : NULL;
    if (note) kv_table_note(asked->how, "%s", note);
    free(note);
    for (size_t i = 0; i < f->n; i++)
        if (f->rows[i]->mode_mismatch) {
            kv_table_note(asked->how, KV_MODE_LEGEND);
            break;
        }
    kv_table_note(asked->how,
                  "hypervolume %.4g [%.4g, %.4g], down to %s %.*f and up to the dearest row",
                  f->hypervolume, f->hypervolume_interval.low, f->hypervolume_interval.high,
                  asked->value->name, asked->value->scorer == KV_FRONT_KL ? 4 : 3, f->floor);
    kv_table_note(asked->how, "in draws: share of the items' resamples in which a row is on the "
                              "frontier; a low one does not rule it out");
    return kv_flush_stdout(e);
}

// Prints the frontiers of a group for readers, or adds their rows to t.
static int frontier_of(struct kv_store *s, const struct kv_rows *all,
                       const struct kv_row *const *group, size_t n, const struct asked *asked,
                       struct kv_table *t, size_t *n_printed, struct kv_error *e) {
    size_t n_contexts = asked->cost->by_context ? all->n_contexts : 1;
    int code = 0;
    for (size_t k = 0; !code && k < n_contexts; k++) {
        struct kv_front f;
        code = kv_front_find(&f, s, group, n, asked->value, asked->cost, k, asked->seed,
                             asked->draws, e);
        if (code) return code;
        if (!t && *n_printed) putchar('\n');
        if (f.n < n)
            kv_say("%zu rows are left out: they know no %s that is finite", n - f.n,
                   asked->value->name);
        if (t)
            add_rows(t, columns, &f, asked, all->context[k]);
        else
            code = print_for_readers(&f, asked, all, k, e);
        ++*n_printed;
        kv_front_fini(&f);
    }
    return code;
}

// ---- all of them ----------------------------------------------------------------------

static int find_named(const struct kv_cli *c, const char *option, const void *table, size_t size,
                      const void **found, struct kv_error *e) {
    const char *name = kv_opt(c, option), *names[16];
    size_t n = 0;
    for (const char *row = table;; row += size) {
        memcpy(&names[n], row, sizeof names[n]); // the name comes first in each row
        if (!names[n]) break;
        if (strcmp(names[n++], name) == 0) {
            *found = row;
            return 0;
        }
    }
    const char *near = kv_nearest(name, names);
    char *where = kv_format_text("--%s", option);
    int code = kv_fail(e, KV_EUSAGE, where,
                       near ? "no %s is named '%s'; did you mean '%s'?"
                            : "no %s is named '%s' (kvsim frontier --help lists them)",
                       option, name, near);
    free(where);
    return code;
}

// A frontier for each recording and setting.
static int frontiers(const struct kv_cli *c, struct kv_store *s, const struct kv_rows *rows,
                     const struct asked *asked, struct kv_table *t, struct kv_error *e) {
    const struct kv_row **competing = kv_alloc(rows->n + 1, sizeof *competing);
    size_t *group = kv_alloc(rows->n + 1, sizeof *group);
    size_t n_groups = kv_rows_groups(rows->row, rows->n, group), n_printed = 0;
    int code = 0;
    for (size_t g = 0; !code && g < n_groups; g++) {
        size_t n = 0;
        for (size_t i = 0; i < rows->n; i++)
            if (group[i] == g && (!rows->row[i].s.oracle || kv_opt_given(c, "oracles")))
                competing[n++] = &rows->row[i];
        if (n) code = frontier_of(s, rows, competing, n, asked, t, &n_printed, e);
    }
    free(group);
    free(competing);
    if (code || n_printed) return code;
    return kv_fail(e, KV_EFAIL, kv_opt(c, "db"),
                   "all policies of the store read the future; --oracles lets them compete");
}

static int frontier(struct kv_cli *c, struct kv_error *e) {
    struct kv_rows_options how;
    struct kv_rows rows;
    struct kv_store *s;
    struct asked asked = {.seed = c->seed, .how = c->output};
    const void *value = NULL, *cost = NULL;
    long draws = 0;
    int code = find_named(c, "value", kv_front_values, sizeof *kv_front_values, &value, e);
    if (!code) code = find_named(c, "cost", kv_front_costs, sizeof *kv_front_costs, &cost, e);
    if (!code) code = kv_opt_int(c, "draws", 1, 1000000, &draws, e);
    if (!code) code = kv_opt_rows(c, &how, e);
    if (!code) code = kv_opt_blame(c, kv_rows_open(&rows, &s, &how, e), e);
    if (code) return code;
    asked.value = value;
    asked.cost = cost;
    asked.draws = (size_t)draws;
    struct kv_table *t = kv_for_readers(c->output) ? NULL : kv_table_begin(columns);
    code = kv_rows_sort(&rows, "bits", e);
    if (!code) code = frontiers(c, s, &rows, &asked, t, e);
    if (!code && t)
        code = kv_table_print(t, c->output, e);
    else
        kv_table_free(t);
    kv_rows_fini(&rows);
    kv_store_abandon(s);
    return code;
}

const struct kv_command kv_cmd_frontier = {
    .name = "frontier",
    .summary = "says which policies no other beats, how surely, and what beats the others",
    .usage = "",
    .example = "kvsim frontier --db work/demo.db --value kl --cost bits",
    .options = options,
    .run = frontier};
