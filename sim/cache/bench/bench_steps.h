// SPDX-License-Identifier: Apache-2.0
// What the benchmarks of decode steps share: widths drawn cell by cell, seeded weights of a
// controller and of a model, and the times of calm steps.
#ifndef KV_CACHE_BENCH_BENCH_STEPS_H
#define KV_CACHE_BENCH_BENCH_STEPS_H

#include "analysis/stats/agreement.h"
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/cache/decode.h"
#include "sim/model/model.h"

#include <stdlib.h>

// ---- times ----------------------------------------------------------------------------

static inline size_t bench_calm(const struct kv_step_time *t, size_t n) {
    size_t calm = 0;
    for (size_t i = 0; i < n; i++) calm += !t[i].disturbed;
    return calm;
}

// Quantile q of a part (KV_N_PARTS: of the step) in us, over the steps in which the system took no
// core away; over all of them where fewer than `least` are so.
static inline double bench_quantile_us(const struct kv_step_time *t, size_t n, size_t least,
                                       int part, double q) {
    bool only_calm = bench_calm(t, n) >= least;
    double *x = kv_alloc(n, sizeof *x);
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        if (!only_calm || !t[i].disturbed)
            x[k++] = part == KV_N_PARTS ? t[i].step_ns : t[i].part_ns[part];
    double at = kv_quantile(x, k, q) / 1e3;
    free(x);
    return at;
}

// ---- widths cell by cell --------------------------------------------------------------

// Which share of the cells lies at which width; shares add up to 1.
struct bench_widths {
    size_t n;
    uint8_t bits[KV_PORT_WIDTHS];
    double share[KV_PORT_WIDTHS];
};

// Each cell for itself, by the same shares in every layer and head. A controller favours some
// widths in each head; draws without that order are the harder case for the attention kernels.
static inline uint8_t bench_draw_width(const struct bench_widths *w, uint64_t token,
                                       uint64_t cell) {
    double u = kv_draw(7, token, cell);
    size_t i = 0;
    while (i + 1 < w->n && u >= w->share[i]) u -= w->share[i++];
    return w->bits[i];
}

static inline float *bench_noise(size_t n, uint64_t seed, float size, float middle) {
    float *x = kv_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = middle + size * (2 * (float)kv_draw(seed, 1, i) - 1);
    return x;
}

// An empty cache whose keys and values each have a width of their own, or all the same one.
static inline int bench_cache_new(struct kv_cache **c, const struct kv_shape *s, bool by_cell,
                                  struct kv_error *e) {
    struct kv_cache_setting setting = {.shape = *s,
                                       .format = "asym:group=32",
                                       .varies = by_cell ? KV_VARIES_LAYER | KV_VARIES_HEAD : 0};
    return kv_cache_new(c, &setting, e);
}

// Grows a cache by cell to n tokens at drawn widths, keys k and values v [n_kv_heads x head_dim].
static inline void bench_grow_cells(struct kv_cache *c, const struct kv_shape *s,
                                    const struct bench_widths *w, uint32_t n, const float *k,
                                    const float *v) {
    size_t cells = kv_cache_streams(c) * 2;
    uint8_t *bits = kv_alloc(cells, 1);
    for (uint32_t t = kv_cache_tokens(c); t < n; t++) {
        for (size_t i = 0; i < cells; i++) bits[i] = bench_draw_width(w, t, i);
        kv_cache_extend(c, bits);
        for (uint32_t l = 0; l < s->n_layers; l++) kv_cache_put(c, l, k, v);
    }
    free(bits);
}

// Grows a cache of one width to n tokens: the first is coded, the others repeat its bytes.
static inline void bench_grow_uniform(struct kv_cache *c, const struct kv_shape *s, uint8_t bits,
                                      uint32_t n, const float *k, const float *v) {
    const uint8_t both[2] = {bits, bits};
    if (n > 0 && kv_cache_tokens(c) == 0) {
        kv_cache_extend(c, both);
        for (uint32_t l = 0; l < s->n_layers; l++) kv_cache_put(c, l, k, v);
    }
    if (n > kv_cache_tokens(c)) kv_cache_repeat(c, both, n - kv_cache_tokens(c));
}

// ---- a decoder and its controller -----------------------------------------------------

// A SmolLM2 of this shape with seeded weights of 4 bits, on all cores.
static inline int bench_decoder_new(struct kv_decoder **d, const struct kv_shape *s,
                                    struct kv_error *e) {
    struct kv_decoder_setting setting = {.shape = *s,
                                         .rms_eps = 1e-5f,
                                         .rope_base = 1e5f,
                                         .weights = KV_W_Q4,
                                         .n_threads = kv_cpu_count()};
    return kv_decoder_new(d, &setting, e);
}

// Seeded weights of a controller: of the true sizes, and of values that let the choice fall on
// every width.
struct bench_weights {
    float *channel, *bias, *linear, *probe, *embedding, *first, *first_bias, *second, *second_bias,
        *third, *mean, *deviation, *lambda;
};

static inline void bench_weights_init(struct bench_weights *w, const struct kv_shape *s) {
    enum { X = KV_N_CELL_FEATURES, N = KV_NET_WIDTH };
    size_t heads = (size_t)s->n_layers * s->n_kv_heads, places = heads * 2;
    *w = (struct bench_weights){
        .channel = bench_noise(places * s->head_dim, 0, 0.5f, 1),
        .bias = bench_noise(places, 1, 3, 0),
        .linear = bench_noise(places * X, 2, 0.2f, 0),
        .probe = bench_noise(places * s->hidden, 3, 1 / sqrtf((float)s->hidden), 0),
        .embedding = bench_noise(places * KV_NET_EMBEDDING, 4, 0.2f, 0),
        .first = bench_noise((size_t)N * (X + KV_NET_EMBEDDING), 5, 0.2f, 0),
        .first_bias = bench_noise(N, 6, 0.2f, 0),
        .second = bench_noise((size_t)N * N, 7, 0.2f, 0),
        .second_bias = bench_noise(N, 8, 0.2f, 0),
        .third = bench_noise(N, 9, 0.2f, 0),
        .mean = bench_noise(heads * X, 10, 0.2f, 0),
        .deviation = bench_noise(heads * X, 11, 0.2f, 1),
        .lambda = bench_noise(s->n_layers, 20, 0, 1e-3f)};
}

static inline void bench_weights_fini(struct bench_weights *w) {
    float *all[] = {w->channel, w->bias,       w->linear, w->probe,       w->embedding,
                    w->first,   w->first_bias, w->second, w->second_bias, w->third,
                    w->mean,    w->deviation,  w->lambda};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

// net: with the network, else linear alone. The weights must outlive the controller.
static inline int bench_controller_new(struct kv_controller **c, const struct bench_weights *w,
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

#endif
