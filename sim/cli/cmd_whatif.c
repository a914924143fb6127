// SPDX-License-Identifier: Apache-2.0
// kvsim what-if: prices mixes and replayed specs on devices, or predicts measured runs.
#include "sim/cli/lists.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "analysis/results/rows.h"
#include "sim/cost/calibrate.h"

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
    {0}};

// ---- measured runs --------------------------------------------------------------------

static int predict_runs(const struct kv_cli *c, struct kv_device **devices, size_t n,
                        struct kv_error *e) {
    static const struct kv_column columns[] = {
        {"device", KV_LEFT},        {"mix", KV_LEFT},           {"context", KV_RIGHT},
        {"measured_ms", KV_RIGHT},  {"predicted_ms", KV_RIGHT}, {"error_pct", KV_RIGHT},
        {"extrapolated", KV_RIGHT}, {"weights", KV_LEFT},       {"threads", KV_RIGHT},
        {"shape", KV_LEFT}};
    struct kv_runs *r;
    int rc = kv_runs_open(&r, kv_opt(c, "runs"), e);
    if (rc) return rc;
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < r->n; k++) {
            const struct kv_device_run *x = &r->row[k];
            struct kv_latency y = kv_run_price(devices[i], x);
            char mix[160];
            kv_mix_text(&x->mix, mix, sizeof mix);
            kv_table_text(t, devices[i]->name);
            kv_table_text(t, mix);
            kv_table_count(t, x->context);
            kv_table_number(t, x->step_ns / 1e6, 4);
            kv_table_number(t, y.step_ns / 1e6, 4);
            kv_table_number(t, 100 * (y.step_ns / x->step_ns - 1), 2);
            // Another model, weights or threads than the device was measured with is beyond it too.
            bool other =
                x->threads != devices[i]->threads || strcmp(x->weights, devices[i]->weights) != 0 ||
                (x->shape.n_layers && memcmp(&x->shape, &devices[i]->shape, sizeof x->shape) != 0);
            kv_table_count(t, y.extrapolated || other);
            kv_table_text(t, x->weights);
            kv_table_count(t, x->threads);
            kv_table_text(t, *x->shape_name ? x->shape_name : NULL);
        }
    kv_runs_free(r);
    return kv_table_print(t, c->output, e);
}

// ---- specs and mixes ------------------------------------------------------------------

struct candidate {
    char *name;
    bool is_mix; // its metadata depend on the device's head
    struct kv_mix mix;
    struct kv_ledger ledger;
};

struct what_if {
    const struct kv_cli *c;
    struct kv_device **devices;
    size_t n_devices, n, n_contexts;
    struct candidate *at;
    uint32_t context[MAX_WHATIF_CONTEXTS];
    double policy_ns;
};

static void add_candidate(struct what_if *w, struct candidate x) {
    w->at = kv_grow(w->at, w->n + 1, sizeof *w->at);
    w->at[w->n++] = x;
}

static int add_spec(struct what_if *w, struct kv_store *s, const char *text, struct kv_error *e) {
    struct kv_summary *rows;
    size_t n;
    int rc = kv_rows_find(s, text, &(struct kv_row_choice){0}, &rows, &n, e);
    if (rc) return rc;
    add_candidate(w, (struct candidate){.name = kv_strdup(text), .ledger = rows[0].ledger});
    kv_summaries_free(rows, n);
    return 0;
}

static int add_all(struct what_if *w, struct kv_store *s, struct kv_error *e) {
    struct kv_summary *rows;
    size_t n;
    int rc = kv_store_summaries(s, NULL, &rows, &n, e);
    if (rc) return rc;
    for (size_t i = 0; i < n; i++)
        add_candidate(
            w, (struct candidate){.name = kv_strdup(rows[i].spec), .ledger = rows[i].ledger});
    kv_summaries_free(rows, n);
    return 0;
}

// Arguments are mixes, or specs of the store.
static int gather(struct what_if *w, struct kv_error *e) {
    const struct kv_cli *c = w->c;
    struct kv_store *s = NULL;
    int rc = kv_opt_given(c, "db") ? kv_store_open(&s, kv_opt(c, "db"), KV_STORE_READ, e) : 0;
    for (size_t i = 0; rc == 0 && i < c->n_args; i++) {
        struct candidate x = {.is_mix = true};
        rc = kv_mix_parse(&x.mix, c->args[i], e);
        if (rc == 0) {
            x.name = kv_strdup(c->args[i]);
            kv_mix_shares(&x.mix, x.ledger.share);
            add_candidate(w, x);
        } else if (s) {
            rc = add_spec(w, s, c->args[i], e);
        }
    }
    if (rc == 0 && c->n_args == 0) {
        if (s)
            rc = add_all(w, s, e);
        else
            rc = kv_fail(e, KV_EUSAGE, "what-if",
                         "name mixes such as 8 or k8v4, or specs of a store with --db");
    }
    kv_store_abandon(s);
    return rc;
}

static struct kv_ledger ledger_on(const struct candidate *x, const struct kv_device *d) {
    struct kv_ledger l = x->ledger;
    if (x->is_mix) l.allocated_bits = kv_mix_allocated_bits(&x->mix, d->shape.head_dim);
    return l;
}

