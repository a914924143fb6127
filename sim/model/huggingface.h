// SPDX-License-Identifier: Apache-2.0
// What the readers of a Hugging Face folder share: its JSON files.
#ifndef KV_MODEL_HUGGINGFACE_H
#define KV_MODEL_HUGGINGFACE_H

#include <jansson.h>

#include "policies/policy.h"

struct kv_model;

// dir/file; the caller frees it.
char *kv_huggingface_path(const char *dir, const char *file);

// Reads dir/file, an object. *path (its path, freed by the caller) and *root (json_decref) are set
// also after an error; the message of bad JSON names line and byte.
KV_MUST_CHECK int kv_huggingface_json(json_t **root, char **path, const char *dir, const char *file,
                                      struct kv_error *e);

// Whether a key is there and neither null nor false.
static inline bool kv_json_is_set(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return v && !json_is_null(v) && !json_is_false(v);
}

// Sets *x from a whole number, and from a positive one; null is as absent, and then *x stays.
KV_MUST_CHECK int kv_json_count(const json_t *object, const char *path, const char *key,
                                bool optional, uint32_t *x, struct kv_error *e);
KV_MUST_CHECK int kv_json_positive(const json_t *object, const char *path, const char *key,
                                   float *x, struct kv_error *e);

// Reads the folder's config.json: shape, architecture, windows, RoPE; and which groups of biases
// (kv_slot_flags) it says that there are. What it asks for and the forward pass does not compute is
// refused by name. (huggingface_config.c)
KV_MUST_CHECK int kv_huggingface_config(struct kv_model *m, const char *dir, unsigned *biases,
                                        struct kv_error *e);
// The part of it about RoPE (huggingface_rope.c), for an architecture that has been applied.
KV_MUST_CHECK int kv_huggingface_rope(struct kv_model *m, json_t *config, const char *path,
                                      struct kv_error *e);

// Sets m->tokenizer from the folder's tokenizer.json (huggingface_tokenizer.c).
KV_MUST_CHECK int kv_huggingface_tokenizer(struct kv_model *m, const char *dir, struct kv_error *e);

#endif
