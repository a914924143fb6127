// SPDX-License-Identifier: Apache-2.0
// Finds and names what does a model's matrix products.
#include "sim/model/compute.h"

#include <stdlib.h>
#include <unistd.h>

#include "sim/base/blas.h"
#include "sim/base/guard.h"
#include "sim/base/library.h"
#include "sim/base/outcome.h"
#include "sim/base/talk.h"
#include "sim/model/accelerator.h"
#include "sim/model/engine.h"

const char *const kv_compute_names[] = {"cpu", "cublas", "cuda", NULL};
const char *const kv_precision_names[] = {"f32", "bf16", NULL};

int kv_model_compute(struct kv_model *m, enum kv_compute how, struct kv_error *e) {
    KV_GUARD(e);
    if (how == KV_COMPUTE_HOST) return 0;
    bool products = how == KV_COMPUTE_CUBLAS;
    const char *variable = products ? "KVSIM_CUBLAS" : "KVSIM_CUDA";
    char *path = kv_library_path(variable, products ? "libkvsim-cublas.so" : "libkvsim-cuda.so");
    int rc = 0;
    if (access(path, F_OK))
        rc = kv_fail(e, KV_EFAIL, path,
                     "is not there: `make cuda` builds it where nvcc is, and $%s may name it",
                     variable);
    if (rc == 0 && !products) rc = kv_engine_attach(m, path, how == KV_COMPUTE_CUDA_BF16, e);
    if (rc == 0) rc = kv_accelerator_open(m, path, e);
    if (rc == 0) kv_say("%s on %s", products ? "products" : "passes", kv_compute_blas(m));
    free(path);
    return rc;
}

const char *kv_compute_name(const struct kv_model *m) {
    return m && m->engine_bf16   ? KV_COMPUTE_IN_BF16
           : m && m->accelerator ? m->accelerator->name
                                 : KV_COMPUTE_CPU;
}

const char *kv_compute_blas(const struct kv_model *m) {
    return m && m->engine        ? m->engine->hardware
           : m && m->accelerator ? m->accelerator->hardware
                                 : kv_blas_core();
}
