// SPDX-License-Identifier: Apache-2.0
// What the controller of widths costs in whole decode steps at 2k tokens, in each of its forms.
#include "sim/cache/bench/bench_steps.h"
#include "sim/test/figure.h"

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

// Median of a part (KV_N_PARTS: of the step) over calm steps, in us.
static double middle_us(const struct kv_step_time *t, size_t n, int part) {
    return bench_quantile_us(t, n, LEAST, part, 0.5);
}

static int make_controllers(struct kv_controller **c, const struct kv_seeded_weights *w,
                            const struct kv_shape *s, struct kv_error *e) {
    for (size_t f = 0; f < N; f++) {
        c[f] = NULL;
        int rc = forms[f].controller
                     ? kv_seeded_controller(&c[f], w, s, forms[f].net, forms[f].rule,
                                            forms[f].widths, forms[f].n_widths, e)
                     : 0;
        if (rc) return rc;
    }
    return 0;
}

// A cache of TOKENS - 1 tokens, widths drawn cell by cell about 4 bits.
static int fill(struct kv_cache **c, const struct kv_shape *s, struct kv_error *e) {
    static const struct kv_width_shares about_4 = {
        6, {2, 3, 4, 5, 6, 8}, {.2, .25, .25, .15, .1, .05}};
    int rc = bench_cache_new(c, s, true, e);
    if (rc) return rc;
    size_t kv = (size_t)s->n_kv_heads * s->head_dim;
    float *x = kv_seeded_noise(2 * kv, 30, 1, 0);
    kv_cache_draw_cells(*c, s, &about_4, TOKENS - 1, x, x + kv);
    free(x);
    return 0;
}

static int bench(const char *name, struct kv_shape s) {
    struct kv_error e;
    struct kv_seeded_weights w;
    struct kv_controller *controllers[N];
    struct kv_cache *cache;
    struct kv_decoder *d;
    kv_seeded_weights_init(&w, &s);
    if (make_controllers(controllers, &w, &s, &e) || fill(&cache, &s, &e) ||
        bench_decoder_new(&d, &s, &e)) {
        fprintf(stderr, "bench_controller: %s: %s\n", e.where, e.msg);
        return 1;
    }
    float *x = kv_seeded_noise(s.hidden, 40, 1, 0);
    size_t n_bits = kv_cache_streams(cache) * 2, n = 0, least = 0;
    uint8_t *bits = kv_alloc(n_bits, 1);
    memset(bits, 4, n_bits);
    struct kv_step_time(*time)[SAMPLES] = kv_alloc(N, sizeof *time), warm;
    double mean_bits[N];
    for (size_t f = 0; f < N; f++) {
        kv_decoder_control(d, controllers[f]);
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
            kv_decoder_control(d, controllers[f]);
            kv_decoder_steps(d, cache, bits, STEPS, x, time[f] + n, false, NULL);
            size_t calm = bench_calm(time[f], n + STEPS);
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
        if (f)
            bench_figure(1e6 / middle_us(time[f], n, KV_N_PARTS), "steps/s",
                         "steps of given widths", 1e6 / given, "%s, controller %s", name,
                         forms[f].name);
        printf("%-24s  %7.2f  %9.0f  %9.0f  %14.2f  %4.1f\n", forms[f].name,
               middle_us(time[f], n, KV_N_PARTS) / 1e3, policy, put,
               100 * (policy + put - append) / given, mean_bits[f]);
    }
    for (size_t f = 0; f < N; f++) kv_controller_free(controllers[f]);
    kv_seeded_weights_fini(&w);
    free(time);
    free(bits);
    free(x);
    kv_cache_free(cache);
    kv_decoder_free(d);
    return 0;
}

int main(void) {
    for (size_t i = 0; kv_shape_name_at(i); i++)
        if (bench(kv_shape_name_at(i), *kv_shape_named(kv_shape_name_at(i)))) return 1;
    return 0;
}
