// SPDX-License-Identifier: Apache-2.0
// Calibration on runs made from known parameters, and on a llama-bench file where one is at hand.
#include "sim/base/memory.h"
#include "sim/cost/calibrate.h"
#include "sim/cost/fit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static const struct kv_shape shape = {.n_layers = 2,
                                      .n_heads = 6,
                                      .n_kv_heads = 2,
                                      .head_dim = 64,
                                      .hidden = 64,
                                      .ffn = 64,
                                      .vocab = 64};
static const double values = 2 * 2 * 64; // keys of a token

// ns a value: what the made-up machine takes.
static double true_cost(int side, int bits) {
    return 0.02 + 0.01 * bits + (side ? 0.003 * bits : 0);
}

static double noise(uint64_t seed, uint64_t i, double relative) {
    double u = 0;
    for (uint64_t k = 0; k < 12; k++) u += kv_draw(seed, i, k);
    return 1 + relative * (u - 6);
}

// Runs of a step with base 50 us over a grid; parts are left out unless asked for.
static struct kv_runs *made_runs(const char *const *mixes, size_t n_mixes, double relative_noise,
                                 bool parts, double knee_bytes) {
    static const uint32_t contexts[] = {64, 256, 512, 1024, 2048, 4096};
    struct kv_runs *r = kv_runs_new();
    for (size_t m = 0; m < n_mixes; m++)
        for (size_t t = 0; t < sizeof contexts / sizeof *contexts; t++) {
            struct kv_device_run *x = kv_runs_add(r);
            struct kv_error e;
            assert_int_equal(kv_mix_parse(&x->mix, mixes[m], &e), 0);
            x->context = contexts[t];
            x->threads = 2;
            x->shape = shape;
            x->samples = 9;
            snprintf(x->weights, sizeof x->weights, "f32");
            double cache = 0;
            for (size_t p = 0; p < x->mix.n; p++)
                for (int side = 0; side < 2; side++)
                    cache += x->mix.part[p].share * true_cost(side, x->mix.part[p].bits[side]);
            cache *= values * x->context;
            x->cache_bytes = kv_mix_allocated_bits(&x->mix, 64) / 8 * 2 * values * x->context;
            if (x->cache_bytes > knee_bytes)
                cache *= 1 + 1.0 * (1 - knee_bytes / x->cache_bytes); // twice the cost beyond
            x->step_ns = (50000 + cache) * noise(1, r->n, relative_noise);
            x->low_ns = x->step_ns * (1 - relative_noise);
            x->high_ns = x->step_ns * (1 + relative_noise);
            if (parts) x->part_ns[KV_PART_ATTEND] = (700 + cache) * noise(2, r->n, relative_noise);
        }
    return r;
}

static struct kv_calibration *calibrated(const struct kv_runs *r) {
    struct kv_calibration *c;
    struct kv_error e;
    if (kv_calibrate(&c, r, "made", &e)) fail_msg("%s: %s", e.where, e.msg);
    return c;
}

static bool warned(const struct kv_calibration *c, const char *said) {
    for (size_t i = 0; i < c->n_warnings; i++)
        if (strstr(c->warnings[i], said)) return true;
    return false;
}

static const char *const full_grid[] = {"16",   "8",     "4",    "2",           "k8v4",
                                        "k4v8", "k16v4", "k4v2", "2=0.5/16=0.5"};
enum { FULL = sizeof full_grid / sizeof *full_grid };

static void exact_runs_give_back_what_made_them(void **state) {
    (void)state;
    struct kv_runs *r = made_runs(full_grid, FULL, 0, false, INFINITY);
    struct kv_calibration *c = calibrated(r);
    assert_true(fabs(c->device->base_ns / 50000 - 1) < 1e-3);
    // What a K and a V value cost together is fixed by the runs; their split and the part that no
    // width changes are conventions that cancel here.
    double both = c->device->c_ns[0][8] + c->device->c_ns[1][8] + c->device->attend_ns / values;
    assert_true(fabs(both / (true_cost(0, 8) + true_cost(1, 8)) - 1) < 1e-3);
    double more = c->device->c_ns[0][16] - c->device->c_ns[0][4];
    assert_true(fabs(more / (true_cost(0, 16) - true_cost(0, 4)) - 1) < 1e-2);
    assert_true(c->fitted.step_worst < 1e-4);
    if (!(c->by_context.share_worst < 1e-3 && c->by_mix.share_worst < 1e-2))
        fail_msg("left out: %g by context, %g by mix", c->by_context.share_worst,
                 c->by_mix.share_worst);
    assert_true(c->by_context.sign_right == 1);
    assert_true(isinf(c->device->knee_bytes));
    for (size_t i = 0; i < r->n; i++)
        assert_true(fabs(kv_run_price(c->device, &r->row[i]).step_ns / r->row[i].step_ns - 1) <
                    1e-3);
    assert_int_equal(c->device->context_min, 64);
    assert_int_equal(c->device->context_max, 4096);
    kv_calibration_free(c);
    kv_runs_free(r);
}

