// SPDX-License-Identifier: Apache-2.0
// ModelOpt's, transformers' and OpenVINO's files.
#include "sim/base/args.h"
#include "sim/base/version.h"
#include "sim/runtimes/own.h"

#include <stdlib.h>

// ---- shared ---------------------------------------------------------------------------

int kv_json_object_read(json_t **root, const char *text, const char *path, struct kv_error *e) {
    json_error_t wrong;
    *root = json_loads(text, JSON_REJECT_DUPLICATES, &wrong);
    if (!*root)
        return kv_fail(e, KV_EFAIL, path, "line %d is not JSON: %s", wrong.line, wrong.text);
    if (json_is_object(*root)) return 0;
    json_decref(*root);
    return kv_fail(e, KV_EFAIL, path, "is JSON and no object");
}

int kv_json_whole(const json_t *o, const char *key, long min, long max, long fallback, long *x,
                  const char *path, struct kv_error *e) {
    const json_t *v = json_object_get(o, key);
    *x = fallback;
    if (!v) return 0;
    if (json_is_integer(v)) {
        *x = (long)json_integer_value(v);
        if (*x >= min && *x <= max) return 0;
    } else if (json_is_string(v) && kv_whole_number(json_string_value(v), min, max, x)) {
        return 0;
    }
    return kv_fail(e, KV_EFAIL, path, "%s: a whole number from %ld to %ld is expected", key, min,
                   max);
}

static void add_json(struct kv_text *t, json_t *root) {
    char *text = json_dumps(root, JSON_INDENT(2));
    kv_text_addf(t, "%s\n", text ? text : "");
    free(text);
    json_decref(root);
}

static const char *text_of(const json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}

// ---- ModelOpt: hf_quant_config.json ----------------------------------------------------

int kv_write_modelopt(const struct kv_served *s, struct kv_text *t, struct kv_error *e) {
    (void)e;
    bool whole = kv_served_uniform(s);
    json_t *layers = json_object();
    for (uint32_t l = 0; s->offer && l < s->n_layers; l++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%u.self_attn", l);
        if (kv_served_bits(s, l, KV_KEY) < 16)
            json_object_set_new(layers, name, json_pack("{s:s}", "quant_algo", "FP8"));
    }
    json_t *own = s->offer ? json_pack("{s:s, s:i, s:o}", "kv_cache_quant_algo",
                                       whole ? "FP8" : "MIXED_PRECISION", "kv_cache_schema_version",
                                       1, "kv_cache_quantized_layers", layers)
                           : json_pack("{s:n}", "kv_cache_quant_algo");
    if (!s->offer) json_decref(layers);
    add_json(t, json_pack("{s:{s:s, s:s}, s:o}", "producer", "name", "kvsim", "version",
                          kv_version(), "quantization", own));
    return 0;
}

static int check_algo(const char *algo, const char *path, struct kv_error *e) {
    static const char *const known[] = {"NVFP4", "NVFP4_AFFINE", "INT8", "FP8_K_NVFP4_V", NULL};
    if (strcmp(algo, "FP8") == 0) return 0;
    if (kv_index_of(algo, known) >= 0)
        return kv_fail(e, KV_EFAIL, path, "%s has no format in kvsim; FP8 has", algo);
    return kv_fail(e, KV_EFAIL, path, "'%s' is no way that ModelOpt codes a cache", algo);
}

static int read_layers(struct kv_served *s, const json_t *layers, const char *path,
                       struct kv_error *e) {
    const char *name;
    json_t *v;
    int rc = kv_served_spread(s, 1, path, e);
    json_object_foreach((json_t *)layers, name, v) {
        if (rc) break;
        const char *at = strstr(name, "layers."), *algo = text_of(v, "quant_algo");
        char *end = NULL;
        unsigned long l = at ? strtoul(at + 7, &end, 10) : 0;
        if (!at || end == at + 7 || *end != '.')
            rc = kv_fail(e, KV_EFAIL, path, "'%s' names no layer (model.layers.N.self_attn)", name);
        else if (l >= s->n_layers)
            rc = kv_fail(e, KV_EFAIL, path, "'%s' is beyond the model's %u layers", name,
                         s->n_layers);
        else if (!algo)
            rc = kv_fail(e, KV_EFAIL, path, "'%s' has no quant_algo", name);
        else
            rc = check_algo(algo, path, e);
        if (rc == 0) memset(s->bits + 2 * l, 8, 2);
    }
    return rc;
}

