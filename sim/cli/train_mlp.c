// SPDX-License-Identifier: Apache-2.0
// kvsim train mlp: trains the controller that policy mlp asks, one network for each combination of
// labels and loss weights.
#include <math.h>
#include <stdlib.h>

#include "analysis/studies/controller.h"
#include "reports/draw/train.h"
#include "sim/base/args.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/cli/lists.h"
#include "sim/cli/opening.h"
#include "sim/cli/train_kinds.h"

// ---- options --------------------------------------------------------------------------

// What the options point at.
struct numbers {
    double bits[KV_TRAIN_MAX_CLASSES], latency[KV_TRAIN_MAX_CLASSES], quality[KV_TRAIN_MAX_CLASSES];
};

// As many numbers in 0..1 as there are widths, where the option is given.
static int read_shares(const struct kv_cli *c, const char *option, size_t n_bits, double *x,
                       const double **out, struct kv_error *e) {
    size_t n;
    if (!kv_opt(c, option)) return 0;
    int rc = kv_opt_numbers(c, option, 0, 1, x, KV_TRAIN_MAX_CLASSES, &n, e);
    if (rc == 0 && n != n_bits)
        rc = kv_fail(e, KV_EUSAGE, "train", "--%s %s: %zu numbers are expected", option,
                     kv_opt(c, option), n_bits);
    *out = x;
    return rc;
}

static int read_training(const struct kv_cli *c, struct kv_train_options *t, struct kv_error *e) {
    long hidden, batch, epochs, patience;
    kv_train_defaults(t);
    t->seed = c->seed;
    int rc = kv_opt_float(c, "rate", 1e-9, 1, &t->rate, e);
    if (rc == 0 && kv_opt_given(c, "holdout"))
        rc = kv_opt_float(c, "holdout", 0.01, 1 / 3.0, &t->holdout, e);
    if (rc == 0) rc = kv_opt_int(c, "hidden", 1, 512, &hidden, e);
    if (rc == 0) rc = kv_opt_int(c, "batch", 1, 1 << 20, &batch, e);
    if (rc == 0) rc = kv_opt_int(c, "epochs", 1, 100000, &epochs, e);
    if (rc == 0) rc = kv_opt_int(c, "patience", 1, 100000, &patience, e);
    if (rc) return rc;
    t->hidden = (uint32_t)hidden;
    t->batch = (uint32_t)batch;
    t->epochs = (uint32_t)epochs;
    t->patience = (uint32_t)patience;
    return 0;
}

static int read_options(const struct kv_cli *c, struct kv_controller_options *o, struct numbers *x,
                        struct kv_error *e) {
    *o = (struct kv_controller_options){.format = kv_opt(c, "format"),
                                        .bits = x->bits,
                                        .device = kv_opt(c, "device"),
                                        .out = kv_opt_given(c, "out") ? kv_opt(c, "out")
                                                                      : KV_TRAIN_MLP_OUT,
                                        .jobs = c->jobs};
    int grain = KV_NET_TOKEN;
    int rc = kv_opt_given(c, "grain") ? kv_opt_named(c, "grain", kv_net_grains, &grain, e) : 0;
    o->grain = (enum kv_net_grain)grain;
    if (rc == 0)
        rc = kv_opt_numbers(c, "bits", 1, 16, x->bits, KV_TRAIN_MAX_CLASSES, &o->n_bits, e);
    if (rc == 0) rc = read_shares(c, "latency", o->n_bits, x->latency, &o->latency, e);
    if (rc == 0) rc = read_shares(c, "quality", o->n_bits, x->quality, &o->quality, e);
    if (rc == 0) rc = kv_opt_float(c, "context", 1, 1e9, &o->context, e);
    if (rc == 0) rc = kv_opt_float(c, "bound", 0, 1e9, &o->bound, e);
    return rc ? rc : read_training(c, &o->train, e);
}

static int read_weight(const char *option, const char *text, double *weight, struct kv_error *e) {
    char *end;
    *weight = strtod(text, &end);
    if (end != text && !*end && *weight >= 0 && isfinite(*weight)) return 0;
    return kv_fail(e, KV_EUSAGE, "train", "--%s %s: a number of at least 0 is expected", option,
                   text);
}

static int read_labels(const char *text, enum kv_train_labels *labels, struct kv_error *e) {
    int known = kv_index_of(text, kv_train_labels_names);
    *labels = (enum kv_train_labels)known;
    if (known >= 0) return 0;
    return kv_fail(e, KV_EUSAGE, "train", "--labels %s: quartile or oracle is expected", text);
}

