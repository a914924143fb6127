// SPDX-License-Identifier: Apache-2.0
// Gathers what controllers learn from, trains them and writes their weights.
#include "analysis/studies/controller.h"

#include <stdlib.h>

#include "sim/base/cache_types.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/version.h"
#include "sim/base/work.h"
#include "sim/cost/cost.h"
#include "sim/model/safetensors.h"
#include "sim/replay/damage.h"

const char *const kv_train_labels_names[] = {"quartile", "oracle", NULL};

// What all networks are trained on.
struct ground {
    const struct kv_trace *trace;
    const struct kv_controller_options *o;
    struct kv_format *format;
    struct kv_cell_table *table; // damage; NULL where the trace cannot tell and nothing asks for it
    struct kv_train_data data;
    float *x;
    uint8_t *label;
    uint32_t *item;
    double *rank;                       // [n_tokens] what the threshold rule compares
    double *damage;                     // [n_tokens][n_units][n_bits]
    char *widths;                       // "2/4/8/16"
    size_t width[KV_TRAIN_MAX_CLASSES]; // of each in the format's table
};

// Whether a token has several widths.
static bool is_split(const struct ground *g) {
    return g->o->grain != KV_NET_TOKEN;
}

// ---- what is trained on ---------------------------------------------------------------

static int find_widths(struct ground *g, struct kv_error *e) {
    const struct kv_controller_options *o = g->o;
    struct kv_text t = {0};
    int rc = 0;
    if (o->n_bits < 2 || o->n_bits > KV_TRAIN_MAX_CLASSES)
        return kv_fail(e, KV_EUSAGE, "bits", "from 2 to %d widths are taken", KV_TRAIN_MAX_CLASSES);
    g->data.n_classes = o->n_bits;
    for (size_t k = 0; k < o->n_bits; k++) kv_text_addf(&t, "%s%g", k ? "/" : "", o->bits[k]);
    g->widths = kv_text_take(&t);
    for (size_t k = 0; k < o->n_bits && rc == 0; k++) {
        size_t w = 0;
        while (w < g->format->n_widths && g->format->width_bits[w] != o->bits[k]) w++;
        g->width[k] = w;
        if (w == g->format->n_widths)
            rc = kv_fail(e, KV_EUSAGE, "bits", "format %s does not offer %g bits",
                         g->format->type->name, o->bits[k]);
        else if (k && o->bits[k] <= o->bits[k - 1])
            rc = kv_fail(e, KV_EUSAGE, "bits", "%s: widths must rise", g->widths);
    }
    return rc;
}

// A token's damage at each width, all cells of a unit stored so.
static void add_damage(const struct ground *g, const float *table, size_t row, double *damage) {
    const struct kv_shape *s = &kv_trace_info(g->trace)->shape;
    size_t cells = kv_cells(s);
    for (size_t k = 0; k < g->o->n_bits; k++)
        for (size_t cell = 0; cell < cells; cell++)
            damage[kv_net_unit(s, g->o->grain, cell) * g->o->n_bits + k] +=
                (double)table[(row * g->format->n_widths + g->width[k]) * cells + cell];
}

