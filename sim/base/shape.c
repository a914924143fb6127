// SPDX-License-Identifier: Apache-2.0
// The fields of a model's shape by name.
#include "sim/base/shape.h"

#include <assert.h>
#include <stddef.h>

#define FIELD(name, word)                                                                          \
    { #name, word, offsetof(struct kv_shape, name) }
const struct kv_shape_field kv_shape_fields[KV_N_SHAPE_FIELDS] = {
    FIELD(n_layers, "layers"),   FIELD(n_heads, "heads"),         FIELD(n_kv_heads, "kv_heads"),
    FIELD(head_dim, "head_dim"), FIELD(hidden, "hidden"),         FIELD(ffn, "ffn"),
    FIELD(vocab, "vocab"),       FIELD(max_tokens, "max_tokens"),
};

static_assert(sizeof(struct kv_shape) == KV_N_SHAPE_FIELDS * sizeof(uint32_t),
              "a field is missing");

uint32_t kv_shape_get(const struct kv_shape *s, size_t field) {
    uint32_t value;
    memcpy(&value, (const char *)s + kv_shape_fields[field].at, sizeof value);
    return value;
}

void kv_shape_set(struct kv_shape *s, size_t field, uint32_t value) {
    memcpy((char *)s + kv_shape_fields[field].at, &value, sizeof value);
}

double kv_shape_parameters(const struct kv_shape *s) {
    if (!s->n_layers || !s->hidden || !s->ffn || !s->vocab) return 0;
    double attention = (double)s->hidden * s->head_dim * 2 * ((double)s->n_heads + s->n_kv_heads);
    double layer = attention + 3.0 * s->hidden * s->ffn + 2.0 * s->hidden;
    return layer * s->n_layers + (double)s->vocab * s->hidden + s->hidden;
}
