// SPDX-License-Identifier: Apache-2.0
// kvsim what-if: prices mixes and replayed specs on devices, or predicts measured runs.
#include "analysis/results/find.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/cli/lists.h"
#include "sim/cost/pricing.h"

#include <stdlib.h>

enum { MAX_WHATIF_CONTEXTS = 32 };

static const struct kv_option options[] = {
    {"device", 'd', "LIST", NULL, "names or files (default: the shipped devices)"},
    {"context", 'c', "LIST", "100,512,2048,8192", "contexts in tokens"},
    {"db", 0, "FILE", NULL, "a store: specs are its runs, and all of them when none is named"},
    {"policy-us", 0, "X", "0", "what the policy itself costs a token, in microseconds"},
    {"against", 0, "MIX", "16", "the mix that what is saved, its ceiling and break-even refer to"},
    {"ports", 0, "LIST", NULL, "widths the hardware can address: others round up"},
    {"runs", 0, "FILE", NULL, "predict these measured runs instead"},
    {"where", 0, "F=V", NULL,
     "of --runs, those that say this of how they were run: flash_attn=1; repeated or after a "
     "comma"},
    {0}};

// ---- measured runs --------------------------------------------------------------------

static char *mix_of(const struct kv_prediction *r) {
    char mix[160];
    kv_mix_text(&r->run->mix, mix, sizeof mix);
    return kv_strdup(mix);
}

#define RUNS(X, T)                                                                                 \
    X(T, device, KV_TEXT(row->device->name))                                                       \
    X(T, mix, KV_LEFT, kv_table_take(t, mix_of(row)))                                              \
    X(T, context, KV_COUNT(row->run->context))                                                     \
    X(T, measured_ms, KV_NUMBER(row->run->step_ns / 1e6, 4))                                       \
    X(T, predicted_ms, KV_NUMBER(row->at.step_ns / 1e6, 4))                                        \
    X(T, error_pct, KV_NUMBER(100 * (row->at.step_ns / row->run->step_ns - 1), 2))                 \
    X(T, extrapolated, KV_COUNT(row->extrapolated))                                                \
    X(T, weights, KV_TEXT(row->run->weights))                                                      \
    X(T, threads, KV_COUNT(row->run->threads))                                                     \
    X(T, shape,                                                                                    \
      KV_TEXT(*row->run->shape_name ? row->run->shape_name                                         \
              : *row->run->model    ? row->run->model                                              \
                                    : NULL))
KV_TABLE_COLUMNS(predicted, kv_prediction, RUNS)

static int choose_runs(const struct kv_cli *c, struct kv_runs *r, struct kv_error *e) {
    struct kv_runs_choice choice = {.threads = -1};
    char **where;
    int rc = kv_opt_conditions(c, "where", &where, &choice.n_where, e);
    choice.where = (const char *const *)where;
    if (rc || !choice.n_where) return rc;
    rc = kv_runs_choose(r, &choice, e);
    kv_list_free(where, choice.n_where);
    return rc;
}

// What the table does not show of how far a prediction may be trusted.
static void say_of_runs(const struct kv_runs *r, const struct kv_prediction *rows, size_t n) {
    struct kv_error ways;
    size_t beyond = 0;
    for (size_t i = 0; i < n; i++) beyond += rows[i].extrapolated;
    if (beyond)
        kv_say(
            "%zu of %zu predictions are extrapolated: beyond what the device was measured at, or "
            "of another machine, model, weights, cache type or number of threads",
            beyond, n);
    if (kv_tolerate(kv_runs_check_one_way(r, &ways), &ways)) kv_say("note: %s", ways.msg);
    if (r->n_settings)
        kv_say("note: flags and builds of the runs are not compared with the device's, whose file "
               "does not hold them");
}

static int predict_runs(const struct kv_cli *c, struct kv_device *const *devices, size_t n_devices,
                        struct kv_error *e) {
    struct kv_runs *runs;
    size_t n;
    int rc = kv_runs_open(&runs, kv_opt(c, "runs"), e);
    if (rc) return rc;
    if ((rc = choose_runs(c, runs, e))) {
        kv_runs_free(runs);
        return rc;
    }
    struct kv_prediction *rows = kv_predictions(devices, n_devices, runs, &n);
    rc = kv_table_print_rows(predicted, rows, n, sizeof *rows, c->output, e);
    if (rc == 0) say_of_runs(runs, rows, n);
    free(rows);
    kv_runs_free(runs);
    return rc;
}

