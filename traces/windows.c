// SPDX-License-Identifier: Apache-2.0
// Layers whose queries see only the newest tokens.
#include "traces/windows.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/model.h"

uint32_t *kv_windows_of_model(const struct kv_model *m) {
    uint32_t *windows = kv_alloc(m->n_layers + 1, sizeof *windows), any = 0;
    for (size_t l = 0; l < m->n_layers; l++) any |= windows[l] = m->layers[l].window;
    if (any) return windows;
    free(windows);
    return NULL;
}

json_t *kv_windows_json(const struct kv_trace_info *in) {
    if (!in->windows) return NULL;
    json_t *list = json_array();
    for (size_t l = 0; l < in->shape.n_layers; l++)
        json_array_append_new(list, json_integer(in->windows[l]));
    return list;
}

int kv_windows_read(const json_t *windows, struct kv_trace_info *in, const char *path,
                    struct kv_error *e) {
    if (!windows) return 0;
    size_t n = in->shape.n_layers;
    bool fine = json_array_size(windows) == n;
    in->windows = kv_alloc(n + 1, sizeof *in->windows);
    for (size_t l = 0; l < n && fine; l++) {
        const json_t *one = json_array_get(windows, l);
        json_int_t x = json_integer_value(one);
        fine = json_is_integer(one) && x >= 0 && x <= UINT32_MAX;
        if (fine) in->windows[l] = (uint32_t)x;
    }
    if (fine) return 0;
    return kv_fail(e, KV_EFAIL, path, "'windows' is no list of %zu numbers of tokens, one a layer",
                   n);
}

bool kv_windows_agree(const struct kv_trace_info *in, const struct kv_model *m) {
    for (size_t l = 0; l < in->shape.n_layers && l < m->n_layers; l++)
        if ((in->windows ? in->windows[l] : 0) != m->layers[l].window) return false;
    return true;
}
