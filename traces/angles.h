// SPDX-License-Identifier: Apache-2.0
// By how much RoPE turned the keys of a recording, layer by layer: what turns them back without the
// model. (private to traces)
//
// The manifest's rope_base says it all where every layer turns pair i by base^(-2i / head_dim) a
// position. Otherwise (stretched frequencies, layers with a base of their own) its model.rope lists
// the distinct rows of angles, and which of them each layer has.
#ifndef KV_TRACES_ANGLES_H
#define KV_TRACES_ANGLES_H

#include <jansson.h>

#include "traces/trace.h"

struct kv_model;

// [n_layers][head_dim / 2] radians a position. Caller frees.
double *kv_angles_of_model(const struct kv_model *m);

// What the manifest holds beside rope_base: NULL where that says it all. Caller decrefs.
json_t *kv_angles_json(const struct kv_trace_info *in);

// Fills in->rope from the manifest's model.rope (NULL: absent) or from rope_base. Errors: KV_EFAIL
// for rows of another size, angles that are not finite, layers without a row.
KV_MUST_CHECK int kv_angles_read(const json_t *rope, struct kv_trace_info *in, const char *path,
                                 struct kv_error *e);

#endif
