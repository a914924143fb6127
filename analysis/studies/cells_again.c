// SPDX-License-Identifier: Apache-2.0
// Weights of policy cells read back.
#include "analysis/studies/cells_again.h"

#include <stdlib.h>

#include "sim/base/memory.h"

static int read_settings(const struct kv_cells_weights *w, struct kv_cells_training *o,
                         struct kv_error *e) {
    o->groups = w->groups;
    o->net = (uint32_t)w->n_hidden;
    o->n_widths = w->n_listed;
    for (size_t i = 0; i < w->n_listed; i++) o->widths[i] = (uint32_t)w->listed[i];
    int grain = 0;
    while (kv_cells_grains[grain] && strcmp(kv_cells_grains[grain], w->grain) != 0) grain++;
    if (!kv_cells_grains[grain])
        return kv_fail(e, KV_EFAIL, w->file.path, "has grain '%s', which this kvsim does not know",
                       w->grain);
    o->grain = (enum kv_cells_grain)grain;
    return 0;
}

int kv_cells_again_open(struct kv_cells_weights *w, const struct kv_trace *trace,
                        struct kv_cells_training *o, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(trace);
    struct kv_tensors file;
    int rc = kv_tensors_open(&file, o->again, e);
    if (rc == 0) rc = kv_cells_weights_open(w, &file, &in->shape, NULL, e);
    if (rc) return rc;
    if (strcmp(w->model_digest, in->model_digest) != 0)
        return kv_fail(e, KV_EFAIL, o->again, "holds weights for model %s, %s is of %s",
                       w->model_digest, in->path, in->model_digest);
    return read_settings(w, o, e);
}

int kv_cells_again_model(const struct kv_cells_ground *g, struct kv_cells_model *m,
                         struct kv_error *e) {
    const struct kv_cells_weights *w = g->again;
    size_t places = kv_cells_places(&g->of), n_x = kv_cells_features_of(&g->of), net = g->of.net;
    for (size_t p = 0; p < places; p++) m->bias[p] = w->bias[p] - g->bias[p];
    if (n_x) memcpy(m->linear, w->linear, places * n_x * sizeof *m->linear);
    if (g->of.hidden) memcpy(m->probe, w->probe, places * g->of.hidden * sizeof *m->probe);
    const struct {
        const char *name;
        size_t rows, columns;
        float *to;
    } of_net[] = {{"embedding", places, KV_CELLS_EMBEDDING, m->embedding},
                  {"net.0.weight", net, n_x + KV_CELLS_EMBEDDING, m->weight[0]},
                  {"net.0.bias", net, 0, m->offset[0]},
                  {"net.2.weight", net, net, m->weight[1]},
                  {"net.2.bias", net, 0, m->offset[1]},
                  {"net.4.weight", 1, net, m->weight[2]},
                  {"net.4.bias", 1, 0, m->offset[2]}};
    struct kv_tensors file;
    int rc = net ? kv_tensors_open(&file, w->file.path, e) : 0;
    if (rc || !net) return rc;
    for (size_t i = 0; i < sizeof of_net / sizeof *of_net && rc == 0; i++) {
        size_t columns = of_net[i].columns, shape[2] = {of_net[i].rows, columns};
        const float *x;
        rc = kv_tensors_take(&file, of_net[i].name, columns ? 2 : 1, shape, &x, e);
        if (rc == 0) memcpy(of_net[i].to, x, shape[0] * (columns ? columns : 1) * sizeof *x);
    }
    kv_tensors_close(&file);
    return rc;
}

static int take_curve(struct kv_tensors *file, size_t i, size_t layers, struct kv_cells_budget *b,
                      struct kv_error *e) {
    char prefix[32] = "budget", name[48];
    const struct {
        const char *name;
        size_t columns;
        float *to;
    } parts[] = {{"lambda", 0, b->lambda},
                 {"bits", 0, b->bits},
                 {"step_bits", KV_CELLS_STEPS * layers, b->step_bits}};
    if (i) snprintf(prefix, sizeof prefix, "budget.%zu", i);
    for (size_t k = 0; k < 3; k++) {
        size_t columns = parts[k].columns, shape[2] = {KV_CELLS_BUDGETS, columns};
        const float *x;
        snprintf(name, sizeof name, "%s.%s", prefix, parts[k].name);
        int rc = kv_tensors_take(file, name, columns ? 2 : 1, shape, &x, e);
        if (rc) return rc;
        memcpy(parts[k].to, x, KV_CELLS_BUDGETS * (columns ? columns : 1) * sizeof *x);
    }
    return 0;
}

int kv_cells_again_budgets(const struct kv_cells_ground *g, struct kv_cells_budget *budget,
                           size_t n, struct kv_error *e) {
    const char *at = g->again->formats;
    struct kv_tensors file;
    int rc = kv_tensors_open(&file, g->again->file.path, e);
    if (rc) return rc;
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t length = strcspn(at, " ");
        if (strlen(budget[i].format) != length || memcmp(budget[i].format, at, length) != 0)
            rc = kv_fail(e, KV_EFAIL, g->again->file.path,
                         "tells budgets of %s, the recordings have cells of %s", g->again->formats,
                         g->format->canonical);
        else
            rc = take_curve(&file, i, g->shape.n_layers, &budget[i], e);
        at += length + (at[length] == ' ');
    }
    kv_tensors_close(&file);
    return rc;
}
