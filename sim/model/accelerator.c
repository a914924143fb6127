// SPDX-License-Identifier: Apache-2.0
// Loading a library of matrix products and giving it a model's weights.
#include "sim/model/accelerator.h"

#include "sim/base/library.h"
#include "sim/model/model.h"

static int hold(struct kv_matrix *w, const struct kv_accelerator *a, const char *path,
                struct kv_error *e) {
    if (a->hold(w->f32, w->rows * w->cols))
        return kv_fail(e, KV_ENOMEM, path, "%s has no room for the model's weights", a->hardware);
    w->accelerator = a;
    return 0;
}

static int hold_all(struct kv_model *m, const struct kv_accelerator *a, const char *path,
                    struct kv_error *e) {
    int rc = hold(&m->head, a, path, e);
    for (size_t i = 0; i < m->n_layers && rc == 0; i++) {
        struct kv_layer_weights *l = &m->layers[i];
        struct kv_matrix *all[] = {&l->qkv, &l->out, &l->gateup, &l->down};
        for (size_t k = 0; k < sizeof all / sizeof *all && rc == 0; k++)
            rc = hold(all[k], a, path, e);
    }
    return rc;
}

int kv_accelerator_open(struct kv_model *m, const char *path, struct kv_error *e) {
    char why[256] = "";
    if (!m->head.f32)
        return kv_fail(e, KV_EUSAGE, path, "multiplies float32 weights; this model is held as %s",
                       m->weights_as);
    void (*entry)(void);
    int rc = kv_library_load(path, false, "kv_accelerator_entry", NULL, &entry, e);
    if (rc) return rc;
    const struct kv_accelerator *a = ((kv_accelerator_entry_fn *)entry)(KV_ACCELERATOR_ABI);
    if (!a || a->abi != KV_ACCELERATOR_ABI)
        return kv_fail(e, KV_EFAIL, path, "was not built for accelerator ABI %d",
                       KV_ACCELERATOR_ABI);
    if (a->start(why, sizeof why)) return kv_fail(e, KV_EFAIL, path, "cannot start: %s", why);
    m->accelerator = a;
    return hold_all(m, a, path, e);
}
