// SPDX-License-Identifier: Apache-2.0
// Chooses the kernels of the CPU level in force.
#include "sim/model/kernels.h"

#include "sim/base/isa.h"
#include "sim/base/cpu.h"

extern const struct kv_kernels kv_kernels_base;
#if defined(__x86_64__)
extern const struct kv_kernels kv_kernels_avx2, kv_kernels_avx512;
static const struct kv_kernels *const levels[KV_N_CPU] = {&kv_kernels_base, &kv_kernels_avx2,
                                                          &kv_kernels_avx512};
#else
static const struct kv_kernels *const levels[KV_N_CPU] = {&kv_kernels_base, &kv_kernels_base,
                                                          &kv_kernels_base};
#endif

const struct kv_kernels *kv_kernels(void) {
    return levels[kv_cpu_level()];
}
