// SPDX-License-Identifier: Apache-2.0
// kvsim train mlp: trains the controller that policy mlp asks, one network for each combination of
// labels and loss weights.
#include <stdlib.h>

#include "analysis/search/train.h"
#include "policies/weights.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/base/version.h"
#include "sim/base/work.h"
#include "reports/draw/gnuplot.h"
#include "sim/cli/lists.h"
#include "sim/model/safetensors.h"
#include "sim/replay/fisher.h"

static const struct kv_option options[] = {
    {"out", 'o', "FILE", "build/controller.safetensors",
     "weights of the network; a folder when several are trained"},
    {"figure", 0, "DIR", NULL, "folder for the learning curve of each network"},
    {"labels", 0, "LIST", "quartile",
     "what a token should get: quartile (of the mean of its features), oracle (the narrowest width "
     "whose expected damage stays under --bound)"},
    {"bound", 0, "NATS", "0.01", "damage a token may do, summed over scored positions (oracle)"},
    {"bits", 0, "LIST", "2/4/8/16", "widths to choose from"},
    {"format", 0, "FORMAT", "sym", "whose damage counts"},
    {"alpha", 0, "LIST", "1", "weight of the cross-entropy with the labels"},
    {"beta", 0, "LIST", "0.1", "weight of the expected latency"},
    {"gamma", 0, "LIST", "0.1", "weight of 1 - expected quality"},
    {"device", 0, "DEVICE", NULL, "whose latency counts (default: the first that is shipped)"},
    {"context", 0, "TOKENS", "2048", "context at which it does"},
    {"latency", 0, "LIST", NULL, "latency of each width, 0..1, instead of the device's"},
    {"quality", 0, "LIST", NULL,
     "quality of each width, 0..1 (default: exp(-KL) of storing everything at it, predicted from "
     "the trace's sensitivities)"},
    {"rate", 0, "X", "0.003", "Adam's step"},
    {"hidden", 0, "N", "128", "units of each hidden layer"},
    {"batch", 0, "N", "256", "tokens a step"},
    {"epochs", 0, "N", "60", "epochs at most"},
    {"patience", 0, "N", "8", "epochs without a better validation loss before training stops"},
    {"holdout", 0, "SHARE", "0.2", "share of the items that only validate"},
    {0}};

struct job {
    struct kv_trace *trace;
    struct kv_format *format;
    struct kv_cell_table *table; // damage; NULL when nothing asks for it
    struct kv_train_data data;
    struct kv_train_options train;
    float *x;
    uint8_t *label;
    uint32_t *item;
    double *damage; // [n_tokens][n_classes]
    double bits[KV_TRAIN_MAX_CLASSES], bound;
    size_t width[KV_TRAIN_MAX_CLASSES]; // of each class in the format's table
};

// ---- what is trained on ------------------------------------------------------------------

// "a/b/c": as many numbers as there are classes, or any number when n_expected is 0.
static int read_numbers(const struct kv_cli *c, const char *option, size_t n_expected, double low,
                        double high, double *x, size_t *n, struct kv_error *e) {
    const char *at = kv_opt(c, option);
    for (*n = 0; *at; (*n)++) {
        char *end;
        double value = strtod(at, &end);
        if (end == at || (*end && *end != '/') || !(value >= low && value <= high) ||
            *n == KV_TRAIN_MAX_CLASSES)
            return kv_fail(e, KV_EUSAGE, "train",
                           "--%s %s: up to %d numbers from %g to %g, '/' between them", option,
                           kv_opt(c, option), KV_TRAIN_MAX_CLASSES, low, high);
        x[*n] = value;
        at = *end ? end + 1 : end;
    }
    if (n_expected && *n != n_expected)
        return kv_fail(e, KV_EUSAGE, "train", "--%s %s: %zu numbers are expected", option,
                       kv_opt(c, option), n_expected);
    return 0;
}

static int find_widths(struct job *j, const struct kv_cli *c, struct kv_error *e) {
    int rc = read_numbers(c, "bits", 0, 1, 16, j->bits, &j->data.n_classes, e);
    for (size_t k = 0; k < j->data.n_classes && rc == 0; k++) {
        size_t w = 0;
        while (w < j->format->n_widths && j->format->width_bits[w] != j->bits[k]) w++;
        j->width[k] = w;
        if (w == j->format->n_widths)
            rc = kv_fail(e, KV_EUSAGE, "train", "--bits: format %s does not offer %g bits",
                         j->format->type->name, j->bits[k]);
        else if (k && j->bits[k] <= j->bits[k - 1])
            rc = kv_fail(e, KV_EUSAGE, "train", "--bits %s: widths must rise", kv_opt(c, "bits"));
    }
    return rc;
}

