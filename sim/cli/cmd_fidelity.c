// SPDX-License-Identifier: Apache-2.0
// kvsim fidelity: what predictions are worth, on exact rows of a store; and what they say of
// policies that were not run.
#include <stdlib.h>

#include "analysis/studies/calibration.h"
#include "reports/draw/fidelity.h"
#include "sim/base/args.h"
#include "sim/base/print.h"
#include "sim/cli/lists.h"
#include "sim/cli/opening.h"

// ---- tables ---------------------------------------------------------------------------

#define POLICIES(X, T)                                                                             \
    X(T, spec, KV_TEXT(row->policy->spec.canonical))                                               \
    X(T, family, KV_TEXT(row->family))                                                             \
    X(T, n, KV_COUNT(row->policy->n_items))                                                        \
    X(T, bits, KV_NUMBER(row->policy->bits, 3))                                                    \
    X(T, kl_nats, KV_NUMBER(row->policy->kl, 6))                                                   \
    X(T, kl_error, KV_NUMBER(row->policy->kl_error, 6))                                            \
    X(T, iso, KV_NUMBER(row->policy->by[KV_BY_ISO], 6))                                            \
    X(T, element, KV_NUMBER(row->policy->by[KV_BY_ELEMENT], 6))                                    \
    X(T, vector, KV_NUMBER(row->policy->by[KV_BY_VECTOR], 6))                                      \
    X(T, channel, KV_NUMBER(row->policy->by[KV_BY_CHANNEL], 6))                                    \
    X(T, mended, KV_NUMBER(row->policy->by[KV_BY_MENDED], 6))                                      \
    X(T, ratio, KV_NUMBER(row->by / row->policy->kl, 3))                                           \
    X(T, cross_terms, KV_NUMBER(row->policy->cross, 3))                                            \
    X(T, worst_layer, KV_NUMBER(row->policy->worst_layer, 3))                                      \
    X(T, left_out, KV_NUMBER(row->left_out, 6))                                                    \
    X(T, left_out_pct, KV_NUMBER(100 * (row->left_out / row->policy->kl - 1), 1))                  \
    X(T, reconstruction, KV_NUMBER(row->policy->by[KV_BY_RECONSTRUCTION], 6))                      \
    X(T, output, KV_NUMBER(row->policy->by[KV_BY_OUTPUT], 6))                                      \
    X(T, attention_kl, KV_NUMBER(row->policy->by[KV_BY_ATTENTION], 6))                             \
    X(T, acc, KV_NUMBER(row->policy->acc, 4))                                                      \
    X(T, acc_predicted, KV_NUMBER(row->acc, 4))                                                    \
    X(T, agree, KV_NUMBER(row->policy->agree, 4))                                                  \
    X(T, agree_predicted, KV_NUMBER(row->agree, 4))                                                \
    X(T, outside_validity, KV_TEXT(row->policy->outside))                                          \
    X(T, not_finite, KV_COUNT(row->policy->n_left_out))                                            \
    X(T, label, KV_TEXT(row->policy->label))
KV_TABLE_COLUMNS(policies, kv_policy_told, POLICIES)

// How predictions and exact divergence agree over all policies of a row.
#define AGREEMENT(X, T)                                                                            \
    X(T, n, KV_COUNT(row->all.n))                                                                  \
    X(T, log_correlation, KV_NUMBER(row->all.log_correlation, 4))                                  \
    X(T, spearman, KV_NUMBER(row->all.spearman, 4))                                                \
    X(T, ratio_5, KV_NUMBER(row->all.ratio_5, 3))                                                  \
    X(T, ratio_median, KV_NUMBER(row->all.ratio_median, 3))                                        \
    X(T, ratio_95, KV_NUMBER(row->all.ratio_95, 3))

#define PREDICTORS(X, T)                                                                           \
    X(T, predictor, KV_TEXT(kv_predictor_names[row->predictor]))                                   \
    X(T, policies, KV_TEXT(row->inside ? "inside validity" : "all"))                               \
    AGREEMENT(X, T)                                                                                \
    X(T, spearman_3_bits, KV_NUMBER(row->near[KV_NEAR_3].spearman, 3))                             \
    X(T, n_3_bits, KV_COUNT(row->near[KV_NEAR_3].n))                                               \
    X(T, spearman_4_bits, KV_NUMBER(row->near[KV_NEAR_4].spearman, 3))                             \
    X(T, n_4_bits, KV_COUNT(row->near[KV_NEAR_4].n))                                               \
    X(T, spearman_5_bits, KV_NUMBER(row->near[KV_NEAR_5].spearman, 3))                             \
    X(T, n_5_bits, KV_COUNT(row->near[KV_NEAR_5].n))                                               \
    X(T, left_out_median_pct, KV_NUMBER(100 * row->off_median, 1))                                 \
    X(T, left_out_95_pct, KV_NUMBER(100 * row->off_95, 1))
