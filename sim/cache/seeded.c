// SPDX-License-Identifier: Apache-2.0
// Draws of widths and weights.
#include "sim/cache/seeded.h"
#include "sim/base/memory.h"

#include <stdlib.h>

static uint8_t draw_width(const struct kv_width_shares *w, uint64_t token, uint64_t cell) {
    double u = kv_draw(7, token, cell);
    size_t i = 0;
    while (i + 1 < w->n && u >= w->share[i]) u -= w->share[i++];
    return w->bits[i];
}

void kv_cache_draw_cells(struct kv_cache *c, const struct kv_shape *s,
                         const struct kv_width_shares *w, uint32_t n, const float *k,
                         const float *v) {
    size_t cells = kv_cache_streams(c) * 2;
    uint8_t *bits = kv_alloc(cells, 1);
    for (uint32_t t = kv_cache_tokens(c); t < n; t++) {
        for (size_t i = 0; i < cells; i++) bits[i] = draw_width(w, t, i);
        kv_cache_extend(c, bits);
        for (uint32_t l = 0; l < s->n_layers; l++) kv_cache_put(c, l, k, v);
    }
    free(bits);
}

float *kv_seeded_noise(size_t n, uint64_t seed, float size, float middle) {
    float *x = kv_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = middle + size * (2 * (float)kv_draw(seed, 1, i) - 1);
    return x;
}

void kv_seeded_weights_init(struct kv_seeded_weights *w, const struct kv_shape *s) {
    enum { X = KV_N_CELL_FEATURES, N = KV_NET_WIDTH };
    size_t heads = (size_t)s->n_layers * s->n_kv_heads, places = heads * 2;
    *w = (struct kv_seeded_weights){
        .channel = kv_seeded_noise(places * s->head_dim, 0, 0.5f, 1),
        .bias = kv_seeded_noise(places, 1, 3, 0),
        .linear = kv_seeded_noise(places * X, 2, 0.2f, 0),
        .probe = kv_seeded_noise(places * s->hidden, 3, 1 / sqrtf((float)s->hidden), 0),
        .embedding = kv_seeded_noise(places * KV_NET_EMBEDDING, 4, 0.2f, 0),
        .first = kv_seeded_noise((size_t)N * (X + KV_NET_EMBEDDING), 5, 0.2f, 0),
        .first_bias = kv_seeded_noise(N, 6, 0.2f, 0),
        .second = kv_seeded_noise((size_t)N * N, 7, 0.2f, 0),
        .second_bias = kv_seeded_noise(N, 8, 0.2f, 0),
        .third = kv_seeded_noise(N, 9, 0.2f, 0),
        .mean = kv_seeded_noise(heads * X, 10, 0.2f, 0),
        .deviation = kv_seeded_noise(heads * X, 11, 0.2f, 1),
        .lambda = kv_seeded_noise(s->n_layers, 20, 0, 1e-3f)};
}

void kv_seeded_weights_fini(struct kv_seeded_weights *w) {
    float *all[] = {w->channel, w->bias,       w->linear, w->probe,       w->embedding,
                    w->first,   w->first_bias, w->second, w->second_bias, w->third,
                    w->mean,    w->deviation,  w->lambda};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

int kv_seeded_controller(struct kv_controller **c, const struct kv_seeded_weights *w,
                         const struct kv_shape *s, bool net, enum kv_error_rule rule,
                         const uint8_t *widths, size_t n_widths, struct kv_error *e) {
    struct kv_controller_setting setting = {.shape = *s,
                                            .channel = w->channel,
                                            .bias = w->bias,
                                            .linear = w->linear,
                                            .probe = w->probe,
                                            .embedding = net ? w->embedding : NULL,
                                            .first = w->first,
                                            .first_bias = w->first_bias,
                                            .second = w->second,
                                            .second_bias = w->second_bias,
                                            .third = w->third,
                                            .mean = w->mean,
                                            .deviation = w->deviation,
                                            .lambda = w->lambda,
                                            .rule = rule,
                                            .n_widths = n_widths};
    memcpy(setting.widths, widths, n_widths);
    return kv_controller_new(c, &setting, e);
}
