// SPDX-License-Identifier: Apache-2.0
// kvsim replay: replays specs against a trace and prints a line for each; stores only when asked.
#include <stdlib.h>

#define KV_REPLAY_DB NULL
#include "analysis/stats/stats.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "analysis/studies/sweep.h"
#include "analysis/results/rows.h"
#include "sim/replay/attention.h"

// Sums over items of one spec in one mode. Items arrive in any order: each sum is of integers or is
// kept per item and added in order, so that the line printed does not depend on --jobs.
struct line {
    size_t n, scored, judged, right[KV_N_SCORERS], right_ref, agree;
    double kl_nats, nominal_bits, effective_bits, allocated_bits;
};

struct lines {
    struct line *at; // [2 fidelities][n_modes][n_specs]
    size_t n_specs;
    const enum kv_mode *modes;
    size_t n_modes;
};

// Sums of fixed point numbers do not depend on their order.
static void add_exactly(double *sum, double x) {
    *sum += nearbyint(x * 0x1p40) * 0x1p-40;
}

static void add(void *self, size_t spec, enum kv_fidelity fidelity, enum kv_mode mode,
                const struct kv_outcome *o) {
    struct lines *l = self;
    size_t m = 0;
    while (m + 1 < l->n_modes && l->modes[m] != mode) m++;
    struct line *at =
        &l->at[((size_t)(fidelity == KV_FISHER) * l->n_modes + m) * l->n_specs + spec];
    at->n++;
    at->scored += o->n_scored; // KL is a scored token's, as in `show`
    add_exactly(&at->kl_nats, o->kl_nats * o->n_scored);
    add_exactly(&at->nominal_bits, o->ledger.nominal_bits);
    add_exactly(&at->effective_bits, o->ledger.effective_bits);
    add_exactly(&at->allocated_bits, o->ledger.allocated_bits);
    if (o->gold < 0 || o->pick[KV_ACC] < 0) return;
    at->judged++;
    for (int s = 0; s < KV_N_SCORERS; s++) at->right[s] += o->pick[s] == o->gold;
    at->right_ref += o->pick_ref[KV_ACC] == o->gold;
    at->agree += o->pick[KV_ACC] == o->pick_ref[KV_ACC];
}

// ---- attention ------------------------------------------------------------------------

// Relative errors of attention's output and KL of its rows, by item, so that sums do not depend on
// the order of arrival.
struct attending {
    size_t first, n_items;
    struct kv_attention_layer *at; // [n_specs][n_items]
};

static int take_attention(void *self, size_t item, size_t spec, const struct kv_attention_error *x,
                          struct kv_error *e) {
    struct attending *a = self;
    (void)e;
    a->at[spec * a->n_items + item - a->first] = x->mean;
    return 0;
}

static int attend(const struct kv_replaying *r, struct kv_cli *c, struct attending *a,
                  struct kv_error *e) {
    *a = (struct attending){.first = r->first_item, .n_items = r->n_items};
    if (!r->attention) return 0;
    a->at = kv_alloc(r->n_specs * r->n_items, sizeof *a->at);
    struct kv_replay job = {.trace = r->trace,
                            .specs = r->specs,
                            .n_specs = r->n_specs,
                            .self_exact = r->self_exact,
                            .seed = c->seed,
                            .first_item = r->first_item,
                            .n_items = r->n_items};
    int rc = kv_replay_open_tables(&job, r->form, c->jobs, e);
    if (rc == 0) rc = kv_replay_attention(&job, c->jobs, take_attention, a, e);
    kv_replay_close_tables(&job);
    return rc;
}

// ---- the table ------------------------------------------------------------------------

// Specs as a reader wants them: short in text, canonical for machines.
static char **name_specs(const struct kv_replaying *r, enum kv_output output) {
    const struct kv_trace_info *in = kv_trace_info(r->trace);
    struct kv_format_setting setting = {in->shape, in->order};
    const struct kv_format_setting **of = kv_alloc(r->n_specs, sizeof *of);
    const char **specs = kv_alloc(r->n_specs, sizeof *specs);
    char **names = kv_alloc(r->n_specs, sizeof *names);
    for (size_t i = 0; i < r->n_specs; i++) {
        of[i] = &setting;
        specs[i] = r->specs[i].canonical;
        if (output != KV_OUT_TEXT) names[i] = kv_strdup(specs[i]);
    }
    if (output == KV_OUT_TEXT) kv_spec_labels(specs, of, r->n_specs, names);
    free(of);
    free(specs);
    return names;
}

enum { ATTENTION_COLUMNS = 4 };

static void print_attention(struct kv_table *t, const struct kv_attention_layer *x, size_t n) {
    double sum[ATTENTION_COLUMNS] = {0};
    for (size_t i = 0; i < n; i++) {
        sum[0] += x[i].output;
        sum[1] += x[i].kl_nats;
        sum[2] += x[i].key;
        sum[3] += x[i].value;
    }
    for (size_t k = 0; k < ATTENTION_COLUMNS; k++)
        kv_table_number(t, n ? sum[k] / (double)n : NAN, 6);
}

