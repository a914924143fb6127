// SPDX-License-Identifier: Apache-2.0
// Which models are measured, and in which order.
#include "sim/cost/bench.h"
#include <stdlib.h>

#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/model/model.h"

// ---- models ---------------------------------------------------------------------------

int kv_bench_shape(struct kv_bench_model *m, const char *name, struct kv_error *e) {
    const struct kv_published *p = kv_published_named(name);
    if (!p) return kv_shape_unknown("bench", name, e);
    *m = (struct kv_bench_model){
        .shape_name = name,
        .decoder = {.shape = p->shape, .rms_eps = 1e-5f, .rope_base = 10000, .gelu = p->gelu}};
    if (p->qkv_bias) m->decoder.vectors |= 1u << KV_M_QKV_BIAS;
    if (p->head_norms) m->decoder.vectors |= 1u << KV_M_Q_NORM | 1u << KV_M_K_NORM;
    if (p->post_norms) m->decoder.vectors |= 1u << KV_M_ATTN_POST_NORM | 1u << KV_M_FFN_POST_NORM;
    if (p->window) {
        m->windows = kv_alloc(p->shape.n_layers, sizeof *m->windows);
        for (uint32_t l = 0; l < p->shape.n_layers; l++)
            m->windows[l] = (l + 1) % p->window_pattern ? p->window : 0;
        m->decoder.windows = m->windows;
    }
    return 0;
}

// A layer's vector, or the final norm; NULL: a matrix, or the model has none.
static const float *vector_of(const struct kv_model *m, enum kv_decoder_matrix which,
                              uint32_t layer, size_t *n) {
    const struct kv_layer_weights *l = &m->layers[layer];
    const struct {
        const float *x;
        size_t n;
    } all[KV_N_MATRICES] = {[KV_M_ATTN_NORM] = {l->attn_norm, m->shape.hidden},
                            [KV_M_FFN_NORM] = {l->ffn_norm, m->shape.hidden},
                            [KV_M_FINAL_NORM] = {m->final_norm, m->shape.hidden},
                            [KV_M_QKV_BIAS] = {l->qkv_bias, l->qkv.rows},
                            [KV_M_OUT_BIAS] = {l->out_bias, m->shape.hidden},
                            [KV_M_GATEUP_BIAS] = {l->gateup_bias, l->gateup.rows},
                            [KV_M_DOWN_BIAS] = {l->down_bias, m->shape.hidden},
                            [KV_M_Q_NORM] = {l->q_norm, m->shape.head_dim},
                            [KV_M_K_NORM] = {l->k_norm, m->shape.head_dim},
                            [KV_M_ATTN_POST_NORM] = {l->attn_post_norm, m->shape.hidden},
                            [KV_M_FFN_POST_NORM] = {l->ffn_post_norm, m->shape.hidden}};
    *n = all[which].n;
    return all[which].x;
}

static void model_rows(void *self, enum kv_decoder_matrix matrix, uint32_t layer, size_t first,
                       size_t n, float *out) {
    const struct kv_model *m = self;
    const struct kv_layer_weights *l = &m->layers[layer];
    const struct kv_matrix *const matrices[KV_N_MATRICES] = {[KV_M_QKV] = &l->qkv,
                                                             [KV_M_OUT] = &l->out,
                                                             [KV_M_GATEUP] = &l->gateup,
                                                             [KV_M_DOWN] = &l->down,
                                                             [KV_M_HEAD] = &m->head};
    size_t length;
    const float *vector = vector_of(m, matrix, layer, &length);
    const struct kv_matrix *w = matrices[matrix];
    if (vector)
        memcpy(out, vector, length * sizeof *out);
    else if (w->f32)
        memcpy(out, w->f32 + first * w->cols, n * w->cols * sizeof *out);
    else
        for (size_t i = 0; i < n * w->cols; i++)
            out[i] = kv_bf16_to_f32(w->bf16[first * w->cols + i]);
}

void kv_bench_of(struct kv_bench_model *b, const struct kv_model *m) {
    const struct kv_shape *s = &m->shape;
    float usual = 1.0f / sqrtf((float)s->head_dim);
    size_t half = s->head_dim / 2, n;
    uint32_t slide = 0;
    *b = (struct kv_bench_model){.shape_name = "",
                                 .decoder = {.shape = *s,
                                             .order = m->order,
                                             .rms_eps = m->rms_eps,
                                             .rope_base = m->rope[0].base,
                                             .gelu = m->activation == KV_GELU_TANH,
                                             .rope_gain = m->rope[0].attention_factor,
                                             .source = {(void *)m, model_rows}}};
    if (m->attn_scale != usual) b->decoder.query_gain = m->attn_scale / usual;
    for (enum kv_decoder_matrix v = KV_M_QKV_BIAS; v < KV_N_MATRICES; v++)
        if (vector_of(m, v, 0, &n)) b->decoder.vectors |= 1u << v;
    b->decoder.angles = b->angles = kv_alloc(s->n_layers * half + 1, sizeof *b->angles);
    b->windows = kv_alloc(s->n_layers + 1, sizeof *b->windows);
    for (uint32_t l = 0; l < s->n_layers; l++) {
        for (uint32_t i = 0; i < half; i++)
            b->angles[l * half + i] =
                kv_rope_frequency(&m->rope[m->layers[l].rope], s->head_dim, i);
        slide |= b->windows[l] = m->layers[l].window;
    }
    if (slide) b->decoder.windows = b->windows;
    const char *name;
    for (size_t i = 0; (name = kv_shape_name_at(i)); i++) {
        const struct kv_shape *known = kv_shape_named(name);
        if (known->hidden == s->hidden && known->n_layers == s->n_layers) b->shape_name = name;
    }
}

int kv_bench_open(struct kv_bench_model *m, const char *path, const enum kv_weight_kind *kinds,
                  size_t n, struct kv_error *e) {
    struct kv_model *model;
    enum kv_weights_as as = KV_WEIGHTS_BF16;
    for (size_t i = 0; i < n; i++)
        if (kinds[i] == KV_W_F32) as = KV_WEIGHTS_F32;
    int rc = kv_model_open(&model, path, as, e);
    if (rc) return rc;
    kv_bench_of(m, model);
    m->model = model;
    return 0;
}

void kv_bench_close(struct kv_bench_model *m) {
    kv_model_close(m->model);
    free(m->angles);
    free(m->windows);
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
