// SPDX-License-Identifier: Apache-2.0
// Options that several commands read alike.
#include "sim/cli/opening.h"

#include <glob.h>
#include <stdlib.h>

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

int kv_opt_model(const struct kv_cli *c, const struct kv_trace_info *info, struct kv_model **m,
                 struct kv_error *e) {
    enum kv_weights_as as =
        strcmp(info->weights_as, "bf16") == 0 ? KV_WEIGHTS_BF16 : KV_WEIGHTS_F32;
    const char *path = kv_opt(c, "model");
    glob_t found = {0};
    if (!path) path = getenv("KVSIM_MODEL");
    if (!path && glob("data/*.gguf", 0, NULL, &found) == 0 && found.gl_pathc == 1)
        path = found.gl_pathv[0];
    int rc = path ? kv_model_open(m, path, as, e)
                  : kv_fail(e, KV_EUSAGE, c->command->name,
                            "-m MODEL is needed: exact replay runs %s again", info->model_name);
    globfree(&found);
    return rc;
}
