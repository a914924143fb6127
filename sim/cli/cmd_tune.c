// SPDX-License-Identifier: Apache-2.0
// kvsim tune: searches policies on predicted divergence and confirms the winners by exact replay on
// items they were not chosen on.
#include "analysis/studies/tune.h"

#include <stdlib.h>

#include "sim/base/talk.h"
#include "sim/cli/study_options.h"
#include "sim/store/label.h"

// ---- table ----------------------------------------------------------------------------

// `cost` is named after the budget's unit.
#define TUNED(X, T)                                                                                \
    X(T, spec, KV_TEXT(row->spec))                                                                 \
    X(T, chosen_by, KV_TEXT(row->how))                                                             \
    X(T, tried, KV_COUNT(row->tried))                                                              \
    X(T, cost, KV_NUMBER(row->test.cost, 3))                                                       \
    X(T, kl_train_predicted, KV_NUMBER(row->train.kl_nats, 6))                                     \
    X(T, kl_test_predicted, KV_NUMBER(row->test.kl_nats, 6))                                       \
    X(T, kl_test_exact, KV_NUMBER(row->kl.mean, 6))                                                \
    X(T, kl_test_error, KV_NUMBER(row->kl.standard_error, 6))                                      \
    X(T, acc, KV_NUMBER(row->acc, 4))                                                              \
    X(T, agree16, KV_NUMBER(row->agree, 4))                                                        \
    X(T, gap_pct, KV_NUMBER(100 * row->gap, 3))                                                    \
    X(T, in_budget,                                                                                \
      KV_TEXT(isnan(row->test.cost)                  ? ""                                          \
              : row->test.cost <= row->budget * 1.02 ? "yes"                                       \
                                                     : "no"))                                      \
    X(T, kl_verified, KV_NUMBER(row->verified, 6))                                                 \
    X(T, label, KV_LEFT, kv_table_take(t, kv_spec_label(row->spec)))
KV_TABLE_COLUMNS(tuned, kv_tuned, TUNED)

// A plan's label is no spec that could be copied.
static void say_whole(const struct kv_tuned *at, size_t n, enum kv_output output) {
    bool shortened = false;
    for (size_t i = 0; i < n; i++) {
        char *label = kv_spec_label(at[i].spec);
        shortened = shortened || strchr(label, '~');
        free(label);
    }
    if (shortened && kv_for_readers(output))
        kv_say("plans are named by their mean widths; --tsv prints their specs whole");
}

static int print(const struct kv_tune *found, enum kv_budget_unit unit, enum kv_output output,
                 struct kv_error *e) {
    static const char *const units[] = {"bits", "bytes_per_token", "ms"};
    struct kv_table_column columns[sizeof tuned / sizeof *tuned];
    memcpy(columns, tuned, sizeof columns);
    for (size_t i = 0; columns[i].name; i++)
        if (strcmp(columns[i].name, "cost") == 0) columns[i].name = units[unit];
    int rc = kv_table_print_rows(columns, found->at, found->n, sizeof *found->at, output, e);
    if (rc == 0) say_whole(found->at, found->n, output);
    return rc;
}

// ---- command --------------------------------------------------------------------------

// The searches for free parameters, or the one for families' plans.
static int read_method(const struct kv_cli *c, struct kv_tune_options *o, struct kv_error *e) {
    enum { GREEDY = KV_SEARCH_ANNEAL + 1 };
    const char *names[GREEDY + 2] = {[GREEDY] = "greedy-exact"};
    int method = (int)o->method;
    for (int i = 0; i < GREEDY; i++) names[i] = kv_search_methods[i];
    int rc = kv_opt_named(c, "method", names, &method, e);
    o->greedy = method == GREEDY;
    if (!o->greedy) o->method = (enum kv_search_method)method;
    return rc;
}

