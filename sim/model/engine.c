// SPDX-License-Identifier: Apache-2.0
// Loading a library that runs whole passes, and describing a model to it.
#include "sim/model/engine.h"

#include <stdlib.h>

#include "sim/base/library.h"
#include "sim/base/memory.h"
#include "sim/model/layer.h"

static struct kv_engine_layer describe_layer(const struct kv_layer_weights *w) {
    return (struct kv_engine_layer){.attn_norm = w->attn_norm,
                                    .qkv = w->qkv.f32,
                                    .qkv_bias = w->qkv_bias,
                                    .q_norm = w->q_norm,
                                    .k_norm = w->k_norm,
                                    .out = w->out.f32,
                                    .out_bias = w->out_bias,
                                    .attn_post_norm = w->attn_post_norm,
                                    .ffn_norm = w->ffn_norm,
                                    .gateup = w->gateup.f32,
                                    .gateup_bias = w->gateup_bias,
                                    .down = w->down.f32,
                                    .down_bias = w->down_bias,
                                    .ffn_post_norm = w->ffn_post_norm,
                                    .window = w->window,
                                    .rope = w->rope};
}

static struct kv_engine_model describe(const struct kv_model *m,
                                       const struct kv_engine_layer *layers) {
    const struct kv_shape *s = &m->shape;
    struct kv_engine_model to = {.n_layers = s->n_layers,
                                 .n_heads = s->n_heads,
                                 .n_kv_heads = s->n_kv_heads,
                                 .head_dim = s->head_dim,
                                 .hidden = s->hidden,
                                 .ffn = s->ffn,
                                 .vocab = s->vocab,
                                 .pairwise = m->order == KV_ORDER_GGML,
                                 .gelu = m->activation == KV_GELU_TANH,
                                 .rms_eps = m->rms_eps,
                                 .embed_scale = m->embed_scale,
                                 .query_scale = kv_query_gain(m) / sqrtf((float)s->head_dim),
                                 .n_positions = s->max_tokens,
                                 .embed = m->embed.f32,
                                 .head = m->head.f32,
                                 .final_norm = m->final_norm,
                                 .layers = layers};
    for (size_t i = 0; i < m->n_ropes; i++) {
        to.cos[i] = m->rope[i].cos;
        to.sin[i] = m->rope[i].sin;
    }
    return to;
}

int kv_engine_attach(struct kv_model *m, const char *path, bool bf16, struct kv_error *e) {
    char why[256] = "";
    if (!m->head.f32)
        return kv_fail(e, KV_EUSAGE, path, "takes float32 weights; this model is held as %s",
                       m->weights_as);
    void (*entry)(void);
    int rc = kv_library_load(path, false, "kv_engine_entry", NULL, &entry, e);
    if (rc) return rc;
    const struct kv_engine *engine = ((kv_engine_entry_fn *)entry)(KV_ENGINE_ABI);
    if (!engine || engine->abi != KV_ENGINE_ABI)
        return kv_fail(e, KV_EFAIL, path, "was not built for engine ABI %d", KV_ENGINE_ABI);
    struct kv_engine_layer *layers = kv_alloc(m->n_layers, sizeof *layers);
    for (size_t i = 0; i < m->n_layers; i++) layers[i] = describe_layer(&m->layers[i]);
    struct kv_engine_model model = describe(m, layers);
    int failed = engine->open(&m->engine_self, &model, bf16, why, sizeof why);
    free(layers);
    if (failed) return kv_fail(e, KV_EFAIL, path, "cannot start: %s", why);
    m->engine = engine;
    m->engine_bf16 = bf16;
    return 0;
}

void kv_engine_detach(struct kv_model *m) {
    if (m->engine) m->engine->close(m->engine_self);
    m->engine = NULL;
}
