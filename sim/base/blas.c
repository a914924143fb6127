// SPDX-License-Identifier: Apache-2.0
// Loads OpenBLAS with one thread and the right kernels.
#include "sim/base/blas.h"
#include "sim/base/cpu.h"
#include "sim/base/guard.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

// The values of cblas.h (the reference CBLAS of Netlib), whose header we can do without.
enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };
typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                      const float *a, int lda, const float *b, int ldb, float beta, float *c,
                      int ldc);
typedef char *text_fn(void);

// What OpenBLAS maps for each thread that multiplies, BUFFER_SIZE of its common_x86_64.h, and for
// itself. It asks again and again where the system refuses, so it is not let come to that.
enum { BUFFER_MIB = 128, LIBRARY_MIB = 64 };

static struct {
    sgemm_fn *sgemm;
    text_fn *core, *config;
    int code; // 0: it is there
    char why[256];
} blas;

static bool room_for(size_t mib) {
    void *p = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p != MAP_FAILED && munmap(p, mib << 20) == 0;
}

const char *kv_blas_core_of_level(void) {
    static const char *const core[KV_N_CPU] = {
        [KV_CPU_AVX2] = "Haswell", [KV_CPU_AVX512] = "SkylakeX"};
    return core[kv_cpu_level()];
}

// A variable of the environment for as long as the library is being loaded.
struct loan {
    const char *name;
    char before[64];
    bool was;
};

static struct loan lend(const char *name, const char *value) {
    struct loan l = {.name = name};
    const char *now = getenv(name);
    l.was = now;
    snprintf(l.before, sizeof l.before, "%s", now ? now : "");
    setenv(name, value, 1);
    return l;
}

static void take_back(const struct loan *l) {
    if (l->was)
        setenv(l->name, l->before, 1);
    else
        unsetenv(l->name);
}

static void *load_library(void) {
    static const char *const names[] = {"libopenblas.so.0", "libopenblasp.so.0", "libopenblas.so"};
    const char *core = getenv("OPENBLAS_CORETYPE") ? NULL : kv_blas_core_of_level();
    struct loan threads = lend("OPENBLAS_NUM_THREADS", "1"), kernels = {0};
    if (core) kernels = lend("OPENBLAS_CORETYPE", core);
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof *names; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        // Why the first name failed tells most.
        const char *why = library ? NULL : dlerror();
        if (why && !*blas.why)
            snprintf(blas.why, sizeof blas.why,
                     "cannot be loaded (%.150s); Debian's package is libopenblas0", why);
    }
    if (core) take_back(&kernels);
    take_back(&threads);
    return library;
}

static void load(void) {
    blas.code = KV_EFAIL;
    if (!room_for(BUFFER_MIB + LIBRARY_MIB)) {
        blas.code = KV_ENOMEM;
        snprintf(blas.why, sizeof blas.why,
                 "needs %d MiB of address space, which cannot be had (ulimit -v?)",
                 BUFFER_MIB + LIBRARY_MIB);
        return;
    }
    void *library = load_library();
    if (!library) return;
    *(void **)&blas.sgemm = dlsym(library, "cblas_sgemm");
    *(void **)&blas.core = dlsym(library, "openblas_get_corename");
    *(void **)&blas.config = dlsym(library, "openblas_get_config");
    void (*set_threads)(int);
    *(void **)&set_threads = dlsym(library, "openblas_set_num_threads");
    if (blas.sgemm && blas.core && blas.config && set_threads) {
        set_threads(1);
        blas.code = 0;
    } else {
        snprintf(blas.why, sizeof blas.why, "is not whole: a function is missing");
    }
}

static int loaded(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return blas.code;
}

int kv_blas_open(struct kv_error *e) {
    return loaded() ? kv_fail(e, blas.code, "OpenBLAS", "%s", blas.why) : 0;
}

// A thread's first product has OpenBLAS map a buffer: there must be room for it.
static void prepare_thread(void) {
    static _Thread_local bool ready;
    if (ready) return;
    if (loaded()) kv_raise(blas.code, "OpenBLAS", "%s", blas.why);
    if (!room_for(BUFFER_MIB))
        kv_raise(KV_ENOMEM, "OpenBLAS", "a thread needs %d MiB of address space; -j 1 needs least",
                 BUFFER_MIB);
    ready = true;
}

void kv_sgemm(bool a_transposed, bool b_transposed, size_t m, size_t n, size_t k, const float *a,
              size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc) {
    prepare_thread();
    blas.sgemm(ROW_MAJOR, a_transposed ? TRANSPOSED : AS_IT_IS,
               b_transposed ? TRANSPOSED : AS_IT_IS, (int)m, (int)n, (int)k, 1, a, (int)lda, b,
               (int)ldb, beta, c, (int)ldc);
}

const char *kv_blas_core(void) {
    return loaded() ? "none" : blas.core();
}

const char *kv_blas_config(void) {
    return loaded() ? blas.why : blas.config();
}
