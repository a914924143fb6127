// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding: the tables of a model's RoPEs, and turning heads by them (private to
// sim/model; model.h has the frequencies, forward.h what other rooms turn).
#ifndef KV_MODEL_ROPE_H
#define KV_MODEL_ROPE_H

#include "sim/model/model.h"

// A RoPE of a base, not stretched.
struct kv_rope kv_rope_plain(float base);

// What YaRN multiplies rotated vectors by, unless a file says otherwise (arXiv 2309.00071, eq. 22:
// the square root of the temperature).
float kv_rope_yarn_attention(float factor);

// Refuses a stretched RoPE whose numbers are none: `path` says whose.
KV_MUST_CHECK int kv_rope_check(const struct kv_rope *r, const char *path, struct kv_error *e);

// Fills cos and sin of all of the model's RoPEs for its shape.
void kv_rope_make_tables(struct kv_model *m);

// Turns n_heads vectors [n_heads][head_dim] at one position by a layer's RoPE, in place; sign -1 is
// the adjoint (the inverse, where the attention factor is 1).
void kv_rope_turn(const struct kv_model *m, uint32_t layer, float *x, size_t n_heads,
                  uint32_t position, float sign);

#endif
