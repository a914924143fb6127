// SPDX-License-Identifier: Apache-2.0
// Loads a model from a GGUF file: what its metadata mean, and its weights. The file itself
// is read in gguf_file.c, its tokenizer in gguf_tokenizer.c.
#include <stdlib.h>

#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/model/gguf.h"
#include "sim/model/rope.h"
#include "sim/model/weights.h"

// ---- metadata -------------------------------------------------------------------------

// Keys about the model begin with the architecture's name: "llama.block_count".
#define KEY_BYTES 96
static const char *key_of(const struct kv_gguf *g, char key[KEY_BYTES], const char *name) {
    snprintf(key, KEY_BYTES, "%s.%s", g->architecture->name[KV_LAYOUT_GGUF], name);
    return key;
}

static int need_size(const struct kv_gguf *g, const char *name, uint32_t *x, struct kv_error *e) {
    char key[KEY_BYTES];
    return kv_gguf_u32(g, key_of(g, key, name), false, x, e);
}

static int may_have_size(const struct kv_gguf *g, const char *name, uint32_t *x,
                         struct kv_error *e) {
    char key[KEY_BYTES];
    return kv_gguf_u32(g, key_of(g, key, name), true, x, e);
}

static int read_shape(struct kv_model *m, const struct kv_gguf *g, struct kv_error *e) {
    struct kv_shape *s = &m->shape;
    const struct kv_gguf_pair *tokens = kv_gguf_find(g, "tokenizer.ggml.tokens");
    s->vocab = tokens && tokens->type == KV_GGUF_ARRAY && tokens->count <= UINT32_MAX
                   ? (uint32_t)tokens->count
                   : 0;
    int rc = need_size(g, "block_count", &s->n_layers, e);
    if (!rc) rc = need_size(g, "embedding_length", &s->hidden, e);
    if (!rc) rc = need_size(g, "feed_forward_length", &s->ffn, e);
    if (!rc) rc = need_size(g, "attention.head_count", &s->n_heads, e);
    s->n_kv_heads = s->n_heads;
    if (!rc) rc = may_have_size(g, "attention.head_count_kv", &s->n_kv_heads, e);
    s->head_dim = s->n_heads ? s->hidden / s->n_heads : 0;
    if (!rc) rc = may_have_size(g, "attention.key_length", &s->head_dim, e);
    if (!rc) rc = need_size(g, "context_length", &s->max_tokens, e);
    return rc ? rc : kv_weights_check_shape(s, g->path, e);
}

// What a shape says nothing of and is not computed.
static int check_heads(const struct kv_model *m, const struct kv_gguf *g, struct kv_error *e) {
    uint32_t experts = 0, rotated = m->shape.head_dim, value_length = m->shape.head_dim;
    char key[KEY_BYTES];
    int rc = may_have_size(g, "expert_count", &experts, e);
    if (!rc) rc = may_have_size(g, "rope.dimension_count", &rotated, e);
    if (!rc) rc = may_have_size(g, "attention.value_length", &value_length, e);
    if (rc) return rc;
    if (experts)
        return kv_fail(e, KV_EFAIL, g->path, "%s is %u, but mixtures of experts are not computed",
                       key_of(g, key, "expert_count"), experts);
    if (rotated != m->shape.head_dim || value_length != m->shape.head_dim)
        return kv_fail(e, KV_EFAIL, g->path,
                       "heads of %u channels rotate %u of them and hold values of %u; only heads "
                       "of one size, rotated whole, are computed",
                       m->shape.head_dim, rotated, value_length);
    return KV_OK;
}

// Keys behind the architecture's name that are read, or change nothing that is computed here.
// Names: gguf-py/gguf/constants.py of https://github.com/ggml-org/llama.cpp.
static const char *const known_keys[] = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "expert_count",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.finetuned", // a remark
    "tensor_data_layout",     // a remark of early files
};