KV_TABLE_COLUMNS(predictors, kv_predictor_told, PREDICTORS)

#define FORMS(X, T)                                                                                \
    X(T, form, KV_TEXT(row->form))                                                                 \
    X(T, draws, KV_COUNT(row->draws))                                                              \
    AGREEMENT(X, T)                                                                                \
    X(T, left_out_median_pct, KV_NUMBER(100 * row->off_median, 1))
KV_TABLE_COLUMNS(forms, kv_draws_told, FORMS)

#define ACCURACY(X, T)                                                                             \
    X(T, measure, KV_TEXT(row->measure))                                                           \
    X(T, from, KV_TEXT(row->from))                                                                 \
    X(T, n, KV_COUNT(row->decline.n))                                                              \
    X(T, top, KV_NUMBER(row->decline.top, 4))                                                      \
    X(T, floor, KV_NUMBER(row->decline.floor, 4))                                                  \
    X(T, half_kl_nats, KV_NUMBER(row->decline.half, 4))                                            \
    X(T, slope, KV_NUMBER(row->decline.slope, 3))                                                  \
    X(T, sd_points, KV_NUMBER(100 * row->decline.sd, 2))                                           \
    X(T, left_out_median_points, KV_NUMBER(row->off_median_points, 2))                             \
    X(T, left_out_95_points, KV_NUMBER(row->off_95_points, 2))
KV_TABLE_COLUMNS(accuracy, kv_decline_told, ACCURACY)

#define PREDICTED(X, T)                                                                            \
    X(T, spec, KV_TEXT(row->policy->spec.canonical))                                               \
    X(T, n, KV_COUNT(row->policy->n_items))                                                        \
    X(T, bits, KV_NUMBER(row->policy->bits, 3))                                                    \
    X(T, predicted, KV_NUMBER(row->by, 6))                                                         \
    X(T, kl_nats, KV_NUMBER(row->kl, 6))                                                           \
    X(T, kl_low, KV_NUMBER(row->kl_low, 6))                                                        \
    X(T, kl_high, KV_NUMBER(row->kl_high, 6))                                                      \
    X(T, acc, KV_NUMBER(row->acc, 4))                                                              \
    X(T, acc_low, KV_NUMBER(row->acc_in.low, 4))                                                   \
    X(T, acc_high, KV_NUMBER(row->acc_in.high, 4))                                                 \
    X(T, agree16, KV_NUMBER(row->agree, 4))                                                        \
    X(T, agree16_low, KV_NUMBER(row->agree_in.low, 4))                                             \
    X(T, agree16_high, KV_NUMBER(row->agree_in.high, 4))                                           \
    X(T, cross_terms, KV_NUMBER(row->policy->cross, 3))                                            \
    X(T, outside_validity, KV_TEXT(row->policy->outside))                                          \
    X(T, label, KV_TEXT(row->policy->label))
KV_TABLE_COLUMNS(predicted, kv_policy_foretold, PREDICTED)

static int print_policies(const struct kv_kl_calibration *k, enum kv_output how,
                          struct kv_error *e) {
    struct kv_policy_told *rows = kv_kl_policies_told(k);
    int rc = kv_table_print_rows(policies, rows, k->study->n_exact, sizeof *rows, how, e);
    free(rows);
    return rc;
}

// The others: print_NAME prints rows that `tell` makes, in the columns of NAME.
#define PRINT(name, type, tell)                                                                    \
    static int print_##name(const struct kv_kl_calibration *k, enum kv_output how,                 \
                            struct kv_error *e) {                                                  \
        size_t n;                                                                                  \
        struct type *rows = tell(k, &n);                                                           \
        int rc = kv_table_print_rows(name, rows, n, sizeof *rows, how, e);                         \
        free(rows);                                                                                \
        return rc;                                                                                 \
    }
PRINT(predictors, kv_predictor_told, kv_kl_predictors_told)
PRINT(forms, kv_draws_told, kv_kl_draws_told)
PRINT(accuracy, kv_decline_told, kv_kl_declines_told)
PRINT(predicted, kv_policy_foretold, kv_kl_policies_foretold)

static const struct {
    const char *name, *heading;
    int (*print)(const struct kv_kl_calibration *, enum kv_output, struct kv_error *);
} tables[] = {
    {"policies", "policies, by exact divergence", print_policies},
    {"predictors", "predictors of divergence", print_predictors},
    {"forms", "forms of fisher replay and label draws", print_forms},
    {"accuracy", "accuracy and agreement with the 16-bit run, from divergence", print_accuracy},
    {"predicted", "policies that were not run", print_predicted},
};
enum { N_TABLES = sizeof tables / sizeof *tables };

// ---- command --------------------------------------------------------------------------