int kv_read_modelopt(struct kv_served *s, const char *text, const char *path, struct kv_error *e) {
    json_t *root;
    long version = 1;
    int rc = kv_json_object_read(&root, text, path, e);
    if (rc) return rc;
    const json_t *own = json_object_get(root, "quantization");
    if (!own) own = json_object_get(root, "quantization_config");
    const json_t *layers = json_object_get(own, "kv_cache_quantized_layers"),
                 *algo = json_object_get(own, "kv_cache_quant_algo");
    rc = kv_json_whole(own, "kv_cache_schema_version", 1, 1, 1, &version, path, e);
    s->offer = kv_offer_named(s->runtime, "FP8");
    if (rc == 0 && !algo)
        rc = kv_fail(e, KV_EFAIL, path, "holds no kv_cache_quant_algo under quantization");
    else if (rc == 0 && json_is_null(algo)) {
        s->offer = NULL;
        kv_served_all(s, 16, 16);
    } else if (rc == 0 && !json_is_string(algo))
        rc = kv_fail(e, KV_EFAIL, path, "kv_cache_quant_algo: a name or null is expected");
    else if (rc == 0 && strcmp(json_string_value(algo), "MIXED_PRECISION") == 0)
        rc = json_is_object(layers) && json_object_size(layers)
                 ? read_layers(s, layers, path, e)
                 : kv_fail(e, KV_EFAIL, path,
                           "MIXED_PRECISION without layers in kv_cache_quantized_layers");
    else if (rc == 0 && !(rc = check_algo(json_string_value(algo), path, e)))
        kv_served_all(s, 8, 8);
    json_decref(root);
    return rc;
}

bool kv_is_modelopt(const char *text) {
    return *text == '{' && strstr(text, "\"kv_cache_quant_algo\"");
}

// ---- transformers: generation_config.json ----------------------------------------------

static json_t *cache_config(const struct kv_served *s) {
    const char *name = s->offer->name;
    if (strcmp(name, "fp8") == 0) return json_pack("{s:s}", "backend", "fp8");
    bool hqq = strcmp(name, "hqq") == 0, kivi = strcmp(name, "quanto, keys by channel") == 0;
    int along = hqq ? 1 : 0; // the axis that groups values lying together
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i}", "backend", hqq ? "hqq" : "quanto", "nbits",
                     s->bits[KV_KEY], "axis_key", kivi ? -1 : along, "axis_value", along,
                     "q_group_size", s->group ? s->group : s->head_dim, "residual_length",
                     s->window ? s->window : 1);
}

int kv_write_transformers(const struct kv_served *s, struct kv_text *t, struct kv_error *e) {
    (void)e;
    add_json(t, s->offer ? json_pack("{s:s, s:o}", "cache_implementation", "quantized",
                                     "cache_config", cache_config(s))
                         : json_pack("{s:s}", "cache_implementation", "dynamic"));
    return 0;
}

// Backend and axes name the offer.
static int find_backend(struct kv_served *s, const json_t *own, const char *path,
                        struct kv_error *e) {
    const char *backend = text_of(own, "backend");
    long key, value;
    if (!backend) backend = "quanto";
    bool hqq = strcmp(backend, "hqq") == 0 || strcmp(backend, "HQQ") == 0,
         quanto = strcmp(backend, "quanto") == 0;
    if (strcmp(backend, "fp8") == 0) {
        s->offer = kv_offer_named(s->runtime, "fp8");
        return json_object_size(own) == 1
                   ? 0
                   : kv_fail(e, KV_EFAIL, path, "backend fp8 takes no other key beside it");
    }
    if (!hqq && !quanto)
        return kv_fail(e, KV_EFAIL, path, "backend: '%s' is none of quanto, hqq, fp8", backend);
    int rc = kv_json_whole(own, "axis_key", -1, 1, 0, &key, path, e);
    if (rc == 0) rc = kv_json_whole(own, "axis_value", -1, 1, 0, &value, path, e);
    if (rc) return rc;
    if (hqq && key == 1 && value == 1)
        s->offer = kv_offer_named(s->runtime, "hqq");
    else if (quanto && key == 0 && value == 0)
        s->offer = kv_offer_named(s->runtime, "quanto");
    else if (quanto && key == -1 && value == 0)
        s->offer = kv_offer_named(s->runtime, "quanto, keys by channel");
    else
        return kv_fail(e, KV_EFAIL, path,
                       "backend %s with axis_key %ld and axis_value %ld has no format in kvsim",
                       backend, key, value);
    return 0;
}

static int read_cache_config(struct kv_served *s, const json_t *own, const char *path,
                             struct kv_error *e) {
    long bits = 8, group = 64, residual = 0;
    int rc = find_backend(s, own, path, e);
    if (rc == 0 && s->offer->group) {
        rc = kv_json_whole(own, "nbits", 1, 8, 4, &bits, path, e);
        if (rc == 0) rc = kv_json_whole(own, "q_group_size", 1, 1024, 64, &group, path, e);
        if (rc == 0) rc = kv_json_whole(own, "residual_length", 0, 4096, 128, &residual, path, e);
        if (rc == 0) rc = kv_served_group(s, group, path, "q_group_size", e);
    }
    if (rc == 0 && !(s->offer->widths >> bits & 1))
        rc =
            kv_fail(e, KV_EFAIL, path, "nbits: backend %s does not take %ld", s->offer->name, bits);
    s->window = residual > 1 ? (uint32_t)residual : 0;
    if (rc == 0) kv_served_all(s, (unsigned)bits, (unsigned)bits);
    return rc;
}