static struct kv_latency price(const struct what_if *w, size_t device, size_t i, double context) {
    struct kv_ledger l = ledger_on(&w->at[i], w->devices[device]);
    return kv_device_step(w->devices[device], &l, context, w->policy_ns);
}

// 1 = the fastest of all candidates on this device at this context.
static long long rank_of(const struct what_if *w, size_t device, size_t i, double context) {
    double own = price(w, device, i, context).step_ns;
    long long rank = 1;
    for (size_t k = 0; k < w->n; k++) rank += price(w, device, k, context).step_ns < own;
    return rank;
}

static int print(const struct what_if *w, struct kv_error *e) {
    const char *against = kv_opt(w->c, "against");
    char saved[64];
    snprintf(saved, sizeof saved, "saved%s_pct", against);
    const struct kv_column columns[] = {
        {"device", KV_LEFT},        {"context", KV_RIGHT},      {"spec", KV_LEFT},
        {"ms_per_token", KV_RIGHT}, {"tokens_per_s", KV_RIGHT}, {"cache_mb", KV_RIGHT},
        {saved, KV_RIGHT},          {"ceiling_pct", KV_RIGHT},  {"break_even", KV_RIGHT},
        {"rank", KV_RIGHT},         {"rank_first", KV_RIGHT},   {"extrapolated", KV_RIGHT}};
    struct candidate base = {.is_mix = true};
    int rc = kv_mix_parse(&base.mix, against, e);
    if (rc) return rc;
    kv_mix_shares(&base.mix, base.ledger.share);
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    size_t moved = 0;
    for (size_t d = 0; d < w->n_devices; d++)
        for (size_t k = 0; k < w->n_contexts; k++)
            for (size_t i = 0; i < w->n; i++) {
                const struct kv_device *dev = w->devices[d];
                double context = w->context[k];
                struct kv_latency y = price(w, d, i, context);
                struct kv_ledger l = ledger_on(&w->at[i], dev), from = ledger_on(&base, dev);
                struct kv_latency of = kv_device_step(dev, &from, context, 0);
                double even = kv_device_break_even(dev, &l, &from, w->policy_ns);
                long long rank = rank_of(w, d, i, context), first = rank_of(w, 0, i, context);
                moved += rank != first;
                kv_table_text(t, dev->name);
                kv_table_count(t, w->context[k]);
                kv_table_text(t, w->at[i].name);
                kv_table_number(t, y.step_ns / 1e6, 4);
                kv_table_number(t, 1e9 / y.step_ns, 2);
                kv_table_number(t, y.cache_bytes / 1e6, 3);
                kv_table_number(t, 100 * (1 - y.step_ns / of.step_ns), 2);
                kv_table_number(t, 100 * (1 - of.ceiling_ns / of.step_ns), 2);
                kv_table_number(t, isinf(even) ? NAN : ceil(even), 0);
                kv_table_count(t, rank);
                kv_table_count(t, first);
                kv_table_count(t, y.extrapolated);
            }
    rc = kv_table_print(t, w->c->output, e);
    if (rc == 0 && w->n_devices > 1)
        kv_say("%zu of %zu ranks differ from those on %s (rank_first)", moved,
               w->n_devices * w->n_contexts * w->n, w->devices[0]->name);
    return rc;
}

static int set_ports(struct what_if *w, struct kv_error *e) {
    if (!kv_opt_given(w->c, "ports")) return 0;
    uint32_t ports[16];
    size_t n;
    int rc = kv_opt_counts(w->c, "ports", 1, 16, ports, 16, &n, e);
    for (size_t i = 1; rc == 0 && i < n; i++)
        if (ports[i] <= ports[i - 1]) rc = kv_fail(e, KV_EUSAGE, "what-if", "--ports must ascend");
    for (size_t d = 0; rc == 0 && d < w->n_devices; d++) {
        w->devices[d]->n_ports = n;
        for (size_t i = 0; i < n; i++) w->devices[d]->ports[i] = (uint8_t)ports[i];
    }
    return rc;
}

static int run(struct kv_cli *c, struct kv_error *e) {
    struct what_if w = {.c = c};
    double policy_us;
    int rc = kv_opt_float(c, "policy-us", 0, 1e9, &policy_us, e);
    if (rc == 0)
        rc = kv_opt_counts(c, "context", 1, 1 << 30, w.context, MAX_WHATIF_CONTEXTS, &w.n_contexts,
                           e);
    if (rc == 0) rc = kv_opt_devices(c, "device", &w.devices, &w.n_devices, e);
    if (rc) return rc;
    w.policy_ns = policy_us * 1e3;
    rc = set_ports(&w, e);
    if (rc == 0 && kv_opt(c, "runs"))
        rc = predict_runs(c, w.devices, w.n_devices, e);
    else if (rc == 0 && (rc = gather(&w, e)) == 0)
        rc = print(&w, e);
    for (size_t i = 0; i < w.n; i++) free(w.at[i].name);
    free(w.at);
    kv_devices_free(w.devices, w.n_devices);
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