static void intervals_hold_what_made_noisy_runs(void **state) {
    (void)state;
    struct kv_runs *r = made_runs(full_grid, FULL, 0.01, true, INFINITY);
    struct kv_calibration *c = calibrated(r);
    size_t held = 0, n = 0;
    for (size_t i = 0; i < c->device->n_intervals; i++) {
        const struct kv_device_interval *v = &c->device->intervals[i];
        if (strcmp(v->name, "base_ns") == 0) {
            assert_true(v->low < 50000 && 50000 < v->high);
            continue;
        }
        int bits;
        if (sscanf(v->name, "value_ns %d", &bits) != 1 && sscanf(v->name, "key_ns %d", &bits) != 1)
            continue;
        double want = true_cost(v->name[0] == 'v', bits);
        n++;
        held += v->low < want && want < v->high;
    }
    if (n != 8 || held < 7) fail_msg("%zu of %zu intervals hold the truth", held, n);
    assert_true(c->by_context.share_median < 0.03);
    kv_calibration_free(c);
    kv_runs_free(r);
}

// Both are one number to the fit; what was measured of one leaves the other's interval where it is.
static void the_interval_of_base_ns_is_that_of_the_step_without_append_ns(void **state) {
    (void)state;
    struct kv_runs *r = made_runs(full_grid, FULL, 0.01, true, INFINITY);
    for (size_t i = 0; i < r->n; i++) r->row[i].part_ns[KV_PART_APPEND] = 9000;
    struct kv_calibration *c = calibrated(r);
    const struct kv_device *d = c->device;
    size_t n = 0;
    for (size_t i = 0; i < d->n_intervals; i++)
        if (strcmp(d->intervals[i].name, "base_ns") == 0) {
            const struct kv_device_interval *v = &d->intervals[i];
            assert_true(v->low < 41000 && 41000 < v->high && v->low > 38000 && v->high < 44000);
            assert_true(v->low < d->base_ns && d->base_ns < v->high);
            n++;
        }
    assert_int_equal(n, 1);
    kv_calibration_free(c);
    kv_runs_free(r);
}

// Shipped files too: a value lies in its own interval.
static void base_ns_of_every_shipped_device_lies_in_its_interval(void **state) {
    (void)state;
    const char *name;
    for (size_t i = 0; (name = kv_device_name_at(i)); i++) {
        struct kv_device *d;
        struct kv_error e;
        assert_int_equal(kv_device_open(&d, name, &e), 0);
        for (size_t k = 0; k < d->n_intervals; k++)
            if (strcmp(d->intervals[k].name, "base_ns") == 0)
                assert_true(d->intervals[k].low < d->base_ns && d->base_ns < d->intervals[k].high);
        kv_device_free(d);
    }
}

static void a_wild_run_hardly_moves_the_fit(void **state) {
    (void)state;
    struct kv_runs *r = made_runs(full_grid, FULL, 0.002, false, INFINITY);
    r->row[10].step_ns *= 3;
    struct kv_calibration *c = calibrated(r);
    assert_true(fabs(c->device->base_ns / 50000 - 1) < 0.01);
    assert_true(c->fitted.step_median < 0.005);
    kv_calibration_free(c);
    kv_runs_free(r);
}

static void a_knee_in_the_runs_is_found(void **state) {
    (void)state;
    const double knee = 200000;
    struct kv_runs *r = made_runs(full_grid, FULL, 0.001, false, knee);
    struct kv_calibration *c = calibrated(r);
    assert_true(isfinite(c->device->knee_bytes));
    assert_true(c->device->knee_bytes > knee / 2 && c->device->knee_bytes < knee * 2);
    assert_true(c->device->knee_factor > 1.6 && c->device->knee_factor < 2.4);
    assert_true(c->fitted.step_worst < 0.05);
    kv_calibration_free(c);
    kv_runs_free(r);
}

