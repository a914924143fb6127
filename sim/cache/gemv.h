// SPDX-License-Identifier: Apache-2.0
// Weight matrices as devices store them (f32, bf16, 8 and 4 bit) and y = W x at batch 1.
//
// 8 and 4 bit: groups of 32 along a row, code x scale with codes about zero and an fp16 scale, like
// ggml's Q8_0 and Q4_0 (8.5 and 4.5 bits a weight). 16 rows are interleaved so that a lane is a
// row: per tile and group, words[bits][16 rows], then scales[16].
#ifndef KV_CACHE_GEMV_H
#define KV_CACHE_GEMV_H

#include <stddef.h>
#include <stdint.h>

enum kv_weight_kind { KV_W_F32, KV_W_BF16, KV_W_Q8, KV_W_Q4, KV_N_WEIGHT_KINDS };
extern const char *const kv_weight_kind_names[]; // "f32", "bf16", "q8", "q4", NULL

struct kv_weights {
    enum kv_weight_kind kind;
    size_t rows, cols; // rows: a multiple of 16 and cols of 32 for q8 and q4
    size_t bytes;
    void *data;
};

// Allocates; fill with kv_weights_put. Rows are padded to 16.
void kv_weights_init(struct kv_weights *w, enum kv_weight_kind kind, size_t rows, size_t cols);
void kv_weights_fini(struct kv_weights *w);
// Codes rows [first, first + n) from x [n][cols]; first and n multiples of 16 but for the last.
void kv_weights_put(struct kv_weights *w, size_t first, size_t n, const float *x);

// A vector as the kernels of a kind read it: floats, or 15-bit integers with one scale.
struct kv_activation {
    const float *x;
    float scale;
    int32_t *pair; // [cols / 2], in the pair order of the width
    int32_t *sum;  // [cols / 32]
};
// Fills *a from x for matrices of this kind; pair and sum are the caller's memory.
void kv_activation_set(struct kv_activation *a, enum kv_weight_kind kind, const float *x,
                       size_t cols);

// y[first..end) = rows [first, end) of W times x. first is a multiple of 16; y has room for the
// rows of whole tiles. Thread-safe.
void kv_gemv(const struct kv_weights *w, const struct kv_activation *a, size_t first, size_t end,
             float *y);

// Reads n bytes (a multiple of 256) and returns their exclusive or: a streaming read and nothing
// else, for the bandwidth beside the kernels. Thread-safe.
uint64_t kv_stream_read(const void *p, size_t n_bytes);

#endif
