// SPDX-License-Identifier: Apache-2.0
// kvsim verdict: do published claims hold on what a store holds?
#include "analysis/results/rows.h"
#include "sim/base/files.h"
#include "analysis/claims/verdicts.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    {"db", 0, "FILE", "kvsim.db", "the store"},
    {"device", 'd', "NAME", NULL, "device of latency claims (default: the first shipped)"},
    {"draws", 0, "N", "2000", "bootstrap draws over items, for ratios and perplexities"},
    {"list", 0, NULL, NULL, "only list the claims that are shipped"},
    {0}};

static const struct kv_column columns[] = {
    {"claim", KV_LEFT},         {"answer", KV_LEFT},        {"here", KV_LEFT},
    {"analogue", KV_LEFT},      {"quantity", KV_LEFT},      {"unit", KV_LEFT},
    {"claimed_low", KV_RIGHT},  {"claimed_high", KV_RIGHT}, {"estimate", KV_RIGHT},
    {"low", KV_RIGHT},          {"high", KV_RIGHT},         {"n", KV_RIGHT},
    {"items_needed", KV_RIGHT}, {"because", KV_LEFT},       {"first", KV_LEFT},
    {"second", KV_LEFT},        {"mode", KV_LEFT},          {"claimed_model", KV_LEFT},
    {"model", KV_LEFT},         {"benchmark", KV_LEFT},     {"device", KV_LEFT},
    {"source", KV_LEFT},        {"file", KV_LEFT},          {"line", KV_RIGHT}};

static void add_row(struct kv_table *t, const struct kv_verdict *v) {
    const struct kv_claim *c = v->claim;
    bool measured = !isnan(v->estimate);
    kv_table_text(t, c->claim);
    kv_table_text(t, kv_answer_names[v->answer]);
    kv_table_text(t, measured ? v->here ? "yes" : "no" : NULL);
    kv_table_text(t, measured ? kv_answer_names[v->analogue] : NULL);
    kv_table_text(t, c->quantity->name);
    kv_table_text(t, c->quantity->unit);
    kv_table_number(t, isinf(c->low) ? NAN : c->low, -1);
    kv_table_number(t, isinf(c->high) ? NAN : c->high, -1);
    kv_table_number(t, v->estimate, 4);
    kv_table_number(t, v->low, 4);
    kv_table_number(t, v->high, 4);
    if (measured)
        kv_table_count(t, (long long)v->n);
    else
        kv_table_text(t, NULL);
    kv_table_number(t, isinf(v->items_needed) ? NAN : v->items_needed, 0);
    const char *const texts[] = {v->because, v->first,     v->second, v->mode,   c->model,
                                 v->model,   v->benchmark, v->device, c->source, c->file};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) kv_table_text(t, texts[i]);
    kv_table_count(t, (long long)c->line);
}

static void print_claim(const struct kv_claim *c) {
    char *region = kv_claim_region_text(c);
    printf("%s\n  claimed  %s: %s", c->claim, c->quantity->name, region);
    free(region);
    if (c->quantity->quantity == KV_Q_SAVING) printf(" on %s at %g tokens", c->device, c->context);
    printf("; %s, %s; %s\n", c->model, c->benchmark, c->source);
    if (c->note) printf("  note     %s\n", c->note);
}

static void print_verdict(const struct kv_verdict *v) {
    const struct kv_claim *c = v->claim;
    bool measured = !isnan(v->estimate), away = measured && !v->here;
    printf("  verdict  %s%s: %s\n", kv_answer_names[v->answer], away ? " here" : "", v->because);
    if (!v->first) return;
    printf("  here     %s%s%s (%s)", v->first, v->second ? " against " : "",
           v->second ? v->second : "", v->mode);
    if (!measured) {
        puts(": not measured");
        return;
    }
    const char *space = *c->quantity->unit ? " " : "";
    printf(": %.4g", fabs(v->estimate) < 1e-12 ? 0 : v->estimate);
    if (!isnan(v->low)) printf(" [%.4g, %.4g]", v->low, v->high);
    printf("%s%s", space, c->quantity->unit);
    if (v->device)
        printf(" on %s", v->device);
    else
        printf(", n %zu", v->n);
    printf("; %s, %s\n", v->model, v->benchmark);
    if (!away) return;
    printf("  analogue of this %s: %s", v->device ? "model and device" : "model",
           kv_answer_names[v->analogue]);
    if (v->analogue == KV_CANNOT_TELL && isfinite(v->items_needed))
        printf("; about %.0f items would tell", v->items_needed);
    putchar('\n');
}

