// SPDX-License-Identifier: Apache-2.0
// Chooses the path of the Walsh-Hadamard rotation.
#include "sim/quant/rotate.h"
#include "sim/base/isa.h"
#include "sim/base/cpu.h"

KV_ISA_TABLE(kv_rotate_fn *, rotate_at, kv_rotate)

size_t kv_rotation_size(size_t n) {
    return n & (0 - n);
}

void kv_rotate(float *x, size_t n, size_t size) {
    rotate_at[kv_cpu_level()](x, n, size);
}