static void gather(struct ground *g) {
    static const size_t inputs[KV_TRAIN_INPUTS] = {KV_ENTROPY_NATS, KV_RARITY_NATS, KV_ATTN_VAR,
                                                   KV_CONFIDENCE};
    const struct kv_trace_info *in = kv_trace_info(g->trace);
    size_t n = 0, units = kv_net_units(&in->shape, g->o->grain);
    g->data.n_units = units;
    g->x = kv_alloc(in->n_tokens * KV_TRAIN_INPUTS, sizeof *g->x);
    g->label = kv_alloc(in->n_tokens * units, sizeof *g->label);
    g->item = kv_alloc(in->n_tokens, sizeof *g->item);
    g->rank = kv_alloc(in->n_tokens, sizeof *g->rank);
    if (g->table) g->damage = kv_alloc(in->n_tokens * units * g->o->n_bits, sizeof *g->damage);
    for (size_t i = 0; i < in->n_items; i++) {
        const struct kv_trace_item *it = kv_trace_item(g->trace, i);
        for (size_t row = 0; row < it->n_tokens; row++, n++) {
            g->item[n] = (uint32_t)i;
            for (size_t f = 0; f < KV_TRAIN_INPUTS; f++)
                g->x[n * KV_TRAIN_INPUTS + f] = it->features[row * KV_N_FEATURES + inputs[f]];
            if (g->table)
                add_damage(g, kv_cell_table_item(g->table, i), row,
                           g->damage + n * units * g->o->n_bits);
        }
    }
    kv_train_feature_means(g->x, n, g->rank);
    g->data.n_tokens = n;
    g->data.n_items = in->n_items;
    g->data.x = g->x;
    g->data.label = g->label;
    g->data.item = g->item;
}

// exp(-KL) a scored token, mean KL over items, of storing everything at each width.
static void measure_quality(struct ground *g) {
    const struct kv_trace_info *in = kv_trace_info(g->trace);
    for (size_t k = 0; k < g->o->n_bits; k++) {
        double sum = 0;
        for (size_t i = 0; i < in->n_items; i++) {
            const struct kv_trace_item *it = kv_trace_item(g->trace, i);
            size_t cells = it->n_tokens * kv_cells(&in->shape);
            uint8_t *all = memset(kv_alloc(cells, 1), (int)g->width[k], cells);
            sum += kv_fisher_kl(g->trace, i, g->table, g->format->n_widths, all, NULL);
            free(all);
        }
        g->data.quality[k] = exp(-sum / (double)in->n_items);
    }
}

// The cache's part of a step with everything at each width, as a share of the widest's.
static int measure_latency(struct ground *g, struct kv_error *e) {
    const char *name = g->o->device ? g->o->device : kv_device_default_name();
    double ns[KV_TRAIN_MAX_CLASSES];
    size_t last = g->o->n_bits - 1;
    struct kv_device *d;
    int rc = kv_device_open(&d, name, e);
    if (rc) return rc;
    for (size_t k = 0; k <= last; k++) {
        struct kv_ledger all = {0};
        kv_ledger_name_types(&all, g->format->canonical);
        for (int side = 0; side < 2; side++) {
            struct kv_unit_size u =
                kv_format_size(g->format, (enum kv_side)side, (uint32_t)g->width[k]);
            all.share[side][(size_t)g->o->bits[k]] = 1;
            all.allocated_bits += 4.0 * u.bytes / u.values;
        }
        ns[k] = kv_device_step(d, &all, g->o->context, 0).cache_ns;
    }
    for (size_t k = 0; k <= last; k++) g->data.latency[k] = ns[k] / ns[last];
    kv_device_free(d);
    return 0;
}

static void say_loss(const struct ground *g) {
    struct kv_text t = {0};
    for (size_t k = 0; k < g->o->n_bits; k++)
        kv_text_addf(&t, "%s%g bits: latency %.3f, quality %.3f", k ? "; " : "", g->o->bits[k],
                     g->data.latency[k], g->data.quality[k]);
    kv_say("%s", t.s);
    free(t.s);
}

