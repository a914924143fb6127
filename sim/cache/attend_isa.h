// SPDX-License-Identifier: Apache-2.0
// The attention kernels of attend.isa.c by CPU level.
#ifndef KV_CACHE_ATTEND_ISA_H
#define KV_CACHE_ATTEND_ISA_H

#include "sim/cache/layout.h"

kv_attend_fn kv_attend_base, kv_attend_avx2, kv_attend_avx512, kv_attend_avx512vnni;

#endif
