// SPDX-License-Identifier: Apache-2.0
// Which models are measured, and in which order.
#include "sim/cost/bench.h"
#include "sim/base/talk.h"
#include "sim/model/model.h"

// ---- models ---------------------------------------------------------------------------

int kv_bench_shape(struct kv_bench_model *m, const char *name, struct kv_error *e) {
    const struct kv_shape *s = kv_shape_named(name);
    if (!s)
        return kv_fail(e, KV_EUSAGE, "bench", "--shape: '%s' is none of 135m, 360m, 1.7b", name);
    *m = (struct kv_bench_model){.shape_name = name,
                                 .decoder = {.shape = *s, .rms_eps = 1e-5f, .rope_base = 10000}};
    return 0;
}

static void model_rows(void *self, enum kv_decoder_matrix matrix, uint32_t layer, size_t first,
                       size_t n, float *out) {
    const struct kv_model *m = self;
    const struct kv_layer_weights *l = &m->layers[layer];
    float *const norms[KV_N_MATRICES] = {[KV_M_ATTN_NORM] = l->attn_norm,
                                         [KV_M_FFN_NORM] = l->ffn_norm,
                                         [KV_M_FINAL_NORM] = m->final_norm};
    const struct kv_matrix *const matrices[KV_N_MATRICES] = {[KV_M_QKV] = &l->qkv,
                                                             [KV_M_OUT] = &l->out,
                                                             [KV_M_GATEUP] = &l->gateup,
                                                             [KV_M_DOWN] = &l->down,
                                                             [KV_M_HEAD] = &m->head};
    if (norms[matrix]) {
        memcpy(out, norms[matrix], m->shape.hidden * sizeof *out);
        return;
    }
    const struct kv_matrix *w = matrices[matrix];
    memcpy(out, w->f32 + first * w->cols, n * w->cols * sizeof *out);
}

int kv_bench_open(struct kv_bench_model *m, const char *path, struct kv_error *e) {
    struct kv_model *model;
    int rc = kv_model_open(&model, path, KV_WEIGHTS_F32, e);
    if (rc) return rc;
    *m = (struct kv_bench_model){.shape_name = "",
                                 .decoder = {.shape = model->shape,
                                             .order = model->order,
                                             .rms_eps = model->rms_eps,
                                             .rope_base = model->rope[0].base,
                                             .source = {model, model_rows}},
                                 .model = model};
    const char *name;
    for (size_t i = 0; (name = kv_shape_name_at(i)); i++)
        if (kv_shape_named(name)->hidden == model->shape.hidden) m->shape_name = name;
    return 0;
}

void kv_bench_close(struct kv_bench_model *m) {
    kv_model_close(m->model);
}

int kv_bench_weights(enum kv_weight_kind *kind, const char *name, struct kv_error *e) {
    for (int i = 0; kv_weight_kind_names[i]; i++)
        if (strcmp(kv_weight_kind_names[i], name) == 0) {
            *kind = (enum kv_weight_kind)i;
            return 0;
        }
    return kv_fail(e, KV_EUSAGE, "bench", "--weights: '%s' is none of f32, bf16, q8, q4", name);
}

// ---- runs -----------------------------------------------------------------------------

int kv_bench_run(const struct kv_bench *b, const struct kv_bench_model *m, struct kv_runs *runs,
                 struct kv_error *e) {
    struct kv_timing t = b->grid;
    t.shape_name = m->shape_name;
    t.decoder = m->decoder;
    t.decoder.features = b->features;
    t.synthetic = !m->model;
    for (size_t w = 0; w < b->n_weights; w++)
        for (size_t k = 0; k < b->n_threads; k++) {
            size_t first = runs->n;
            t.decoder.weights = b->weights[w];
            t.decoder.n_threads = b->threads[k];
            int rc = kv_timing_run(&t, runs, e);
            if (rc) return rc;
            kv_runs_add_policy(runs, first, b->policy_ns);
        }
    return 0;
}

void kv_bench_warn_if_busy(const struct kv_runs *r) {
    size_t kept = 0, disturbed = 0;
    for (size_t i = 0; i < r->n; i++) {
        kept += r->row[i].samples;
        disturbed += r->row[i].disturbed;
    }
    if (disturbed > kept)
        kv_say("warning: other programs took a core away during %zu steps (%zu are kept): measure "
               "on a quiet machine",
               disturbed, kept);
}
