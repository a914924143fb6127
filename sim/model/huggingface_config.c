// SPDX-License-Identifier: Apache-2.0
// What the config.json of a Hugging Face folder says of a model.
//
// Keys and their defaults: LlamaConfig, Qwen2Config, Qwen3Config and Gemma3TextConfig of
// https://github.com/huggingface/transformers, versions 4 and 5.
#include <stdlib.h>

#include "sim/model/huggingface.h"
#include "sim/model/weights.h"

static bool is_zero(const json_t *v) {
    return json_is_number(v) && json_number_value(v) == 0;
}

// Finds the architecture; what changes its computation and is not computed here is refused.
static int find_architecture(const struct kv_architecture **a, json_t *config, const char *path,
                             struct kv_error *e) {
    const json_t *list = json_object_get(config, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    int rc = kv_architecture_find(a, KV_LAYOUT_HF, name ? name : "not stated", "the architecture",
                                  path, e);
    if (rc) return rc;
    for (const char *const *key = (*a)->refused; *key; key++)
        if (kv_json_is_set(config, *key) && !is_zero(json_object_get(config, *key)))
            return kv_fail(e, KV_EFAIL, path, "%s is set, which is not computed", *key);
    const char *act = json_string_value(json_object_get(config, (*a)->activation_key));
    if (act && strcmp(act, (*a)->activation_name) != 0)
        return kv_fail(e, KV_EFAIL, path, "%s is %.60s; only %s is computed", (*a)->activation_key,
                       act, (*a)->activation_name);
    return KV_OK;
}

static int read_shape(struct kv_shape *s, const struct kv_architecture *a, const json_t *config,
                      const char *path, struct kv_error *e) {
    int rc = kv_json_count(config, path, "num_hidden_layers", false, &s->n_layers, e);
    if (!rc) rc = kv_json_count(config, path, "hidden_size", false, &s->hidden, e);
    if (!rc) rc = kv_json_count(config, path, "intermediate_size", false, &s->ffn, e);
    if (!rc) rc = kv_json_count(config, path, "num_attention_heads", false, &s->n_heads, e);
    s->n_kv_heads = a->n_kv_heads ? a->n_kv_heads : s->n_heads;
    if (!rc) rc = kv_json_count(config, path, "num_key_value_heads", true, &s->n_kv_heads, e);
    s->head_dim = a->head_dim || !s->n_heads ? a->head_dim : s->hidden / s->n_heads;
    if (!rc) rc = kv_json_count(config, path, "head_dim", true, &s->head_dim, e);
    if (!rc) rc = kv_json_count(config, path, "vocab_size", false, &s->vocab, e);
    s->max_tokens = a->max_tokens;
    if (!rc) rc = kv_json_count(config, path, "max_position_embeddings", true, &s->max_tokens, e);
    return rc ? rc : kv_weights_check_shape(s, path, e);
}

// ---- windows --------------------------------------------------------------------------

enum { WINDOW = 4096, MAX_WINDOW_LAYERS = 28 }; // where the configuration does not say

// Lists which layers slide where the configuration does.
static int read_layer_types(struct kv_model *m, const json_t *list, uint32_t window,
                            const char *path, struct kv_error *e) {
    if (json_array_size(list) != m->n_layers)
        return kv_fail(e, KV_EFAIL, path, "layer_types lists %zu layers, but the model has %zu",
                       json_array_size(list), m->n_layers);
    for (size_t i = 0; i < m->n_layers; i++) {
        const char *type = json_string_value(json_array_get(list, i));
        bool slides = type && strcmp(type, "sliding_attention") == 0;
        if (!slides && !(type && strcmp(type, "full_attention") == 0))
            return kv_fail(e, KV_EFAIL, path,
                           "layer_types has %.60s at %zu; only full_attention and "
                           "sliding_attention are computed",
                           type ? type : "no text", i);
        if (slides && m->architecture->windows == KV_WINDOWS_NONE)
            return kv_fail(e, KV_EFAIL, path,
                           "layer_types has sliding_attention at %zu, which is not computed for %s",
                           i, m->architecture->title);
        m->layers[i].window = slides ? window : 0;
        m->layers[i].rope = slides && m->n_ropes > 1;
    }
    return KV_OK;
}

static int read_windows(struct kv_model *m, const json_t *config, const char *path,
                        struct kv_error *e) {
    enum kv_windows kind = m->architecture->windows;
    const json_t *types = json_object_get(config, "layer_types");
    uint32_t window = WINDOW, pattern = KV_WINDOW_PATTERN, first = MAX_WINDOW_LAYERS;
    int rc = kv_json_count(config, path, "sliding_window", true, &window, e);
    if (!rc) rc = kv_json_count(config, path, "_sliding_window_pattern", true, &pattern, e);
    if (!rc) rc = kv_json_count(config, path, "sliding_window_pattern", true, &pattern, e);
    if (!rc) rc = kv_json_count(config, path, "max_window_layers", true, &first, e);
    if (rc) return rc;
    if (kind == KV_WINDOWS_LAST && !kv_json_is_set(config, "use_sliding_window")) window = 0;
    if (kind == KV_WINDOWS_MOST && !(window && pattern))
        return kv_fail(e, KV_EFAIL, path, "%s is 0; the model's layers slide",
                       window ? "sliding_window_pattern" : "sliding_window");
    if (types && !json_is_null(types)) return read_layer_types(m, types, window, path, e);
    if (kind == KV_WINDOWS_MOST) kv_architecture_slide(m, window, pattern);
    for (size_t i = first; i < m->n_layers && kind == KV_WINDOWS_LAST; i++)
        m->layers[i].window = window;
    return KV_OK;
}

// ---- the whole ------------------------------------------------------------------------

static int read_settings(struct kv_model *m, json_t *config, const char *path, unsigned *biases,
                         struct kv_error *e) {
    const struct kv_architecture *a;
    int rc = find_architecture(&a, config, path, e);
    if (!rc) rc = read_shape(&m->shape, a, config, path, e);
    if (rc) return rc;
    kv_architecture_apply(m, a, KV_LAYOUT_HF);
    m->rms_eps = a->rms_eps;
    rc = kv_json_positive(config, path, "rms_norm_eps", &m->rms_eps, e);
    float scalar = a->query_scalar > 0 ? a->query_scalar : (float)m->shape.head_dim;
    if (!rc && a->query_scalar > 0)
        rc = kv_json_positive(config, path, "query_pre_attn_scalar", &scalar, e);
    m->attn_scale = 1.0f / sqrtf(scalar);
    if (!rc) rc = kv_huggingface_rope(m, config, path, e);
    if (!rc) rc = read_windows(m, config, path, e);
    const json_t *tied = json_object_get(config, "tie_word_embeddings");
    m->tied = tied ? kv_json_is_set(config, "tie_word_embeddings") : a->tied;
    *biases = kv_json_is_set(config, "attention_bias") ? KV_SLOT_QKV_BIAS | KV_SLOT_OUT_BIAS : 0;
    if (kv_json_is_set(config, "mlp_bias")) *biases |= KV_SLOT_FFN_BIAS;
    *biases &= a->may_have_biases;
    return rc;
}

int kv_huggingface_config(struct kv_model *m, const char *dir, unsigned *biases,
                          struct kv_error *e) {
    json_t *config;
    char *path;
    int rc = kv_huggingface_json(&config, &path, dir, "config.json", e);
    if (!rc) rc = read_settings(m, config, path, biases, e);
    json_decref(config);
    free(path);
    return rc;
}
