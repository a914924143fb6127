// SPDX-License-Identifier: Apache-2.0
// Uniform grids at the speed of memory: the bytes of grid.c's judge by vectors of floats.
#include "sim/base/isa.h"
#include "sim/quant/grid_isa.h"

void KV_ISA_NAME(kv_grid_encode)(const struct kv_grid *g, const float *x, size_t n_units,
                                 uint8_t *out) {
    kv_grid_encode_judge(g, x, n_units, out);
}

void KV_ISA_NAME(kv_grid_decode)(const struct kv_grid *g, const uint8_t *in, size_t n_units,
                                 float *y) {
    kv_grid_decode_judge(g, in, n_units, y);
}
