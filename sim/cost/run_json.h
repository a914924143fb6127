// SPDX-License-Identifier: Apache-2.0
// Runs as JSON objects, whatever file they came from (CSV cells are texts): what run files, device
// files and foreign files share.
#ifndef KV_COST_RUN_JSON_H
#define KV_COST_RUN_JSON_H

#include "sim/base/memory.h"
#include "sim/cost/runs.h"

#include <jansson.h>

double kv_run_number(const json_t *row, const char *key);    // numbers and texts of them; else NAN
const char *kv_run_text(const json_t *row, const char *key); // "" when there is none
// A run in this tool's columns, or a plain foreign one. `where` names file and row.
KV_MUST_CHECK int kv_run_read(struct kv_device_run *run, const json_t *row, const char *where,
                              struct kv_error *e);
void kv_runs_read_meta(struct kv_runs *r, const json_t *row); // fills what is still unknown
// The array `runs` of an object; none = 0 rows. The caller frees *run.
KV_MUST_CHECK int kv_runs_from_json(const json_t *root, struct kv_device_run **run, size_t *n,
                                    const char *path, struct kv_error *e);

void kv_json_add_string(struct kv_text *t, const char *s); // quoted and escaped
// "[\n {...},\n {...}\n ]": a run a line.
void kv_runs_add_json(struct kv_text *t, const struct kv_device_run *run, size_t n);

#endif
