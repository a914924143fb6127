// SPDX-License-Identifier: Apache-2.0
// ggml's block types at the speed of memory: the bytes of ggml_blocks.c's judge by vectors.
#include "sim/base/isa.h"
#include "sim/quant/ggml_blocks.h"

void KV_ISA_NAME(kv_ggml_encode)(enum kv_ggml_type type, const float *x, size_t n_blocks,
                                 uint8_t *out) {
    kv_ggml_encode_judge(type, x, n_blocks, out);
}

void KV_ISA_NAME(kv_ggml_decode)(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks,
                                 float *y) {
    kv_ggml_decode_judge(type, in, n_blocks, y);
}
