// SPDX-License-Identifier: Apache-2.0
// kvsim verdict: do published claims hold on what a store holds?
#include "analysis/claims/verdicts.h"
#include "analysis/results/rows.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/cli/options.h"
#include "sim/cli/terminal.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    {"db", 0, "FILE", "kvsim.db", "the store"},
    {"device", 'd', "NAME", NULL, "device of latency claims (default: the first shipped)"},
    {"draws", 0, "N", "2000", "bootstrap draws over items, for ratios and perplexities"},
    {"list", 0, NULL, NULL, "only list the claims that are shipped"},
    {0}};

#define CELL(name, add) KV_CELL(name, struct kv_verdict, add)
#define TEXT(name, value) CELL(name, kv_table_text(t, value))
#define NUMBER(name, value, decimals) CELL(name, kv_table_number(t, value, decimals))
static bool measured(const struct kv_verdict *v) {
    return !isnan(v->estimate);
}
static double unless_infinite(double x) {
    return isinf(x) ? NAN : x;
}
TEXT(claim, row->claim->claim)
TEXT(answer, kv_answer_names[row->answer])
TEXT(here, measured(row) ? row->here ? "yes" : "no" : NULL)
TEXT(analogue, measured(row) ? kv_answer_names[row->analogue] : NULL)
TEXT(quantity, row->claim->quantity->name)
TEXT(unit, row->claim->quantity->unit)
NUMBER(claimed_low, unless_infinite(row->claim->low), -1)
NUMBER(claimed_high, unless_infinite(row->claim->high), -1)
NUMBER(estimate, row->estimate, 4)
NUMBER(low, row->low, 4)
NUMBER(high, row->high, 4)
CELL(n, measured(row) ? kv_table_count(t, (long long)row->n) : kv_table_text(t, NULL))
NUMBER(items_needed, unless_infinite(row->items_needed), 0)
TEXT(because, row->because)
TEXT(first, row->first)
TEXT(second, row->second)
TEXT(mode, row->mode)
TEXT(claimed_model, row->claim->model)
TEXT(model, row->model)
TEXT(benchmark, row->benchmark)
TEXT(device, row->device)
TEXT(source, row->claim->source)
TEXT(file, row->claim->file)
TEXT(published, row->published)
CELL(line, kv_table_count(t, (long long)row->claim->line))

static const struct kv_table_column columns[] = {{"claim", KV_LEFT, claim},
                                                 {"answer", KV_LEFT, answer},
                                                 {"here", KV_LEFT, here},
                                                 {"analogue", KV_LEFT, analogue},
                                                 {"quantity", KV_LEFT, quantity},
                                                 {"unit", KV_LEFT, unit},
                                                 {"claimed_low", KV_RIGHT, claimed_low},
                                                 {"claimed_high", KV_RIGHT, claimed_high},
                                                 {"estimate", KV_RIGHT, estimate},
                                                 {"low", KV_RIGHT, low},
                                                 {"high", KV_RIGHT, high},
                                                 {"n", KV_RIGHT, n},
                                                 {"items_needed", KV_RIGHT, items_needed},
                                                 {"because", KV_LEFT, because},
                                                 {"first", KV_LEFT, first},
                                                 {"second", KV_LEFT, second},
                                                 {"mode", KV_LEFT, mode},
                                                 {"claimed_model", KV_LEFT, claimed_model},
                                                 {"model", KV_LEFT, model},
                                                 {"benchmark", KV_LEFT, benchmark},
                                                 {"device", KV_LEFT, device},
                                                 {"source", KV_LEFT, source},
                                                 {"file", KV_LEFT, file},
                                                 {"line", KV_RIGHT, line},
                                                 {"published_mode", KV_LEFT, published},
                                                 {0}};

// ---- in text --------------------------------------------------------------------------

// A line of an answer, "  here     ...", that goes on below its text where the terminal ends. Takes
// the text.
static void print_line(const char *what, struct kv_text *t) {
    enum { MARGIN = 11 };
    size_t width;
    char *text = kv_text_take(t), *clean = kv_printable(text, &width);
    printf("  %-8s ", what);
    kv_print_wrapped(clean, MARGIN, kv_terminal_width());
    free(clean);
    free(text);
}