static void gather(struct job *j) {
    static const size_t inputs[KV_TRAIN_INPUTS] = {KV_ENTROPY_NATS, KV_RARITY_NATS, KV_ATTN_VAR,
                                                   KV_CONFIDENCE};
    const struct kv_trace_info *in = kv_trace_info(j->trace);
    size_t n = 0, cells = kv_cells(&in->shape), classes = j->data.n_classes;
    j->x = kv_alloc(in->n_tokens * KV_TRAIN_INPUTS, sizeof *j->x);
    j->label = kv_alloc(in->n_tokens, sizeof *j->label);
    j->item = kv_alloc(in->n_tokens, sizeof *j->item);
    if (j->table) j->damage = kv_alloc(in->n_tokens * classes, sizeof *j->damage);
    for (size_t i = 0; i < in->n_items; i++) {
        const struct kv_trace_item *it = kv_trace_item(j->trace, i);
        const float *table = j->table ? kv_cell_table_item(j->table, i) : NULL;
        for (size_t row = 0; row < it->n_tokens; row++, n++) {
            j->item[n] = (uint32_t)i;
            for (size_t f = 0; f < KV_TRAIN_INPUTS; f++)
                j->x[n * KV_TRAIN_INPUTS + f] = it->features[row * KV_N_FEATURES + inputs[f]];
            for (size_t k = 0; table && k < classes; k++)
                for (size_t cell = 0; cell < cells; cell++)
                    j->damage[n * classes + k] +=
                        (double)table[(row * j->format->n_widths + j->width[k]) * cells + cell];
        }
    }
    j->data.n_tokens = n;
    j->data.n_items = in->n_items;
    j->data.x = j->x;
    j->data.label = j->label;
    j->data.item = j->item;
}

// Whether quality is to be measured: not where it is given or weighs nothing.
static bool quality_is_asked(const struct kv_cli *c) {
    return !kv_opt(c, "quality") && strcmp(kv_opt(c, "gamma"), "0") != 0;
}

// exp(-KL) a scored token, mean KL over items, of storing everything at each width.
static int measure_quality(struct job *j, const struct kv_cli *c, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(j->trace);
    size_t n;
    if (!kv_opt(c, "quality") && !quality_is_asked(c)) return 0;
    if (kv_opt(c, "quality"))
        return read_numbers(c, "quality", j->data.n_classes, 0, 1, j->data.quality, &n, e);
    for (size_t k = 0; k < j->data.n_classes; k++) {
        double sum = 0;
        for (size_t i = 0; i < in->n_items; i++) {
            const struct kv_trace_item *it = kv_trace_item(j->trace, i);
            size_t cells = it->n_tokens * kv_cells(&in->shape);
            uint8_t *all = memset(kv_alloc(cells, 1), (int)j->width[k], cells);
            sum += kv_fisher_kl(j->trace, i, j->table, j->format->n_widths, all, NULL);
            free(all);
        }
        j->data.quality[k] = exp(-sum / (double)in->n_items);
    }
    return 0;
}

// The cache's part of a step with everything at each width, as a share of the widest's.
static int measure_latency(struct job *j, const struct kv_cli *c, struct kv_error *e) {
    const char *name = kv_opt(c, "device") ? kv_opt(c, "device") : kv_device_default_name();
    size_t n, last = j->data.n_classes - 1;
    double context, ns[KV_TRAIN_MAX_CLASSES];
    struct kv_device *d;
    if (kv_opt(c, "latency"))
        return read_numbers(c, "latency", j->data.n_classes, 0, 1, j->data.latency, &n, e);
    int rc = kv_opt_float(c, "context", 1, 1e9, &context, e);
    if (rc == 0) rc = kv_device_open(&d, name, e);
    if (rc) return rc;
    for (size_t k = 0; k <= last; k++) {
        struct kv_ledger all = {0};
        for (int side = 0; side < 2; side++) {
            struct kv_unit_size u =
                kv_format_size(j->format, (enum kv_side)side, (uint32_t)j->width[k]);
            all.share[side][(size_t)j->bits[k]] = 1;
            all.allocated_bits += 4.0 * u.bytes / u.values;
        }
        ns[k] = kv_device_step(d, &all, context, 0).cache_ns;
    }
    for (size_t k = 0; k <= last; k++) j->data.latency[k] = ns[k] / ns[last];
    kv_device_free(d);
    return 0;
}

