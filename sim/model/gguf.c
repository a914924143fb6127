// SPDX-License-Identifier: Apache-2.0
// Loads a model from a GGUF file: what its metadata mean, and its weights. The file itself
// is read in gguf_file.c, its tokenizer in gguf_tokenizer.c.
#include <stdlib.h>

#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/model/gguf.h"
#include "sim/model/model.h"
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
    kv_model_defaults(m); // llama.cpp's base is the same where the key is absent
    uint32_t experts = 0, rotated = 0;
    char key[KEY_BYTES];
    int rc = need_size(g, "block_count", &s->n_layers, e);
    if (!rc) rc = need_size(g, "embedding_length", &s->hidden, e);
    if (!rc) rc = need_size(g, "feed_forward_length", &s->ffn, e);
    if (!rc) rc = need_size(g, "attention.head_count", &s->n_heads, e);
    s->n_kv_heads = s->n_heads;
    if (!rc) rc = may_have_size(g, "attention.head_count_kv", &s->n_kv_heads, e);
    s->head_dim = s->n_heads ? s->hidden / s->n_heads : 0;
    if (!rc) rc = may_have_size(g, "attention.key_length", &s->head_dim, e);
    if (!rc) rc = need_size(g, "context_length", &s->max_tokens, e);
    if (!rc) rc = may_have_size(g, "expert_count", &experts, e);
    key_of(g, key, "attention.layer_norm_rms_epsilon");
    if (!rc) rc = kv_gguf_float(g, key, false, &m->rms_eps, e);
    if (!rc) rc = kv_gguf_float(g, key_of(g, key, "rope.freq_base"), true, &m->rope[0].base, e);
    if (!rc) rc = kv_weights_check_shape(s, g->path, e);
    rotated = s->head_dim;
    if (!rc) rc = may_have_size(g, "rope.dimension_count", &rotated, e);
    uint32_t value_length = s->head_dim;
    if (!rc) rc = may_have_size(g, "attention.value_length", &value_length, e);
    if (rc) return rc;
    if (experts)
        return kv_fail(e, KV_EFAIL, g->path, "%s is %u, but mixtures of experts are not computed",
                       key_of(g, key, "expert_count"), experts);
    if (rotated != s->head_dim || value_length != s->head_dim)
        return kv_fail(e, KV_EFAIL, g->path,
                       "heads of %u channels rotate %u of them and hold values of %u; only heads "
                       "of one size, rotated whole, are computed",
                       s->head_dim, rotated, value_length);
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
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length", // read by YaRN and LongRoPE alone
    "rope.scaling.finetuned",               // a remark
    "tensor_data_layout",                   // a remark of early files
};

// Keys whose effect is none at these values (llm_load_hparams in llama.cpp's src/llama-model.cpp).
static const struct {
    const char *name;
    double neutral;
} neutral_keys[] = {
    {"expert_used_count", 0}, {"leading_dense_block_count", 0}, {"attention.causal", 1}};

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

// Scaled RoPE is refused by its key. As in llama.cpp a factor without a type scales linearly, 0 and
// 1 are no scaling, and neither is any factor under the type "none".
static int check_rope(const struct kv_gguf *g, struct kv_error *e) {
    char type[32] = "linear", key[KEY_BYTES];
    int rc = kv_gguf_string(g, key_of(g, key, "rope.scaling.type"), true, type, sizeof type, e);
    bool none = strcmp(type, "none") == 0;
    if (!rc && !none && strcmp(type, "linear") != 0)
        return kv_fail(e, KV_EFAIL, g->path, "%s is %s; only unscaled RoPE is computed", key, type);
    static const char *const factors[] = {"rope.scaling.factor", "rope.scale_linear",
                                          "rope.scaling.attn_factor"};
    for (size_t i = 0; i < sizeof factors / sizeof *factors && !rc; i++) {
        const struct kv_gguf_pair *p = kv_gguf_find(g, key_of(g, key, factors[i]));
        if (!p) continue;
        double x = kv_gguf_number(g, p);
        if (x != 1 && !(x == 0 && i < 2) && !(none && i < 2))
            rc = kv_gguf_fail(g, p->at, e, "%s is %g; only unscaled RoPE is computed", key, x);
    }
    return rc;
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
    if (rc) return rc;
    return check_rope(g, e);
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

// A tensor nobody asked for is a bias, a scaled RoPE or another thing the forward pass would miss.
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
    if (!rc) rc = check_known(&g, e);
    if (rc) goto done;

    m->architecture = g.architecture;
    m->order = g.architecture->order[KV_LAYOUT_GGUF];
    m->tied = kv_gguf_tensor_named(&g, "output.weight") == NULL;
    struct kv_weight_file file = {KV_LAYOUT_GGUF, path, &g, find_source};
    const char *main_type = "";
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