// ---- specs and mixes ------------------------------------------------------------------

struct candidates {
    struct kv_candidate *at;
    size_t n;
    struct kv_summary *rows; // of the store, whose texts are borrowed
    size_t n_rows;
};

static void add(struct candidates *w, struct kv_candidate x) {
    w->at = kv_grow(w->at, w->n + 1, sizeof *w->at);
    w->at[w->n++] = x;
}

static int add_spec(struct candidates *w, struct kv_store *s, const char *text,
                    struct kv_error *e) {
    struct kv_summary *rows;
    size_t n;
    int rc = kv_rows_find(s, text, &(struct kv_row_choice){0}, &rows, &n, e);
    if (rc) return rc;
    add(w, (struct kv_candidate){.name = text, .ledger = rows[0].ledger});
    kv_summaries_free(rows, n);
    return 0;
}

static int add_all(struct candidates *w, struct kv_store *s, struct kv_error *e) {
    int rc = kv_store_summaries(s, NULL, &w->rows, &w->n_rows, e);
    for (size_t i = 0; rc == 0 && i < w->n_rows; i++)
        add(w, (struct kv_candidate){.name = w->rows[i].spec, .ledger = w->rows[i].ledger});
    return rc;
}

// Arguments are mixes, or specs of the store; without any all of the store are meant.
static int gather(struct candidates *w, const struct kv_cli *c, struct kv_store *s,
                  struct kv_error *e) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < c->n_args; i++) {
        struct kv_candidate x;
        rc = kv_candidate_mix(&x, c->args[i], e);
        if (rc == 0)
            add(w, x);
        else if (s)
            rc = add_spec(w, s, c->args[i], e);
    }
    if (c->n_args) return rc;
    return s ? add_all(w, s, e)
             : kv_fail(e, KV_EUSAGE, "what-if",
                       "name mixes such as 8 or k8v4, or specs of a store with --db");
}

KV_CELL(price_device, struct kv_price, kv_table_text(t, row->device->name))
KV_CELL(price_context, struct kv_price, kv_table_count(t, row->context))
KV_CELL(price_spec, struct kv_price, kv_table_text(t, row->name))
KV_CELL(price_step, struct kv_price, kv_table_number(t, row->at.step_ns / 1e6, 4))
KV_CELL(price_rate, struct kv_price, kv_table_number(t, 1e9 / row->at.step_ns, 2))
KV_CELL(price_cache, struct kv_price, kv_table_number(t, row->at.cache_bytes / 1e6, 3))
KV_CELL(price_saved, struct kv_price, kv_table_number(t, 100 * row->saved, 2))
KV_CELL(price_ceiling, struct kv_price, kv_table_number(t, 100 * row->ceiling, 2))
KV_CELL(price_even, struct kv_price,
        kv_table_number(t, isinf(row->break_even) ? NAN : ceil(row->break_even), 0))
KV_CELL(price_rank, struct kv_price, kv_table_count(t, (long long)row->rank))
KV_CELL(price_first, struct kv_price, kv_table_count(t, (long long)row->rank_first))
KV_CELL(price_extrapolated, struct kv_price, kv_table_count(t, row->at.extrapolated))
KV_CELL(price_error, struct kv_price, kv_table_number(t, 100 * row->device->error_median, 2))
KV_CELL(price_by, struct kv_price, kv_table_text(t, row->at.by_width ? "width" : "own"))

