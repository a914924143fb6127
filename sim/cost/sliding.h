// SPDX-License-Identifier: Apache-2.0
// Layers that look through a window: what of a context attention reads.
#ifndef KV_COST_SLIDING_H
#define KV_COST_SLIDING_H

#include <stdint.h>

// Layers whose queries see only the newest tokens, and how many those are; zeros: none.
struct kv_sliding {
    uint32_t layers, tokens;
};
// Tokens that a layer's attention reads at this context, mean over the layers.
static inline double kv_tokens_read(const struct kv_sliding *s, uint32_t n_layers, double context) {
    double passed = context - s->tokens;
    if (s->layers == 0 || passed <= 0) return context;
    return context - passed * s->layers / n_layers;
}

#endif
