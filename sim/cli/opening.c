// SPDX-License-Identifier: Apache-2.0
// Options that several commands read alike.
#include "sim/cli/opening.h"
#include "sim/base/args.h"
#include "sim/base/memory.h"

#include <stdlib.h>

#include "sim/replay/recorded_model.h"

int kv_opt_named(const struct kv_cli *c, const char *name, const char *const *names, int *index,
                 struct kv_error *e) {
    const char *text = kv_opt(c, name);
    if (!text) return 0;
    int at = kv_index_of(text, names);
    if (at >= 0) {
        *index = at;
        return 0;
    }
    struct kv_text all = {0};
    for (size_t i = 0; names[i]; i++)
        kv_text_addf(&all, "%s%s", i == 0 ? "" : names[i + 1] ? ", " : " or ", names[i]);
    char where[32], *known = kv_text_take(&all);
    snprintf(where, sizeof where, "--%s", name);
    int rc = kv_fail(e, KV_EUSAGE, where, "%s: %s is expected", text, known);
    free(known);
    return rc;
}

int kv_opt_form(const struct kv_cli *c, enum kv_form *form, struct kv_error *e) {
    int index = *form - KV_FORM_ISO,
        rc = kv_opt_named(c, "form", kv_form_names + KV_FORM_ISO, &index, e);
    *form = (enum kv_form)(KV_FORM_ISO + index);
    return rc;
}

int kv_opt_range(const struct kv_cli *c, const char *name, struct kv_item_range *r,
                 struct kv_error *e) {
    const char *text = kv_opt(c, name);
    size_t a, b;
    char rest, where[32];
    if (!text) return 0;
    if (sscanf(text, "%zu-%zu%c", &a, &b, &rest) != 2 || a > b || b - a + 1 == 0) {
        snprintf(where, sizeof where, "--%s", name);
        return kv_fail(e, KV_EUSAGE, where, "%s: A-B with A <= B is expected", text);
    }
    *r = (struct kv_item_range){a, b - a + 1};
    return 0;
}

int kv_opt_compute(const struct kv_cli *c, enum kv_compute *how, struct kv_error *e) {
    int index = KV_COMPUTE_HOST, bf16 = 0;
    int rc = kv_opt_named(c, "compute", kv_compute_names, &index, e);
    if (rc == 0) rc = kv_opt_named(c, "precision", kv_precision_names, &bf16, e);
    if (rc == 0 && bf16 && index != KV_COMPUTE_CUDA)
        rc = kv_fail(e, KV_EUSAGE, "--precision", "bf16 goes with --compute cuda, not with %s",
                     kv_compute_names[index]);
    *how = bf16 ? KV_COMPUTE_CUDA_BF16 : (enum kv_compute)index;
    return rc;
}

int kv_opt_model(const struct kv_cli *c, const struct kv_trace_info *info, struct kv_model **m,
                 struct kv_error *e) {
    enum kv_compute how;
    int rc = kv_opt_compute(c, &how, e);
    if (rc) return rc;
    char *path = kv_model_path(kv_opt(c, "model"));
    rc = kv_recorded_model_open(m, info, path, how, e);
    free(path);
    return kv_opt_blame(c, rc, e);
}

int kv_opt_blame(const struct kv_cli *c, int rc, struct kv_error *e) {
    const struct kv_option *o = c->command->options;
    while (rc == KV_EUSAGE && o && o->name && strcmp(o->name, e->where) != 0) o++;
    if (rc == KV_EUSAGE && o && o->name) snprintf(e->where, sizeof e->where, "--%s", o->name);
    return rc;
}
