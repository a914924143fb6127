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

#define KV_MOST_NS 1e15 // no time of a run is longer: eleven days

// Whether a setting's FIELD=VALUE holds; KV_EFAIL: no run tells the field, or none that value.
bool kv_setting_holds(const struct kv_runs *r, unsigned setting, const char *condition);
KV_MUST_CHECK int kv_setting_check(const struct kv_runs *r, const char *condition,
                                   struct kv_error *e);
// Finds the number of what a row says of how it was run: of a llama-bench row every field that is
// no setting of the sweep and no time, of others those that are known to say so.
unsigned kv_runs_setting(struct kv_runs *r, const json_t *row, bool is_llama);
// llama-bench's Markdown tables as an array of rows of its JSON; NULL: text holds none.
json_t *kv_markdown_runs(const char *text);
// The rows of its SQL (INSERT statements), values as texts. Errors: name the statement.
KV_MUST_CHECK int kv_sql_runs(json_t **rows, const char *text, const char *path,
                              struct kv_error *e);
// A row of llama-bench: fields as it prints them (build, model, types, depth, speed).
KV_MUST_CHECK int kv_llama_run_read(struct kv_device_run *run, const json_t *row, const char *where,
                                    struct kv_error *e);

void kv_json_add_string(struct kv_text *t, const char *s); // quoted and escaped
// "[\n {...},\n {...}\n ]": a run a line.
void kv_runs_add_json(struct kv_text *t, const struct kv_device_run *run, size_t n);

#endif
