// SPDX-License-Identifier: Apache-2.0
// kvsim outcomes: one line an item and choice of a stored run.
#include "analysis/results/result_file.h"
#include "sim/cli/row_options.h"

static const struct kv_option options[] = {
    {"db", 0, "FILE", "kvsim.db", "the store"},
    {"fidelity", 0, "NAME", NULL, "which fidelity, where the store holds several"},
    {"mode", 0, "NAME", NULL, "which mode, where the store holds several"},
    {"feedback", 0, "HOW", "open", "runs with open or closed feedback"},
    {"digest", 0, "DIGEST", NULL, "which trace, where the store holds several (as show prints it)"},
    {"safetensors", 0, "FILE", NULL,
     "write items and choices as arrays there, as `replay --scores-out` does, and print nothing"},
    {0}};

struct line {
    const struct kv_choice_result *of;
    int decimals;
};
#define CELL(name, add) KV_CELL(name, struct line, add)
#define COUNT(name, field) CELL(name, kv_table_count(t, row->of->field))
#define REAL(name, field) CELL(name, kv_table_number(t, row->of->outcome.field, row->decimals))
CELL(id, kv_table_text(t, row->of->id))
CELL(gold, row->of->gold >= 0 ? kv_table_count(t, row->of->gold) : kv_table_text(t, NULL))
COUNT(choice, choice)
COUNT(redraw, redraw)
COUNT(item, item)
COUNT(tokens, outcome.tokens)
COUNT(chars, outcome.chars)
COUNT(bytes, outcome.bytes)
COUNT(tokens_after_prefix, outcome.tokens_after_prefix)
CELL(greedy, kv_table_number(t, kv_match_share(row->of->outcome.match), 0))
CELL(greedy16, kv_table_number(t, kv_match_share(row->of->outcome.match_ref), 0))
REAL(logprob, logprob)
REAL(logprob16, logprob_ref)
REAL(kl_nats, kl_nats)
REAL(logprob_after_prefix, logprob_after_prefix)

static const struct kv_table_column columns[] = {
    {"ind", KV_LEFT, id},
    {"choice", KV_RIGHT, choice},
    {"gold", KV_RIGHT, gold},
    {"logprob", KV_RIGHT, logprob},
    {"logprob16", KV_RIGHT, logprob16},
    {"tokens", KV_RIGHT, tokens},
    {"chars", KV_RIGHT, chars},
    {"bytes", KV_RIGHT, bytes},
    {"kl_nats", KV_RIGHT, kl_nats},
    {"redraw", KV_RIGHT, redraw},
    {"item", KV_RIGHT, item},
    {"logprob_after_prefix", KV_RIGHT, logprob_after_prefix},
    {"tokens_after_prefix", KV_RIGHT, tokens_after_prefix},
    {"greedy", KV_RIGHT, greedy},
    {"greedy16", KV_RIGHT, greedy16},
    {0}};

static int print(const struct kv_choice_result *rows, size_t n, enum kv_output how,
                 struct kv_error *e) {
    struct kv_table *t = kv_table_begin(columns);
    for (size_t i = 0; i < n; i++) {
        const struct line line = {&rows[i], kv_for_readers(how) ? 4 : -1};
        kv_table_add_rows(t, columns, &line, 1, sizeof line);
    }
    return kv_table_print(t, how, e);
}

static int outcomes(struct kv_cli *c, struct kv_error *e) {
    struct kv_store *s;
    struct kv_summary *runs = NULL;
    struct kv_choice_result *rows = NULL;
    size_t n_runs = 0, n = 0;
    struct kv_row_choice choice;
    int code = kv_opt_choice(c, 0, &choice, e);
    if (!code) code = kv_store_open(&s, kv_opt(c, "db"), KV_STORE_READ, e);
    if (code) return code;
    code = kv_rows_find(s, c->args[0], &choice, &runs, &n_runs, e);
    if (!code) code = kv_rows_only(runs, n_runs, c->args[0], e);
    if (!code) code = kv_say_marks(s, &(const struct kv_summary *){&runs[0]}, 1, e);
    if (!code && kv_opt(c, "safetensors")) {
        code = kv_result_file_of_run(s, &runs[0], kv_opt(c, "safetensors"), e);
        kv_summaries_free(runs, n_runs);
        kv_store_abandon(s);
        return code;
    }
    if (!code) code = kv_store_choices(s, runs[0].run_group, &rows, &n, e);
    if (!code) code = print(rows, n, c->output, e);
    kv_choice_results_free(rows, n);
    kv_summaries_free(runs, n_runs);
    kv_store_abandon(s);
    return code;
}

const struct kv_command kv_cmd_outcomes = {
    .name = "outcomes",
    .summary = "prints one line an item and choice of a stored spec",
    .usage = "SPEC",
    .example = "kvsim outcomes static:bits=4@sym --db work/demo.db --tsv",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = outcomes};
