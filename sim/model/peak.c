// SPDX-License-Identifier: Apache-2.0
// Times what a core can do at most, at the CPU level in force.
#include "sim/model/peak.h"

#include <math.h>
#include <stddef.h>

#include "sim/base/cpu.h"
#include "sim/base/isa.h"
#include "sim/base/work.h"

typedef float peak_fn(size_t rounds, float start, size_t *operations);
peak_fn kv_peak_base;
#if defined(__x86_64__)
peak_fn kv_peak_avx2, kv_peak_avx512;
#endif
KV_ISA_TABLE(peak_fn *, peak_at, kv_peak)

double kv_peak_gflops(void) {
    enum { RUNS = 20 };
    const double run_s = 0.005;
    double best = 0;
    size_t rounds = 1 << 12, operations;
    for (int i = 0; i < RUNS;) {
        // A start near 0 keeps the sums finite; that it is read here keeps them from being known.
        volatile float start = 1e-3f;
        double from_s = kv_now_s();
        volatile float sum = peak_at[kv_cpu_level()](rounds, start, &operations);
        double spent_s = kv_now_s() - from_s;
        (void)sum;
        if (spent_s < run_s && rounds < (size_t)1 << 30) {
            rounds *= 2;
            continue;
        }
        best = fmax(best, 1e-9 * (double)operations / spent_s);
        i++;
    }
    return best;
}
