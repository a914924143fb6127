// SPDX-License-Identifier: Apache-2.0
// Scored positions summed up: quantiles against a plain sort, bounds, buckets, and how often the
// intervals cover on recorded divergences, whose tokens are not independent.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "analysis/stats/tokens.h"
#include "sim/base/memory.h"

static void near(double x, double expected, double tolerance) {
    if (!(fabs(x - expected) <= tolerance)) fail_msg("%.12g, expected %.12g", x, expected);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// numpy.quantile(x, f), the default method.
static double quantile(const double *x, size_t n, double f) {
    double *sorted = kv_alloc(n, sizeof *sorted), at = f * (double)(n - 1), low = floor(at);
    memcpy(sorted, x, n * sizeof *x);
    qsort(sorted, n, sizeof *sorted, ascending);
    double from = sorted[(size_t)low], to = sorted[(size_t)low + (low + 1 < (double)n)];
    free(sorted);
    return from + (at - low) * (to - from);
}

static void fill(struct kv_token_outcome *t, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++)
        t[i] = (struct kv_token_outcome){.row = (uint32_t)i,
                                         .kl_nats = (float)pow(kv_draw(seed, 1, i), 4),
                                         .dp = (float)(kv_draw(seed, 2, i) - 0.5),
                                         .other_top = kv_draw(seed, 3, i) < 0.2};
}

static void estimates_are_those_of_numpy(void **state) {
    enum { N = 3000, WINDOWS = 4 };
    static struct kv_token_outcome t[WINDOWS][N];
    static double kl[WINDOWS * N];
    struct kv_token_window w[WINDOWS];
    double sum = 0, same = 0, square = 0;
    (void)state;
    for (size_t i = 0; i < WINDOWS; i++) {
        fill(t[i], N, i);
        w[i] = (struct kv_token_window){t[i], N};
        for (size_t k = 0; k < N; k++) {
            sum += kl[i * N + k] = (double)t[i][k].kl_nats;
            same += !t[i][k].other_top;
            square += (double)t[i][k].dp * (double)t[i][k].dp;
        }
    }
    enum { ALL = WINDOWS * N };
    struct kv_token_summary s = kv_token_summary(w, WINDOWS, kv_all_depths, 1, 200, 0.95);
    assert_int_equal(s.n, ALL);
    assert_int_equal(s.n_blocks, 20);
    near(s.at[KV_TOKEN_KL_MEAN].value, sum / ALL, 1e-12);
    near(s.at[KV_TOKEN_KL_MEDIAN].value, quantile(kl, ALL, 0.5), 1e-12);
    near(s.at[KV_TOKEN_KL_99].value, quantile(kl, ALL, 0.99), 1e-12);
    near(s.at[KV_TOKEN_KL_999].value, quantile(kl, ALL, 0.999), 1e-12);
    near(s.at[KV_TOKEN_SAME_TOP].value, same / ALL, 1e-12);
    near(s.at[KV_TOKEN_RMS_DP].value, sqrt(square / ALL), 1e-12);
    for (int m = 0; m < KV_N_TOKEN_MEASURES; m++) {
        const struct kv_token_estimate *x = &s.at[m];
        assert_false(x->bound);
        assert_true(x->interval.low < x->value && x->value < x->interval.high);
    }
    struct kv_token_summary again = kv_token_summary(w, WINDOWS, kv_all_depths, 1, 200, 0.95);
    assert_memory_equal(&s, &again, sizeof s);
}

static void too_few_positions_give_bounds_by_order_statistics(void **state) {
    enum { N = 400 };
    static struct kv_token_outcome t[N];
    double kl[N];
    (void)state;
    fill(t, N, 9);
    for (size_t i = 0; i < N; i++) kl[i] = (double)t[i].kl_nats;
    qsort(kl, N, sizeof *kl, ascending);
    const struct kv_token_window w = {t, N};
    struct kv_token_summary s = kv_token_summary(&w, 1, kv_all_depths, 1, 100, 0.95);
    const struct kv_token_estimate *x = &s.at[KV_TOKEN_KL_99], *y = &s.at[KV_TOKEN_KL_999];
    assert_true(x->bound && isnan(x->value));
    // scipy.stats.binom(400, 0.99): P(X > 391) = 0.979 and P(X > 392) = 0.950;
    // P(X <= 399) = 0.982, P(X <= 398) = 0.909.
    near(x->interval.low, kl[391], 0);
    near(x->interval.high, kl[399], 0);
    assert_true(y->bound && y->interval.low > 0 && isnan(y->interval.high)); // 0.999^400 = 0.67
}

static void buckets_hold_what_their_positions_see(void **state) {
    enum { N = 1000 };
    static struct kv_token_outcome t[N];
    const struct kv_token_window w = {t, N};
    (void)state;
    fill(t, N, 3);
    near(kv_depths_of(1).upto, 256, 0);
    near(kv_depths_of(256).upto, 256, 0);
    near(kv_depths_of(257).above, 256, 0);
    near(kv_depths_of(4096).above, 2048, 0);
    near(kv_depths_of(4096).upto, 4096, 0);
    size_t n = 0;
    for (double c = 256; c <= 1024; c *= 2) {
        struct kv_token_summary s = kv_token_summary(&w, 1, kv_depths_of(c), 1, 10, 0.95);
        n += s.n;
        if (c == 512) assert_int_equal(s.n, 256); // rows 256 to 511 see 257 to 512 tokens
    }
    assert_int_equal(n, N);
    assert_int_equal(kv_token_summary(&w, 1, kv_depths_of(2048), 1, 10, 0.95).n, 0);
}

