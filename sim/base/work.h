// SPDX-License-Identifier: Apache-2.0
// Workers, interrupts, clocks.
#ifndef KV_BASE_WORK_H
#define KV_BASE_WORK_H

#include "policies/policy.h"

KV_BEGIN_DECLS

// Runs job(self, worker, i) for i in [0, n) on `n_workers` threads; each worker takes the next i
// when free. A job that returns non-zero stops the rest; the first error in order of i is returned.
// So is what a job raises (guard.h). kv_interrupted() is checked between jobs: KV_EINTR.
KV_MUST_CHECK int kv_parallel(size_t n, unsigned n_workers,
                              int (*job)(void *self, unsigned worker, size_t i, struct kv_error *e),
                              void *self, struct kv_error *e);

// How many of its jobs the outermost kv_parallel that runs now has done, and since when it runs
// (kv_now_s); total 0: none does.
void kv_parallel_progress(size_t *done, size_t *total, double *since_s);

// true: whatever runs ends soon with KV_EINTR, what it finished being stored; false: takes that
// back. For a signal handler or another thread. The library itself catches no signals.
void kv_interrupt(bool now);
bool kv_interrupted(void);

double kv_now_s(void);      // monotonic
double kv_cpu_time_s(void); // of this process, all threads

KV_END_DECLS

#endif
