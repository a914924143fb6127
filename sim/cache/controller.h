// SPDX-License-Identifier: Apache-2.0
// The controller of widths by cell, as a device would run it: in the decode step, layer by layer.
//
//     struct kv_controller *c;
//     kv_controller_new(&c, &(struct kv_controller_setting){.shape = s, .channel = m, ...});
//     kv_decoder_steps(decoder, cache, NULL, ...) with decoder setting .controller = c
//     kv_controller_free(c);
//
// Attention over the earlier tokens comes first, at the widths that they are stored in; the token's
// own key and value are exact in its own step. The softmax statistics of the attention kernels give
// four of the six features, so that no key is read twice; the other two are norms. Then, for each
// key and value of the layer (place p),
//     log s = bias[p] + linear[p] . x + net([x, embedding[p]]) + probe[p] . h, clipped to +-30
//     width = argmin over w of 0.5 s sum_i m_i e_i(w)^2 + lambda bits(w)
// with x the standardised features, h the layer's normalised input, m the channel weights, e the
// coding error, bits(w) codes and metadata of a vector at w bits (an independent study of widths by
// cell; the tensors are those of its weights file, with the same names and orders).
#ifndef KV_CACHE_CONTROLLER_H
#define KV_CACHE_CONTROLLER_H

#include "sim/cache/cache.h"

enum { KV_NET_WIDTH = 64, KV_NET_EMBEDDING = 8 };

// Where e comes from.
enum kv_error_rule {
    KV_ERROR_TRIAL, // coding and decoding at each width
    KV_ERROR_RANGE  // step^2 / 12 of each group's grid, the step from the group's range
};

// P places: (layer x n_kv_heads + head) x 2 + side. Copied by kv_controller_new, but for `probe`.
struct kv_controller_setting {
    struct kv_shape shape;
    const float *channel; // [P][head_dim]
    const float *bias;    // [P]
    const float *linear;  // [P][KV_N_CELL_FEATURES]
    const float *probe;   // [P][hidden], borrowed; NULL: none
    // NULL embedding: no net. Row-major: first [64][6 + 8], second [64][64], third [64].
    const float *embedding, *first, *first_bias, *second, *second_bias, *third;
    float third_bias;
    const float *mean, *deviation; // [n_layers x n_kv_heads][KV_N_CELL_FEATURES]
    const float *lambda;           // [n_layers]
    enum kv_error_rule rule;
    uint8_t widths[KV_PORT_WIDTHS]; // offered, ascending
    size_t n_widths;
};

struct kv_controller;

// Errors: KV_EUSAGE for widths that no port has.
KV_MUST_CHECK int kv_controller_new(struct kv_controller **c, const struct kv_controller_setting *s,
                                    struct kv_error *e);
void kv_controller_free(struct kv_controller *c); // NULL is fine

// Features of KV heads [first, end) of a row from the partial attention of its parts, the last of
// which is the token's own (max: its score). x: [end - first][KV_N_CELL_FEATURES]. k, v:
// [n_kv_heads
// * head_dim] of the token. The same numbers as kv_cell_features gives, up to rounding.
void kv_controller_features(const struct kv_shape *s, const struct kv_partial *p, unsigned n_parts,
                            const float *k, const float *v, uint32_t first, uint32_t end, float *x);

// Widths of cells [first, end) of a layer, cell = 2 x KV head + side. x: features of KV heads from
// first / 2 on; h: [hidden]; bits: [end - first]. Thread-safe. The cache says how its format codes.
void kv_controller_decide(const struct kv_controller *c, const struct kv_cache *cache,
                          uint32_t layer, uint32_t first, uint32_t end, const float *x,
                          const float *h, const float *k, const float *v, uint8_t *bits);

#endif
