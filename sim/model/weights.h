// SPDX-License-Identifier: Apache-2.0
// What both loaders share: the types weights come in, the tensors a Llama model needs, their copy.
//
// A loader fills m->shape and m->tied from its metadata, hands a way to find a tensor by name, and
// kv_weights_load checks, allocates, converts on all cores and verifies every number.
#ifndef KV_MODEL_WEIGHTS_H
#define KV_MODEL_WEIGHTS_H

#include "sim/model/model.h"

// A type of stored weights: blocks of values that are decoded together.
struct kv_weight_type {
    const char *name;
    uint32_t block_values, block_bytes;
    void (*decode)(const uint8_t *blocks, size_t n_blocks, float *out);
};

#define KV_WEIGHT_TYPES "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0"

// NULL when weights of that name can't be decoded.
const struct kv_weight_type *kv_weight_type_named(const char *name);

// A tensor as it lies in a mapped file: [rows][cols] of a type; a vector has one row.
struct kv_weight_source {
    const char *path; // of its file, for messages
    const char *type_name;
    const uint8_t *data;
    size_t rows, cols;
};

enum kv_weight_names { KV_NAMES_GGUF, KV_NAMES_HF };

struct kv_weight_file {
    enum kv_weight_names names;
    const char *path; // for messages about what is missing
    void *self;
    bool (*find)(void *self, const char *name, struct kv_weight_source *source);
};

// Refuses shapes no Llama model has, before anything is allocated from them.
KV_MUST_CHECK int kv_weights_check_shape(const struct kv_shape *s, const char *path,
                                         struct kv_error *e);

// Finds, allocates and converts all weights; sets m->weights_as and *main_type to the type that
// holds most values. Errors name the tensor: missing, another shape, an unknown type, NaN or
// infinity.
KV_MUST_CHECK int kv_weights_load(struct kv_model *m, const struct kv_weight_file *file,
                                  enum kv_weights_as as, const char **main_type,
                                  struct kv_error *e);

// Allocates a model's arrays for its shape, contents undefined. KV_ENOMEM says how much was asked.
KV_MUST_CHECK int kv_weights_allocate(struct kv_model *m, enum kv_weights_as as,
                                      struct kv_error *e);

#endif
