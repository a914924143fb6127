// SPDX-License-Identifier: Apache-2.0
// Writes what was trained, and on what.
#include "analysis/studies/cells_file.h"

#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/model/safetensors.h"

enum { MAX_TENSORS = 32, N_META = 12 };

struct tensors {
    size_t n;
    struct kv_tensor tensor[MAX_TENSORS];
    const float *data[MAX_TENSORS];
};

// A tensor of one or two dimensions; one without elements is left out.
static void add(struct tensors *t, const char *name, const float *data, size_t rows,
                size_t columns) {
    if (!data || rows == 0 || columns == 0) return;
    struct kv_tensor *x = &t->tensor[t->n];
    *x = (struct kv_tensor){.dtype = "F32", .n_dims = 2, .dims = {rows, columns}};
    snprintf(x->name, sizeof x->name, "%s", name);
    t->data[t->n++] = data;
}

static void add_list(struct tensors *t, const char *name, const float *data, size_t n) {
    size_t at = t->n;
    add(t, name, data, n, 1);
    if (t->n > at) t->tensor[at].n_dims = 1;
}

static void list_tensors(const struct kv_cells_ground *g, const struct kv_cells_model *m,
                         const float *bias, const struct kv_cells_budget *budgets, size_t n,
                         const float *ratio, struct tensors *t) {
    size_t places = kv_cells_places(&g->of), n_x = kv_cells_features_of(&g->of), net = g->of.net;
    add(t, "channel", g->channel, places, g->shape.head_dim);
    add_list(t, "bias", bias, places);
    add(t, "linear", m->linear, places, n_x);
    add(t, "probe", m->probe, places, g->of.hidden);
    if (net) {
        add(t, "embedding", m->embedding, places, KV_CELLS_EMBEDDING);
        add(t, "net.0.weight", m->weight[0], net, n_x + KV_CELLS_EMBEDDING);
        add_list(t, "net.0.bias", m->offset[0], net);
        add(t, "net.2.weight", m->weight[1], net, net);
        add_list(t, "net.2.bias", m->offset[1], net);
        add(t, "net.4.weight", m->weight[2], 1, net);
        add_list(t, "net.4.bias", m->offset[2], 1);
    }
    add(t, "attention.mean", g->attention_mean, places / 2, g->of.n_attention);
    add(t, "attention.deviation", g->attention_deviation, places / 2, g->of.n_attention);
    add_list(t, "token.mean", g->token_mean, g->of.n_token);
    add_list(t, "token.deviation", g->token_deviation, g->of.n_token);
    for (size_t i = 0; i < n; i++) {
        char prefix[32] = "budget", name[48];
        if (i) snprintf(prefix, sizeof prefix, "budget.%zu", i);
        snprintf(name, sizeof name, "%s.lambda", prefix);
        add_list(t, name, budgets[i].lambda, KV_CELLS_BUDGETS);
        snprintf(name, sizeof name, "%s.bits", prefix);
        add_list(t, name, budgets[i].bits, KV_CELLS_BUDGETS);
        snprintf(name, sizeof name, "%s.step_bits", prefix);
        add(t, name, budgets[i].step_bits, KV_CELLS_BUDGETS, KV_CELLS_STEPS * g->shape.n_layers);
    }
    const struct kv_cells_spread *s = n ? budgets[0].spread : NULL;
    if (!s) return;
    add(t, "spread", s->quantile, KV_CELLS_SPREADS * KV_CELLS_STEPS,
        (size_t)g->shape.n_layers * KV_CELLS_QUANTILES);
    add(t, "table", s->table, KV_CELLS_CLASSES, places);
    add(t, "spread.ratio", ratio, n * KV_CELLS_SPREADS, g->o->n_widths);
}

// Of each format, over the first one's losses at the middle width: formats lie apart by a factor.
static float *ratios(const struct kv_cells_ground *g, const struct kv_cells_budget *budgets,
                     size_t n) {
    size_t row = g->o->n_widths;
    float *ratio = kv_alloc(n * KV_CELLS_SPREADS * row, sizeof *ratio);
    for (size_t i = 0; i < n; i++)
        for (size_t grain = 0; grain < KV_CELLS_SPREADS; grain++)
            for (size_t w = 0; w < row; w++)
                ratio[(i * KV_CELLS_SPREADS + grain) * row + w] =
                    budgets[i].spread->ratio[grain * row + w] + budgets[i].spread->level[grain] -
                    budgets[0].spread->level[grain];
    return ratio;
}

// ---- what the file says of itself ----------------------------------------------------------

static char *groups_text(uint32_t groups) {
    struct kv_text t = {0};
    for (size_t k = KV_CELLS_PLACE + 1; k < KV_CELLS_N_GROUPS; k++)
        if (groups >> k & 1) kv_text_addf(&t, "%s%s", t.n ? "/" : "", kv_cells_groups[k]);
    if (t.n == 0) kv_text_addf(&t, "%s", kv_cells_groups[KV_CELLS_PLACE]);
    return kv_text_take(&t);
}