int kv_read_transformers(struct kv_served *s, const char *text, const char *path,
                         struct kv_error *e) {
    json_t *root;
    int rc = kv_json_object_read(&root, text, path, e);
    if (rc) return rc;
    const char *how = text_of(root, "cache_implementation");
    const json_t *own = json_object_get(root, "cache_config");
    if (!how)
        rc = kv_fail(e, KV_EFAIL, path, "holds no cache_implementation");
    else if (strcmp(how, "dynamic") == 0 || strcmp(how, "static") == 0)
        kv_served_all(s, 16, 16);
    else if (strcmp(how, "quantized") != 0)
        rc = kv_fail(e, KV_EFAIL, path, "cache_implementation: '%s' is no quantized cache", how);
    else if (!json_is_object(own))
        rc = kv_fail(e, KV_EFAIL, path, "a quantized cache without cache_config");
    else
        rc = read_cache_config(s, own, path, e);
    json_decref(root);
    return rc;
}

bool kv_is_transformers(const char *text) {
    return *text == '{' && strstr(text, "\"cache_implementation\"");
}

const char *kv_remark_transformers(const struct kv_served *s) {
    return s->offer && s->offer->group
               ? "when the newest exact tokens reach residual_length, all tokens are decoded and "
                 "coded again, which kvsim does not do"
               : NULL;
}

// ---- OpenVINO: properties ---------------------------------------------------------------

static const char *const sides[] = {"KEY", "VALUE"};

int kv_write_openvino(const struct kv_served *s, struct kv_text *t, struct kv_error *e) {
    (void)e;
    json_t *root = json_object();
    for (int side = 0; side < 2; side++) {
        char name[32], value[16];
        snprintf(name, sizeof name, "%s_CACHE_PRECISION", sides[side]);
        snprintf(value, sizeof value, s->bits[side] < 16 ? "u%u" : "f%u", s->bits[side]);
        json_object_set_new(root, name, json_string(value));
    }
    for (int side = 0; side < 2 && s->offer; side++) {
        char name[32], value[16];
        snprintf(name, sizeof name, "%s_CACHE_GROUP_SIZE", sides[side]);
        snprintf(value, sizeof value, "%u", s->group);
        json_object_set_new(root, name, json_string(value));
    }
    add_json(t, root);
    return 0;
}

static int read_precision(const json_t *root, int side, unsigned *bits, const char *path,
                          struct kv_error *e) {
    static const char *const names[] = {"f16", "u8", "u4", "u3", NULL}, *const others[] = {
                                                                            "f32", "bf16", "i8",
                                                                            NULL};
    static const unsigned widths[] = {16, 8, 4, 3};
    char key[32];
    snprintf(key, sizeof key, "%s_CACHE_PRECISION", sides[side]);
    const json_t *v = json_object_get(root, key);
    if (!v) v = json_object_get(root, "KV_CACHE_PRECISION");
    const char *name = v ? json_string_value(v) : "u8"; // the CPU's default
    int at = name ? kv_index_of(name, names) : -1;
    if (at < 0)
        return kv_fail(e, KV_EFAIL, path,
                       name && kv_index_of(name, others) >= 0
                           ? "%s: '%s' has no format in kvsim"
                           : "%s: '%s' is no precision; u3, u4, u8 and f16 are read",
                       key, name ? name : "");
    *bits = widths[at];
    return 0;
}

static int read_group(struct kv_served *s, const json_t *root, int side, const char *path,
                      struct kv_error *e) {
    char key[32];
    long group;
    uint32_t before = s->group;
    snprintf(key, sizeof key, "%s_CACHE_GROUP_SIZE", sides[side]);
    int rc = kv_json_whole(root, key, 0, 1024, 0, &group, path, e);
    s->group = 0;
    if (rc == 0 && group) rc = kv_served_group(s, group, path, key, e);
    if (rc == 0 && side == 1 && s->bits[0] < 16 && s->bits[1] < 16 && s->group != before)
        rc = kv_fail(e, KV_EFAIL, path,
                     "keys and values of different groups have no format in kvsim");
    if (rc == 0 && s->bits[side] == 16) s->group = before;
    return rc;
}

int kv_read_openvino(struct kv_served *s, const char *text, const char *path, struct kv_error *e) {
    json_t *root;
    unsigned bits[2] = {16, 16};
    int rc = kv_json_object_read(&root, text, path, e);
    if (rc) return rc;
    for (int side = 0; side < 2 && rc == 0; side++)
        rc = read_precision(root, side, &bits[side], path, e);
    if (rc == 0) {
        kv_served_all(s, bits[0], bits[1]);
        s->offer = bits[0] < 16 || bits[1] < 16 ? &s->runtime->offers[0] : NULL;
    }
    for (int side = 0; side < 2 && rc == 0 && s->offer; side++)
        rc = read_group(s, root, side, path, e);
    json_decref(root);
    return rc;
}

bool kv_is_openvino(const char *text) {
    return *text == '{' && strstr(text, "_CACHE_PRECISION\"");
}
