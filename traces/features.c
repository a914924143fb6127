// SPDX-License-Identifier: Apache-2.0
// Features that a forward pass leaves behind.
#include "traces/features.h"

#include <stdlib.h>

#include "sim/base/memory.h"

void kv_add_ranges(const struct kv_shape *s, const float *x, size_t first, size_t n,
                   enum kv_feature which, float *features) {
    float share = 1.0f / (float)(s->n_layers * s->n_kv_heads);
    for (size_t row = first; row < n; row++)
        for (size_t h = 0; h < s->n_kv_heads; h++) {
            const float *head = x + (row * s->n_kv_heads + h) * s->head_dim;
            float low = head[0], high = head[0];
            for (size_t i = 1; i < s->head_dim; i++) {
                low = fminf(low, head[i]);
                high = fmaxf(high, head[i]);
            }
            features[row * KV_N_FEATURES + which] += share * (high - low);
        }
}

void kv_predicted_features(const struct kv_model *m, struct kv_scratch *s, const float *final,
                           uint32_t first, const uint32_t *rows, size_t n_rows, float *features) {
    size_t h = m->shape.hidden;
    size_t most = kv_head_rows(m);
    float *gathered = kv_alloc(most * h, sizeof *gathered);
    for (size_t from = 0, n; from < n_rows; from += n) {
        struct kv_reference r;
        n = n_rows - from < most ? n_rows - from : most;
        for (size_t i = 0; i < n; i++)
            memcpy(gathered + i * h, final + (size_t)(rows[from + i] - first) * h,
                   h * sizeof *final);
        kv_head_reference(m, gathered, n, s, &r);
        for (size_t i = 0; i < n; i++) {
            float *f = features + (size_t)rows[from + i] * KV_N_FEATURES;
            kv_reference_features(m, &r, i, &f[KV_ENTROPY_NATS], &f[KV_CONFIDENCE]);
        }
    }
    free(gathered);
}
