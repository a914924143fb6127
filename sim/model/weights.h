// SPDX-License-Identifier: Apache-2.0
// What both loaders share: finding, checking and copying the tensors that the architecture lists.
//
// A loader fills m->shape from its metadata, calls kv_architecture_apply, corrects what the
// metadata say otherwise and m->tied, hands a way to find a tensor by name, and kv_weights_load
// checks, allocates, converts on all cores and verifies every number.
#ifndef KV_MODEL_WEIGHTS_H
#define KV_MODEL_WEIGHTS_H

#include "sim/model/architecture.h"
#include "sim/model/weight_types.h"

// A tensor as it lies in a mapped file: [rows][cols] of a type; a vector has one row.
struct kv_weight_source {
    const char *path; // of its file, for messages
    const char *type_name;
    const uint8_t *data;
    size_t rows, cols;
};

struct kv_weight_file {
    enum kv_model_layout layout;
    // Groups of biases (kv_slot_flags) that must be there besides those that the architecture
    // always has, and groups of which whatever is there is taken.
    unsigned biases, may_have_biases;
    const char *path; // for messages about what is missing
    void *self;
    bool (*find)(void *self, const char *name, struct kv_weight_source *source);
};

// Refuses shapes no model has, before anything is allocated from them.
KV_MUST_CHECK int kv_weights_check_shape(const struct kv_shape *s, const char *path,
                                         struct kv_error *e);

// Finds, allocates and converts all weights; sets m->weights_as and *main_type to the type that
// holds most values. Errors name the tensor: missing, another shape, an unknown type, NaN or
// infinity.
KV_MUST_CHECK int kv_weights_load(struct kv_model *m, const struct kv_weight_file *file,
                                  enum kv_weights_as as, const char **main_type,
                                  struct kv_error *e);

// Allocates a model's arrays for its shape and architecture with these groups of biases; matrices
// are undefined, vectors 0. KV_ENOMEM says how much was asked.
KV_MUST_CHECK int kv_weights_allocate(struct kv_model *m, unsigned biases, enum kv_weights_as as,
                                      struct kv_error *e);

// The i-th vector of a layer (NULL past the end), and the floats that it has where it is there.
float **kv_layer_vector(struct kv_layer_weights *l, size_t i);
size_t kv_layer_vector_floats(const struct kv_shape *s, size_t i);

// The loaders behind kv_model_open. They fill everything but rope tables. (gguf.c, huggingface.c)
KV_MUST_CHECK int kv_gguf_load(struct kv_model *m, const char *path, enum kv_weights_as as,
                               struct kv_error *e);
KV_MUST_CHECK int kv_huggingface_load(struct kv_model *m, const char *dir, enum kv_weights_as as,
                                      struct kv_error *e);

#endif
