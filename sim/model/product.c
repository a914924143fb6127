// SPDX-License-Identifier: Apache-2.0
// The matrix products of all passes.
#include "sim/base/blas.h"
#include "sim/base/guard.h"
#include "sim/base/half.h"
#include "sim/model/accelerator.h"
#include "sim/model/kernels.h"
#include "sim/model/scratch.h"

// bf16 weights are widened by so many rows, so that a vocabulary of 150,000 needs no second copy of
// the head.
enum { WIDE_ROWS = 4096 };

// Rows [first, first + n) of the matrix in float32: its own memory, or widened into the scratch.
static const float *as_f32(const struct kv_matrix *w, size_t first, size_t n,
                           struct kv_scratch *s) {
    size_t from = first * w->cols, count = n * w->cols;
    if (w->f32) return w->f32 + from;
    float *wide = kv_scratch_floats(s, KV_BUF_WEIGHTS, count);
    for (size_t i = 0; i < count; i++) wide[i] = kv_bf16_to_f32(w->bf16[from + i]);
    return wide;
}

static size_t rows_at_once(const struct kv_matrix *w, size_t first) {
    size_t left = w->rows - first;
    return w->f32 || left < WIDE_ROWS ? left : WIDE_ROWS;
}

// On the accelerator that holds the matrix. A device that fails ends the call: what was finished is
// in the store.
static bool elsewhere(bool transposed, const struct kv_matrix *w, const float *x, size_t rows,
                      float *y) {
    char why[256] = "";
    const struct kv_accelerator *a = w->accelerator;
    if (!a) return false;
    size_t n = transposed ? w->rows : w->cols, k = transposed ? w->cols : w->rows;
    if (a->multiply(transposed, rows, n, k, x, w->f32, y, why, sizeof why))
        kv_raise(KV_EFAIL, a->hardware, "a product of %zu x %zu x %zu failed: %s", rows, n, k, why);
    return true;
}

// A library chooses its order of sums by a product's shape, so that rows which are not to know of
// each other go there in products of one shape: this many rows, the last ones filled up with zeros.
enum { APART_ROWS = 64 };

static void apart_elsewhere(const struct kv_matrix *w, const float *x, size_t rows, float *y,
                            struct kv_scratch *s) {
    size_t left = rows % APART_ROWS, whole = rows - left;
    for (size_t r = 0; r < whole; r += APART_ROWS)
        elsewhere(true, w, x + r * w->cols, APART_ROWS, y + r * w->rows);
    if (left == 0) return;
    float *in = kv_scratch_floats(s, KV_BUF_APART, APART_ROWS * (w->cols + w->rows)),
          *out = in + APART_ROWS * w->cols;
    memcpy(in, x + whole * w->cols, left * w->cols * sizeof *in);
    memset(in + left * w->cols, 0, (APART_ROWS - left) * w->cols * sizeof *in);
    elsewhere(true, w, in, APART_ROWS, out);
    memcpy(y + whole * w->rows, out, left * w->rows * sizeof *y);
}

void kv_product(const struct kv_matrix *w, const float *x, size_t rows, float *y,
                struct kv_scratch *s) {
    if (rows == 0) return;
    if (w->accelerator && s->row_by_row) {
        apart_elsewhere(w, x, rows, y, s);
        return;
    }
    if (elsewhere(true, w, x, rows, y)) return;
    for (size_t at = 0, n; at < w->rows; at += n) {
        n = rows_at_once(w, at);
        if (s->row_by_row)
            kv_kernels()->product(x, rows, as_f32(w, at, n, s), n, w->cols, y + at, w->rows);
        else
            kv_sgemm(false, true, rows, n, w->cols, x, w->cols, as_f32(w, at, n, s), w->cols, 0,
                     y + at, w->rows);
    }
}

void kv_product_back(const struct kv_matrix *w, const float *dy, size_t rows, float *dx,
                     struct kv_scratch *s) {
    if (rows == 0 || elsewhere(false, w, dy, rows, dx)) return;
    for (size_t at = 0, n; at < w->rows; at += n) {
        n = rows_at_once(w, at);
        kv_sgemm(false, false, rows, w->cols, n, dy + at, w->rows, as_f32(w, at, n, s), w->cols,
                 at > 0, dx, w->cols);
    }
}