static int print(const struct kv_replaying *r, const struct lines *l, const struct attending *a,
                 struct kv_cli *c, struct kv_error *e) {
    static const struct kv_column columns[] = {{"spec", KV_LEFT},
                                               {"fidelity", KV_LEFT},
                                               {"mode", KV_LEFT},
                                               {"n", KV_RIGHT},
                                               {"acc", KV_RIGHT},
                                               {"acc_low", KV_RIGHT},
                                               {"acc_high", KV_RIGHT},
                                               {"acc_norm", KV_RIGHT},
                                               {"acc16", KV_RIGHT},
                                               {"agree16", KV_RIGHT},
                                               {"kl_nats", KV_RIGHT},
                                               {"nominal_bits", KV_RIGHT},
                                               {"effective_bits", KV_RIGHT},
                                               {"allocated_bits", KV_RIGHT},
                                               {"attention_output", KV_RIGHT},
                                               {"attention_kl_nats", KV_RIGHT},
                                               {"key_error", KV_RIGHT},
                                               {"value_error", KV_RIGHT}};
    size_t n_columns = sizeof columns / sizeof *columns;
    struct kv_table *t = kv_table_new(columns, n_columns - (a->at ? 0 : ATTENTION_COLUMNS));
    char **names = name_specs(r, c->output);
    for (size_t k = 0; k < 2 * r->n_modes * r->n_specs; k++) {
        const struct line *x = &l->at[k];
        size_t i = k % r->n_specs, m = k / r->n_specs % r->n_modes;
        if (x->n == 0) continue;
        double n = (double)x->n, judged = x->judged ? (double)x->judged : NAN;
        struct kv_interval acc = {NAN, NAN};
        if (x->judged) acc = kv_wilson((double)x->right[KV_ACC] / judged, judged, 0.95);
        kv_table_text(t, names[i]);
        kv_table_text(t, kv_fidelity_names[k < r->n_modes * r->n_specs ? KV_EXACT : KV_FISHER]);
        kv_table_text(t, kv_mode_names[r->modes[m]]);
        kv_table_count(t, (long long)x->n);
        kv_table_number(t, (double)x->right[KV_ACC] / judged, 4);
        kv_table_number(t, acc.low, 4);
        kv_table_number(t, acc.high, 4);
        kv_table_number(t, (double)x->right[KV_ACC_NORM] / judged, 4);
        kv_table_number(t, (double)x->right_ref / judged, 4);
        kv_table_number(t, (double)x->agree / judged, 4);
        kv_table_number(t, x->kl_nats / (double)x->scored, 6);
        kv_table_number(t, x->nominal_bits / n, 3);
        kv_table_number(t, x->effective_bits / n, 3);
        kv_table_number(t, x->allocated_bits / n, 3);
        if (a->at) print_attention(t, NULL, 0);
    }
    for (size_t i = 0; a->at && i < r->n_specs; i++) {
        kv_table_text(t, names[i]);
        kv_table_text(t, "attention");
        kv_table_text(t, kv_mode_names[KV_INLINE]);
        kv_table_count(t, (long long)a->n_items);
        for (size_t k = 4; k < n_columns - ATTENTION_COLUMNS; k++) kv_table_number(t, NAN, 0);
        print_attention(t, a->at + i * a->n_items, a->n_items);
    }
    kv_list_free(names, r->n_specs);
    return kv_table_print(t, c->output, e);
}

static int replay(struct kv_cli *c, struct kv_error *e) {
    struct kv_replaying r;
    int rc = kv_replaying_open(&r, c, e);
    if (rc) return rc;
    struct lines l = {.n_specs = r.n_specs, .modes = r.modes, .n_modes = r.n_modes};
    l.at = kv_alloc(2 * r.n_specs * r.n_modes, sizeof *l.at);
    struct attending a = {0};
    rc = kv_replaying_run(&r, c, kv_opt(c, "db"), add, &l, e);
    if (rc == 0) rc = attend(&r, c, &a, e);
    if (rc == 0) rc = print(&r, &l, &a, c, e);
    free(a.at);
    free(l.at);
    kv_replaying_close(&r);
    return rc;
}

static const struct kv_option options[] = {KV_REPLAY_OPTIONS, {0}};

const struct kv_command kv_cmd_replay = {
    .name = "replay",
    .summary = "replays specs against a trace and prints a line for each",
    .usage = "TRACE SPEC...",
    .example = "kvsim replay work/samples.trace 'static:bits={2,4,8}@sym' --items 0-9",
    .options = options,
    .min_args = 2,
    .max_args = 100000,
    .run = replay};