static void a_run_differs_from_itself_by_nothing(void **state) {
    enum { N = 2000 };
    static struct kv_token_outcome a[N], b[N];
    const struct kv_token_window x = {a, N}, y = {b, N};
    (void)state;
    fill(a, N, 4), fill(b, N, 4);
    struct kv_token_summary s = kv_token_difference(&x, &x, 1, kv_all_depths, 1, 100, 0.95);
    for (int m = 0; m < KV_N_TOKEN_MEASURES; m++) {
        if (m == KV_TOKEN_KL_999) continue;
        near(s.at[m].value, 0, 0);
        near(s.at[m].interval.low, 0, 0);
        near(s.at[m].interval.high, 0, 0);
    }
    for (size_t i = 0; i < N; i++) b[i].kl_nats *= 2, b[i].dp *= 2;
    s = kv_token_difference(&y, &x, 1, kv_all_depths, 1, 400, 0.95);
    struct kv_token_summary one = kv_token_summary(&x, 1, kv_all_depths, 1, 10, 0.95);
    for (int m = 0; m < KV_N_TOKEN_MEASURES; m++) {
        if (m == KV_TOKEN_KL_999 || m == KV_TOKEN_SAME_TOP) continue;
        near(s.at[m].value, one.at[m].value, 1e-9);
        assert_true(s.at[m].interval.low > 0 && s.at[m].interval.high > s.at[m].value);
    }
}

// ---- coverage -------------------------------------------------------------------------

// token_kl.tsv: per-token results of static:bits=4@sym on windows of WikiText-2 (SmolLM2-135M).
enum { MOST = 16384, WINDOW = 511, RUN = 128, BLOCKS = 20, SIMULATIONS = 1000, DRAWS = 400 };
static struct kv_token_outcome recorded[MOST];

static size_t read_recorded(void) {
    char line[64];
    size_t n = 0;
    FILE *f = fopen("analysis/test/token_kl.tsv", "r");
    assert_non_null(f);
    while (n < MOST && fgets(line, sizeof line, f)) {
        long kl, dp;
        int other;
        if (sscanf(line, "%ld\t%ld\t%d", &kl, &dp, &other) != 3) continue; // the head
        recorded[n] = (struct kv_token_outcome){.row = (uint32_t)(n % WINDOW),
                                                .kl_nats = 1e-5f * (float)kl,
                                                .dp = 1e-4f * (float)dp,
                                                .other_top = other != 0};
        n++;
    }
    fclose(f);
    return n / WINDOW;
}

// Blocks are runs of recorded tokens, drawn independently: within one, tokens are as correlated as
// they are. The truth is that of all recorded ones, each as likely.
static void intervals_cover_as_they_promise_from_20_blocks_up(void **state) {
    static const enum kv_token_measure judged[] = {KV_TOKEN_KL_MEAN, KV_TOKEN_KL_MEDIAN,
                                                   KV_TOKEN_SAME_TOP};
    static struct kv_token_outcome t[BLOCKS][RUN];
    struct kv_token_window w[BLOCKS], all;
    size_t n_windows = read_recorded(), covered[3] = {0};
    (void)state;
    assert_true(n_windows >= 8);
    all = (struct kv_token_window){recorded, n_windows * WINDOW};
    struct kv_token_summary truth = kv_token_summary(&all, 1, kv_all_depths, 1, 1, 0.95);
    for (size_t k = 0; k < SIMULATIONS; k++) {
        for (size_t b = 0; b < BLOCKS; b++) {
            size_t window = (size_t)(kv_draw(77, k, 2 * b) * (double)n_windows),
                   from = (size_t)(kv_draw(77, k, 2 * b + 1) * WINDOW);
            for (size_t i = 0; i < RUN; i++)
                t[b][i] = recorded[window * WINDOW + (from + i) % WINDOW];
            for (size_t i = 0; i < RUN; i++) t[b][i].row = (uint32_t)i;
            w[b] = (struct kv_token_window){t[b], RUN};
        }
        struct kv_token_summary s = kv_token_summary(w, BLOCKS, kv_all_depths, k, DRAWS, 0.95);
        for (size_t m = 0; m < 3; m++) {
            const struct kv_interval *i = &s.at[judged[m]].interval;
            double x = truth.at[judged[m]].value;
            covered[m] += i->low <= x && x <= i->high;
        }
    }
    for (size_t m = 0; m < 3; m++) {
        double share = (double)covered[m] / SIMULATIONS;
        print_message("%s: %.1f %% of %d intervals\n", kv_token_measure_names[judged[m]],
                      100 * share, SIMULATIONS);
        assert_in_range(1000 * share, 930, 970);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(estimates_are_those_of_numpy),
        cmocka_unit_test(too_few_positions_give_bounds_by_order_statistics),
        cmocka_unit_test(buckets_hold_what_their_positions_see),
        cmocka_unit_test(a_run_differs_from_itself_by_nothing),
        cmocka_unit_test(intervals_cover_as_they_promise_from_20_blocks_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
