// SPDX-License-Identifier: Apache-2.0
// The types that weights are stored in, GGUF's and safetensors'. One that can be read is a row of
// weight_types.c and the function that it names.
#ifndef KV_MODEL_WEIGHT_TYPES_H
#define KV_MODEL_WEIGHT_TYPES_H

#include "policies/policy.h"

// A type of stored weights: blocks of values that are decoded together.
struct kv_weight_type {
    const char *name;
    uint32_t number; // ggml's
    uint32_t block_values, block_bytes;
    void (*decode)(const uint8_t *blocks, size_t n_blocks, float *out); // NULL: only known by name
};

// NULL when weights of that name can't be decoded.
const struct kv_weight_type *kv_weight_type_named(const char *name);
// The name of ggml's type of that number, whether it can be decoded or not; NULL = not known.
const char *kv_weight_type_name(uint32_t number);
// "F32, F16, ...": those that can be decoded. Returns text.
const char *kv_weight_types_text(char *text, size_t room);

#endif
