// SPDX-License-Identifier: Apache-2.0
// Finds and names what does a model's matrix products.
#include "sim/base/guard.h"
#include "sim/model/compute.h"
#include "sim/base/blas.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"

#include <stdlib.h>
#include <unistd.h>

#include "sim/model/accelerator.h"

const char *const kv_compute_names[] = {"f32", "cublas", NULL};

static char *library_path(void) {
    const char *named = getenv("KVSIM_CUBLAS");
    char self[4096];
    ssize_t n = named ? 0 : readlink("/proc/self/exe", self, sizeof self - 1);
    if (named) return kv_strdup(named);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    return kv_format_text("%.*s/libkvsim-cublas.so", slash ? (int)(slash - self) : 1,
                          slash ? self : ".");
}

int kv_model_compute(struct kv_model *m, enum kv_compute how, struct kv_error *e) {
    KV_GUARD(e);
    if (how == KV_COMPUTE_F32) return 0;
    char *path = library_path();
    int rc = access(path, F_OK) == 0
                 ? kv_accelerator_open(m, path, e)
                 : kv_fail(e, KV_EFAIL, path,
                           "is not there: `make cuda` builds it where nvcc is, and $KVSIM_CUBLAS "
                           "may name it");
    if (rc == 0) kv_say("products on %s", m->accelerator->hardware);
    free(path);
    return rc;
}

const char *kv_compute_name(const struct kv_model *m) {
    return m && m->accelerator ? m->accelerator->name : kv_compute_names[KV_COMPUTE_F32];
}

const char *kv_compute_blas(const struct kv_model *m) {
    return m && m->accelerator ? m->accelerator->hardware : kv_blas_core();
}
