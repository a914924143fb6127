// SPDX-License-Identifier: Apache-2.0
// A row of a run file as a JSON object, whatever file it came from (CSV cells are texts).
#ifndef KV_COST_ROWS_H
#define KV_COST_ROWS_H

#include "sim/cost/runs.h"

#include <jansson.h>

double kv_row_number(const json_t *row, const char *key);    // numbers and texts of them; else NAN
const char *kv_row_text(const json_t *row, const char *key); // "" when there is none
// A row in this tool's columns, or a plain foreign one. `where` names file and row.
KV_MUST_CHECK int kv_row_read(struct kv_device_run *run, const json_t *row, const char *where,
                              struct kv_error *e);
void kv_runs_read_meta(struct kv_runs *r, const json_t *row); // fills what is still unknown

#endif
