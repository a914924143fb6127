// SPDX-License-Identifier: Apache-2.0
// What the controller of widths costs in whole decode steps at 2k tokens, in each of its forms.
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/cache/decode.h"

#include <stdlib.h>

// Forms take turns; steps in which the system took a core away are left out while LEAST are there.
enum { TOKENS = 2048, ROUNDS = 12, MOST = 60, LEAST = 9, STEPS = 2, SAMPLES = MOST * STEPS };

static const struct form {
    const char *name;
    bool controller, net;
    enum kv_error_rule rule;
    uint8_t widths[6];
    size_t n_widths;
} forms[] = {
    {"widths given", false, false, KV_ERROR_RANGE, {0}, 0},
    {"linear, range, 2 widths", true, false, KV_ERROR_RANGE, {3, 5}, 2},
    {"linear, range, 6 widths", true, false, KV_ERROR_RANGE, {2, 3, 4, 5, 6, 8}, 6},
    {"linear, trial, 2 widths", true, false, KV_ERROR_TRIAL, {3, 5}, 2},
    {"linear, trial, 6 widths", true, false, KV_ERROR_TRIAL, {2, 3, 4, 5, 6, 8}, 6},
    {"net, range, 2 widths", true, true, KV_ERROR_RANGE, {3, 5}, 2},
    {"net, range, 6 widths", true, true, KV_ERROR_RANGE, {2, 3, 4, 5, 6, 8}, 6},
    {"net, trial, 2 widths", true, true, KV_ERROR_TRIAL, {3, 5}, 2},
    {"net, trial, 6 widths", true, true, KV_ERROR_TRIAL, {2, 3, 4, 5, 6, 8}, 6},
};
enum { N = sizeof forms / sizeof *forms };

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Median of a part (KV_N_PARTS: of the step) over calm steps, in us.
static double middle_us(const struct kv_step_time *t, size_t n, int part) {
    double x[SAMPLES];
    size_t calm = 0, k = 0;
    for (size_t i = 0; i < n; i++) calm += !t[i].disturbed;
    for (size_t i = 0; i < n; i++)
        if (!t[i].disturbed || calm < LEAST)
            x[k++] = part == KV_N_PARTS ? t[i].step_ns : t[i].part_ns[part];
    qsort(x, k, sizeof *x, compare);
    return (x[(k - 1) / 2] + x[k / 2]) / 2e3;
}

// Seeded weights: of the true sizes, and of sizes that let the choice fall on every width.
static float *noise(size_t n, uint64_t seed, float size, float middle) {
    float *x = kv_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = middle + size * (2 * (float)kv_draw(seed, 1, i) - 1);
    return x;
}

struct weights {
    float *of[12], *lambda;
    struct kv_controller *controllers[N];
};

static int make_controllers(struct weights *w, const struct kv_shape *s, struct kv_error *e) {
    size_t heads = (size_t)s->n_layers * s->n_kv_heads, places = heads * 2;
    const size_t x = KV_N_CELL_FEATURES, sizes[12] = {places * s->head_dim,
                                                      places,
                                                      places * x,
                                                      places * s->hidden,
                                                      places * KV_NET_EMBEDDING,
                                                      KV_NET_WIDTH * (x + KV_NET_EMBEDDING),
                                                      KV_NET_WIDTH,
                                                      KV_NET_WIDTH * KV_NET_WIDTH,
                                                      KV_NET_WIDTH,
                                                      KV_NET_WIDTH,
                                                      heads * x,
                                                      heads * x};
    for (size_t i = 0; i < 12; i++)
        w->of[i] = i == 0    ? noise(sizes[i], i, 0.5f, 1)
                   : i == 1  ? noise(sizes[i], i, 3, 0)
                   : i == 3  ? noise(sizes[i], i, 1 / sqrtf((float)s->hidden), 0)
                   : i == 11 ? noise(sizes[i], i, 0.2f, 1)
                             : noise(sizes[i], i, 0.2f, 0);
    w->lambda = noise(s->n_layers, 20, 0, 1e-3f);
    for (size_t f = 0; f < N; f++) {
        w->controllers[f] = NULL;
        if (!forms[f].controller) continue;
        struct kv_controller_setting c = {.shape = *s,
                                          .channel = w->of[0],
                                          .bias = w->of[1],
                                          .linear = w->of[2],
                                          .probe = w->of[3],
                                          .mean = w->of[10],
                                          .deviation = w->of[11],
                                          .lambda = w->lambda,
                                          .rule = forms[f].rule,
                                          .n_widths = forms[f].n_widths};
        memcpy(c.widths, forms[f].widths, sizeof forms[f].widths);
        if (forms[f].net) {
            c.embedding = w->of[4];
            c.first = w->of[5];
            c.first_bias = w->of[6];
            c.second = w->of[7];
            c.second_bias = w->of[8];
            c.third = w->of[9];
        }
        int rc = kv_controller_new(&w->controllers[f], &c, e);
        if (rc) return rc;
    }
    return 0;
}

