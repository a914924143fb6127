// SPDX-License-Identifier: Apache-2.0
// Coding errors of recorded cells, weighed by channel.
#include <stdlib.h>

#include "analysis/studies/cells_ground.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/quant/code.h"

enum { ROWS = 256 }; // coded at a time

// Adds up one layer's K or V of n rows.
static void weigh(const struct kv_cells_ground *g, size_t place, const float *x, const float *y,
                  size_t n, float *out) {
    size_t heads = g->shape.n_kv_heads, d = g->shape.head_dim, places = kv_cells_places(&g->of);
    for (size_t i = 0; i < n; i++)
        for (size_t h = 0; h < heads; h++) {
            const float *m = g->channel + (place + 2 * h) * d;
            const float *a = x + (i * heads + h) * d, *b = y + (i * heads + h) * d;
            double sum = 0;
            for (size_t k = 0; k < d; k++) {
                double error = (double)a[k] - (double)b[k];
                sum += (double)m[k] * error * error;
            }
            out[i * places + place + 2 * h] = (float)sum;
        }
}

int kv_cells_errors(const struct kv_cells_ground *g, const struct kv_trace_item *item,
                    const uint32_t *rows, size_t n, size_t width, float *out, struct kv_error *e) {
    size_t values = (size_t)g->shape.n_kv_heads * g->shape.head_dim, layers = g->shape.n_layers;
    float *x = kv_alloc(ROWS * values, sizeof *x), *y = kv_alloc(ROWS * values, sizeof *y);
    void *scratch = kv_alloc(kv_code_scratch_bytes(g->format), 1);
    const uint8_t cell = (uint8_t)width; // one decision for all: its strides are 0
    int rc = 0;
    for (size_t from = 0; from < n && rc == 0; from += ROWS)
        for (size_t at = 0; at < 2 * layers && rc == 0; at++) {
            size_t layer = at / 2, count = n - from < ROWS ? n - from : ROWS;
            const uint16_t *kept = at % 2 ? item->v : item->k;
            for (size_t i = 0; i < count; i++) {
                size_t row = rows ? rows[from + i] : from + i;
                kv_f16_to_f32_n(kept + (row * layers + layer) * values, x + i * values, values);
            }
            struct kv_vectors vectors = {.layer = (uint32_t)layer,
                                         .side = at % 2 ? KV_VALUE : KV_KEY,
                                         .n = count,
                                         .x = x,
                                         .x_stride = values,
                                         .y = y,
                                         .y_stride = values,
                                         .cells = &cell};
            rc = kv_code_rows(g->format, &vectors, scratch, NULL, e);
            if (rc == 0)
                weigh(g, layer * 2 * g->shape.n_kv_heads + at % 2, x, y, count,
                      out + from * kv_cells_places(&g->of));
        }
    free(x);
    free(y);
    free(scratch);
    return rc;
}
