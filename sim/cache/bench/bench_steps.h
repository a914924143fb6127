// SPDX-License-Identifier: Apache-2.0
// What the benchmarks of decode steps share: the times of calm steps, caches and a decoder.
#ifndef KV_CACHE_BENCH_BENCH_STEPS_H
#define KV_CACHE_BENCH_BENCH_STEPS_H

#include "analysis/stats/agreement.h"
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/cache/decode.h"
#include "sim/cache/seeded.h"
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

// ---- caches and a decoder -------------------------------------------------------------

// An empty cache whose keys and values each have a width of their own, or all the same one.
static inline int bench_cache_new(struct kv_cache **c, const struct kv_shape *s, bool by_cell,
                                  struct kv_error *e) {
    struct kv_cache_setting setting = {.shape = *s,
                                       .format = "asym:group=32",
                                       .varies = by_cell ? KV_VARIES_LAYER | KV_VARIES_HEAD : 0};
    return kv_cache_new(c, &setting, e);
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

#endif