// A cache of TOKENS - 1 tokens, widths drawn cell by cell about 4 bits.
static int fill(struct kv_cache **c, const struct kv_shape *s, struct kv_error *e) {
    static const uint8_t drawn[20] = {2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5, 5, 6, 6, 8};
    struct kv_cache_setting setting = {
        .shape = *s, .format = "asym:group=32", .varies = KV_VARIES_LAYER | KV_VARIES_HEAD};
    int rc = kv_cache_new(c, &setting, e);
    if (rc) return rc;
    size_t n = kv_cache_streams(*c) * 2, kv = (size_t)s->n_kv_heads * s->head_dim;
    uint8_t *bits = kv_alloc(n, 1);
    float *x = noise(2 * kv, 30, 1, 0);
    for (uint32_t t = 0; t + 1 < TOKENS; t++) {
        for (size_t i = 0; i < n; i++) bits[i] = drawn[(size_t)(kv_draw(31, t, i) * 20)];
        kv_cache_extend(*c, bits);
        for (uint32_t l = 0; l < s->n_layers; l++) kv_cache_put(*c, l, x, x + kv);
    }
    free(bits);
    free(x);
    return 0;
}

static int bench(const char *name, struct kv_shape s) {
    struct kv_error e;
    struct weights w;
    struct kv_cache *cache;
    struct kv_decoder *d;
    struct kv_decoder_setting setting = {.shape = s,
                                         .rms_eps = 1e-5f,
                                         .rope_base = 1e5f,
                                         .weights = KV_W_Q4,
                                         .n_threads = kv_cpu_count()};
    if (make_controllers(&w, &s, &e) || fill(&cache, &s, &e) || kv_decoder_new(&d, &setting, &e)) {
        fprintf(stderr, "bench_controller: %s: %s\n", e.where, e.msg);
        return 1;
    }
    float *x = noise(s.hidden, 40, 1, 0);
    size_t n_bits = kv_cache_streams(cache) * 2, n = 0, least = 0;
    uint8_t *bits = kv_alloc(n_bits, 1);
    memset(bits, 4, n_bits);
    struct kv_step_time(*time)[SAMPLES] = kv_alloc(N, sizeof *time), warm;
    double mean_bits[N];
    for (size_t f = 0; f < N; f++) {
        kv_decoder_control(d, w.controllers[f]);
        kv_decoder_steps(d, cache, bits, 1, x, &warm, true, NULL);
        mean_bits[f] = 0;
        for (size_t i = 0; i < n_bits / 2; i++) {
            uint8_t of[2];
            kv_cache_widths(cache, i, TOKENS - 1, of);
            mean_bits[f] += (double)(of[0] + of[1]) / (double)n_bits;
        }
        kv_cache_truncate(cache, TOKENS - 1);
    }
    for (int r = 0; r < MOST && (r < ROUNDS || least < LEAST); r++, n += STEPS) {
        least = SAMPLES;
        for (size_t f = 0; f < N; f++) {
            kv_decoder_control(d, w.controllers[f]);
            kv_decoder_steps(d, cache, bits, STEPS, x, time[f] + n, false, NULL);
            size_t calm = 0;
            for (size_t i = 0; i < n + STEPS; i++) calm += !time[f][i].disturbed;
            if (calm < least) least = calm;
        }
    }
    printf("%s, q4 weights, %d tokens at 4 bits in the mean, cell by cell, %u threads\n", name,
           TOKENS, kv_decoder_threads(d));
    printf("%-24s  step_ms  policy_us  append_us  controller_pct  bits\n", "form");
    double given = middle_us(time[0], n, KV_N_PARTS),
           append = middle_us(time[0], n, KV_PART_APPEND);
    for (size_t f = 0; f < N; f++) {
        double policy = middle_us(time[f], n, KV_PART_POLICY);
        double put = middle_us(time[f], n, KV_PART_APPEND);
        printf("%-24s  %7.2f  %9.0f  %9.0f  %14.2f  %4.1f\n", forms[f].name,
               middle_us(time[f], n, KV_N_PARTS) / 1e3, policy, put,
               100 * (policy + put - append) / given, mean_bits[f]);
    }
    for (size_t f = 0; f < N; f++) kv_controller_free(w.controllers[f]);
    for (size_t i = 0; i < 12; i++) free(w.of[i]);
    free(w.lambda);
    free(time);
    free(bits);
    free(x);
    kv_cache_free(cache);
    kv_decoder_free(d);
    return 0;
}

int main(void) {
    static const struct {
        const char *name;
        struct kv_shape shape;
    } shapes[] = {{"135M",
                   {.n_layers = 30,
                    .n_heads = 9,
                    .n_kv_heads = 3,
                    .head_dim = 64,
                    .hidden = 576,
                    .ffn = 1536,
                    .vocab = 49152}},
                  {"360M",
                   {.n_layers = 32,
                    .n_heads = 15,
                    .n_kv_heads = 5,
                    .head_dim = 64,
                    .hidden = 960,
                    .ffn = 2560,
                    .vocab = 49152}},
                  {"1.7B",
                   {.n_layers = 24,
                    .n_heads = 32,
                    .n_kv_heads = 32,
                    .head_dim = 64,
                    .hidden = 2048,
                    .ffn = 8192,
                    .vocab = 49152}}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (bench(shapes[i].name, shapes[i].shape)) return 1;
    return 0;
}
