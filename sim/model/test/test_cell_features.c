// SPDX-License-Identifier: Apache-2.0
// What a token's attention row tells, short and long, against loops in float64.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/cell_features.h"

enum { DIM = 16, GROUP = 2 };

static void near(double x, double expected, double tolerance) {
    if (!(fabs(x - expected) <= tolerance)) fail_msg("%.9g, expected %.9g", x, expected);
}

static void fill(float *x, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) x[i] = (float)(4 * kv_draw(seed, 0, i) - 2);
}

static double dot(const float *a, const float *b) {
    double sum = 0;
    for (size_t i = 0; i < DIM; i++) sum += (double)a[i] * (double)b[i];
    return sum / sqrt(DIM);
}

// n keys before the token's own.
static void compare(size_t n) {
    const struct kv_shape shape = {1, GROUP, 1, DIM, 32, 32, 32, 4096};
    float *keys = kv_alloc(n * DIM, sizeof *keys), *scores = kv_alloc(n + 1, sizeof *scores),
          q[GROUP * DIM], k[DIM], v[DIM], out[KV_N_CELL_FEATURES];
    double *w = kv_alloc(n + 1, sizeof *w), self = 0, first = 0, largest = 0, entropy = 0;
    fill(keys, n * DIM, 1), fill(q, GROUP * DIM, 2), fill(k, DIM, 3), fill(v, DIM, 4);
    const struct kv_cell_span earlier = {keys, DIM, n};
    kv_cell_features(&shape, q, k, v, &earlier, 1, scores, out);
    for (size_t g = 0; g < GROUP; g++) {
        double sum = 0, most = 0, nats = 0;
        for (size_t i = 0; i <= n; i++)
            sum += w[i] = exp(dot(q + g * DIM, i < n ? keys + i * DIM : k));
        for (size_t i = 0; i <= n; i++) {
            w[i] /= sum;
            most = fmax(most, w[i]);
            nats -= w[i] * log(w[i]);
        }
        self += w[n] / GROUP;
        first += w[0] / GROUP;
        largest += most / GROUP;
        entropy += nats / GROUP;
    }
    near((double)out[KV_CELL_SELF], log(fmax(self, exp(-12))), 1e-4);
    near((double)out[KV_CELL_FIRST], log(fmax(first, 1e-6)), 1e-4);
    near((double)out[KV_CELL_LARGEST], log(largest), 1e-4);
    near((double)out[KV_CELL_ENTROPY_NATS], entropy, 1e-3);
    free(keys);
    free(scores);
    free(w);
}

static void rows_of_any_length_tell_what_float64_does(void **state) {
    (void)state;
    compare(5);
    compare(2048); // the longest that goes by itself
    compare(2049);
    compare(3500);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_any_length_tell_what_float64_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
