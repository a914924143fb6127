// SPDX-License-Identifier: Apache-2.0
// Arrays of 16-bit floats: the choice of the fastest path.
#include "sim/base/cpu.h"
#include "sim/base/half.h"
#include "sim/base/isa.h"

void kv_f32_to_f16_n_base(const float *, uint16_t *, size_t);
void kv_f32_to_f16_n_avx2(const float *, uint16_t *, size_t);
void kv_f32_to_f16_n_avx512(const float *, uint16_t *, size_t);
void kv_f16_to_f32_n_base(const uint16_t *, float *, size_t);
void kv_f16_to_f32_n_avx2(const uint16_t *, float *, size_t);
void kv_f16_to_f32_n_avx512(const uint16_t *, float *, size_t);
typedef void to_half_fn(const float *, uint16_t *, size_t);
typedef void from_half_fn(const uint16_t *, float *, size_t);
KV_ISA_TABLE(to_half_fn *, to_half, kv_f32_to_f16_n)
KV_ISA_TABLE(from_half_fn *, from_half, kv_f16_to_f32_n)

void kv_f32_to_f16_n(const float *x, uint16_t *h, size_t n) {
    to_half[kv_cpu_level()](x, h, n);
}
void kv_f16_to_f32_n(const uint16_t *h, float *x, size_t n) {
    from_half[kv_cpu_level()](h, x, n);
}