// A processor of rounds of 1500 tokens: 900 ns each, 400 ns for a further width it meets, 250 ns
// for each further width in use.
static void rounds_and_classes_in_the_runs_are_found(void **state) {
    (void)state;
    static const char *const grid[] = {
        "16", "8", "4", "k8v4", "k4v8", "k16v4", "k4v16", "4=0.5/16=0.5", "4=0.25/8=0.25/16=0.5"};
    struct kv_runs *r = made_runs(grid, sizeof grid / sizeof *grid, 0, false, INFINITY);
    for (size_t i = 0; i < r->n; i++) {
        double rounds = ceil(r->row[i].context / 1500.0), widths = (double)r->row[i].mix.n;
        r->row[i].round_tokens = 1500;
        r->row[i].step_ns += 900 * rounds + 400 * (fmin(rounds, widths) - 1) + 250 * (widths - 1);
    }
    struct kv_calibration *c = calibrated(r);
    assert_true(fabs(c->device->round_ns / 900 - 1) < 0.02);
    assert_true(fabs(c->device->switch_ns / 400 - 1) < 0.02);
    assert_true(fabs(c->device->class_ns / 250 - 1) < 0.02);
    assert_true(c->device->round_tokens == 1500);
    assert_true(c->by_mix.share_worst < 0.02);
    for (size_t i = 0; i < r->n; i++)
        assert_true(fabs(kv_run_price(c->device, &r->row[i]).step_ns / c->fitted_ns[i] - 1) < 1e-3);
    kv_calibration_free(c);
    kv_runs_free(r);
}

// Where tokens differ in width a value takes 0.011 ns more; a further width takes 250 ns by token,
// 300 by cell; what decides by cell takes 4 us of the step.
static void what_widths_by_cell_take_is_found(void **state) {
    (void)state;
    static const char *const grid[] = {"16",
                                       "8",
                                       "4",
                                       "k8v4",
                                       "k4v8",
                                       "k16v4",
                                       "k4v2",
                                       "4=0.5/16=0.5",
                                       "cells:4=0.5/8=0.5",
                                       "cells:2=0.2/4=0.5/8=0.2/16=0.1"};
    struct kv_runs *r = made_runs(grid, sizeof grid / sizeof *grid, 0, false, INFINITY);
    for (size_t i = 0; i < r->n; i++) {
        struct kv_device_run *x = &r->row[i];
        double more = (double)(x->mix.n - 1) * (x->mix.by_cell ? 300 : 250);
        if (x->mix.n > 1) more += 0.011 * 2 * values * x->context;
        if (x->mix.by_cell) {
            more += 4000;
            x->part_ns[KV_PART_POLICY] = 4000;
        }
        x->step_ns += more;
    }
    double first = r->row[r->n - 1].step_ns;
    assert_true(kv_runs_take_policy(r) == 0); // what is taken off is no policy to name
    assert_float_equal(r->row[r->n - 1].step_ns, first - 4000, 1e-9);
    struct kv_calibration *c = calibrated(r);
    assert_true(fabs(c->device->mixed_ns / 0.011 - 1) < 0.01);
    assert_true(fabs(c->device->cell_class_ns / 300 - 1) < 0.02);
    assert_true(fabs(c->device->class_ns / 250 - 1) < 0.02);
    assert_true(c->device->controller_ns == 4000);
    assert_true(c->by_mix.share_worst < 0.02);
    for (size_t i = 0; i < r->n; i++)
        assert_true(fabs(kv_run_price(c->device, &r->row[i]).step_ns / c->fitted_ns[i] - 1) < 1e-3);
    struct kv_device_run whole = r->row[r->n - 1]; // as measured, its controller running
    whole.part_ns[KV_PART_POLICY] = 4000;
    assert_true(fabs(kv_run_price(c->device, &whole).step_ns / first - 1) < 1e-3);
    kv_calibration_free(c);
    kv_runs_free(r);
}

// The first 100,000 bytes of a cache are read while a launch is waited for.
static void what_a_device_hides_is_found(void **state) {
    (void)state;
    struct kv_runs *r = made_runs(full_grid, FULL, 0, false, INFINITY);
    for (size_t i = 0; i < r->n; i++) {
        struct kv_device_run *x = &r->row[i];
        x->step_ns = (50000 + (x->step_ns - 50000) * fmax(0, 1 - 100000 / x->cache_bytes)) *
                     noise(3, i, 0.001);
    }
    struct kv_calibration *c = calibrated(r);
    assert_true(c->device->hidden_bytes > 50000 && c->device->hidden_bytes < 200000);
    assert_true(isinf(c->device->knee_bytes));
    assert_true(c->by_context.share_median < 0.03);
    for (size_t i = 0; i < r->n; i++)
        assert_true(fabs(kv_run_price(c->device, &r->row[i]).step_ns / c->fitted_ns[i] - 1) < 1e-3);
    kv_calibration_free(c);
    kv_runs_free(r);
}

