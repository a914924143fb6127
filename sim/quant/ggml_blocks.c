// SPDX-License-Identifier: Apache-2.0
// ggml's block types: the choice of the fastest path.
#include "sim/quant/ggml_blocks.h"
#include "sim/base/cpu.h"
#include "sim/base/isa.h"

KV_ISA_TABLE(kv_ggml_encode_fn *, encode_at, kv_ggml_encode)
KV_ISA_TABLE(kv_ggml_decode_fn *, decode_at, kv_ggml_decode)

void kv_ggml_encode(enum kv_ggml_type type, const float *x, size_t n_blocks, uint8_t *out) {
    encode_at[kv_cpu_level()](type, x, n_blocks, out);
}

void kv_ggml_decode(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks, float *y) {
    decode_at[kv_cpu_level()](type, in, n_blocks, y);
}
