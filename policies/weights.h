// SPDX-License-Identifier: Apache-2.0
// Weights of a small network from a safetensors file, read with plain C.
//
// Tensors are named as PyTorch names those of torch.nn.Sequential(Linear, ReLU, Linear, ReLU,
// Linear): 0.weight [hidden, inputs], 0.bias, 2.weight, 2.bias, 4.weight [outputs, hidden], 4.bias;
// all F32.
#ifndef KV_POLICIES_WEIGHTS_H
#define KV_POLICIES_WEIGHTS_H

#include "policies/tensors.h"

enum { KV_NET_LAYERS = 3, KV_NET_MAX_WIDTH = 2048 };

// What shares a class: the token, a layer of it, the KV heads of a layer's K or V, nothing. A
// network has its classes once for each of these, one after the other.
enum kv_net_grain { KV_NET_TOKEN, KV_NET_LAYER, KV_NET_KV, KV_NET_CELL };
extern const char *const kv_net_grains[]; // "token", "layer", "kv", "cell", NULL
static inline size_t kv_net_units(const struct kv_shape *s, enum kv_net_grain grain) {
    return grain == KV_NET_TOKEN   ? 1
           : grain == KV_NET_LAYER ? s->n_layers
           : grain == KV_NET_KV    ? 2 * (size_t)s->n_layers
                                   : kv_cells(s);
}
// Of a cell, in the order of decisions.
static inline size_t kv_net_unit(const struct kv_shape *s, enum kv_net_grain grain, size_t cell) {
    size_t layer = cell / (2 * (size_t)s->n_kv_heads);
    return grain == KV_NET_TOKEN   ? 0
           : grain == KV_NET_LAYER ? layer
           : grain == KV_NET_KV    ? 2 * layer + cell % 2
                                   : cell;
}

// What a controller reads, in the words of its file's metadata (`inputs`). Rarity is that with V
// the distinct tokens seen: networks trained on the older one, which says rarity_nats alone, are
// told apart by it.
#define KV_NET_INPUTS "entropy_nats/rarity_nats:distinct/attn_var/confidence"

struct kv_net {
    size_t width[KV_NET_LAYERS + 1];    // inputs, hidden, hidden, outputs
    const float *weight[KV_NET_LAYERS]; // [width[l + 1]][width[l]]
    const float *bias[KV_NET_LAYERS];
    char inputs[96];        // metadata `inputs`, "" where the file says nothing
    struct kv_tensors file; // what owns them, with its digest
};

// Errors: no such file, not safetensors, a tensor missing, of another type, or of a shape that does
// not follow from the one before.
KV_MUST_CHECK int kv_net_open(struct kv_net *net, const char *path, struct kv_error *e);
void kv_net_close(struct kv_net *net);

#endif
