// SPDX-License-Identifier: Apache-2.0
// kvsim diff: two specs compared item by item, with every test that the comparison allows.
#include <math.h>
#include <stdlib.h>

#include "analysis/results/builds.h"
#include "analysis/results/compare.h"
#include "analysis/results/rows.h"
#include "sim/store/label.h"
#include "sim/cli/row_options.h"

static const struct kv_option options[] = {
    {"db", 0, "FILE", "kvsim.db", "the store"},
    {"fidelity", 0, "NAME", NULL, "which fidelity, where the store holds several"},
    {"mode", 0, "A[,B]", NULL, "which mode, where the store holds several; B: of the second spec"},
    {"feedback", 0, "A[,B]", "open", "runs with open or closed feedback; B: of the second spec"},
    {"digest", 0, "DIGEST", NULL, "which trace, where the store holds several (as show prints it)"},
    {"margin", 0, "M", "0.01", "difference that still counts as lossless, for TOST"},
    {"power", 0, "P", "0.8", "with which a difference is to be seen, for the items needed"},
    {"draws", 0, "N", "2000", "bootstrap draws that check the interval; 0 = none"},
    {0}};

#define CELL(name, add) KV_CELL(name, struct kv_compared, add)
#define NUMBER(name, value, decimals) CELL(name, kv_table_number(t, value, decimals))
#define MEAN(name, value) NUMBER(name, value, row->divergence ? 5 : 4)
CELL(quantity, kv_table_text(t, row->quantity))
CELL(items, kv_table_count(t, (long long)row->n))
MEAN(a, row->a)
MEAN(b, row->b)
NUMBER(only_a, row->only_a, -1)
NUMBER(only_b, row->only_b, -1)
MEAN(difference, row->difference)
MEAN(low, row->interval.low)
MEAN(high, row->interval.high)
MEAN(bootstrap_low, row->bootstrap.low)
MEAN(bootstrap_high, row->bootstrap.high)
NUMBER(exact_p, row->exact_p, 4)
NUMBER(mid_p, row->mid_p, 4)
NUMBER(margin, row->margin, -1)
NUMBER(tost_p, row->tost_p, 4)
NUMBER(not_worse_p, row->not_worse_p, 4)
// A difference of nothing needs no finite number of items: a blank.
NUMBER(items_needed, isfinite(row->items_needed) ? row->items_needed : NAN, 0)
NUMBER(smallest_seen, row->smallest_seen, 4)

static const struct kv_table_column columns[] = {{"quantity", KV_LEFT, quantity},
                                                 {"a", KV_RIGHT, a},
                                                 {"b", KV_RIGHT, b},
                                                 {"n", KV_RIGHT, items},
                                                 {"only_a", KV_RIGHT, only_a},
                                                 {"only_b", KV_RIGHT, only_b},
                                                 {"difference", KV_RIGHT, difference},
                                                 {"low", KV_RIGHT, low},
                                                 {"high", KV_RIGHT, high},
                                                 {"bootstrap_low", KV_RIGHT, bootstrap_low},
                                                 {"bootstrap_high", KV_RIGHT, bootstrap_high},
                                                 {"exact_p", KV_RIGHT, exact_p},
                                                 {"mid_p", KV_RIGHT, mid_p},
                                                 {"margin", KV_RIGHT, margin},
                                                 {"tost_p", KV_RIGHT, tost_p},
                                                 {"not_worse_p", KV_RIGHT, not_worse_p},
                                                 {"items_needed", KV_RIGHT, items_needed},
                                                 {"smallest_seen", KV_RIGHT, smallest_seen},
                                                 {0}};
enum { N_COMPARED = 13, N_EVIDENCE = 4 }; // text prints the first, then the last of them

static int print_for_readers(const struct kv_compared *x, size_t n, const struct kv_comparing *how,
                             enum kv_output output, struct kv_error *e) {
    struct kv_table_column compared[N_COMPARED + 1] = {{0}};
    struct kv_table_column evidence[N_EVIDENCE + 2] = {columns[0]};
    size_t n_judged = n;
    while (n_judged && x[n_judged - 1].divergence) n_judged--;
    memcpy(compared, columns, N_COMPARED * sizeof *columns);
    memcpy(evidence + 1, columns + N_COMPARED + 1, N_EVIDENCE * sizeof *columns);
    int code = kv_table_print_rows(compared, x, n, sizeof *x, output, e);
    if (code) return code;
    putchar('\n');
    kv_table_note(output,
                  "Within %g of each other (tost_p) and a no worse than b by %g (not_worse_p) are "
                  "shown where p < 0.05.",
                  how->margin, how->margin);
    kv_table_note(output,
                  "items_needed: to see the difference, were it the true one, with power %g; "
                  "smallest_seen: what these items would show.",
                  how->power);
    return kv_table_print_rows(evidence, x, n_judged, sizeof *x, output, e);
}

// What the two runs are; a star where a spec was published in another mode.
static int print_runs(struct kv_store *s, const struct kv_summary *const run[2],
                      enum kv_output output, struct kv_error *e) {
    struct kv_store_setting *settings;
    size_t n;
    bool starred = false;
    int code = kv_store_settings(s, &settings, &n, e);
    for (int i = 0; !code && i < 2; i++) {
        const char *variant = kv_variant_name(run[i]->form, run[i]->feedback), *published,
                   *why = kv_run_mismatch(run[i], settings, n, &published);
        starred = starred || why;
        kv_table_note(output, "%c: %s (%s, %s%s%s%s)", 'a' + i, run[i]->label,
                      kv_fidelity_names[run[i]->fidelity], kv_mode_names[run[i]->mode],
                      why ? "*" : "", *variant ? ", " : "", variant);
    }
    if (starred) kv_table_note(output, KV_MODE_LEGEND);
    free(settings);
    return code;
}