// Keys whose effect is none at these values (llm_load_hparams in llama.cpp's src/llama-model.cpp).
static const struct {
    const char *name;
    double neutral;
} neutral_keys[] = {
    {"expert_used_count", 0},
    {"leading_dense_block_count", 0},
    {"attention.causal", 1},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"rope.scaling.yarn_ext_factor", 1},
    {"rope.scaling.yarn_attn_factor", 1},
    {"rope.scaling.yarn_log_multiplier", 0},
};

static bool is_known(const char *key) {
    for (size_t i = 0; i < sizeof known_keys / sizeof *known_keys; i++)
        if (strcmp(known_keys[i], key) == 0) return true;
    return false;
}

// What stands under the architecture's name and is not understood would change the model unheard.
static int check_known(const struct kv_gguf *g, struct kv_error *e) {
    const char *prefix = g->architecture->name[KV_LAYOUT_GGUF];
    size_t n = strlen(prefix);
    for (size_t i = 0; i < g->n_pairs; i++) {
        const struct kv_gguf_pair *p = &g->pairs[i];
        char key[KEY_BYTES];
        if (p->key.n <= n || memcmp(p->key.s, prefix, n) != 0 || p->key.s[n] != '.') continue;
        snprintf(key, sizeof key, "%.*s", p->key.n < 90 ? (int)p->key.n : 90, p->key.s);
        bool fine = is_known(key + n + 1);
        for (size_t k = 0; k < sizeof neutral_keys / sizeof *neutral_keys && !fine; k++)
            if (strcmp(neutral_keys[k].name, key + n + 1) == 0)
                fine = kv_gguf_number(g, p) == neutral_keys[k].neutral;
        if (!fine)
            return kv_gguf_fail(g, p->at, e,
                                "%s is not understood, and might change what is computed", key);
    }
    return KV_OK;
}

// ---- RoPE and windows -----------------------------------------------------------------

// How RoPE is stretched. As in llama.cpp a factor without a type scales linearly, 0 and 1 are no
// scaling, and neither is any factor under the type "none".
static int read_scaling(struct kv_rope *r, const struct kv_gguf *g, uint32_t max_tokens,
                        struct kv_error *e) {
    char type[32] = "linear", key[KEY_BYTES];
    float attention = 1, factor = 1;
    int rc = kv_gguf_string(g, key_of(g, key, "rope.scaling.type"), true, type, sizeof type, e);
    bool none = strcmp(type, "none") == 0, yarn = strcmp(type, "yarn") == 0;
    if (!rc && !none && !yarn && strcmp(type, "linear") != 0)
        return kv_fail(e, KV_EFAIL, g->path, "%s is %s; only none, linear and yarn are computed",
                       key, type);
    static const char *const factors[] = {"rope.scale_linear", "rope.scaling.factor"};
    for (size_t i = 0; i < 2; i++) {
        const struct kv_gguf_pair *p = kv_gguf_find(g, key_of(g, key, factors[i]));
        if (!rc && p && kv_gguf_number(g, p) != 0) rc = kv_gguf_float(g, key, false, &factor, e);
    }
    key_of(g, key, "rope.scaling.attn_factor");
    if (!rc) rc = kv_gguf_float(g, key, true, &attention, e);
    if (!rc && attention != 1 && !yarn)
        return kv_fail(e, KV_EFAIL, g->path, "%s is %g, which only YaRN computes", key,
                       (double)attention);
    if (rc || none || (factor == 1 && !yarn)) return rc;
    r->factor = factor;
    r->scaling = yarn ? KV_ROPE_YARN : KV_ROPE_LINEAR;
    if (!yarn) return kv_rope_check(r, g->path, e);
    r->original_tokens = max_tokens;
    r->low_factor = 1; // the paper's, for Llama
    r->high_factor = 32;
    r->attention_factor = attention * kv_rope_yarn_attention(factor);
    rc = may_have_size(g, "rope.scaling.original_context_length", &r->original_tokens, e);
    key_of(g, key, "rope.scaling.yarn_beta_slow");
    if (!rc) rc = kv_gguf_float(g, key, true, &r->low_factor, e);
    key_of(g, key, "rope.scaling.yarn_beta_fast");
    if (!rc) rc = kv_gguf_float(g, key, true, &r->high_factor, e);
    return rc ? rc : kv_rope_check(r, g->path, e);
}

