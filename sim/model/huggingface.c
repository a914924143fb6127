// SPDX-License-Identifier: Apache-2.0
// Loads a model from a Hugging Face folder: config.json and safetensors shards; its tokenizer.json
// is read in huggingface_tokenizer.c.
//
// Fields and their defaults: LlamaConfig of https://github.com/huggingface/transformers. What the
// forward pass would not compute as the folder says (scaled RoPE, biases, other activations) is
// refused by name.
#include <stdlib.h>
#include <unistd.h>

#include "sim/base/files.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/model/huggingface.h"
#include "sim/model/model.h"
#include "sim/model/safetensors.h"
#include "sim/model/weights.h"

struct folder {
    const char *dir;
    size_t n_shards;
    char **shard_paths;
    struct kv_safetensors *shards;
    bool **used; // [n_shards][tensors of the shard]
};

static bool file_exists(const char *path) {
    return access(path, R_OK) == 0; // opening a pipe would wait for its writer
}

// ---- config.json ----------------------------------------------------------------------

static int get_count(const json_t *config, const char *path, const char *key, bool optional,
                     uint32_t *x, struct kv_error *e) {
    const json_t *v = json_object_get(config, key);
    if (!v || json_is_null(v))
        return optional ? KV_OK : kv_fail(e, KV_EFAIL, path, "the key %s is missing", key);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > UINT32_MAX)
        return kv_fail(e, KV_EFAIL, path, "%s should be a whole number that fits 32 bits", key);
    *x = (uint32_t)json_integer_value(v);
    return KV_OK;
}

static int get_positive(const json_t *config, const char *path, const char *key, float *x,
                        struct kv_error *e) {
    const json_t *v = json_object_get(config, key);
    if (!v || json_is_null(v)) return KV_OK;
    double value = json_number_value(v);
    if (!json_is_number(v) || !(value > 0) || value > 3e38)
        return kv_fail(e, KV_EFAIL, path, "%s should be a positive number", key);
    *x = (float)value;
    return KV_OK;
}

// One key of RoPE's parameters: fine where it is read elsewhere, a remark, or without effect.
static bool rope_key_is_fine(const char *key, const json_t *v, bool unscaled) {
    static const char *const harmless[] = {
        "rope_theta", "rope_type", "type",  // judged apart
        "original_max_position_embeddings", // read by scalings alone
        "finetuned"};
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (strcmp(harmless[i], key) == 0) return true;
    bool one = json_is_number(v) && json_number_value(v) == 1;
    if (strcmp(key, "partial_rotary_factor") == 0 || strcmp(key, "attention_factor") == 0)
        return one;
    return json_is_null(v) || (strcmp(key, "factor") == 0 && (one || unscaled));
}

// rope_parameters of newer files and rope_scaling of older ones hold the same, the type under
// rope_type or, older still, type (transformers' modeling_rope_utils.py). A factor without a type
// is a scaling whose kind is not said.
static int check_rope_object(const json_t *config, const char *path, const char *name,
                             struct kv_error *e) {
    json_t *rope = json_object_get(config, name), *v;
    const char *key;
    static const char *const types[] = {"rope_type", "type"};
    bool unscaled = false;
    if (!rope || json_is_null(rope)) return KV_OK;
    if (!json_is_object(rope))
        return kv_fail(e, KV_EFAIL, path, "%s is set, but is no JSON object", name);
    for (size_t i = 0; i < 2; i++) {
        v = json_object_get(rope, types[i]);
        if (!v || json_is_null(v)) continue;
        const char *type = json_string_value(v);
        if (!type || strcmp(type, "default") != 0)
            return kv_fail(e, KV_EFAIL, path, "%s.%s is %.60s; only default is computed", name,
                           types[i], type ? type : "no text");
        unscaled = true;
    }
    json_object_foreach(rope, key, v) if (!rope_key_is_fine(key, v, unscaled)) return kv_fail(
        e, KV_EFAIL, path, "%s.%.60s is set, which is not computed", name, key);
    return KV_OK;
}