static void print_claim(const struct kv_claim *c) {
    struct kv_text t = {0};
    char *region = kv_claim_region_text(c);
    size_t width;
    char *claim = kv_printable(c->claim, &width);
    kv_print_wrapped(claim, 0, kv_terminal_width());
    free(claim);
    kv_text_addf(&t, "%s: %s", c->quantity->name, region);
    free(region);
    if (c->quantity->quantity == KV_Q_SAVING)
        kv_text_addf(&t, " on %s at %g tokens", c->device, c->context);
    kv_text_addf(&t, "; %s, %s; %s", c->model, c->benchmark, c->source);
    print_line("claimed", &t);
    if (!c->note) return;
    kv_text_addf(&t, "%s", c->note);
    print_line("note", &t);
}

static void add_measured(const struct kv_verdict *v, struct kv_text *t) {
    const struct kv_claim *c = v->claim;
    const char *space = *c->quantity->unit ? " " : "";
    kv_text_addf(t, ": %.4g", fabs(v->estimate) < 1e-12 ? 0 : v->estimate);
    if (!isnan(v->low)) kv_text_addf(t, " [%.4g, %.4g]", v->low, v->high);
    kv_text_addf(t, "%s%s", space, c->quantity->unit);
    if (v->device)
        kv_text_addf(t, " on %s", v->device);
    else
        kv_text_addf(t, ", n %zu", v->n);
    kv_text_addf(t, "; %s, %s", v->model, v->benchmark);
}

static void print_verdict(const struct kv_verdict *v) {
    bool away = v->misfit || (measured(v) && !v->here);
    struct kv_text t = {0};
    kv_text_addf(&t, "%s%s: %s", kv_answer_names[v->answer], away ? " here" : "", v->because);
    print_line("verdict", &t);
    if (!v->first) return;
    kv_text_addf(&t, "%s%s%s (%s%s)", v->first, v->second ? " against " : "",
                 v->second ? v->second : "", v->mode, v->mode_mismatch ? "*" : "");
    if (measured(v))
        add_measured(v, &t);
    else
        kv_text_addf(&t, ": not measured");
    print_line("here", &t);
    if (!measured(v) || !away) return;
    kv_text_addf(&t, "of this %s: %s", v->device ? "model and device" : "model",
                 kv_answer_names[v->analogue]);
    if (v->analogue == KV_CANNOT_TELL && isfinite(v->items_needed))
        kv_text_addf(&t, "; about %.0f items would tell", v->items_needed);
    print_line("analogue", &t);
}

static int print(const struct kv_cli *c, const struct kv_verdict *v, size_t n, struct kv_error *e) {
    if (c->output != KV_OUT_TEXT)
        return kv_table_print_rows(columns, v, n, sizeof *v, c->output, e);
    bool starred = false;
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || v[i].claim != v[i - 1].claim) {
            if (i) putchar('\n');
            print_claim(v[i].claim);
        }
        print_verdict(&v[i]);
        starred = starred || v[i].mode_mismatch;
    }
    if (starred) puts("\n" KV_MODE_LEGEND);
    return kv_flush_stdout(e);
}

// ---- claims ---------------------------------------------------------------------------

#define CLAIM_TEXT(name, value) KV_CELL(name, struct kv_claim, kv_table_text(t, value))
CLAIM_TEXT(claim_file, row->file)
CLAIM_TEXT(claim_text, row->claim)
CLAIM_TEXT(claim_quantity, row->quantity->name)
CLAIM_TEXT(claim_model, row->model)
CLAIM_TEXT(claim_source, row->source)
static const struct kv_table_column claim_columns[] = {
    {"file", KV_LEFT, claim_file},         {"claim", KV_LEFT, claim_text},
    {"quantity", KV_LEFT, claim_quantity}, {"model", KV_LEFT, claim_model},
    {"source", KV_LEFT, claim_source},     {0}};

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
        code = kv_table_print_rows(claim_columns, claims, n_claims, sizeof *claims, c->output, e);
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