// A network for every combination of the four lists. Caller frees.
static int combine(const struct kv_cli *c, struct kv_controller **networks, size_t *n,
                   struct kv_error *e) {
    static const char *const names[] = {"labels", "alpha", "beta", "gamma"};
    char **list[4];
    size_t length[4];
    *n = 1;
    for (size_t i = 0; i < 4; i++) *n *= length[i] = kv_opt_list(c, names[i], &list[i]);
    *networks = kv_alloc(*n + 1, sizeof **networks);
    int rc = *n ? 0 : kv_fail(e, KV_EUSAGE, "train", "an empty list leaves nothing to train");
    for (size_t i = 0; i < *n && rc == 0; i++) {
        struct kv_controller *x = &(*networks)[i];
        double *weight[4] = {NULL, &x->alpha, &x->beta, &x->gamma};
        size_t rest = i, k = 4;
        for (; --k > 0 && rc == 0; rest /= length[k])
            rc = read_weight(names[k], list[k][rest % length[k]], weight[k], e);
        if (rc == 0) rc = read_labels(list[0][rest], &x->labels, e);
    }
    for (size_t i = 0; i < 4; i++) kv_list_free(list[i], length[i]);
    return rc;
}

// ---- tables ---------------------------------------------------------------------------

static const struct kv_epoch *best_epoch(const struct kv_controller *c) {
    return &c->result.epochs[c->result.best_epoch];
}

static double told(const struct kv_controller *c, double x) {
    return c->worth.n ? x : NAN;
}

// "0.250/0.750" for as many widths as there are.
static void add_shares(struct kv_table *t, const struct kv_controller *c) {
    struct kv_text s = {0};
    for (size_t k = 0; k < c->result.n_classes; k++)
        kv_text_addf(&s, "%s%.3f", k ? "/" : "", c->share[k]);
    kv_table_text(t, s.s);
    free(s.s);
}

#define NETWORKS(X, T)                                                                             \
    X(T, labels, KV_TEXT(kv_train_labels_names[row->labels]))                                      \
    X(T, alpha, KV_NUMBER(row->alpha, -1))                                                         \
    X(T, beta, KV_NUMBER(row->beta, -1))                                                           \
    X(T, gamma, KV_NUMBER(row->gamma, -1))                                                         \
    X(T, epochs, KV_COUNT(row->result.n_epochs))                                                   \
    X(T, valid_loss, KV_NUMBER(best_epoch(row)->valid_loss, 4))                                    \
    X(T, accuracy, KV_NUMBER(row->result.accuracy, 4))                                             \
    X(T, majority, KV_NUMBER(row->result.majority_accuracy, 4))                                    \
    X(T, linear, KV_NUMBER(row->result.linear_accuracy, 4))                                        \
    X(T, n, KV_COUNT(row->worth.n))                                                                \
    X(T, pick_bits, KV_NUMBER(told(row, row->worth.bits), 3))                                      \
    X(T, pick_kl, KV_NUMBER(told(row, row->worth.kl), 6))                                          \
    X(T, shuffle_kl, KV_NUMBER(told(row, row->worth.shuffle_kl), 6))                               \
    X(T, threshold_kl, KV_NUMBER(told(row, row->worth.rule_kl), 6))                                \
    X(T, verdict, KV_TEXT(kv_controller_verdict(row)))                                             \
    X(T, mean_bits, KV_NUMBER(row->mean_bits, 3))                                                  \
    X(T, shares, KV_LEFT, add_shares(t, row))                                                      \
    X(T, spec, KV_TEXT(row->spec))
KV_TABLE_COLUMNS(networks, kv_controller, NETWORKS)

#define EPOCHS(X, T)                                                                               \
    X(T, epoch, KV_COUNT(row->epoch))                                                              \
    X(T, train_loss, KV_NUMBER(row->train_loss, 4))                                                \
    X(T, valid_loss, KV_NUMBER(row->valid_loss, 4))                                                \
    X(T, valid_accuracy, KV_NUMBER(row->valid_accuracy, 4))
KV_TABLE_COLUMNS(epochs, kv_epoch, EPOCHS)

struct feature {
    const char *name;
    double accuracy_drop, loss_rise;
};
#define FEATURES(X, T)                                                                             \
    X(T, shuffled, KV_TEXT(row->name))                                                             \
    X(T, accuracy_drop, KV_NUMBER(row->accuracy_drop, 4))                                          \
    X(T, loss_rise, KV_NUMBER(row->loss_rise, 4))
