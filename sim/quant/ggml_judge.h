// SPDX-License-Identifier: Apache-2.0
// ggml's block types: 32 values of a head share a scale; layouts as in GGUF files and llama.cpp's
// cache.
//
// The rules are those of ggml's reference quantizers (ggml-quants.c: quantize_row_*_ref) and of the
// gguf Python package: codes are made with the float32 scale, which is rounded to fp16 afterwards.
#ifndef KV_QUANT_GGML_JUDGE_H
#define KV_QUANT_GGML_JUDGE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define KV_GGML_BLOCK 32

struct kv_block_q8_0 {
    uint8_t d[2]; // fp16 scale
    int8_t q[32];
};
struct kv_block_q4_0 {
    uint8_t d[2];
    uint8_t q[16]; // value i in the low half of q[i], value i + 16 in the high half
};
struct kv_block_q4_1 {
    uint8_t d[2], m[2]; // fp16 scale, fp16 minimum
    uint8_t q[16];
};
struct kv_block_q5_0 {
    uint8_t d[2];
    uint8_t high[4]; // bit i = fifth bit of value i
    uint8_t q[16];
};
struct kv_block_q5_1 {
    uint8_t d[2], m[2];
    uint8_t high[4];
    uint8_t q[16];
};
struct kv_block_iq4_nl {
    uint8_t d[2];
    uint8_t q[16]; // indices into kv_iq4_nl_values
};
static_assert(sizeof(struct kv_block_q8_0) == 34, "q8_0 is 8.5 bits a value");
static_assert(sizeof(struct kv_block_q4_0) == 18, "q4_0 is 4.5 bits a value");
static_assert(sizeof(struct kv_block_q4_1) == 20, "q4_1 is 5 bits a value");
static_assert(sizeof(struct kv_block_q5_0) == 22, "q5_0 is 5.5 bits a value");
static_assert(sizeof(struct kv_block_q5_1) == 24, "q5_1 is 6 bits a value");
static_assert(sizeof(struct kv_block_iq4_nl) == 18, "iq4_nl is 4.5 bits a value");

extern const int8_t kv_iq4_nl_values[16];

enum kv_ggml_type { KV_Q8_0, KV_Q4_0, KV_Q4_1, KV_Q5_0, KV_Q5_1, KV_IQ4_NL, KV_N_GGML };

// A row of the table of block types.
struct kv_ggml_trait {
    const char *name;
    uint32_t bits, code_bits, meta_bits, bytes; // of a block; bits = nominal
};
extern const struct kv_ggml_trait kv_ggml_traits[KV_N_GGML];

// n_blocks times 32 floats to n_blocks times `bytes`, and back. Thread-safe.
void kv_ggml_encode_judge(enum kv_ggml_type type, const float *x, size_t n_blocks, uint8_t *out);
void kv_ggml_decode_judge(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks, float *y);
// One code a value, for entropies.
void kv_ggml_codes(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks, uint8_t *q);

#endif
