// SPDX-License-Identifier: Apache-2.0
// Which CPU level runs: found once, or forced by KVSIM_CPU.
#include "sim/base/isa.h"
#include "sim/base/cpu.h"
#include "sim/base/half.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const level_names[KV_N_CPU] = {"base", "avx2", "avx512"};

static enum kv_cpu best_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("bmi2");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return KV_CPU_AVX512;
    if (avx2) return KV_CPU_AVX2;
#endif
    return KV_CPU_BASE;
}

static enum kv_cpu chosen;

// The level that KVSIM_CPU names; KV_N_CPU when none is named so.
static enum kv_cpu named_level(const char *name) {
    int i = 0;
    while (i < KV_N_CPU && strcmp(name, level_names[i]) != 0) i++;
    return (enum kv_cpu)i;
}

static void choose(void) {
    chosen = best_level();
    const char *want = getenv("KVSIM_CPU");
    enum kv_cpu level = want ? named_level(want) : chosen;
    if (level < chosen) chosen = level;
}

int kv_cpu_check(struct kv_error *e) {
    const char *want = getenv("KVSIM_CPU");
    enum kv_cpu level = want ? named_level(want) : KV_CPU_BASE, best = best_level();
    if (level == KV_N_CPU)
        return kv_fail(e, KV_EUSAGE, "KVSIM_CPU",
                       "no CPU level is named '%s'; there are base, avx2, avx512", want);
    if (level > best)
        return kv_fail(e, KV_EUSAGE, "KVSIM_CPU",
                       "this processor does not have %s; the best it has is %s", want,
                       level_names[best]);
    return 0;
}

enum kv_cpu kv_cpu_level(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    return chosen;
}

const char *kv_cpu_level_name(enum kv_cpu level) {
    return level_names[level];
}

const char *kv_cpu_model(void) {
    static char name[96] = "";
    if (*name) return name;
    char line[256], found[96] = "unknown";
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "model name : %95[^\n]", found) == 1) break;
    if (f) fclose(f);
    memcpy(name, found, sizeof name);
    return name;
}

unsigned kv_cpu_count(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (unsigned)n;
}
