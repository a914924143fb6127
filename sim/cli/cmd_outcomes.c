// SPDX-License-Identifier: Apache-2.0
// kvsim outcomes: one line an item and choice of a stored run.
#include "analysis/results/rows.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    {"db", 0, "FILE", "kvsim.db", "the store"},
    {"fidelity", 0, "NAME", NULL, "which fidelity, where the store holds several"},
    {"mode", 0, "NAME", NULL, "which mode, where the store holds several"},
    {"feedback", 0, "HOW", "open", "runs with open or closed feedback"},
    {"digest", 0, "DIGEST", NULL, "which trace, where the store holds several (as show prints it)"},
    {0}};

static const struct kv_column columns[] = {{"ind", KV_LEFT},
                                           {"choice", KV_RIGHT},
                                           {"gold", KV_RIGHT},
                                           {"logprob", KV_RIGHT},
                                           {"logprob16", KV_RIGHT},
                                           {"tokens", KV_RIGHT},
                                           {"chars", KV_RIGHT},
                                           {"bytes", KV_RIGHT},
                                           {"kl_nats", KV_RIGHT},
                                           {"redraw", KV_RIGHT},
                                           {"item", KV_RIGHT},
                                           {"logprob_after_prefix", KV_RIGHT},
                                           {"tokens_after_prefix", KV_RIGHT}};

static int print(const struct kv_choice_result *rows, size_t n, enum kv_output how,
                 struct kv_error *e) {
    int decimals = how == KV_OUT_TEXT ? 4 : -1;
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < n; i++) {
        const struct kv_choice_outcome *c = &rows[i].outcome;
        kv_table_text(t, rows[i].id);
        kv_table_count(t, rows[i].choice);
        if (rows[i].gold >= 0)
            kv_table_count(t, rows[i].gold);
        else
            kv_table_text(t, NULL);
        kv_table_number(t, c->logprob, decimals);
        kv_table_number(t, c->logprob_ref, decimals);
        kv_table_count(t, c->tokens);
        kv_table_count(t, c->chars);
        kv_table_count(t, c->bytes);
        kv_table_number(t, c->kl_nats, decimals);
        kv_table_count(t, rows[i].redraw);
        kv_table_count(t, rows[i].item);
        kv_table_number(t, c->logprob_after_prefix, decimals);
        kv_table_count(t, c->tokens_after_prefix);
    }
    return kv_table_print(t, how, e);
}

static int outcomes(struct kv_cli *c, struct kv_error *e) {
    struct kv_store *s;
    struct kv_summary *runs = NULL;
    struct kv_choice_result *rows = NULL;
    size_t n_runs = 0, n = 0;
    const struct kv_row_choice choice = {kv_opt(c, "fidelity"), kv_opt(c, "mode"),
                                         kv_opt(c, "digest"), kv_opt(c, "feedback")};
    int code = kv_store_open(&s, kv_opt(c, "db"), KV_STORE_READ, e);
    if (code) return code;
    code = kv_rows_find(s, c->args[0], &choice, &runs, &n_runs, e);
    if (!code) code = kv_rows_only(runs, n_runs, c->args[0], e);
    if (!code) code = kv_store_choices(s, runs[0].family, &rows, &n, e);
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