static void a_grid_that_cannot_separate_terms_says_which(void **state) {
    (void)state;
    static const char *const uniform[] = {"16", "4"};
    struct kv_runs *r = made_runs(uniform, 2, 0.001, false, INFINITY);
    struct kv_calibration *c = calibrated(r);
    assert_true(warned(c, "keys and values at 4 bits always come together"));
    assert_true(warned(c, "attend_ns"));
    assert_true(warned(c, "12 runs are not judged with their mix left out"));
    assert_true(isnan(c->by_mix.step_median));
    assert_true(c->device->c_ns[0][4] == c->device->c_ns[1][4]);
    assert_true(isnan(c->device->c_ns[0][8]));
    kv_calibration_free(c);
    kv_runs_free(r);
}

static void runs_of_two_models_are_refused(void **state) {
    (void)state;
    struct kv_runs *r = made_runs(full_grid, 2, 0, false, INFINITY);
    struct kv_calibration *c;
    struct kv_error e;
    r->row[3].threads = 8;
    assert_int_equal(kv_calibrate(&c, r, "made", &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "choose one with --shape, --weights and --threads"));
    r->row[3].threads = 2;
    for (size_t i = 0; i < r->n; i++) r->row[i].shape = (struct kv_shape){0};
    assert_int_equal(kv_calibrate(&c, r, "made", &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "name it with --shape"));
    for (size_t i = 0; i < r->n; i++) r->row[i].shape = shape;
    r->n = 2;
    assert_int_equal(kv_calibrate(&c, r, "made", &e), 0);
    kv_calibration_free(c);
    r->n = 1;
    assert_int_equal(kv_calibrate(&c, r, "made", &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "1 measurements cannot fix 2 parameters"));
    kv_runs_free(r);
}

static void a_real_llama_bench_file_fits_to_15_pct_of_the_caches_share(void **state) {
    (void)state;
    const char *data = getenv("KVSIM_DATA");
    char *path = kv_format_text("%s/../reference/llama-bench.json", data ? data : ".");
    struct kv_runs *r;
    struct kv_error e;
    int rc = data ? kv_runs_open(&r, path, &e) : 1;
    free(path);
    if (rc) {
        print_message("skipped: no llama-bench.json beside KVSIM_DATA\n");
        skip();
        return;
    }
    struct kv_calibration *c = calibrated(r);
    assert_true(c->by_context.share_median < 0.15);
    assert_true(c->fitted.step_median < 0.05);
    kv_calibration_free(c);
    kv_runs_free(r);
}

static void issue_13_A4_types_of_one_width_keep_their_own_costs(void **state) {
    (void)state;
    static const char *const mixes[] = {"16", "q8_0", "q4_0", "iq4_nl"};
    struct kv_runs *r = made_runs(mixes, 4, 0, false, INFINITY);
    for (size_t i = 0; i < r->n; i++) // iq4_nl takes twice what q4_0 does
        if (i / 6 == 3) r->row[i].step_ns = 50000 + 2 * (r->row[i].step_ns - 50000);
    struct kv_calibration *c = calibrated(r);
    double shared = c->device->attend_ns / values;
    for (size_t i = 2; i < 4; i++) {
        struct kv_device *d = c->device;
        char name[2][32];
        snprintf(name[0], sizeof name[0], "key_ns %s", mixes[i]);
        snprintf(name[1], sizeof name[1], "value_ns %s", mixes[i]);
        double both = *kv_device_cost(d, name[0]) + *kv_device_cost(d, name[1]) + shared;
        double want = (true_cost(0, 4) + true_cost(1, 4)) * (i == 3 ? 2 : 1);
        if (fabs(both / want - 1) > 1e-2) fail_msg("%s: %g, not %g", mixes[i], both, want);
    }
    assert_true(isnan(c->device->c_ns[0][4]));
    kv_calibration_free(c);
    kv_runs_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(issue_13_A4_types_of_one_width_keep_their_own_costs),
        cmocka_unit_test(exact_runs_give_back_what_made_them),
        cmocka_unit_test(intervals_hold_what_made_noisy_runs),
        cmocka_unit_test(the_interval_of_base_ns_is_that_of_the_step_without_append_ns),
        cmocka_unit_test(base_ns_of_every_shipped_device_lies_in_its_interval),
        cmocka_unit_test(a_wild_run_hardly_moves_the_fit),
        cmocka_unit_test(a_knee_in_the_runs_is_found),
        cmocka_unit_test(rounds_and_classes_in_the_runs_are_found),
        cmocka_unit_test(what_widths_by_cell_take_is_found),
        cmocka_unit_test(what_a_device_hides_is_found),
        cmocka_unit_test(a_grid_that_cannot_separate_terms_says_which),
        cmocka_unit_test(runs_of_two_models_are_refused),
        cmocka_unit_test(a_real_llama_bench_file_fits_to_15_pct_of_the_caches_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