static int open_job(struct job *j, const struct kv_cli *c, struct kv_error *e) {
    *j = (struct job){0};
    int rc = kv_trace_open(&j->trace, c->args[1], e);
    if (rc) return rc;
    const struct kv_trace_info *in = kv_trace_info(j->trace);
    struct kv_format_setting setting = {in->shape, in->order};
    rc = kv_format_open(&j->format, kv_opt(c, "format"), &setting, e);
    if (rc == 0) rc = find_widths(j, c, e);
    if (rc == 0 && (quality_is_asked(c) || strstr(kv_opt(c, "labels"), "oracle")))
        rc = kv_cell_table_open(&j->table, j->trace, j->format, KV_TABLE_ISO, c->jobs, e);
    if (rc == 0) gather(j);
    if (rc == 0) rc = measure_quality(j, c, e);
    if (rc == 0) rc = measure_latency(j, c, e);
    return rc;
}

static void close_job(struct job *j) {
    void *owned[] = {j->x, j->label, j->item, j->damage};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    kv_cell_table_close(j->table);
    kv_format_close(j->format);
    kv_trace_close(j->trace);
}

static int read_options(struct job *j, const struct kv_cli *c, struct kv_error *e) {
    long hidden, batch, epochs, patience;
    kv_train_defaults(&j->train);
    j->train.seed = c->seed;
    int rc = kv_opt_float(c, "bound", 0, 1e9, &j->bound, e);
    if (rc == 0) rc = kv_opt_float(c, "rate", 1e-9, 1, &j->train.rate, e);
    if (rc == 0) rc = kv_opt_float(c, "holdout", 0.01, 0.5, &j->train.holdout, e);
    if (rc == 0) rc = kv_opt_int(c, "hidden", 1, 512, &hidden, e);
    if (rc == 0) rc = kv_opt_int(c, "batch", 1, 1 << 20, &batch, e);
    if (rc == 0) rc = kv_opt_int(c, "epochs", 1, 100000, &epochs, e);
    if (rc == 0) rc = kv_opt_int(c, "patience", 1, 100000, &patience, e);
    if (rc) return rc;
    j->train.hidden = (uint32_t)hidden;
    j->train.batch = (uint32_t)batch;
    j->train.epochs = (uint32_t)epochs;
    j->train.patience = (uint32_t)patience;
    return 0;
}

// ---- one network -------------------------------------------------------------------------

// Writes a safetensors file that PyTorch loads into Sequential(Linear, ReLU, Linear, ReLU, Linear).
static int save(const struct kv_train_result *r, const char *path, const char *const *meta,
                size_t n_meta, struct kv_error *e) {
    static const char *const names[] = {"0.weight", "0.bias",   "2.weight",
                                        "2.bias",   "4.weight", "4.bias"};
    const size_t width[] = {KV_TRAIN_INPUTS, r->hidden, r->hidden, r->n_classes};
    struct kv_tensor tensors[6];
    char *header;
    size_t header_bytes;
    uint64_t total;
    for (size_t i = 0; i < 6; i++) {
        size_t l = i / 2;
        tensors[i] = (struct kv_tensor){
            .dtype = "F32", .n_dims = i % 2 ? 1 : 2, .dims = {width[l + 1], i % 2 ? 0 : width[l]}};
        snprintf(tensors[i].name, sizeof tensors[i].name, "%s", names[i]);
    }
    int rc = kv_safetensors_layout(tensors, 6, meta, n_meta, &header, &header_bytes, &total, e);
    if (rc) return rc;
    uint8_t *file = kv_alloc(total, 1);
    memcpy(file, header, header_bytes);
    for (size_t i = 0; i < 6; i++)
        memcpy(file + tensors[i].offset, i % 2 ? r->bias[i / 2] : r->weight[i / 2],
               tensors[i].n_bytes);
    rc = kv_write_file(path, file, total, e);
    free(file);
    free(header);
    return rc;
}

