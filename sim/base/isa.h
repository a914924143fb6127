// SPDX-License-Identifier: Apache-2.0
// Names for sources compiled once per CPU level: NAME.isa.c is built with
// -DKV_ISA=base|avx2|avx512.
//
//     void KV_ISA_NAME(kv_dot)(...) { ... }              in dot.isa.c: kv_dot_base, kv_dot_avx2,
//     ... KV_ISA_TABLE(kv_dot_fn *, dot_at, kv_dot)          in dot.c: const table, indexed by
//     kv_cpu_level()
#ifndef KV_BASE_ISA_H
#define KV_BASE_ISA_H

#define KV_PASTE2(a, b) a##_##b
#define KV_PASTE(a, b) KV_PASTE2(a, b)
#define KV_ISA_NAME(name) KV_PASTE(name, KV_ISA)

#if defined(__x86_64__)
#define KV_ISA_TABLE(type, table, name)                                                            \
    static type const table[KV_N_CPU] = {KV_PASTE(name, base), KV_PASTE(name, avx2),               \
                                         KV_PASTE(name, avx512)};
#else
#define KV_ISA_TABLE(type, table, name)                                                            \
    static type const table[KV_N_CPU] = {KV_PASTE(name, base), KV_PASTE(name, base),               \
                                         KV_PASTE(name, base)};
#endif

#endif
