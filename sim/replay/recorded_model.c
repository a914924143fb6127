// SPDX-License-Identifier: Apache-2.0
// Opens a trace's model.
#include "sim/replay/recorded_model.h"

int kv_recorded_model_open(struct kv_model **m, const struct kv_trace_info *info, const char *path,
                           enum kv_compute how, struct kv_error *e) {
    enum kv_weights_as as =
        strcmp(info->weights_as, "bf16") == 0 ? KV_WEIGHTS_BF16 : KV_WEIGHTS_F32;
    *m = NULL;
    if (!path)
        return kv_fail(e, KV_EUSAGE, "model", "a model is needed: exact replay runs %s again",
                       info->model_name);
    int rc = kv_model_open(m, path, as, e);
    if (rc == 0 && (rc = kv_model_compute(*m, how, e))) {
        kv_model_close(*m);
        *m = NULL;
    }
    return rc;
}