static char *widths_text(const struct kv_cells_training *o) {
    struct kv_text t = {0};
    for (size_t w = 0; w < o->n_widths; w++) kv_text_addf(&t, "%s%u", w ? "/" : "", o->widths[w]);
    return kv_text_take(&t);
}

static char *formats_text(const struct kv_cells_budget *budgets, size_t n) {
    struct kv_text t = {0};
    for (size_t i = 0; i < n; i++) kv_text_addf(&t, "%s%s", i ? " " : "", budgets[i].format);
    return kv_text_take(&t);
}

static char *origin_text(const struct kv_cells_ground *g) {
    struct kv_text t = {0};
    for (size_t i = 0; i < g->n_traces; i++) {
        const struct kv_trace_info *in = kv_trace_info(g->traces[i]);
        kv_text_addf(&t, "%s%s (%s) %zu items %zu tokens trace %s task %s", i ? "; " : "",
                     in->task_name, in->subset, in->n_items, in->n_tokens, in->digest,
                     in->task_digest);
    }
    return kv_text_take(&t);
}

// What the file read again says of itself; a new one's own text.
static char *earlier_text(const struct kv_cells_ground *g, const char *key, const char *own) {
    char text[2048];
    if (!g->again) return kv_strdup(own);
    kv_tensors_text(&g->again->file, key, text, sizeof text);
    return kv_strdup(text);
}

// The command that made it; of one read again, the one that trained it and this one.
static char *command_text(const struct kv_cells_ground *g) {
    const char *own = g->o->command ? g->o->command : "";
    char *earlier = earlier_text(g, "command", own);
    if (!g->again) return earlier;
    char *both = kv_format_text("%s; %s", earlier, own);
    free(earlier);
    return both;
}

// FNV-1a, 64 bit, as policies name their weights.
static uint64_t digest_of(const uint8_t *data, size_t n) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ data[i]) * 0x100000001B3u;
    return h;
}

static int write_tensors(struct tensors *t, const char *const *meta, struct kv_cells_trained *r,
                         struct kv_error *e) {
    char *header;
    size_t header_bytes;
    uint64_t total;
    int rc =
        kv_safetensors_layout(t->tensor, t->n, meta, N_META, &header, &header_bytes, &total, e);
    if (rc) return rc;
    uint8_t *file = kv_alloc(total, 1);
    memcpy(file, header, header_bytes);
    for (size_t i = 0; i < t->n; i++)
        memcpy(file + t->tensor[i].offset, t->data[i], t->tensor[i].n_bytes);
    rc = kv_write_file(r->path, file, total, e);
    r->bytes = total;
    kv_hex64(digest_of(file, total), r->digest);
    free(file);
    free(header);
    return rc;
}

int kv_cells_write(const struct kv_cells_ground *g, const struct kv_cells_model *m,
                   const struct kv_cells_budget *budgets, size_t n, struct kv_cells_trained *r,
                   struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(g->traces[0]);
    struct kv_unit_size u = kv_format_size(g->format, KV_KEY, (uint32_t)g->width_4);
    char *inputs = groups_text(g->o->groups), *net = kv_format_text("%u", g->of.net);
    char *widths = widths_text(g->o), *on = origin_text(g);
    char *origin = earlier_text(g, "trained_on", on), *made = command_text(g);
    char *formats = formats_text(budgets, n);
    char *overhead = kv_format_text("%g", 8.0 * u.bytes / u.values - 4);
    const char *meta[2 * N_META] = {"format",        "kvsim-cells 1",
                                    "model_digest",  in->model_digest,
                                    "model_name",    in->model_name,
                                    "inputs",        inputs,
                                    "net",           net,
                                    "grain",         kv_cells_grains[g->o->grain],
                                    "widths",        widths,
                                    "cache_formats", formats,
                                    "overhead_bits", overhead,
                                    "trained_on",    origin,
                                    "spread_on",     on,
                                    "command",       made};
    float *bias = kv_alloc(kv_cells_places(&g->of), sizeof *bias);
    float *ratio = ratios(g, budgets, n);
    for (size_t p = 0; p < kv_cells_places(&g->of); p++)
        bias[p] = g->again ? g->again->bias[p] : g->bias[p] + m->bias[p];
    struct tensors t = {0};
    list_tensors(g, m, bias, budgets, n, ratio, &t);
    int rc = write_tensors(&t, meta, r, e);
    r->spec = kv_format_text("cells:weights=%s@%s", r->path, in->cells_format);
    void *owned[] = {inputs, net, widths, origin, overhead, formats, bias, ratio, on, made};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    return rc;
}

int kv_cells_write_items(const struct kv_cells_ground *g, const char *path, struct kv_error *e) {
    struct kv_text t = {0};
    kv_text_addf(&t, "trace\ttask\tid\tpart\n");
    for (size_t i = 0; i < g->n_items; i++) {
        const struct kv_trace_info *in = kv_trace_info(g->items[i].trace);
        kv_text_addf(&t, "%s\t%s\t%s\t%s\n", in->digest, in->task_name, g->items[i].item->id,
                     g->items[i].held ? "held out" : "trained");
    }
    int rc = kv_write_file(path, t.s, t.n, e);
    free(t.s);
    return rc;
}
