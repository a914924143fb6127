// SPDX-License-Identifier: Apache-2.0
// Attention probabilities of the prompt, from the recorded queries and keys.
//
//     float *keys = malloc(kv_attention_floats(item) * sizeof *keys), *p = keys + n * d;
//     kv_attention_keys(item, layer, kv_head, keys);
//     kv_attention_row(item, layer, head, row, keys, p);        p[0..row] adds up to 1
//
// Only rows below item->n_context may be asked for: a token that decides at the branch point has
// seen no more.
#ifndef KV_POLICIES_ATTENTION_H
#define KV_POLICIES_ATTENTION_H

#include "policies/policy.h"

// Floats that the prompt's keys of one head take.
static inline size_t kv_attention_floats(const struct kv_item *item) {
    return (size_t)item->n_context * item->run->shape.head_dim;
}

// keys[n_context][head_dim]
static inline void kv_attention_keys(const struct kv_item *item, size_t layer, size_t kv_head,
                                     float *keys) {
    const struct kv_shape *s = &item->run->shape;
    size_t d = s->head_dim, stride = (size_t)s->n_layers * s->n_kv_heads * d;
    const uint16_t *k = item->k + (layer * s->n_kv_heads + kv_head) * d;
    for (size_t t = 0; t < item->n_context; t++)
        for (size_t i = 0; i < d; i++) keys[t * d + i] = kv_half_to_float(k[t * stride + i]);
}

// Softmax over the row's visible tokens of q . k / sqrt(d): p[row + 1].
static inline void kv_attention_row(const struct kv_item *item, size_t layer, size_t head,
                                    size_t row, const float *keys, float *p) {
    const struct kv_shape *s = &item->run->shape;
    size_t d = s->head_dim;
    const uint16_t *q = item->q + ((row * s->n_layers + layer) * s->n_heads + head) * d;
    float most = -INFINITY, sum = 0, scale = 1 / sqrtf((float)d);
    for (size_t t = 0; t <= row; t++) p[t] = 0;
    for (size_t i = 0; i < d; i += 8) { // eight elements at a time, in a fixed order
        float x[8] = {0};
        for (size_t j = 0; j < 8 && i + j < d; j++) x[j] = scale * kv_half_to_float(q[i + j]);
        for (size_t t = 0; t <= row; t++) {
            float dot = 0;
            for (size_t j = 0; j < 8 && i + j < d; j++) dot += x[j] * keys[t * d + i + j];
            p[t] += dot;
        }
    }
    for (size_t t = 0; t <= row; t++) most = p[t] > most ? p[t] : most;
    for (size_t t = 0; t <= row; t++) sum += p[t] = expf(p[t] - most);
    for (size_t t = 0; t <= row; t++) p[t] /= sum;
}

#endif
