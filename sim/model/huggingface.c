// SPDX-License-Identifier: Apache-2.0
// Loads a model from a Hugging Face folder: its safetensors shards. Its config.json is read in
// huggingface_config.c, its tokenizer.json in huggingface_tokenizer.c.
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
    struct kv_weight_file file = {
        .layout = KV_LAYOUT_HF, .path = dir, .self = &f, .find = find_source};
    if (!rc) rc = kv_huggingface_config(m, dir, &file.biases, e);
    if (!rc) rc = open_shards(&f, e);
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
