// SPDX-License-Identifier: Apache-2.0
// Options that several commands read alike.
#include "sim/cli/opening.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"

#include <cblas.h>
#include <glob.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim/model/accelerator.h"

int kv_opt_items(const struct kv_cli *c, const char *name, size_t n_items, size_t *first, size_t *n,
                 struct kv_error *e) {
    const char *text = kv_opt(c, name);
    size_t a, b;
    char rest, where[32];
    if (!text) return 0;
    if (sscanf(text, "%zu-%zu%c", &a, &b, &rest) != 2 || a > b || b >= n_items) {
        snprintf(where, sizeof where, "--%s", name);
        return kv_fail(e, KV_EUSAGE, where, "%s: A-B with A <= B <= %zu is expected", text,
                       n_items - 1);
    }
    *first = a;
    *n = b - a + 1;
    return 0;
}

char *kv_model_path(const char *given) {
    glob_t found = {0};
    if (!given) given = getenv("KVSIM_MODEL");
    if (!given && glob("data/*.gguf", 0, NULL, &found) == 0 && found.gl_pathc == 1)
        given = found.gl_pathv[0];
    char *path = given ? kv_strdup(given) : NULL;
    globfree(&found);
    return path;
}

int kv_opt_model(const struct kv_cli *c, const struct kv_trace_info *info, struct kv_model **m,
                 struct kv_error *e) {
    enum kv_weights_as as =
        strcmp(info->weights_as, "bf16") == 0 ? KV_WEIGHTS_BF16 : KV_WEIGHTS_F32;
    char *path = kv_model_path(kv_opt(c, "model"));
    int rc = path ? kv_model_open(m, path, as, e)
                  : kv_fail(e, KV_EUSAGE, c->command->name,
                            "-m MODEL is needed: exact replay runs %s again", info->model_name);
    free(path);
    if (rc == 0 && (rc = kv_opt_compute(c, *m, e))) {
        kv_model_close(*m);
        *m = NULL;
    }
    return rc;
}

// ---- arithmetic -----------------------------------------------------------------------

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

int kv_opt_compute(const struct kv_cli *c, struct kv_model *m, struct kv_error *e) {
    const char *how = kv_opt(c, "compute");
    if (!how || strcmp(how, "f32") == 0) return 0;
    if (strcmp(how, "cublas") != 0)
        return kv_fail(e, KV_EUSAGE, "--compute", "%s: this kvsim offers f32 and cublas", how);
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
    return m && m->accelerator ? m->accelerator->name : "f32";
}

const char *kv_compute_blas(const struct kv_model *m) {
    return m && m->accelerator ? m->accelerator->hardware : openblas_get_corename();
}