static int print_prices(const struct kv_pricing *p, enum kv_output how, struct kv_error *e) {
    char saved[64];
    snprintf(saved, sizeof saved, "saved%s_pct", p->against.name);
    const struct kv_table_column columns[] = {{"device", KV_LEFT, price_device},
                                              {"context", KV_RIGHT, price_context},
                                              {"spec", KV_LEFT, price_spec},
                                              {"ms_per_token", KV_RIGHT, price_step},
                                              {"tokens_per_s", KV_RIGHT, price_rate},
                                              {"cache_mb", KV_RIGHT, price_cache},
                                              {saved, KV_RIGHT, price_saved},
                                              {"ceiling_pct", KV_RIGHT, price_ceiling},
                                              {"break_even", KV_RIGHT, price_even},
                                              {"rank", KV_RIGHT, price_rank},
                                              {"rank_first", KV_RIGHT, price_first},
                                              {"extrapolated", KV_RIGHT, price_extrapolated},
                                              {"priced_by", KV_LEFT, price_by},
                                              {"model_error_pct", KV_RIGHT, price_error},
                                              {0}};
    size_t n, moved = 0;
    bool unported = kv_pricing_lacks_port(p);
    struct kv_price *rows = kv_prices(p, &n);
    for (size_t i = 0; i < n; i++) moved += rows[i].rank != rows[i].rank_first;
    int rc = kv_table_print_rows(columns, rows, n, sizeof *rows, how, e);
    if (rc == 0 && p->n_devices > 1)
        kv_say("%zu of %zu ranks differ from those on %s (rank_first)", moved, n,
               p->devices[0]->name);
    if (rc == 0 && unported)
        kv_say("widths above a device's widest port (of the mixes, or of --against %s) are priced "
               "as if it could address them: extrapolated",
               p->against.name);
    free(rows);
    return rc;
}

static int print_all(const struct kv_cli *c, struct kv_pricing *p, struct kv_error *e) {
    struct candidates w = {0};
    struct kv_store *s = NULL;
    int rc = kv_opt_given(c, "db") ? kv_store_open(&s, kv_opt(c, "db"), KV_STORE_READ, e) : 0;
    if (rc == 0) rc = gather(&w, c, s, e);
    if (rc == 0) rc = kv_candidate_mix(&p->against, kv_opt(c, "against"), e);
    p->candidates = w.at;
    p->n_candidates = w.n;
    if (rc == 0) rc = print_prices(p, c->output, e);
    free(w.at);
    kv_summaries_free(w.rows, w.n_rows);
    kv_store_abandon(s);
    return rc;
}

// ---- command --------------------------------------------------------------------------

static int set_ports(const struct kv_cli *c, struct kv_device *const *devices, size_t n_devices,
                     struct kv_error *e) {
    if (!kv_opt_given(c, "ports")) return 0;
    uint32_t ports[16];
    size_t n;
    int rc = kv_opt_counts(c, "ports", 1, 16, ports, 16, &n, e);
    for (size_t i = 1; rc == 0 && i < n; i++)
        if (ports[i] <= ports[i - 1]) rc = kv_fail(e, KV_EUSAGE, "what-if", "--ports must ascend");
    for (size_t d = 0; rc == 0 && d < n_devices; d++) {
        devices[d]->n_ports = n;
        for (size_t i = 0; i < n; i++) devices[d]->ports[i] = (uint8_t)ports[i];
    }
    return rc;
}

static int run(struct kv_cli *c, struct kv_error *e) {
    uint32_t contexts[MAX_WHATIF_CONTEXTS];
    struct kv_pricing p = {.contexts = contexts};
    struct kv_device **devices;
    double policy_us;
    int rc = kv_opt_float(c, "policy-us", 0, 1e9, &policy_us, e);
    if (rc == 0)
        rc = kv_opt_counts(c, "context", 1, 1 << 30, contexts, MAX_WHATIF_CONTEXTS, &p.n_contexts,
                           e);
    if (rc == 0) rc = kv_opt_devices(c, "device", &devices, &p.n_devices, e);
    if (rc == 0 && kv_opt_given(c, "where") && !kv_opt(c, "runs")) {
        kv_devices_free(devices, p.n_devices);
        rc = kv_fail(e, KV_EUSAGE, "what-if", "--where chooses among --runs FILE");
    }
    if (rc) return rc;
    p.devices = devices;
    p.policy_ns = policy_us * 1e3;
    rc = set_ports(c, devices, p.n_devices, e);
    if (rc == 0)
        rc = kv_opt(c, "runs") ? predict_runs(c, devices, p.n_devices, e) : print_all(c, &p, e);
    kv_devices_free(devices, p.n_devices);
    return rc;
}

const struct kv_command kv_cmd_what_if = {
    .name = "what-if",
    .summary = "prices specs and mixes on devices, or predicts measured runs",
    .usage = "[MIX|SPEC...]",
    .example = "kvsim what-if 16 8 k8v4 2=0.5/8=0.5 --context 100,2048",
    .options = options,
    .max_args = 1000,
    .run = run,
};