// --table; without it all in text, but for `predicted` where there is none, and else the first.
static int choose_tables(const struct kv_cli *c, bool foretold, bool *chosen, struct kv_error *e) {
    char **list;
    size_t n = kv_opt_list(c, "table", &list);
    bool text = kv_for_readers(c->output);
    int rc = 0;
    for (size_t i = 0; i < N_TABLES && !kv_opt(c, "table"); i++)
        chosen[i] = text ? i + 1 < N_TABLES || foretold : i == 0;
    for (size_t k = 0; k < n && rc == 0; k++) {
        size_t i = 0;
        while (i < N_TABLES && strcmp(tables[i].name, list[k]) != 0) i++;
        if (i < N_TABLES)
            chosen[i] = true;
        else
            rc = kv_fail(e, KV_EUSAGE, "--table",
                         "%s: policies, predictors, forms, accuracy or predicted is expected",
                         list[k]);
    }
    if (rc == 0 && !text && n > 1)
        rc = kv_fail(e, KV_EUSAGE, "--table", "--tsv, --csv and --json print one table at a time");
    kv_list_free(list, n);
    return rc;
}

static int choose_form(const struct kv_cli *c, enum kv_predictor *form, struct kv_error *e) {
    const char *name = kv_opt(c, "form");
    int known = name ? kv_index_of(name, kv_predictor_names) : KV_N_PREDICTORS;
    *form = (enum kv_predictor)known;
    if (!name || (known >= KV_BY_ISO && known <= KV_BY_MENDED)) return 0;
    return kv_fail(e, KV_EUSAGE, "--form",
                   "%s: iso, element, vector, total, channel or mended is expected", name);
}

static int print(const struct kv_cli *c, const struct kv_kl_calibration *k, const bool *chosen,
                 struct kv_error *e) {
    int rc = 0;
    for (size_t i = 0, printed = 0; i < N_TABLES && rc == 0; i++) {
        if (!chosen[i]) continue;
        if (printed++ && kv_for_readers(c->output)) putchar('\n');
        if (kv_for_readers(c->output)) kv_table_note(c->output, "%s", tables[i].heading);
        rc = tables[i].print(k, c->output, e);
    }
    return rc;
}

static int fidelity(struct kv_cli *c, struct kv_error *e) {
    struct kv_fidelity_options o = {.db = kv_opt(c, "db"),
                                    .specs = (const char *const *)c->args + 1,
                                    .n_specs = c->n_args - 1,
                                    .no_attention = kv_opt(c, "no-attention") != NULL,
                                    .jobs = c->jobs,
                                    .seed = c->seed};
    struct kv_fidelity_study s = {0};
    struct kv_kl_calibration k = {0};
    struct kv_trace *trace = NULL;
    enum kv_predictor form;
    bool chosen[N_TABLES] = {false};
    int rc = choose_form(c, &form, e);
    if (rc == 0) rc = kv_opt_range(c, "items", &o.items, e);
    if (rc == 0) rc = kv_trace_open(&trace, c->args[0], e);
    if (rc == 0) rc = kv_opt_blame(c, kv_fidelity_open(&s, trace, &o, e), e);
    if (rc == 0) rc = choose_tables(c, s.n > s.n_exact, chosen, e);
    if (rc == 0) rc = kv_kl_calibrate(&k, &s, form, e);
    if (rc == 0 && kv_opt(c, "out")) rc = kv_fidelity_draw(&k, kv_opt(c, "out"), e);
    if (rc == 0) rc = print(c, &k, chosen, e);
    kv_kl_calibration_fini(&k);
    kv_fidelity_close(&s);
    kv_trace_close(trace);
    return rc;
}

static const struct kv_option options[] = {
    {"db", 0, "FILE", "kvsim.db", "the store with exact rows of the trace"},
    {"items", 0, "A-B", NULL, "only items A to B of the trace, counted from 0"},
    {"no-attention", 0, NULL, NULL, "leave out the rivals that need recorded queries"},
    {"form", 0, "FORM", NULL,
     "the form that is calibrated: iso, element, vector, total, channel, mended (default: mended "
     "where whole gradients and queries were kept, else element, else channel, else iso)"},
    {"table", 't', "LIST", NULL, "which tables: policies, predictors, forms, accuracy, predicted"},
    {"out", 'o', "DIR", NULL, "also draws predicted against exact there"},
    {0}};

const struct kv_command kv_cmd_fidelity = {
    .name = "fidelity",
    .summary = "judges predictions of divergence by the exact rows of a store",
    .usage = "TRACE [SPEC...]",
    .example = "kvsim fidelity work/samples.trace --db work/demo.db 'static:k=5,v=3@asym:group=32'",
    .options = options,
    .min_args = 1,
    .max_args = 100000,
    .run = fidelity};
