// SPDX-License-Identifier: Apache-2.0
// kvsim frontier: which policies no other beats, how surely, and by how much the others are beaten.
#include "analysis/results/front.h"

#include <stdlib.h>

#include "sim/base/args.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"

static const struct kv_option options[] = {
    KV_ROWS_OPTIONS,
    {"value", 0, "NAME", "acc", "what is gained: acc, acc_norm, acc_bytes, acc_token, agree or kl"},
    {"cost", 0, "NAME", "bits",
     "what is paid: bits (effective), allocated, bytes (a token) or ms (at each context)"},
    {"draws", 0, "N", "1000", "bootstrap draws over items"},
    {"oracles", 0, NULL, NULL, "let policies that read the future compete"},
    {0}};

static const struct kv_column columns[] = {
    {"spec", KV_LEFT},         {"cost", KV_RIGHT},       {"value", KV_RIGHT},
    {"on_frontier", KV_RIGHT}, {"frequency", KV_RIGHT},  {"knee", KV_RIGHT},
    {"beaten_by", KV_LEFT},    {"better_by", KV_RIGHT},  {"better_low", KV_RIGHT},
    {"better_high", KV_RIGHT}, {"cheaper_by", KV_RIGHT}, {"n", KV_RIGHT},
    {"cost_name", KV_LEFT},    {"context", KV_RIGHT},    {"value_name", KV_LEFT},
    {"fidelity", KV_LEFT},     {"mode", KV_LEFT},        {"self", KV_LEFT},
    {"trace", KV_LEFT}};
static const struct kv_column text_columns[] = {{"spec", KV_LEFT},
                                                {"cost", KV_RIGHT},
                                                {"value", KV_RIGHT},
                                                {"on it", KV_LEFT},
                                                {"in draws", KV_RIGHT},
                                                {"beaten by", KV_LEFT},
                                                {"better by [95 %]      ", KV_RIGHT},
                                                {"cheaper by", KV_RIGHT}};

struct asked {
    const struct kv_front_value *value;
    const struct kv_front_cost *cost;
    size_t draws;
    uint64_t seed;
};

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

// ---- printing -------------------------------------------------------------------------

static void add_rows(struct kv_table *t, const struct kv_front *f, const struct asked *asked,
                     double context) {
    for (size_t p = 0; p < f->n; p++) {
        const struct kv_row *r = f->rows[p];
        const struct kv_row *by = f->by[p] < f->n ? f->rows[f->by[p]] : NULL;
        kv_table_text(t, r->s.spec);
        kv_table_number(t, f->cost[p], 6);
        kv_table_number(t, f->value[p], 6);
        kv_table_count(t, f->on[p]);
        kv_table_number(t, f->frequency[p], 4);
        kv_table_count(t, p == f->knee);
        kv_table_text(t, by ? by->s.spec : NULL);
        kv_table_number(t, f->gain[p].mean, 6);
        kv_table_number(t, f->gain[p].interval.low, 6);
        kv_table_number(t, f->gain[p].interval.high, 6);
        kv_table_number(t, by ? f->cost[p] - f->cost[f->by[p]] : NAN, 6);
        kv_table_count(t, (long long)f->n_items);
        kv_table_text(t, asked->cost->name);
        kv_table_number(t, asked->cost->by_context ? context : NAN, -1);
        kv_table_text(t, asked->value->name);
        kv_table_text(t, r->s.fidelity);
        kv_table_text(t, r->s.mode);
        kv_table_text(t, r->s.self);
        kv_table_text(t, r->s.trace_digest);
    }
}

static void add_text_row(struct kv_table *t, const struct kv_front *f, size_t p, int decimals) {
    const struct kv_mean *gain = &f->gain[p];
    const struct kv_row *by = f->by[p] < f->n ? f->rows[f->by[p]] : NULL;
    char *better = by ? kv_format_text("%.*f [%+.*f %+.*f]", decimals, gain->mean, decimals,
                                       gain->interval.low, decimals, gain->interval.high)
                      : NULL;
    char *name = kv_format_text("%s%s", f->rows[p]->label, f->rows[p]->s.oracle ? " (oracle)" : "");
    kv_table_text(t, name);
    kv_table_number(t, f->cost[p], 2);
    kv_table_number(t, f->value[p], decimals);
    kv_table_text(t, p == f->knee ? "knee" : f->on[p] ? "yes" : NULL);
    kv_table_number(t, f->frequency[p], 2);
    kv_table_text(t, by ? by->label : NULL);
    kv_table_text(t, better);
    kv_table_number(t, by ? f->cost[p] - f->cost[f->by[p]] : NAN, 2);
    free(name);
    free(better);
}