// Top-level keys about positions: known ones are judged, any other might change what is computed.
static int check_rope(json_t *config, const char *path, struct kv_error *e) {
    static const char *const known[] = {"rope_theta", "rope_scaling", "rope_parameters",
                                        "rope_interleaved"};
    int rc = check_rope_object(config, path, "rope_parameters", e);
    if (!rc) rc = check_rope_object(config, path, "rope_scaling", e);
    const char *key;
    json_t *v;
    json_object_foreach(config, key, v) {
        if (rc) break;
        bool about = strncmp(key, "rope_", 5) == 0 || strncmp(key, "rotary_", 7) == 0 ||
                     strncmp(key, "partial_rotary", 14) == 0;
        bool fine = !about || json_is_null(v) || json_is_false(v);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            fine = fine || strcmp(known[i], key) == 0;
        if (strcmp(key, "partial_rotary_factor") == 0)
            fine = fine || (json_is_number(v) && json_number_value(v) == 1);
        if (!fine) rc = kv_fail(e, KV_EFAIL, path, "%.60s is set, which is not computed", key);
    }
    return rc;
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
        if (kv_json_is_set(config, *key))
            return kv_fail(e, KV_EFAIL, path, "%s is set, which is not computed", *key);
    const char *act = json_string_value(json_object_get(config, "hidden_act"));
    if (act && strcmp(act, (*a)->activation) != 0)
        return kv_fail(e, KV_EFAIL, path, "hidden_act is %.60s; only %s is computed", act,
                       (*a)->activation);
    return check_rope(config, path, e);
}

// A folder of a LoRA adapter has a configuration of its own, and none of a model.
static int check_folder(const char *dir, struct kv_error *e) {
    char *config = kv_huggingface_path(dir, "config.json"),
         *adapter = kv_huggingface_path(dir, "adapter_config.json");
    bool lora = !file_exists(config) && file_exists(adapter);
    free(config);
    free(adapter);
    return lora ? kv_fail(e, KV_EFAIL, dir,
                          "this is an adapter (LoRA) for a model, not a model: merge it into its "
                          "base first")
                : KV_OK;
}

static int read_config(struct kv_model *m, const char *dir, struct kv_error *e) {
    json_t *config;
    char *path;
    struct kv_shape *s = &m->shape;
    int rc = kv_huggingface_json(&config, &path, dir, "config.json", e);
    const struct kv_architecture *a = kv_architecture_usual;
    if (!rc) rc = find_architecture(&a, config, path, e);
    m->architecture = a;
    m->order = a->order[KV_LAYOUT_HF];
    if (!rc) rc = get_count(config, path, "num_hidden_layers", false, &s->n_layers, e);
    if (!rc) rc = get_count(config, path, "hidden_size", false, &s->hidden, e);
    if (!rc) rc = get_count(config, path, "intermediate_size", false, &s->ffn, e);
    if (!rc) rc = get_count(config, path, "num_attention_heads", false, &s->n_heads, e);
    s->n_kv_heads = s->n_heads;
    if (!rc) rc = get_count(config, path, "num_key_value_heads", true, &s->n_kv_heads, e);
    s->head_dim = s->n_heads ? s->hidden / s->n_heads : 0;
    if (!rc) rc = get_count(config, path, "head_dim", true, &s->head_dim, e);
    if (!rc) rc = get_count(config, path, "vocab_size", false, &s->vocab, e);
    s->max_tokens = a->max_tokens;
    if (!rc) rc = get_count(config, path, "max_position_embeddings", true, &s->max_tokens, e);
    m->rms_eps = a->rms_eps;
    kv_model_defaults(m);
    m->rope[0].base = a->rope_base;
    if (!rc) rc = get_positive(config, path, "rms_norm_eps", &m->rms_eps, e);
    if (!rc) rc = get_positive(config, path, "rope_theta", &m->rope[0].base, e);
    if (!rc)
        rc = get_positive(json_object_get(config, "rope_parameters"), path, "rope_theta",
                          &m->rope[0].base, e);
    if (!rc) rc = kv_weights_check_shape(s, path, e);
    m->tied = kv_json_is_set(config, "tie_word_embeddings");
    json_decref(config);
    free(path);
    return rc;
}

// ---- shards ---------------------------------------------------------------------------

