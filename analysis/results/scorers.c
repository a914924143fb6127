// SPDX-License-Identifier: Apache-2.0
// How the ranking of specs changes with the scorer.
#include "analysis/results/scorers.h"
#include "sim/base/memory.h"

#include <stdlib.h>

const char *const kv_ranking_names[] = {"acc", "acc_norm", "acc_bytes", "acc_token", "kl_nats"};

double kv_ranking_score(const struct kv_row *r, int by) {
    return by < KV_N_SCORERS ? r->s.acc[by] : -r->kl.mean;
}

size_t kv_ranking_place(const struct kv_row *rows, size_t n, size_t row, int by) {
    size_t place = 1;
    double own = kv_ranking_score(&rows[row], by);
    for (size_t i = 0; i < n; i++) place += kv_ranking_score(&rows[i], by) > own;
    return isnan(own) ? 0 : place;
}

double kv_ranking_agreement(const struct kv_row *rows, size_t n, int by, int other) {
    double *x = kv_alloc(n + 1, sizeof *x), *y = kv_alloc(n + 1, sizeof *y);
    for (size_t i = 0; i < n; i++) {
        x[i] = kv_ranking_score(&rows[i], by);
        y[i] = kv_ranking_score(&rows[i], other);
    }
    double tau = kv_kendall(x, y, n);
    free(x);
    free(y);
    return tau;
}

double kv_ranking_spread(const struct kv_row *rows, size_t n, size_t row) {
    size_t first = n, last = 0;
    for (int by = 0; by < KV_N_SCORERS; by++) {
        size_t place = kv_ranking_place(rows, n, row, by);
        if (!place) continue;
        if (place < first) first = place;
        if (place > last) last = place;
    }
    return last ? (double)(last - first) : NAN;
}
