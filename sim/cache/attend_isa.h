// SPDX-License-Identifier: Apache-2.0
// The attention kernels of attend.isa.c by CPU level.
#ifndef KV_CACHE_ATTEND_ISA_H
#define KV_CACHE_ATTEND_ISA_H

#include "sim/cache/layout.h"

kv_attend_fn kv_attend_base, kv_attend_avx2, kv_attend_avx512, kv_attend_avx512vnni;

// Joins head h's attention over a window to the job's.
static inline void kv_attend_join(const struct kv_attend_job *j, uint32_t h, float max, float sum,
                                  float weighted, const float *out) {
    float top = fmaxf(max, j->max[h]), with = expf(max - top), *old = j->out + h * j->dim;
    float keep = j->sum[h] > 0 ? expf(j->max[h] - top) : 0;
    if (j->weighted)
        j->weighted[h] = with * (weighted + (max - top) * sum) +
                         (keep > 0 ? keep * (j->weighted[h] + (j->max[h] - top) * j->sum[h]) : 0);
    j->max[h] = top;
    j->sum[h] = j->sum[h] * keep + sum * with;
    for (uint32_t c = 0; c < j->dim; c++) old[c] = old[c] * keep + out[c] * with;
}

#endif