// Quality that weighs nothing is not measured, and damage that nothing asks for is not read.
static int prepare(struct ground *g, const struct kv_controller *c, size_t n, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(g->trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    bool quality = false, oracle = false;
    struct kv_error why = {0};
    for (size_t i = 0; i < n; i++) {
        quality |= !g->o->quality && c[i].gamma > 0;
        oracle |= c[i].labels == KV_TRAIN_LABELS_ORACLE;
        if (is_split(g) && c[i].labels != KV_TRAIN_LABELS_ORACLE)
            return kv_fail(e, KV_EUSAGE, "labels",
                           "labels by quartile are a token's; grain %s needs oracle",
                           kv_net_grains[g->o->grain]);
    }
    int rc = kv_format_open(&g->format, g->o->format, &setting, e);
    if (rc == 0) rc = find_widths(g, e);
    if (rc == 0 && g->o->n_bits * kv_net_units(&in->shape, g->o->grain) > KV_NET_MAX_WIDTH)
        rc = kv_fail(e, KV_EUSAGE, "grain", "%s of this model: %zu outputs, of at most %d",
                     kv_net_grains[g->o->grain],
                     g->o->n_bits * kv_net_units(&in->shape, g->o->grain), KV_NET_MAX_WIDTH);
    if (rc) return rc;
    // What the picks are worth is told where the trace can tell.
    rc = kv_cell_table_open(&g->table, g->trace, g->format, KV_TABLE_ISO, g->o->jobs, &why);
    if ((quality || oracle || rc == KV_EINTR) && rc) {
        *e = why;
        return rc;
    }
    if (kv_tolerate(rc, &why)) kv_say("what the picks are worth cannot be told: %s", why.msg);
    rc = 0;
    gather(g);
    if (quality) measure_quality(g);
    size_t given = g->o->n_bits * sizeof(double);
    if (g->o->quality) memcpy(g->data.quality, g->o->quality, given);
    if (g->o->latency)
        memcpy(g->data.latency, g->o->latency, given);
    else
        rc = measure_latency(g, e);
    if (rc == 0) say_loss(g);
    return rc;
}

static void ground_fini(struct ground *g) {
    void *owned[] = {g->x, g->label, g->item, g->rank, g->damage, g->widths};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    kv_cell_table_close(g->table);
    kv_format_close(g->format);
}

// ---- one network ----------------------------------------------------------------------

// Writes a safetensors file that PyTorch loads into Sequential(Linear, ReLU, Linear, ReLU, Linear).
static int write_weights(const struct kv_train_result *r, const char *path, const char *const *meta,
                         size_t n_meta, struct kv_error *e) {
    static const char *const names[] = {"0.weight", "0.bias",   "2.weight",
                                        "2.bias",   "4.weight", "4.bias"};
    const size_t width[] = {KV_TRAIN_INPUTS, r->hidden, r->hidden, r->n_classes * r->n_units};
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

static int save(const struct ground *g, const struct kv_controller *c, struct kv_error *e) {
    const struct kv_train_options *o = &g->o->train;
    char *made = kv_format_text("labels %s, bits %s, format %s, alpha %g, beta %g, gamma %g, rate "
                                "%g, batch %u, epoch %zu, seed %llu",
                                kv_train_labels_names[c->labels], g->widths, g->format->canonical,
                                c->alpha, c->beta, c->gamma, o->rate, o->batch,
                                c->result.best_epoch + 1, (unsigned long long)o->seed);
    const char *meta[] = {"inputs", KV_NET_INPUTS,
                          "bits",   g->widths,
                          "made",   made,
                          "trace",  kv_trace_info(g->trace)->digest,
                          "tool",   "kvsim " KV_VERSION,
                          "grain",  kv_net_grains[g->o->grain]};
    int rc = write_weights(&c->result, c->path, meta, is_split(g) ? 6 : 5, e);
    free(made);
    return rc;
}

static void measure_worth(const struct ground *g, const uint8_t *picked, struct kv_controller *c) {
    struct kv_worth_items items = {.trace = g->trace,
                                   .table = g->table,
                                   .n_widths = g->format->n_widths,
                                   .n_classes = g->o->n_bits,
                                   .width = g->width,
                                   .bits = g->o->bits,
                                   .part = c->result.part,
                                   .counted = KV_TRAIN_REPORTED,
                                   .rank = g->rank};
    kv_worth_measure(&c->worth, &items, picked, g->o->train.seed);
}

const char *kv_controller_verdict(const struct kv_controller *c) {
    return c->worth.n == 0 && c->result.n_units > 1 ? "not told: a token has several widths"
           : c->worth.n == 0                        ? "not told: no sensitivities"
           : kv_worth_better(&c->worth)             ? "better than the threshold rule"
                                                    : "no better than the threshold rule";
}

static void count_picks(const struct ground *g, struct kv_controller *c) {
    size_t n = g->data.n_tokens * c->result.n_units;
    uint8_t *picked = kv_alloc(n, 1);
    kv_train_pick(&c->result, g->x, g->data.n_tokens, picked);
    memset(c->share, 0, sizeof c->share);
    c->mean_bits = 0;
    for (size_t t = 0; t < n; t++) c->share[picked[t]] += 1.0 / (double)n;
    for (size_t k = 0; k < g->o->n_bits; k++) c->mean_bits += c->share[k] * g->o->bits[k];
    if (g->table && !is_split(g)) measure_worth(g, picked, c);
    free(picked);
}

static int train(struct ground *g, struct kv_controller *c, bool several, struct kv_error *e) {
    struct kv_train_options o = g->o->train;
    o.alpha = c->alpha;
    o.beta = c->beta;
    o.gamma = c->gamma;
    if (c->labels == KV_TRAIN_LABELS_QUARTILE)
        kv_label_quartiles(g->x, g->data.n_tokens, g->o->n_bits, g->label);
    else
        kv_label_oracle(g->damage, g->data.n_tokens * g->data.n_units, g->o->n_bits,
                        g->o->bound / (double)g->data.n_units, g->label);
    int rc = kv_train(&g->data, &o, &c->result, e);
    if (rc) return rc;
    c->path = several
                  ? kv_format_text("%s/%s-a%g-b%g-g%g.safetensors", g->o->out,
                                   kv_train_labels_names[c->labels], c->alpha, c->beta, c->gamma)
                  : kv_strdup(g->o->out);
    c->spec =
        kv_format_text("mlp:bits=%s%s%s,weights=%s@%s", g->widths, is_split(g) ? ",grain=" : "",
                       is_split(g) ? kv_net_grains[g->o->grain] : "", c->path, g->o->format);
    count_picks(g, c);
    return save(g, c, e);
}

// ---- all of them ----------------------------------------------------------------------

// A line a network, for `kvsim sweep`.
static int write_sweep(const struct kv_controller *c, size_t n, const char *dir,
                       struct kv_error *e) {
    struct kv_text t = {0};
    for (size_t i = 0; i < n; i++) kv_text_addf(&t, "%s\n", c[i].spec);
    char *path = kv_format_text("%s/mlp.sweep", dir);
    int rc = kv_write_file(path, t.s, t.n, e);
    if (rc == 0) kv_say("%s names them all, for `kvsim sweep`", path);
    free(path);
    free(t.s);
    return rc;
}

int kv_controllers_train(struct kv_controller *c, size_t n, const struct kv_trace *trace,
                         const struct kv_controller_options *o, struct kv_error *e) {
    struct ground g = {.trace = trace, .o = o};
    for (size_t i = 0; i < n; i++)
        c[i] = (struct kv_controller){
            .labels = c[i].labels, .alpha = c[i].alpha, .beta = c[i].beta, .gamma = c[i].gamma};
    int rc = kv_trace_check_features(kv_trace_info(trace), KV_NEED(KV_RARITY_NATS), e);
    if (rc == 0) rc = n > 1 ? kv_make_dir(o->out, e) : kv_check_output(o->out, e);
    if (rc == 0) rc = prepare(&g, c, n, e);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = train(&g, &c[i], n > 1, e);
        if (rc == 0 && kv_interrupted()) rc = kv_fail(e, KV_EINTR, "train", "interrupted");
    }
    if (rc == 0 && n > 1) rc = write_sweep(c, n, o->out, e);
    ground_fini(&g);
    return rc;
}

void kv_controllers_fini(struct kv_controller *c, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(c[i].path);
        free(c[i].spec);
        kv_train_result_free(&c[i].result);
    }
}