// What the scored positions of text windows add to n comparisons in x.
static int add_tokens(struct kv_store *s, const struct kv_summary *const run[2],
                      const struct kv_comparing *how, struct kv_compared *x, size_t *n,
                      struct kv_error *e) {
    struct kv_window_tokens *w[2] = {NULL, NULL};
    size_t n_w[2] = {0, 0};
    int code = kv_store_tokens(s, run[0]->run_group, &w[0], &n_w[0], e);
    if (!code) code = kv_store_tokens(s, run[1]->run_group, &w[1], &n_w[1], e);
    if (!code) *n += kv_compare_tokens(w[0], n_w[0], w[1], n_w[1], how, x + *n);
    for (int i = 0; i < 2; i++) kv_window_tokens_free(w[i], n_w[i]);
    return code;
}

static int print(struct kv_store *s, const struct kv_summary *const run[2],
                 const struct kv_pairs *j, const struct kv_comparing *how, enum kv_output output,
                 struct kv_error *e) {
    struct kv_compared x[KV_MAX_COMPARED];
    size_t n = kv_compare(j, how, x);
    int rc = add_tokens(s, run, how, x, &n, e);
    if (rc) return rc;
    if (!kv_for_readers(output)) return kv_table_print_rows(columns, x, n, sizeof *x, output, e);
    int code = print_runs(s, run, output, e);
    if (code) return code;
    if (j->n_left_out)
        kv_table_note(output,
                      "%zu items are left out on both sides: their scores or divergence are not "
                      "finite on one",
                      j->n_left_out);
    kv_table_note(output, "%s, %s: %s; %zu items in both; bits a value %.2f and %.2f", run[0]->task,
                  run[0]->subset, run[0]->model, j->n, run[0]->effective_bits,
                  run[1]->effective_bits);
    return print_for_readers(x, n, how, output, e);
}

// Pairs the runs of the two specs that are most alike.
static int compare(struct kv_store *s, struct kv_summary *const runs[2], const size_t n[2],
                   const struct kv_comparing *how, enum kv_output output, struct kv_error *e) {
    struct kv_item_result *items[2] = {NULL, NULL};
    size_t n_items[2] = {0, 0}, at[2] = {0, 0};
    struct kv_pairs joined = {0};
    int code = 0;
    if (!kv_pairs_choose(runs[0], n[0], runs[1], n[1], &at[0], &at[1]))
        return kv_fail(e, KV_EFAIL, "diff",
                       "the two specs were not run on one trace, so there is nothing to pair");
    const struct kv_summary *const run[] = {&runs[0][at[0]], &runs[1][at[1]]};
    for (int i = 0; !code && i < 2; i++)
        code = kv_store_items(s, run[i]->run_group, &items[i], &n_items[i], e);
    if (!code) {
        kv_pairs_join(&joined, items[0], n_items[0], items[1], n_items[1]);
        code = joined.n ? print(s, run, &joined, how, output, e)
               : joined.n_left_out
                   ? kv_fail(e, KV_EFAIL, "diff",
                             "of the %zu items in common none is finite in both runs",
                             joined.n_left_out)
                   : kv_fail(e, KV_EFAIL, "diff", "the two runs have no item in common");
    }
    kv_pairs_fini(&joined);
    for (int i = 0; i < 2; i++) kv_item_results_free(items[i], n_items[i]);
    return code;
}

static int diff(struct kv_cli *c, struct kv_error *e) {
    struct kv_store *s;
    struct kv_summary *runs[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    struct kv_row_choice choice[2];
    struct kv_comparing how = {.seed = c->seed};
    long draws = 0;
    int code = kv_opt_int(c, "draws", 0, 1000000, &draws, e);
    if (!code) code = kv_opt_float(c, "margin", 1e-9, 0.5, &how.margin, e);
    if (!code) code = kv_opt_float(c, "power", 0.5, 0.999999, &how.power, e);
    for (size_t i = 0; !code && i < 2; i++) code = kv_opt_choice(c, i, &choice[i], e);
    if (!code) code = kv_store_open(&s, kv_opt(c, "db"), KV_STORE_READ, e);
    if (code) return code;
    how.draws = (size_t)draws;
    for (int i = 0; !code && i < 2; i++)
        code = kv_rows_find(s, c->args[i], &choice[i], &runs[i], &n[i], e);
    if (!code) code = compare(s, runs, n, &how, c->output, e);
    for (int i = 0; i < 2; i++) kv_summaries_free(runs[i], n[i]);
    kv_store_abandon(s);
    return code;
}

const struct kv_command kv_cmd_diff = {
    .name = "diff",
    .summary = "compares two stored specs item by item",
    .usage = "SPEC SPEC",
    .example = "kvsim diff static:bits=4@sym static:bits=4@asym:group=32 --db work/demo.db",
    .options = options,
    .min_args = 2,
    .max_args = 2,
    .run = diff};
