// SPDX-License-Identifier: Apache-2.0
// The inner loops of the forward pass, one implementation per CPU level (kernels.isa.c).
//
// Sums run over a fixed number of lanes in a fixed order, so a level's results are repeatable bit
// for bit; levels differ from each other in the last bits.
#ifndef KV_MODEL_KERNELS_H
#define KV_MODEL_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { KV_TILE = 64 }; // buffers that kernels read in whole tiles are padded to a multiple of this

// A run of positions whose keys and values lie together. Keys are transposed: element i of the key
// at position t is k_t[i * ld_k + t]; up to KV_TILE - 1 columns past `count` are read and ignored.
struct kv_span {
    const float *k_t;
    size_t ld_k;
    const float *v; // [count][...], rows ld_v apart
    size_t ld_v;
    size_t count;
};

// Attention of one token's query heads that share a KV head, over spans that together are the
// visible positions 0 .. len - 1 in order.
struct kv_attend {
    size_t n_q;     // query heads of the group
    size_t dim;     // a multiple of 16
    const float *q; // [n_q][dim], already scaled by 1/sqrt(dim)
    size_t n_spans;
    struct kv_span span[8];
    size_t len;
    const uint8_t *masked; // [len] non-zero = evicted, or NULL
    float *weights;        // [n_q][ld_w] out: softmax weights, ld_w >= len rounded up + KV_TILE
    size_t ld_w;
    float *out; // [n_q][dim]
};

// Sums over one tile of a row of logits against the reference row (see head.c).
struct kv_tile_sums {
    float max_d;                 // largest d = logit - reference logit
    float sum_p, sum_pe, sum_pd; // of p, p exp(d - max_d), p d
};

// Backward of kv_attend for one row and KV head. Spans are the segments of the row's path; all read
// one view.
struct kv_attend_back_span {
    const float *k, *v; // [count] rows ld apart
    const float *v_t;   // transposed values, as k_t above
    float *dk, *dv;     // [count] rows ld apart, added to
    size_t ld, ld_t, count;
};
struct kv_attend_back {
    size_t n_q, dim, len;
    const float *q;           // [n_q][dim], scaled
    const float *weights;     // [n_q][ld_w] softmax weights
    const float *out, *d_out; // [n_q][dim]
    size_t n_spans;
    struct kv_attend_back_span span[2];
    float *d_score; // [n_q][ld_w] out: gradient of the scaled scores
    size_t ld_w;
    float *dq; // [n_q][dim] out: of the scaled query
};

struct kv_kernels {
    void (*attend)(const struct kv_attend *a);
    // w[n] becomes its softmax; up to KV_TILE - 1 floats behind it are overwritten.
    void (*softmax)(float *w, size_t n);
    void (*add)(float *to, const float *x, size_t n); // to[n] += x[n]
    size_t (*largest)(const float *x, size_t n); // index of the first maximum; n: a NaN is there
    // y[r][i] = x[r][i] / sqrt(mean(x[r]^2) + eps) * gain[i]   (Zhang and Sennrich 2019)
    void (*rms_norm)(float *y, const float *x, const float *gain, size_t rows, size_t n, float eps);
    // y[r][i] = silu(g[r][i]) * g[r][n + i] for g of rows [2 n]   (Shazeer 2020, SwiGLU)
    void (*swiglu)(float *y, const float *g, size_t rows, size_t n);
    // y[r][i] = gelu(g[r][i]) * g[r][n + i] with gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x +
    // 0.044715 x^3)))   (Hendrycks and Gimpel 2016, arXiv 1606.08415; Shazeer 2020, GEGLU)
    void (*geglu)(float *y, const float *g, size_t rows, size_t n);
    // Largest of x[n] and sum of exp(x - max).
    void (*max_sum_exp)(const float *x, size_t n, float *max, float *sum);
    // y = exp(x - shift); returns nothing. Also used to turn logits into probabilities.
    void (*exp_shifted)(float *y, const float *x, size_t n, float shift);
    struct kv_tile_sums (*compare)(const float *logit, const float *ref, const float *p, size_t n);
    // Sums of p and p * x over a row: entropy needs both.
    void (*dot)(const float *a, const float *b, size_t n, double *sum);
    // y[r * ld_y + o] = sum over i of x[r * n + i] w[o * n + i]: each sum over the same lanes in
    // the same order, whatever rows and outputs stand beside it.
    void (*product)(const float *x, size_t rows, const float *w, size_t outputs, size_t n, float *y,
                    size_t ld_y);
    void (*attend_back)(const struct kv_attend_back *a);
    // dx += backward of rms_norm at x for dy.
    void (*rms_norm_back)(float *dx, const float *dy, const float *x, const float *gain,
                          size_t rows, size_t n, float eps);
    // dg[rows][2 n] = backward of swiglu at g for dy[rows][n].
    void (*swiglu_back)(float *dg, const float *dy, const float *g, size_t rows, size_t n);
    void (*geglu_back)(float *dg, const float *dy, const float *g, size_t rows, size_t n);
};

const struct kv_kernels *kv_kernels(void); // for the CPU level chosen at start

#endif