static void add_shard(struct folder *f, const char *file) {
    char *path = kv_huggingface_path(f->dir, file);
    for (size_t i = 0; i < f->n_shards; i++)
        if (strcmp(f->shard_paths[i], path) == 0) {
            free(path);
            return;
        }
    f->shard_paths = kv_grow(f->shard_paths, f->n_shards + 1, sizeof *f->shard_paths);
    f->shard_paths[f->n_shards++] = path;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Names the shards: model.safetensors, else those of the index, sorted so that the digest does not
// depend on the index's order.
static int list_shards(struct folder *f, struct kv_error *e) {
    char *single = kv_huggingface_path(f->dir, "model.safetensors");
    char *index = kv_huggingface_path(f->dir, "model.safetensors.index.json");
    bool has_single = file_exists(single), has_index = file_exists(index);
    free(single);
    free(index);
    if (has_single) {
        add_shard(f, "model.safetensors");
        return KV_OK;
    }
    if (!has_index)
        return kv_fail(e, KV_EFAIL, f->dir,
                       "the folder holds neither model.safetensors nor "
                       "model.safetensors.index.json");
    json_t *root, *file;
    char *path;
    const char *tensor;
    int rc = kv_huggingface_json(&root, &path, f->dir, "model.safetensors.index.json", e);
    json_t *map = json_object_get(root, "weight_map");
    if (!rc && json_object_size(map) == 0)
        rc = kv_fail(e, KV_EFAIL, path, "\"weight_map\" names no tensor");
    if (!rc) json_object_foreach(map, tensor, file) {
            const char *name = json_string_value(file);
            if (!name || !*name || strchr(name, '/')) {
                rc = kv_fail(e, KV_EFAIL, path, "tensor %.100s is mapped to no file of the folder",
                             tensor);
                break;
            }
            add_shard(f, name);
        }
    json_decref(root);
    free(path);
    if (!rc) qsort(f->shard_paths, f->n_shards, sizeof *f->shard_paths, by_text);
    return rc;
}

static int open_shards(struct folder *f, struct kv_error *e) {
    int rc = list_shards(f, e);
    if (rc) return rc;
    f->shards = kv_alloc(f->n_shards, sizeof *f->shards);
    f->used = kv_alloc(f->n_shards, sizeof *f->used);
    for (size_t i = 0; i < f->n_shards && !rc; i++) {
        rc = kv_safetensors_open(&f->shards[i], f->shard_paths[i], e);
        f->used[i] = kv_alloc(f->shards[i].n + 1, sizeof **f->used);
    }
    return rc;
}

static void close_shards(struct folder *f) {
    for (size_t i = 0; i < f->n_shards; i++) {
        if (f->shards) kv_safetensors_close(&f->shards[i]);
        if (f->used) free(f->used[i]);
        free(f->shard_paths[i]);
    }
    free(f->shards);
    free(f->used);
    free(f->shard_paths);
}

static bool find_source(void *self, const char *name, struct kv_weight_source *source) {
    struct folder *f = self;
    for (size_t i = 0; i < f->n_shards; i++) {
        const struct kv_tensor *t = kv_safetensors_find(&f->shards[i], name);
        if (!t) continue;
        f->used[i][t - f->shards[i].tensors] = true;
        *source = (struct kv_weight_source){f->shard_paths[i], t->dtype, t->data, 1, 1};
        for (size_t d = 0; d < t->n_dims; d++) {
            if (d + 1 == t->n_dims)
                source->cols = (size_t)t->dims[d];
            else
                source->rows *= (size_t)t->dims[d];
        }
        return true;
    }
    return false;
}

// Tensors nobody asked for would be missed by the forward pass; known copies of what is computed
// anyway (RoPE frequencies in old files, a head that is tied) are not.
static int check_all_used(const struct folder *f, const struct kv_model *m, struct kv_error *e) {
    for (size_t i = 0; i < f->n_shards; i++)
        for (size_t k = 0; k < f->shards[i].n; k++) {
            const char *name = f->shards[i].tensors[k].name;
            if (f->used[i][k] || strstr(name, "rotary_emb.inv_freq") ||
                (m->tied && strcmp(name, "lm_head.weight") == 0))
                continue;
            return kv_fail(e, KV_EFAIL, f->shard_paths[i],
                           "tensor %.100s is not part of the %s architecture as computed here",
                           name, m->architecture->title);
        }
    return KV_OK;
}

// ---- the model ------------------------------------------------------------------------

// The folder's own name, for "." and ".." the path as given.
static void name_model(struct kv_model *m, const char *dir) {
    size_t n = strlen(dir), from;
    while (n > 1 && dir[n - 1] == '/') n--;
    for (from = n; from > 0 && dir[from - 1] != '/'; from--) {
    }
    snprintf(m->name, sizeof m->name, "%.*s", (int)(n - from < 95 ? n - from : 95), dir + from);
}

int kv_huggingface_load(struct kv_model *m, const char *dir, enum kv_weights_as as,
                        struct kv_error *e) {
    struct folder f = {.dir = dir};
    const char *main_type = "";
    int rc = check_folder(dir, e);
    if (!rc) rc = read_config(m, dir, e);
    if (!rc) rc = open_shards(&f, e);
    struct kv_weight_file file = {KV_LAYOUT_HF, dir, &f, find_source};
    if (!rc) rc = kv_weights_load(m, &file, as, &main_type, e);
    if (!rc) rc = check_all_used(&f, m, e);
    if (!rc) rc = kv_huggingface_tokenizer(m, dir, e);
    if (!rc) {
        name_model(m, dir);
        snprintf(m->source, sizeof m->source, "safetensors (%s)", main_type);
        uint64_t digest = 0;
        for (size_t i = 0; i < f.n_shards; i++)
            digest = kv_hash(f.shards[i].map.data, f.shards[i].map.n, digest);
        kv_hex64(digest, m->digest);
    }
    close_shards(&f);
    return rc;
}
