// SPDX-License-Identifier: Apache-2.0
// Paths of grid.isa.c, one per CPU level.
#ifndef KV_QUANT_GRID_ISA_H
#define KV_QUANT_GRID_ISA_H

#include "sim/quant/grid_judge.h"

typedef void kv_grid_encode_fn(const struct kv_grid *g, const float *x, size_t n_units,
                               uint8_t *out);
typedef void kv_grid_decode_fn(const struct kv_grid *g, const uint8_t *in, size_t n_units,
                               float *y);
kv_grid_encode_fn kv_grid_encode_base, kv_grid_encode_avx2, kv_grid_encode_avx512;
kv_grid_decode_fn kv_grid_decode_base, kv_grid_decode_avx2, kv_grid_decode_avx512;

#endif
