// SPDX-License-Identifier: Apache-2.0
// The fields of a model's shape by name: one table for every file that holds a shape.
//
//     for (size_t i = 0; i < KV_N_SHAPE_FIELDS; i++)
//         printf("%s %u\n", kv_shape_fields[i].name, kv_shape_get(&shape, i));
#ifndef KV_BASE_SHAPE_H
#define KV_BASE_SHAPE_H

#include "policies/policy.h"

enum { KV_N_SHAPE_FIELDS = 8 };

struct kv_shape_field {
    const char *name; // in traces and stores: "n_layers"
    const char *word; // in device files: "layers"
    size_t at;
};
extern const struct kv_shape_field kv_shape_fields[KV_N_SHAPE_FIELDS]; // in the order of files

uint32_t kv_shape_get(const struct kv_shape *s, size_t field);
void kv_shape_set(struct kv_shape *s, size_t field, uint32_t value);

// Parameters of a Llama model of this shape with a tied head; 0 when the shape does not tell.
double kv_shape_parameters(const struct kv_shape *s);

#endif