static int save_described(const struct job *j, const struct kv_cli *c, const char *labels,
                          const struct kv_train_result *r, const char *path, struct kv_error *e) {
    const struct kv_train_options *o = &j->train;
    char *made =
        kv_format_text("labels %s, bits %s, format %s, alpha %g, beta %g, gamma %g, rate "
                       "%g, batch %u, epoch %zu, seed %llu",
                       labels, kv_opt(c, "bits"), j->format->canonical, o->alpha, o->beta, o->gamma,
                       o->rate, o->batch, r->best_epoch + 1, (unsigned long long)o->seed);
    const char *meta[] = {"inputs", KV_NET_INPUTS,
                          "bits",   kv_opt(c, "bits"),
                          "made",   made,
                          "trace",  kv_trace_info(j->trace)->digest,
                          "tool",   "kvsim " KV_VERSION};
    int rc = save(r, path, meta, 5, e);
    free(made);
    return rc;
}

// Shares of the widths that the network picks on all tokens, and their mean.
static double histogram(const struct job *j, const struct kv_train_result *r, double *share) {
    uint8_t *picked = kv_alloc(j->data.n_tokens, 1);
    double mean = 0;
    kv_train_pick(r, j->x, j->data.n_tokens, picked);
    memset(share, 0, KV_TRAIN_MAX_CLASSES * sizeof *share);
    for (size_t t = 0; t < j->data.n_tokens; t++)
        share[picked[t]] += 1.0 / (double)j->data.n_tokens;
    for (size_t k = 0; k < j->data.n_classes; k++) mean += share[k] * j->bits[k];
    free(picked);
    return mean;
}

// What is told of a single network beside its row: log, confusion, importance.
static int print_details(const struct job *j, const struct kv_train_result *r, struct kv_error *e) {
    static const char *const inputs[] = {"entropy", "rarity", "attn_var", "confidence"};
    static const struct kv_column log_columns[] = {{"epoch", KV_RIGHT},
                                                   {"train_loss", KV_RIGHT},
                                                   {"valid_loss", KV_RIGHT},
                                                   {"valid_accuracy", KV_RIGHT}},
                                  importance_columns[] = {{"shuffled", KV_LEFT},
                                                          {"accuracy_drop", KV_RIGHT},
                                                          {"loss_rise", KV_RIGHT}};
    struct kv_table *t = kv_table_new(log_columns, 4);
    for (size_t i = 0; i < r->n_epochs; i++) {
        kv_table_count(t, (long long)i + 1);
        kv_table_number(t, r->epochs[i].train_loss, 4);
        kv_table_number(t, r->epochs[i].valid_loss, 4);
        kv_table_number(t, r->epochs[i].valid_accuracy, 4);
    }
    int rc = kv_table_print(t, KV_OUT_TEXT, e);
    printf("\nlabel (row) and what the network picks, validation tokens\n");
    struct kv_column columns[KV_TRAIN_MAX_CLASSES + 1] = {{"bits", KV_RIGHT}};
    char name[KV_TRAIN_MAX_CLASSES][16];
    for (size_t k = 0; k < j->data.n_classes; k++) {
        snprintf(name[k], sizeof name[k], "%g", j->bits[k]);
        columns[k + 1] = (struct kv_column){name[k], KV_RIGHT};
    }
    t = kv_table_new(columns, j->data.n_classes + 1);
    for (size_t k = 0; k < j->data.n_classes; k++) {
        kv_table_text(t, name[k]);
        for (size_t p = 0; p < j->data.n_classes; p++)
            kv_table_count(t, (long long)r->confusion[k][p]);
    }
    if (rc == 0) rc = kv_table_print(t, KV_OUT_TEXT, e);
    printf("\nwhat each feature is worth, validation tokens\n");
    t = kv_table_new(importance_columns, 3);
    for (size_t i = 0; i < KV_TRAIN_INPUTS; i++) {
        kv_table_text(t, inputs[i]);
        kv_table_number(t, r->accuracy_drop[i], 4);
        kv_table_number(t, r->loss_rise[i], 4);
    }
    if (rc == 0) rc = kv_table_print(t, KV_OUT_TEXT, e);
    printf("\n");
    return rc;
}

