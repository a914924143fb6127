// SPDX-License-Identifier: Apache-2.0
// Cells at drawn widths and a controller of seeded weights: what a decode step over widths by cell
// is timed with, since its time depends on sizes and shares alone.
//
//     struct kv_seeded_weights w;
//     kv_seeded_weights_init(&w, &shape);
//     kv_seeded_controller(&c, &w, &shape, true, KV_ERROR_RANGE, widths, n, &e);
//     kv_cache_draw_cells(cache, &shape, &shares, 2048, k, v);
#ifndef KV_CACHE_SEEDED_H
#define KV_CACHE_SEEDED_H

#include "sim/cache/controller.h"

// Which share of the cells lies at which width; shares add up to 1.
struct kv_width_shares {
    size_t n;
    uint8_t bits[KV_PORT_WIDTHS];
    double share[KV_PORT_WIDTHS];
};

// Grows a cache that varies by layer and head to n tokens, each key and value of a layer and head
// at a width drawn for itself by the same shares everywhere. A controller favours some widths in
// each head; draws without that order are the harder case for attention. k, v: [n_kv_heads x
// head_dim].
void kv_cache_draw_cells(struct kv_cache *c, const struct kv_shape *s,
                         const struct kv_width_shares *w, uint32_t n, const float *k,
                         const float *v);

// n numbers of middle +- size, drawn by the seed; caller frees.
float *kv_seeded_noise(size_t n, uint64_t seed, float size, float middle);

// Weights of the true sizes, and of values that let the choice fall on every width.
struct kv_seeded_weights {
    float *channel, *bias, *linear, *probe, *embedding, *first, *first_bias, *second, *second_bias,
        *third, *mean, *deviation, *lambda;
};
void kv_seeded_weights_init(struct kv_seeded_weights *w, const struct kv_shape *s);
void kv_seeded_weights_fini(struct kv_seeded_weights *w);

// A controller of them, with the network or linear alone. The weights must outlive it. Errors:
// those of kv_controller_new.
KV_MUST_CHECK int kv_seeded_controller(struct kv_controller **c, const struct kv_seeded_weights *w,
                                       const struct kv_shape *s, bool net, enum kv_error_rule rule,
                                       const uint8_t *widths, size_t n_widths, struct kv_error *e);

#endif
