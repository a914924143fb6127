// SPDX-License-Identifier: Apache-2.0
// ggml's block types on the fastest path of this machine: the bytes of ggml_judge.h, sooner.
#ifndef KV_QUANT_GGML_BLOCKS_H
#define KV_QUANT_GGML_BLOCKS_H

#include "sim/quant/ggml_judge.h"

// n_blocks times 32 floats to n_blocks times `bytes`, and back. The same bytes on each path.
// Thread-safe.
void kv_ggml_encode(enum kv_ggml_type type, const float *x, size_t n_blocks, uint8_t *out);
void kv_ggml_decode(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks, float *y);

// The paths of ggml_blocks.isa.c, one per CPU level.
typedef void kv_ggml_encode_fn(enum kv_ggml_type, const float *, size_t, uint8_t *);
typedef void kv_ggml_decode_fn(enum kv_ggml_type, const uint8_t *, size_t, float *);
kv_ggml_encode_fn kv_ggml_encode_base, kv_ggml_encode_avx2, kv_ggml_encode_avx512;
kv_ggml_decode_fn kv_ggml_decode_base, kv_ggml_decode_avx2, kv_ggml_decode_avx512;

#endif