static int read_options(const struct kv_cli *c, struct kv_tune_options *o, char **model,
                        struct kv_error *e) {
    int objective = KV_OBJECTIVE_KL;
    long tries, evaluations, verify;
    *o = kv_tune_defaults();
    int rc = kv_opt_named(c, "objective", kv_objectives, &objective, e);
    if (rc == 0) rc = read_method(c, o, e);
    if (rc == 0) rc = kv_opt_widths(c, "widths", o->widths, KV_MAX_WIDTHS, &o->n_widths, e);
    if (rc == 0) rc = kv_opt_int(c, "tries", 1, 100000000, &tries, e);
    if (rc == 0) rc = kv_opt_int(c, "evaluations", 1, 1000000, &evaluations, e);
    if (rc == 0) rc = kv_opt_int(c, "verify", 1, 1000000, &verify, e);
    if (rc == 0) rc = kv_opt_compute(c, &o->compute, e);
    if (rc == 0) rc = kv_opt_planner(c, &o->plan, e);
    if (rc) return rc;
    o->model = *model = kv_model_path(kv_opt(c, "model"));
    o->words = (const char *const *)c->args + 1;
    o->n_words = c->n_args - 1;
    o->objective = (enum kv_objective)objective;
    o->tries = (size_t)tries;
    o->evaluations = (size_t)evaluations;
    o->verify = (size_t)verify;
    o->predict_only = kv_opt(c, "no-exact") != NULL;
    return 0;
}

static int tune(struct kv_cli *c, struct kv_error *e) {
    struct kv_tune_options o;
    struct kv_tune found = {0};
    char *model = NULL;
    int rc = read_options(c, &o, &model, e);
    if (rc == 0) rc = kv_opt_blame(c, kv_tune_run(&found, &o, e), e);
    if (rc == 0) rc = print(&found, o.plan.unit, c->output, e);
    if (rc == 0 && found.interrupted)
        rc = kv_fail(e, KV_EINTR, "tune",
                     "interrupted: the plans found until then are printed, and not confirmed");
    kv_tune_fini(&found);
    free(model);
    return rc;
}

static const struct kv_option options[] = {
    {"budget", 'b', "B", "bits=4",
     "bits=N (allocated, a value), bytes=N (a token) or ms=X@DEVICE (a step)"},
    {"objective", 0, "NAME", "kl",
     "kl, or accuracy: it falls with kl, so the same plans are chosen and rows are ranked by it"},
    {"method", 0, "NAME", "simplex",
     "for parameters given as ranges: grid, random, simplex, anneal; for families: greedy-exact, "
     "swaps from the best plan that exact replay verifies"},
    {"tries", 0, "N", "300", "policies tried in such a search"},
    {"evaluations", 0, "N", "200", "plans that greedy-exact replays"},
    {"verify", 0, "N", "8", "items that it replays them on, the first of --train"},
    {"widths", 0, "LIST", NULL, "widths a plan may use (default: all that the format offers)"},
    {"train", 0, "A-B", NULL, "items that plans are chosen on (default: the first half)"},
    {"items", 0, "A-B", NULL, "items that they are judged on (default: the others)"},
    {"mean", 0, "NAME", "plain",
     "of damage over the train items: plain, or robust (median of the means of eight parts)"},
    {"form", 0, "FORM", NULL,
     "of damage: iso, channel, element, vector (default: element, channel or iso, the finest that "
     "the trace can give)"},
    {"context", 'c', "N", "2048", "context in tokens at which a budget in ms is meant"},
    {"model", 'm', "MODEL", NULL, "the trace's model, for exact replay (default: as in replay)"},
    KV_COMPUTE_OPTION,
    KV_PRECISION_OPTION,
    {"no-exact", 0, NULL, NULL, "print predictions without confirming them"},
    {0}};

const struct kv_command kv_cmd_tune = {
    .name = "tune",
    .summary = "finds policies of least divergence within a budget, and confirms them",
    .usage = "TRACE FAMILY|SPEC...",
    .example = "kvsim tune work/samples.trace --budget bits=5 static@asym:group=32 "
               "layerwise:by=head@asym:group=32 "
               "'threshold:feature=rarity,quantiles=0..1,bits=3/5@asym:group=32'",
    .options = options,
    .min_args = 2,
    .max_args = 100000,
    .run = tune};
