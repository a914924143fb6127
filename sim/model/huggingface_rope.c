// SPDX-License-Identifier: Apache-2.0
// What a config.json says of RoPE: bases, how frequencies are stretched, one for each kind of
// layer.
//
// rope_parameters of transformers 5 and rope_scaling of 4 hold the same, the type under rope_type
// or, older still, type (modeling_rope_utils.py of https://github.com/huggingface/transformers).
#include "sim/model/huggingface.h"
#include "sim/model/rope.h"
#include "sim/model/weights.h"

static const struct kind {
    const char *name;
    enum kv_rope_scaling scaling;
    const char *needs[4]; // keys
} kinds[] = {
    {"default", KV_ROPE_PLAIN, {NULL}},
    {"linear", KV_ROPE_LINEAR, {"factor"}},
    {"llama3",
     KV_ROPE_LLAMA3,
     {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}},
    {"yarn", KV_ROPE_YARN, {"factor"}},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

// An object about RoPE in config.json, for messages: "rope_parameters.full_attention".
struct object {
    const json_t *json;
    const char *name, *path;
};

static int find_kind(const struct kind **kind, const struct object *o, bool *said,
                     struct kv_error *e) {
    static const char *const keys[] = {"rope_type", "type"};
    *kind = &kinds[0];
    *said = false;
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_object_get(o->json, keys[i]);
        if (!v || json_is_null(v)) continue;
        const char *type = json_string_value(v);
        *said = true;
        size_t k = 0;
        while (k < N_KINDS && !(type && strcmp(kinds[k].name, type) == 0)) k++;
        if (k == N_KINDS)
            return kv_fail(e, KV_EFAIL, o->path,
                           "%s.%s is %.60s; only default, linear, llama3 and yarn are computed",
                           o->name, keys[i], type ? type : "no text");
        *kind = &kinds[k];
    }
    return KV_OK;
}

// One key: fine where it is read, a remark, or without effect. A factor without a type is a scaling
// whose kind is not said.
static bool key_is_fine(const char *key, const json_t *v, const struct kind *kind, bool said) {
    static const char *const always[] = {"rope_theta", "rope_type", "type",
                                         "original_max_position_embeddings", "finetuned"};
    static const char *const of_yarn[] = {"factor",           "beta_fast", "beta_slow",
                                          "attention_factor", "mscale",    "mscale_all_dim"};
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (strcmp(always[i], key) == 0) return true;
    for (size_t i = 0; i < sizeof of_yarn / sizeof *of_yarn; i++)
        if (kind->scaling == KV_ROPE_YARN && strcmp(of_yarn[i], key) == 0) return true;
    for (size_t i = 0; i < 4 && kind->needs[i]; i++)
        if (strcmp(kind->needs[i], key) == 0) return true;
    if (strcmp(key, "truncate") == 0) return json_is_true(v) || kind->scaling != KV_ROPE_YARN;
    bool one = json_is_number(v) && json_number_value(v) == 1;
    if (strcmp(key, "partial_rotary_factor") == 0 || strcmp(key, "attention_factor") == 0)
        return one;
    return json_is_null(v) || (strcmp(key, "factor") == 0 && (one || said));
}

static int check_keys(const struct object *o, const struct kind *kind, bool said,
                      struct kv_error *e) {
    const char *key;
    json_t *v, *all = (json_t *)(uintptr_t)o->json; // iterated, not changed
    json_object_foreach(all, key, v) if (!key_is_fine(key, v, kind, said)) return kv_fail(
        e, KV_EFAIL, o->path, "%s.%.60s is set, which is not computed", o->name, key);
    for (size_t i = 0; i < 4 && kind->needs[i]; i++)
        if (!kv_json_is_set(o->json, kind->needs[i]))
            return kv_fail(e, KV_EFAIL, o->path, "%s is of type %s, but lacks %s", o->name,
                           kind->name, kind->needs[i]);
    return KV_OK;
}

// YaRN's own numbers; the attention factor is the ratio of two where a file gives two (DeepSeek).
static int read_yarn(struct kv_rope *r, const struct object *o, uint32_t max_tokens,
                     struct kv_error *e) {
    float scale = 0, all = 0, attention = 0;
    if (!r->original_tokens) r->original_tokens = max_tokens;
    r->low_factor = 1;
    r->high_factor = 32;
    int rc = kv_json_positive(o->json, o->path, "beta_slow", &r->low_factor, e);
    if (!rc) rc = kv_json_positive(o->json, o->path, "beta_fast", &r->high_factor, e);
    if (!rc) rc = kv_json_positive(o->json, o->path, "mscale", &scale, e);
    if (!rc) rc = kv_json_positive(o->json, o->path, "mscale_all_dim", &all, e);
    if (!rc) rc = kv_json_positive(o->json, o->path, "attention_factor", &attention, e);
    float growth = kv_rope_yarn_attention(r->factor);
    r->attention_factor = growth;
    if (scale > 0 && all > 0)
        r->attention_factor = (1 + scale * (growth - 1)) / (1 + all * (growth - 1));
    if (attention > 0) r->attention_factor = attention;
    return rc;
}

