// SPDX-License-Identifier: Apache-2.0
// Whether a trace fits what is opened beside it: a model, and today's rules of features.
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/shape.h"
#include "sim/model/model.h"
#include "traces/angles.h"
#include "traces/layout.h"
#include "traces/windows.h"

int kv_trace_check_features(const struct kv_trace_info *in, uint32_t needs, struct kv_error *e) {
    for (const struct kv_feature_rule *r = kv_feature_rules; r->key; r++)
        if (needs & in->other_features & KV_NEED(r->feature))
            return kv_fail(e, KV_EFAIL, in->path,
                           "holds %s by another rule than today's (%s); record it again", r->key,
                           r->rule);
    return 0;
}

int kv_trace_check_model(const struct kv_trace_info *in, const struct kv_model *m,
                         struct kv_error *e) {
    KV_GUARD(e);
    if (strcmp(in->model_digest, m->digest) != 0)
        return kv_fail(e, KV_EFAIL, in->path,
                       "was recorded from %s (digest %s), not from %s (digest %s)", in->model_name,
                       in->model_digest, m->name, m->digest);
    if (strcmp(in->weights_as, m->weights_as) != 0)
        return kv_fail(e, KV_EFAIL, in->path, "was recorded with weights held in %s, not %s",
                       in->weights_as, m->weights_as);
    for (size_t i = 0; i < KV_N_SHAPE_FIELDS; i++) {
        uint32_t said = kv_shape_get(&in->shape, i), is = kv_shape_get(&m->shape, i);
        if (said != is)
            return kv_fail(
                e, KV_EFAIL, in->path,
                "its manifest says %s %u, and the model has %u: it was edited or damaged",
                kv_shape_fields[i].name, said, is);
    }
    if (in->order != m->order)
        return kv_fail(e, KV_EFAIL, in->path,
                       "its manifest says another channel_order than the model's: it was edited or "
                       "damaged");
    if (in->rope_base != m->rope[0].base)
        return kv_fail(e, KV_EFAIL, in->path,
                       "its manifest says rope_base %g, and the model has %g: it was edited or "
                       "damaged",
                       (double)in->rope_base, (double)m->rope[0].base);
    double *angles = in->rope ? kv_angles_of_model(m) : NULL;
    size_t n = angles ? in->shape.n_layers * (in->shape.head_dim / 2) : 0, i = 0;
    while (i < n && fabs(angles[i] - in->rope[i]) <= 1e-12 * fabs(angles[i])) i++;
    free(angles);
    if (i < n)
        return kv_fail(
            e, KV_EFAIL, in->path,
            "its manifest says another RoPE of layer %zu than the model's: it was edited "
            "or damaged",
            i / (in->shape.head_dim / 2));
    if (!kv_windows_agree(in, m))
        return kv_fail(e, KV_EFAIL, in->path,
                       "its manifest says other windows of layers than the model's: it was edited "
                       "or damaged");
    return 0;
}