KV_TABLE_COLUMNS(features, feature, FEATURES)

static int print_importance(const struct kv_train_result *r, struct kv_error *e) {
    struct feature rows[KV_TRAIN_INPUTS] = {
        {.name = "entropy"}, {.name = "rarity"}, {.name = "attn_var"}, {.name = "confidence"}};
    for (size_t i = 0; i < KV_TRAIN_INPUTS; i++) {
        rows[i].accuracy_drop = r->accuracy_drop[i];
        rows[i].loss_rise = r->loss_rise[i];
    }
    return kv_table_print_rows(features, rows, KV_TRAIN_INPUTS, sizeof *rows, KV_OUT_TEXT, e);
}

// A row a label, a column a width that was picked.
static int print_confusion(const struct kv_train_result *r, const double *bits,
                           struct kv_error *e) {
    struct kv_column columns[KV_TRAIN_MAX_CLASSES + 1] = {{"bits", KV_RIGHT}};
    char name[KV_TRAIN_MAX_CLASSES][16];
    for (size_t k = 0; k < r->n_classes; k++) {
        snprintf(name[k], sizeof name[k], "%g", bits[k]);
        columns[k + 1] = (struct kv_column){name[k], KV_RIGHT};
    }
    struct kv_table *t = kv_table_new(columns, r->n_classes + 1);
    for (size_t k = 0; k < r->n_classes; k++) {
        kv_table_text(t, name[k]);
        for (size_t p = 0; p < r->n_classes; p++) kv_table_count(t, (long long)r->confusion[k][p]);
    }
    return kv_table_print(t, KV_OUT_TEXT, e);
}

// What is told of a single network before its row.
static int print_details(const struct kv_train_result *r, const double *bits, struct kv_error *e) {
    int rc = kv_table_print_rows(epochs, r->epochs, r->n_epochs, sizeof *r->epochs, KV_OUT_TEXT, e);
    printf("\nlabel (row) and what the network picks, tokens of the reported items\n");
    if (rc == 0) rc = print_confusion(r, bits, e);
    printf("\nwhat each feature is worth, tokens of the reported items\n");
    if (rc == 0) rc = print_importance(r, e);
    printf("\n");
    return rc;
}

// The last line: whether training was worth it.
static int print_verdict(const struct kv_controller *c, size_t n, struct kv_error *e) {
    size_t told = 0, better = 0;
    for (size_t i = 0; i < n; i++) {
        told += c[i].worth.n > 0;
        better += c[i].worth.n > 0 && kv_worth_better(&c[i].worth);
    }
    if (n == 1 || told == 0)
        printf("\n%s\n", kv_controller_verdict(c));
    else if (better == 0)
        printf("\nno network of %zu is any better: no better than the threshold rule\n", told);
    else
        printf("\n%zu of %zu networks are better than the threshold rule\n", better, told);
    return kv_flush_stdout(e);
}

// ---- command --------------------------------------------------------------------------

int kv_train_mlp(struct kv_cli *c, struct kv_error *e) {
    struct kv_controller_options o;
    struct numbers x;
    struct kv_controller *trained = NULL;
    struct kv_trace *trace = NULL;
    size_t n = 0;
    if (c->n_args != 2) return kv_fail(e, KV_EUSAGE, "train", "mlp is trained on one trace");
    int rc = read_options(c, &o, &x, e);
    if (rc == 0) rc = combine(c, &trained, &n, e);
    if (rc == 0) rc = kv_trace_open(&trace, c->args[1], e);
    if (rc == 0) rc = kv_opt_blame(c, kv_controllers_train(trained, n, trace, &o, e), e);
    for (size_t i = 0; i < n && rc == 0 && kv_opt(c, "figures"); i++)
        rc = kv_train_draw(&trained[i], kv_opt(c, "figures"), e);
    if (rc == 0 && n == 1 && c->output == KV_OUT_TEXT)
        rc = print_details(&trained[0].result, o.bits, e);
    if (rc == 0) rc = kv_table_print_rows(networks, trained, n, sizeof *trained, c->output, e);
    if (rc == 0 && c->output == KV_OUT_TEXT) rc = print_verdict(trained, n, e);
    kv_controllers_fini(trained, n);
    free(trained);
    kv_trace_close(trace);
    return rc;
}