// Llama 3.1's frequencies lie in the file as what each is divided by.
static int read_divisors(struct kv_model *m, const struct kv_gguf *g, struct kv_error *e) {
    const char *name = g->architecture->rope_divisors;
    struct kv_gguf_tensor *t = name ? kv_gguf_tensor_named(g, name) : NULL;
    struct kv_rope *r = &m->rope[0];
    size_t half = m->shape.head_dim / 2;
    if (!t) return KV_OK;
    if (strcmp(t->type, "F32") != 0 || t->rows != 1 || t->cols != half)
        return kv_fail(e, KV_EFAIL, t->path, "tensor %s is not %zu F32 numbers, one a pair", name,
                       half);
    if (r->scaling != KV_ROPE_PLAIN)
        return kv_fail(e, KV_EFAIL, t->path, "tensor %s scales RoPE, which the metadata scale too",
                       name);
    t->used = true;
    r->scaling = KV_ROPE_DIVISORS;
    r->divisors = kv_alloc(half, sizeof *r->divisors);
    memcpy(r->divisors, t->data, half * sizeof *r->divisors);
    for (size_t i = 0; i < half; i++)
        if (!(r->divisors[i] > 0 && isfinite(r->divisors[i])))
            return kv_fail(e, KV_EFAIL, t->path,
                           "tensor %s holds %g at %zu, by which no frequency can be divided", name,
                           (double)r->divisors[i], i);
    return KV_OK;
}

// Windows are in the key alone; which layers have one, and their RoPE, which is never stretched, is
// the architecture's (llm_load_hparams in llama.cpp's src/llama-model.cpp).
static int read_windows(struct kv_model *m, const struct kv_gguf *g, struct kv_error *e) {
    uint32_t window = 0, pattern = KV_WINDOW_PATTERN;
    char key[KEY_BYTES];
    int rc = may_have_size(g, "attention.sliding_window", &window, e);
    if (!rc) rc = may_have_size(g, "attention.sliding_window_pattern", &pattern, e);
    if (rc || !window) return rc;
    if (g->architecture->windows != KV_WINDOWS_MOST || !pattern)
        return kv_fail(
            e, KV_EFAIL, g->path, "%s is %u, which is not computed",
            key_of(g, key,
                   pattern ? "attention.sliding_window" : "attention.sliding_window_pattern"),
            pattern ? window : pattern);
    m->rope[m->n_ropes++] = kv_rope_plain(10000);
    key_of(g, key, "rope.freq_base_swa");
    rc = kv_gguf_float(g, key, true, &m->rope[1].base, e);
    kv_architecture_slide(m, window, pattern);
    return rc;
}

// Gemma 3's 27B, the one of 62 layers, divides scores by the root of hidden / heads instead of
// head_dim; its file does not say so (llm_load_hparams).
enum { GEMMA3_27B_LAYERS = 62 };

static int read_attention(struct kv_model *m, const struct kv_gguf *g, struct kv_error *e) {
    char key[KEY_BYTES];
    const struct kv_shape *s = &m->shape;
    int rc =
        kv_gguf_float(g, key_of(g, key, "attention.layer_norm_rms_epsilon"), false, &m->rms_eps, e);
    if (!rc) rc = kv_gguf_float(g, key_of(g, key, "rope.freq_base"), true, &m->rope[0].base, e);
    if (!rc) rc = read_scaling(&m->rope[0], g, s->max_tokens, e);
    if (!rc) rc = read_divisors(m, g, e);
    if (g->architecture->windows == KV_WINDOWS_MOST && s->n_layers == GEMMA3_27B_LAYERS)
        m->attn_scale = 1.0f / sqrtf((float)(s->hidden / s->n_heads));
    return rc ? rc : read_windows(m, g, e);
}

