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

// Sets m->tokenizer from the folder's tokenizer.json (huggingface_tokenizer.c).
KV_MUST_CHECK int kv_huggingface_tokenizer(struct kv_model *m, const char *dir, struct kv_error *e);

#endif