// DIR/NAME.svg, .png, .tsv and .gp; the name is that of the network's file.
static int draw_curve(const struct kv_cli *c, const struct kv_train_result *r, const char *path,
                      double mean_bits, struct kv_error *e) {
    const char *dir = kv_opt(c, "figure"), *slash = strrchr(path, '/');
    if (!dir) return 0;
    const char *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    char *name = kv_format_text("%.*s", (int)(dot ? dot - base : (long)strlen(base)), base);
    char *clean = kv_gnuplot_text(name);
    struct kv_text t = {0};
    kv_text_addf(&t, "epoch\ttrain_loss\tvalid_loss\tvalid_accuracy\n");
    for (size_t i = 0; i < r->n_epochs; i++)
        kv_text_addf(&t, "%zu\t%.6f\t%.6f\t%.4f\n", i + 1, r->epochs[i].train_loss,
                     r->epochs[i].valid_loss, 100 * r->epochs[i].valid_accuracy);
    char *tsv = kv_text_take(&t);
    char *settings = kv_format_text(
        "name = '%s'\ndata = '%s.tsv'\ncanvas_x = 760\ncanvas_y = 540\nbest = %zu\n"
        "title_text = 'Learning curve of %s'\n"
        "subtitle_text = '%zu tokens to learn from, %zu to validate; taken at epoch %zu, %.2f bits "
        "in the mean'\n",
        clean, clean, r->best_epoch + 1, clean, r->n_train, r->n_valid, r->best_epoch + 1,
        mean_bits);
    struct kv_gnuplot g = {
        .name = "train", .file = clean, .dir = dir, .settings = settings, .data = tsv};
    int rc = kv_make_dir(dir, e);
    if (rc == 0) rc = kv_gnuplot_draw(&g, e);
    if (rc == 0) kv_say("drawn: %s/%s.svg", dir, clean);
    free(tsv);
    free(settings);
    free(clean);
    free(name);
    return rc;
}

// ---- all of them -------------------------------------------------------------------------

static const struct kv_column columns[] = {
    {"labels", KV_LEFT},  {"alpha", KV_RIGHT},      {"beta", KV_RIGHT},     {"gamma", KV_RIGHT},
    {"epochs", KV_RIGHT}, {"valid_loss", KV_RIGHT}, {"accuracy", KV_RIGHT}, {"mean_bits", KV_RIGHT},
    {"shares", KV_LEFT},  {"spec", KV_LEFT}};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

struct output {
    struct kv_table *table;
    struct kv_text sweep; // a line a network, for `kvsim sweep`
    const char *out;
    bool several;
};

static int set_labels(struct job *j, const char *labels, struct kv_error *e) {
    if (strcmp(labels, "quartile") == 0)
        kv_label_quartiles(j->x, j->data.n_tokens, j->data.n_classes, j->label);
    else if (strcmp(labels, "oracle") == 0)
        kv_label_oracle(j->damage, j->data.n_tokens, j->data.n_classes, j->bound, j->label);
    else
        return kv_fail(e, KV_EUSAGE, "train", "--labels %s: quartile or oracle is expected",
                       labels);
    return 0;
}

static int train_one(struct job *j, const struct kv_cli *c, const char *labels, struct output *out,
                     struct kv_error *e) {
    const struct kv_train_options *o = &j->train;
    struct kv_train_result r;
    int rc = kv_train(&j->data, o, &r, e);
    if (rc) return rc;
    char *path = out->several ? kv_format_text("%s/%s-a%g-b%g-g%g.safetensors", out->out, labels,
                                               o->alpha, o->beta, o->gamma)
                              : kv_strdup(out->out);
    rc = save_described(j, c, labels, &r, path, e);
    double share[KV_TRAIN_MAX_CLASSES], mean = histogram(j, &r, share);
    if (rc == 0) rc = draw_curve(c, &r, path, mean, e);
    struct kv_text shares = {0};
    for (size_t k = 0; k < j->data.n_classes; k++)
        kv_text_addf(&shares, "%s%.3f", k ? "/" : "", share[k]);
    char *spec =
        kv_format_text("mlp:bits=%s,weights=%s@%s", kv_opt(c, "bits"), path, kv_opt(c, "format"));
    kv_text_addf(&out->sweep, "%s\n", spec);
    kv_table_text(out->table, labels);
    kv_table_number(out->table, o->alpha, -1);
    kv_table_number(out->table, o->beta, -1);
    kv_table_number(out->table, o->gamma, -1);
    kv_table_count(out->table, (long long)r.n_epochs);
    kv_table_number(out->table, r.epochs[r.best_epoch].valid_loss, 4);
    kv_table_number(out->table, r.epochs[r.best_epoch].valid_accuracy, 4);
    kv_table_number(out->table, mean, 3);
    kv_table_text(out->table, shares.s);
    kv_table_text(out->table, spec);
    if (rc == 0 && !out->several && c->output == KV_OUT_TEXT) rc = print_details(j, &r, e);
    free(shares.s);
    free(spec);
    free(path);
    kv_train_result_free(&r);
    return rc;
}

