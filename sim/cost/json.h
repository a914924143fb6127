// SPDX-License-Identifier: Apache-2.0
// JSON pieces that device files and run files share.
#ifndef KV_COST_JSON_H
#define KV_COST_JSON_H

#include "sim/base/memory.h"

#include <jansson.h>

struct kv_device_run;

void kv_json_add_string(struct kv_text *t, const char *s); // quoted and escaped
// "[\n {...},\n {...}\n ]": a run a line.
void kv_runs_add_json(struct kv_text *t, const struct kv_device_run *run, size_t n);
// The array `runs` of an object; none = 0 rows. The caller frees *run.
KV_MUST_CHECK int kv_runs_from_json(const json_t *root, struct kv_device_run **run, size_t *n,
                                    const char *path, struct kv_error *e);

#endif
