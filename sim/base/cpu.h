// SPDX-License-Identifier: Apache-2.0
// What this processor can do, and which of our kernels it runs.
#ifndef KV_BASE_CPU_H
#define KV_BASE_CPU_H

#include "policies/policy.h"

// Sources named *.isa.c are compiled once per level (KV_ISA is the suffix); each dispatches through
// a const table indexed by kv_cpu_level(), fixed at the first call. KVSIM_CPU=base|avx2|avx512
// forces one.
enum kv_cpu { KV_CPU_BASE, KV_CPU_AVX2, KV_CPU_AVX512, KV_N_CPU };
enum kv_cpu kv_cpu_level(void);
// Says where KVSIM_CPU names a level that does not exist or that this processor lacks (KV_EUSAGE);
// for a program to ask before it begins: kv_cpu_level takes the best level then.
KV_MUST_CHECK int kv_cpu_check(struct kv_error *e);
const char *kv_cpu_level_name(enum kv_cpu level);
const char *kv_cpu_model(void); // "AMD EPYC", from /proc/cpuinfo; "unknown" elsewhere
unsigned kv_cpu_count(void);

#endif
