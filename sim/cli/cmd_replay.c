// SPDX-License-Identifier: Apache-2.0
// kvsim replay: replays specs against a trace and prints a line for each; stores only when asked.
#include <stdlib.h>

#include "analysis/results/notes.h"
#include "sim/store/label.h"
#include "analysis/results/rows.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/cli/replay_options.h"

// A line of the sweep and what its spec is called.
struct row {
    const struct kv_sweep_line *line;
    const char *spec, *label;
};

#define LINES(X, T)                                                                                \
    X(T, spec, KV_TEXT(row->spec))                                                                 \
    X(T, fidelity, KV_TEXT(kv_fidelity_names[row->line->fidelity]))                                \
    X(T, mode, KV_TEXT(kv_mode_names[row->line->mode]))                                            \
    X(T, n, KV_COUNT(row->line->n))                                                                \
    X(T, acc, KV_NUMBER(row->line->acc, 4))                                                        \
    X(T, acc_low, KV_NUMBER(row->line->acc_interval.low, 4))                                       \
    X(T, acc_high, KV_NUMBER(row->line->acc_interval.high, 4))                                     \
    X(T, acc_norm, KV_NUMBER(row->line->acc_norm, 4))                                              \
    X(T, acc16, KV_NUMBER(row->line->acc_ref, 4))                                                  \
    X(T, agree16, KV_NUMBER(row->line->agree, 4))                                                  \
    X(T, kl_nats, KV_NUMBER(row->line->kl_nats, 6))                                                \
    X(T, nominal_bits, KV_NUMBER(row->line->nominal_bits, 3))                                      \
    X(T, effective_bits, KV_NUMBER(row->line->effective_bits, 3))                                  \
    X(T, allocated_bits, KV_NUMBER(row->line->allocated_bits, 3))                                  \
    X(T, attention_output, KV_NUMBER(row->line->attention.output, 6))                              \
    X(T, attention_kl_nats, KV_NUMBER(row->line->attention.kl_nats, 6))                            \
    X(T, key_error, KV_NUMBER(row->line->attention.key, 6))                                        \
    X(T, value_error, KV_NUMBER(row->line->attention.value, 6))                                    \
    X(T, left_out, KV_COUNT(row->line->n_left_out))                                                \
    X(T, label, KV_TEXT(row->label))
KV_TABLE_COLUMNS(columns, row, LINES)
KV_CELL(judged, struct row,
        kv_table_take(t, kv_format_text("%zu of %zu", row->line->n - row->line->n_left_out,
                                        row->line->n)))
enum { N_ATTENTION = 4, N_OUTCOME_COLUMNS = sizeof columns / sizeof *columns - 3 - N_ATTENTION };

// What tables call each spec.
static char **name_specs(const struct kv_sweep *s) {
    size_t n;
    const struct kv_replay_spec *at = kv_sweep_specs(s, &n);
    const struct kv_trace_info *in = kv_trace_info(kv_sweep_trace(s));
    struct kv_format_setting setting = {in->shape, in->order};
    const struct kv_format_setting **of = kv_alloc(n, sizeof *of);
    const char **specs = kv_alloc(n, sizeof *specs);
    char **names = kv_alloc(n, sizeof *names);
    for (size_t i = 0; i < n; i++) {
        of[i] = &setting;
        specs[i] = at[i].canonical;
    }
    kv_spec_labels(specs, of, n, names);
    for (size_t i = 0; i < n; i++) {
        const char *given = kv_sweep_names(s)[i];
        if (!given) continue;
        free(names[i]);
        names[i] = kv_strdup(given);
    }
    free(of);
    free(specs);
    return names;
}

// In text `n` says "7 of 8" where items are left out; scripts find both numbers apart.
static void choose_columns(struct kv_table_column *to, bool attention, bool some_left_out,
                           enum kv_output output) {
    size_t n = 0;
    for (size_t i = 0; columns[i].name; i++) {
        if (!attention && i >= N_OUTCOME_COLUMNS && i < N_OUTCOME_COLUMNS + N_ATTENTION) continue;
        if (kv_for_readers(output) && columns[i].cell == columns_left_out) continue;
        to[n] = columns[i];
        if (kv_for_readers(output) && some_left_out && columns[i].cell == columns_n)
            to[n].cell = judged;
        n++;
    }
    to[n] = (struct kv_table_column){0};
}

static void say_left_out(const struct kv_sweep *s, const struct row *row) {
    const struct kv_item_range items = kv_sweep_items(s);
    const struct kv_sweep_line *x = row->line;
    char *note = kv_left_out_items(kv_sweep_trace(s), items.first, items.n, x->left_out,
                                   x->n_left_out, x->n);
    if (note)
        kv_say("left out of %s (%s, %s): %s", row->label, kv_fidelity_names[x->fidelity],
               kv_mode_names[x->mode], note);
    free(note);
}

static int print(const struct kv_sweep *s, bool attention, enum kv_output output,
                 struct kv_error *e) {
    struct kv_table_column shown[sizeof columns / sizeof *columns];
    size_t n, n_specs;
    const struct kv_sweep_line *lines = kv_sweep_lines(s, &n);
    const struct kv_replay_spec *specs = kv_sweep_specs(s, &n_specs);
    struct row *rows = kv_alloc(n, sizeof *rows);
    char **names = name_specs(s);
    bool some_left_out = false;
    for (size_t i = 0; i < n; i++) {
        rows[i] = (struct row){&lines[i], specs[lines[i].spec].canonical, names[lines[i].spec]};
        some_left_out = some_left_out || lines[i].n_left_out;
    }
    choose_columns(shown, attention, some_left_out, output);
    int rc = kv_table_print_rows(shown, rows, n, sizeof *rows, output, e);
    for (size_t i = 0; rc == 0 && i < n; i++) say_left_out(s, &rows[i]);
    kv_list_free(names, n_specs);
    free(rows);
    return rc;
}

static int replay(struct kv_cli *c, struct kv_error *e) {
    struct kv_sweep_options o;
    struct kv_sweep *s = NULL;
    char *model;
    int rc = kv_opt_sweep(c, &o, &model, e);
    if (rc == 0) rc = kv_opt_blame(c, kv_sweep_open(&s, &o, e), e);
    if (rc == 0) rc = kv_sweep_run(s, e);
    if (rc == 0) rc = print(s, o.attention, c->output, e);
    if (rc == 0) kv_say_audit(s, &o);
    kv_sweep_close(s);
    free(model);
    return rc;
}

static const struct kv_option options[] = {KV_REPLAY_OPTIONS(NULL), {0}};

const struct kv_command kv_cmd_replay = {
    .name = "replay",
    .summary = "replays specs against a trace and prints a line for each",
    .usage = "TRACE SPEC...",
    .example = "kvsim replay work/samples.trace 'static:bits={2,4,8}@sym' --items 0-9",
    .options = options,
    .min_args = 1,
    .max_args = 100000,
    .run = replay};