static int print_text(const struct kv_front *f, const struct asked *asked,
                      const struct kv_rows *all, size_t context, struct kv_error *e) {
    const struct kv_summary *s = &f->rows[0]->s;
    int decimals = strcmp(asked->value->name, "kl") == 0 ? 4 : 3;
    const char *space = *asked->value->unit ? ", " : "";
    printf("%s, %s: %s; %s, %s, own step %s; %zu items%s\n", s->task, s->subset, s->model,
           s->fidelity, s->mode, s->self, f->n_items, f->n_left_out ? " that all rows hold" : "");
    if (f->n_left_out) printf("%zu items are left out: not every row holds them\n", f->n_left_out);
    printf("value: %s%s%s; cost: %s", asked->value->name, space, asked->value->unit,
           asked->cost->unit);
    if (asked->cost->by_context)
        printf(" at %g tokens on %s", all->context[context], all->device->name);
    putchar('\n');
    struct kv_table *t = kv_table_new(text_columns, sizeof text_columns / sizeof *text_columns);
    for (size_t p = 0; p < f->n; p++) add_text_row(t, f, p, decimals);
    int code = kv_table_print(t, KV_OUT_TEXT, e);
    if (code) return code;
    printf("hypervolume %.4g [%.4g, %.4g], down to %s %.*f and up to the dearest row\n",
           f->hypervolume, f->hypervolume_interval.low, f->hypervolume_interval.high,
           asked->value->name, decimals, f->floor);
    puts(
        "in draws: share of the items' resamples in which a row is on the frontier; a low one does "
        "not rule it out");
    return kv_flush_stdout(e);
}

static int frontier_of(const struct kv_cli *c, struct kv_store *s, const struct kv_rows *all,
                       const struct kv_row *const *group, size_t n, const struct asked *asked,
                       struct kv_table *t, bool *first, struct kv_error *e) {
    size_t n_contexts = asked->cost->by_context ? all->n_contexts : 1;
    int code = 0;
    for (size_t k = 0; !code && k < n_contexts; k++) {
        struct kv_front f;
        code = kv_front_find(&f, s, group, n, asked->value, asked->cost, k, asked->seed,
                             asked->draws, e);
        if (code) return code;
        if (c->output == KV_OUT_TEXT) {
            if (!*first) putchar('\n');
            *first = false;
            code = print_text(&f, asked, all, k, e);
        } else {
            add_rows(t, &f, asked, all->context[k]);
        }
        kv_front_fini(&f);
    }
    return code;
}

static int frontier(struct kv_cli *c, struct kv_error *e) {
    struct kv_rows rows;
    struct kv_store *s;
    struct asked asked = {.seed = c->seed};
    const void *value = NULL, *cost = NULL;
    long draws = 0;
    int code = find_named(c, "value", kv_front_values, sizeof *kv_front_values, &value, e);
    if (!code) code = find_named(c, "cost", kv_front_costs, sizeof *kv_front_costs, &cost, e);
    if (!code) code = kv_opt_int(c, "draws", 1, 1000000, &draws, e);
    if (code) return code;
    asked.value = value;
    asked.cost = cost;
    asked.draws = (size_t)draws;
    code = kv_rows_open(&rows, &s, c, e);
    if (code) return code;
    code = kv_rows_sort(&rows, "bits", e);
    bool *done = kv_alloc(rows.n + 1, sizeof *done), first = true, competes = false;
    const struct kv_row **group = kv_alloc(rows.n + 1, sizeof *group);
    struct kv_table *t =
        c->output == KV_OUT_TEXT ? NULL : kv_table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; !code && i < rows.n; i++) {
        size_t n = 0;
        if (done[i]) continue;
        for (size_t k = i; k < rows.n; k++) {
            if (done[k] || !kv_rows_alike(&rows.row[i], &rows.row[k])) continue;
            done[k] = true;
            if (!rows.row[k].s.oracle || kv_opt_given(c, "oracles")) group[n++] = &rows.row[k];
        }
        if (n) code = frontier_of(c, s, &rows, group, n, &asked, t, &first, e);
        competes = competes || n > 0;
    }
    if (!code && !competes)
        code = kv_fail(e, KV_EFAIL, kv_opt(c, "db"),
                       "all policies of the store read the future; --oracles lets them compete");
    if (!code && t)
        code = kv_table_print(t, c->output, e);
    else
        kv_table_free(t);
    free(group);
    free(done);
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
