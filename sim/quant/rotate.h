// SPDX-License-Identifier: Apache-2.0
// The orthonormal Walsh-Hadamard rotation that spreads outliers over a head.
//
//     kv_rotate(x, n, 64);      each run of 64 floats; the same call turns them back
//
// log2(size) stages from the widest butterfly to the narrowest, sums and differences in float32,
// then one product with 1 / sqrt(size) rounded to float32: the same bits on every CPU.
#ifndef KV_QUANT_ROTATE_H
#define KV_QUANT_ROTATE_H

#include <stddef.h>

#define KV_MAX_ROTATION 8192

// The largest power of two that divides n.
size_t kv_rotation_size(size_t n);
// x: n floats, a multiple of `size`, a power of two up to KV_MAX_ROTATION; in place. Thread-safe.
void kv_rotate(float *x, size_t n, size_t size);

typedef void kv_rotate_fn(float *x, size_t n, size_t size);
kv_rotate_fn kv_rotate_base, kv_rotate_avx2, kv_rotate_avx512;

#endif