static int print(const struct kv_cli *c, const struct kv_verdict *v, size_t n, struct kv_error *e) {
    if (c->output != KV_OUT_TEXT) {
        struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
        for (size_t i = 0; i < n; i++) add_row(t, &v[i]);
        return kv_table_print(t, c->output, e);
    }
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || v[i].claim != v[i - 1].claim) {
            if (i) putchar('\n');
            print_claim(v[i].claim);
        }
        print_verdict(&v[i]);
    }
    return kv_flush_stdout(e);
}

// All claims of the files named, or of those shipped.
static int gather(const struct kv_cli *c, struct kv_claim **all, size_t *n, struct kv_error *e) {
    const char *shipped;
    int code = 0;
    *all = NULL;
    *n = 0;
    for (size_t i = 0; i < c->n_args && !code; i++) code = kv_claims_add(c->args[i], all, n, e);
    for (size_t i = 0; !c->n_args && !code && (shipped = kv_shipped_claim(i)); i++)
        code = kv_claims_add(shipped, all, n, e);
    return code;
}

static int list(const struct kv_cli *c, const struct kv_claim *claims, size_t n,
                struct kv_error *e) {
    static const struct kv_column head[] = {{"file", KV_LEFT},
                                            {"claim", KV_LEFT},
                                            {"quantity", KV_LEFT},
                                            {"model", KV_LEFT},
                                            {"source", KV_LEFT}};
    struct kv_table *t = kv_table_new(head, sizeof head / sizeof *head);
    for (size_t i = 0; i < n; i++) {
        kv_table_text(t, claims[i].file);
        kv_table_text(t, claims[i].claim);
        kv_table_text(t, claims[i].quantity->name);
        kv_table_text(t, claims[i].model);
        kv_table_text(t, claims[i].source);
    }
    return kv_table_print(t, c->output, e);
}

static int verdict(struct kv_cli *c, struct kv_error *e) {
    struct kv_claim *claims = NULL;
    struct kv_verdict *verdicts = NULL;
    struct kv_device *device = NULL;
    struct kv_store *s = NULL;
    size_t n_claims = 0, n = 0;
    const char *name = kv_opt(c, "device") ? kv_opt(c, "device") : kv_device_name_at(0);
    long draws = 0;
    int code = kv_opt_int(c, "draws", 100, 1000000, &draws, e);
    if (!code) code = gather(c, &claims, &n_claims, e);
    if (!code && kv_opt_given(c, "list")) {
        code = list(c, claims, n_claims, e);
        kv_claims_free(claims, n_claims);
        return code;
    }
    if (!code && name) code = kv_device_open(&device, name, e);
    if (!code) code = kv_store_open(&s, kv_opt(c, "db"), KV_STORE_READ, e);
    if (!code)
        code = kv_verdicts_judge(s, claims, n_claims, device, c->seed, (size_t)draws, &verdicts, &n,
                                 e);
    if (!code) code = print(c, verdicts, n, e);
    kv_verdicts_free(verdicts, n);
    kv_store_abandon(s);
    kv_device_free(device);
    kv_claims_free(claims, n_claims);
    return code;
}

const struct kv_command kv_cmd_verdict = {
    .name = "verdict",
    .summary = "says of published claims whether they hold on what a store holds",
    .usage = "[FILE.claim|NAME...]",
    .example =
        "kvsim verdict dont-waste-bits --db work/demo.db     # no name: all that are shipped",
    .options = options,
    .max_args = 1000,
    .run = verdict};