// Every combination of the four lists.
static int train_all(struct job *j, const struct kv_cli *c, struct output *out,
                     struct kv_error *e) {
    static const char *const names[] = {"labels", "alpha", "beta", "gamma"};
    char **list[4];
    size_t n[4], total = 1;
    for (size_t i = 0; i < 4; i++) total *= n[i] = kv_opt_list(c, names[i], &list[i]);
    out->several = total > 1;
    int rc = total ? 0 : kv_fail(e, KV_EUSAGE, "train", "an empty list leaves nothing to train");
    if (rc == 0 && out->several) rc = kv_make_dir(out->out, e);
    for (size_t i = 0; i < total && rc == 0; i++) {
        size_t at[4], rest = i;
        double *weight[4] = {NULL, &j->train.alpha, &j->train.beta, &j->train.gamma};
        for (size_t k = 4; k-- > 0; rest /= n[k]) at[k] = rest % n[k];
        for (size_t k = 1; k < 4 && rc == 0; k++) {
            char *end;
            *weight[k] = strtod(list[k][at[k]], &end);
            if (end == list[k][at[k]] || *end || !(*weight[k] >= 0))
                rc = kv_fail(e, KV_EUSAGE, "train", "--%s %s: a number of at least 0 is expected",
                             names[k], list[k][at[k]]);
        }
        if (rc == 0) rc = set_labels(j, list[0][at[0]], e);
        if (rc == 0) rc = train_one(j, c, list[0][at[0]], out, e);
        if (rc == 0 && kv_interrupted()) rc = kv_fail(e, KV_EINTR, "train", "interrupted");
    }
    for (size_t i = 0; i < 4; i++) kv_list_free(list[i], n[i]);
    return rc;
}

static int train(struct kv_cli *c, struct kv_error *e) {
    struct job j;
    struct output out = {.out = kv_opt(c, "out")};
    if (strcmp(c->args[0], "mlp") != 0)
        return kv_fail(e, KV_EUSAGE, "train", "'%s': mlp is what can be trained", c->args[0]);
    int rc = open_job(&j, c, e);
    if (rc == 0) rc = read_options(&j, c, e);
    out.table = kv_table_new(columns, N_COLUMNS);
    if (rc == 0) {
        struct kv_text said = {0};
        for (size_t k = 0; k < j.data.n_classes; k++)
            kv_text_addf(&said, "%s%g bits: latency %.3f, quality %.3f", k ? "; " : "", j.bits[k],
                         j.data.latency[k], j.data.quality[k]);
        kv_say("%s", said.s);
        free(said.s);
        rc = train_all(&j, c, &out, e);
    }
    if (rc == 0) rc = kv_table_print(out.table, c->output, e);
    if (rc == 0 && out.several) {
        char *path = kv_format_text("%s/mlp.sweep", out.out);
        rc = kv_write_file(path, out.sweep.s, out.sweep.n, e);
        if (rc == 0) kv_say("%s names them all, for `kvsim sweep`", path);
        free(path);
    }
    free(out.sweep.s);
    close_job(&j);
    return rc ? rc : kv_flush_stdout(e);
}

const struct kv_command kv_cmd_train = {
    .name = "train",
    .summary = "trains the controller of policy mlp; lists of loss weights train one network each",
    .usage = "mlp TRACE",
    .example = "kvsim train mlp build/samples.trace --beta 0.1,0.5,1 -o build/mlp",
    .options = options,
    .min_args = 2,
    .max_args = 2,
    .run = train};