// A RoPE from its object, if there is one; its base stands already.
static int read_object(struct kv_rope *r, const struct object *o, uint32_t max_tokens,
                       struct kv_error *e) {
    const struct kind *kind;
    bool said;
    if (!o->json || json_is_null(o->json)) return KV_OK;
    if (!json_is_object(o->json))
        return kv_fail(e, KV_EFAIL, o->path, "%s is set, but is no JSON object", o->name);
    int rc = find_kind(&kind, o, &said, e);
    if (!rc) rc = check_keys(o, kind, said, e);
    if (!rc) rc = kv_json_positive(o->json, o->path, "rope_theta", &r->base, e);
    if (rc || kind->scaling == KV_ROPE_PLAIN) return rc;
    r->scaling = kind->scaling;
    rc = kv_json_positive(o->json, o->path, "factor", &r->factor, e);
    if (!rc) rc = kv_json_positive(o->json, o->path, "low_freq_factor", &r->low_factor, e);
    if (!rc) rc = kv_json_positive(o->json, o->path, "high_freq_factor", &r->high_factor, e);
    if (!rc)
        rc = kv_json_count(o->json, o->path, "original_max_position_embeddings", true,
                           &r->original_tokens, e);
    if (!rc && r->scaling == KV_ROPE_YARN) rc = read_yarn(r, o, max_tokens, e);
    return rc ? rc : kv_rope_check(r, o->path, e);
}

// Top-level keys about positions: known ones are judged, any other might change what is computed.
static int check_top(json_t *config, const char *path, bool two, struct kv_error *e) {
    static const char *const known[] = {"rope_theta", "rope_scaling", "rope_parameters",
                                        "rope_interleaved", "rope_local_base_freq"};
    const char *key;
    json_t *v;
    if (kv_json_is_set(config, "rope_scaling") && kv_json_is_set(config, "rope_parameters"))
        return kv_fail(e, KV_EFAIL, path,
                       "rope_scaling and rope_parameters are both set; one of them counts");
    json_object_foreach(config, key, v) {
        bool about = strncmp(key, "rope_", 5) == 0 || strncmp(key, "rotary_", 7) == 0 ||
                     strncmp(key, "partial_rotary", 14) == 0;
        bool fine = !about || json_is_null(v) || json_is_false(v);
        for (size_t i = 0; i < sizeof known / sizeof *known - !two; i++)
            fine = fine || strcmp(known[i], key) == 0;
        if (strcmp(key, "partial_rotary_factor") == 0)
            fine = fine || (json_is_number(v) && json_number_value(v) == 1);
        if (!fine) return kv_fail(e, KV_EFAIL, path, "%.60s is set, which is not computed", key);
    }
    return KV_OK;
}

// rope_parameters by the kind of layer: {"full_attention": {...}, "sliding_attention": {...}}.
static int read_two(struct kv_model *m, json_t *both, const char *path, struct kv_error *e) {
    static const char *const names[] = {"full_attention", "sliding_attention"};
    static const char *const texts[] = {"rope_parameters.full_attention",
                                        "rope_parameters.sliding_attention"};
    const char *key;
    json_t *v;
    json_object_foreach(
        both, key,
        v) if (strcmp(key, names[0]) != 0 &&
               strcmp(key, names[1]) !=
                   0) return kv_fail(e, KV_EFAIL, path,
                                     "rope_parameters.%.60s is set, which is not computed", key);
    int rc = KV_OK;
    for (size_t i = 0; i < 2 && !rc; i++)
        rc = read_object(&m->rope[i],
                         &(struct object){json_object_get(both, names[i]), texts[i], path},
                         m->shape.max_tokens, e);
    return rc;
}

int kv_huggingface_rope(struct kv_model *m, json_t *config, const char *path, struct kv_error *e) {
    bool two = m->architecture->windows == KV_WINDOWS_MOST;
    json_t *parameters = json_object_get(config, "rope_parameters");
    m->rope[0] = kv_rope_plain(m->architecture->rope_base);
    m->rope[1] = kv_rope_plain(10000); // Gemma 3's for sliding layers
    m->n_ropes = two ? 2 : 1;
    int rc = check_top(config, path, two, e);
    if (!rc) rc = kv_json_positive(config, path, "rope_theta", &m->rope[0].base, e);
    if (!rc && two)
        rc = kv_json_positive(config, path, "rope_local_base_freq", &m->rope[1].base, e);
    if (rc) return rc;
    if (two && (json_object_get(parameters, "full_attention") ||
                json_object_get(parameters, "sliding_attention")))
        return read_two(m, parameters, path, e);
    bool newer = kv_json_is_set(config, "rope_parameters");
    const char *name = newer ? "rope_parameters" : "rope_scaling";
    return read_object(&m->rope[0], &(struct object){json_object_get(config, name), name, path},
                       m->shape.max_tokens, e);
}
