// SPDX-License-Identifier: Apache-2.0
// What surrounds training: labels, and asking a trained network.
#include "analysis/search/train.h"

#include <stdlib.h>

#include "sim/base/memory.h"

// ---- labels ------------------------------------------------------------------------------

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void kv_train_feature_means(const float *x, size_t n, double *mean) {
    memset(mean, 0, n * sizeof *mean);
    for (size_t i = 0; i < KV_TRAIN_INPUTS; i++) {
        double low = INFINITY, high = -INFINITY;
        for (size_t t = 0; t < n; t++) {
            low = fmin(low, (double)x[t * KV_TRAIN_INPUTS + i]);
            high = fmax(high, (double)x[t * KV_TRAIN_INPUTS + i]);
        }
        for (size_t t = 0; t < n && high > low; t++)
            mean[t] += ((double)x[t * KV_TRAIN_INPUTS + i] - low) / (high - low) / KV_TRAIN_INPUTS;
    }
}

void kv_label_quartiles(const float *x, size_t n, size_t n_classes, uint8_t *label) {
    double *mean = kv_alloc(n, sizeof *mean), *sorted = kv_alloc(n, sizeof *sorted);
    kv_train_feature_means(x, n, mean);
    memcpy(sorted, mean, n * sizeof *mean);
    qsort(sorted, n, sizeof *sorted, ascending);
    for (size_t t = 0; t < n; t++) {
        label[t] = 0;
        for (size_t k = 1; k < n_classes; k++)
            if (mean[t] >= sorted[k * n / n_classes]) label[t] = (uint8_t)k;
    }
    free(mean);
    free(sorted);
}

void kv_label_oracle(const double *damage, size_t n, size_t n_classes, double bound,
                     uint8_t *label) {
    for (size_t t = 0; t < n; t++) {
        size_t k = 0;
        while (k + 1 < n_classes && damage[t * n_classes + k] > bound) k++;
        label[t] = (uint8_t)k;
    }
}

// ---- the trained network -----------------------------------------------------------------

void kv_train_pick(const struct kv_train_result *r, const float *x, size_t n, uint8_t *picked) {
    size_t classes = r->n_classes * r->n_units, widest = classes > r->hidden ? classes : r->hidden;
    const size_t width[] = {KV_TRAIN_INPUTS, r->hidden, r->hidden, classes};
    if (widest < KV_TRAIN_INPUTS) widest = KV_TRAIN_INPUTS;
    double *value = kv_alloc(2 * widest, sizeof *value);
    for (size_t t = 0; t < n; t++) {
        double *in = value, *out = value + widest;
        for (size_t i = 0; i < KV_TRAIN_INPUTS; i++) in[i] = (double)x[t * KV_TRAIN_INPUTS + i];
        for (size_t l = 0; l < 3; l++) {
            for (size_t k = 0; k < width[l + 1]; k++) {
                out[k] = (double)r->bias[l][k];
                for (size_t i = 0; i < width[l]; i++)
                    out[k] += (double)r->weight[l][k * width[l] + i] * in[i];
                if (l < 2) out[k] = fmax(out[k], 0);
            }
            double *swap = in;
            in = out;
            out = swap;
        }
        for (size_t u = 0; u < r->n_units; u++, in += r->n_classes, picked++) {
            *picked = 0;
            for (size_t k = 1; k < r->n_classes; k++)
                if (in[k] > in[*picked]) *picked = (uint8_t)k;
        }
    }
    free(value);
}