static int find_architecture(struct kv_gguf *g, struct kv_error *e) {
    char name[64], type[32] = "model";
    int rc = kv_gguf_string(g, "general.type", true, type, sizeof type, e);
    if (!rc && (strcmp(type, "adapter") == 0 || kv_gguf_find(g, "adapter.type")))
        return kv_fail(e, KV_EFAIL, g->path,
                       "this is an adapter (LoRA) for a model, not a model: merge it into its base "
                       "first");
    if (!rc && strcmp(type, "model") != 0)
        return kv_fail(e, KV_EFAIL, g->path, "this file holds no model: its general.type is %s",
                       type);
    if (!rc) rc = kv_gguf_string(g, "general.architecture", false, name, sizeof name, e);
    if (!rc)
        rc = kv_architecture_find(&g->architecture, KV_LAYOUT_GGUF, name, "general.architecture",
                                  g->path, e);
    return rc;
}

// ---- the model ------------------------------------------------------------------------

static bool find_source(void *self, const char *name, struct kv_weight_source *source) {
    const struct kv_gguf *g = self;
    struct kv_gguf_tensor *t = kv_gguf_tensor_named(g, name);
    if (!t) return false;
    t->used = true;
    *source = (struct kv_weight_source){t->path, t->type, t->data, t->rows, t->cols};
    return true;
}

// A tensor nobody asked for is a thing that the forward pass would miss.
static int check_all_used(const struct kv_gguf *g, struct kv_error *e) {
    for (size_t i = 0; i < g->n_entries; i++)
        if (!g->entries[i].used)
            return kv_fail(e, KV_EFAIL, g->entries[i].path,
                           "tensor %s is not part of the %s architecture as computed here",
                           g->entries[i].name, g->architecture->title);
    return KV_OK;
}

int kv_gguf_load(struct kv_model *m, const char *path, enum kv_weights_as as, struct kv_error *e) {
    struct kv_gguf g = {.path = path};
    int rc = kv_gguf_open(&g, e);
    if (!rc) path = g.path; // a split model is its first part's, whichever was named
    if (!rc) rc = find_architecture(&g, e);
    if (!rc) rc = read_shape(m, &g, e);
    if (rc) goto done;

    kv_architecture_apply(m, g.architecture, KV_LAYOUT_GGUF);
    m->tied = kv_gguf_tensor_named(&g, "output.weight") == NULL;
    struct kv_weight_file file = {.layout = KV_LAYOUT_GGUF,
                                  .may_have_biases = g.architecture->may_have_biases,
                                  .path = path,
                                  .self = &g,
                                  .find = find_source};
    const char *main_type = "";
    rc = check_heads(m, &g, e);
    if (!rc) rc = read_attention(m, &g, e);
    if (!rc) rc = check_known(&g, e);
    if (rc) goto done;

    rc = kv_weights_load(m, &file, as, &main_type, e);
    if (!rc) rc = check_all_used(&g, e);
    if (!rc) rc = kv_gguf_tokenizer(m, &g, e);
    const char *base = strrchr(path, '/');
    snprintf(m->name, sizeof m->name, "%.95s", base ? base + 1 : path);
    if (!rc) rc = kv_gguf_string(&g, "general.name", true, m->name, sizeof m->name, e);
    if (rc) goto done;
    snprintf(m->source, sizeof m->source, "GGUF v%u (%s)", g.version, main_type);
    uint64_t digest = kv_hash(g.map.data, g.map.n, 0);
    for (size_t i = 0; i < g.n_parts; i++)
        digest = kv_hash(g.parts[i].map.data, g.parts[i].map.n, digest);
    kv_hex64(digest, m->digest);
done:
    kv_gguf_close(&g);
    return rc;
}
