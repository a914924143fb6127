// SPDX-License-Identifier: Apache-2.0
// What a store's rows hang on: traces with their items, runs, and the durations kept beside them.
#include "sim/store/label.h"
#include "sim/store/store.h"

#include <jansson.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/shape.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static int take_number(void *self, size_t n, const char *const *names,
                       const struct kv_sql_value *values, struct kv_error *e) {
    (void)n, (void)names, (void)e;
    *(long long *)self = values[0].n;
    return 0;
}

// The one number a query gives; `fallback` when it gives none.
static int number(struct kv_store *s, const char *sql, const struct kv_sql_value *values, size_t n,
                  long long fallback, long long *out, struct kv_error *e) {
    *out = fallback;
    return kv_store_query(s, sql, values, n, take_number, out, e);
}

// ---- traces ---------------------------------------------------------------------------

static char *shape_json(const struct kv_trace_info *t) {
    json_t *j = json_object();
    for (size_t i = 0; i < KV_N_SHAPE_FIELDS; i++)
        json_object_set_new(j, kv_shape_fields[i].name, json_integer(kv_shape_get(&t->shape, i)));
    json_object_set_new(j, "order", json_string(t->order == KV_ORDER_GGML ? "ggml" : "hf"));
    char *s = json_dumps(j, JSON_COMPACT);
    json_decref(j);
    return s;
}

static json_t *text_json(const char *s) {
    json_t *j = json_string(s ? s : "");
    return j ? j : json_string("");
}

// All items as one JSON text, so that one statement adds them whole or not at all.
static char *items_json(const struct kv_trace_info *info, kv_trace_item_fn *item,
                        const struct kv_trace *t) {
    json_t *all = json_array();
    for (size_t i = 0; i < info->n_items; i++) {
        const struct kv_trace_item *x = item(t, i);
        char key[17], context[17];
        kv_hex64(x->key, key);
        kv_hex64(kv_hash(x->ids, x->n_context * sizeof *x->ids, 0), context);
        json_t *row = json_array();
        json_array_append_new(row, text_json(x->id));
        json_array_append_new(row, text_json(x->source));
        json_array_append_new(row, json_integer(x->gold));
        json_array_append_new(row, json_integer(x->n_context));
        json_array_append_new(row, json_integer(x->n_choices));
        json_array_append_new(row, json_integer(x->n_tokens));
        json_array_append_new(row, json_string(key));
        json_array_append_new(row, json_string(context));
        json_array_append_new(all, row);
    }
    char *s = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    return s;
}

int kv_store_trace(struct kv_store *s, const struct kv_trace_info *info, kv_trace_item_fn *item,
                   const struct kv_trace *t, long long *trace_id, struct kv_error *e) {
    KV_GUARD(e);
    long long n_items;
    char *shape = shape_json(info);
    const struct kv_sql_value row[] = {kv_sql_text(info->digest),
                                       kv_sql_text(info->path),
                                       kv_sql_text(info->model_name),
                                       kv_sql_text(info->model_digest),
                                       kv_sql_text(info->model_source),
                                       kv_sql_text(info->weights_as),
                                       kv_sql_text(info->task_name),
                                       kv_sql_text(info->task_path),
                                       kv_sql_text(info->task_prompt),
                                       kv_sql_text(info->task_digest),
                                       kv_sql_text(info->subset),
                                       kv_sql_int(info->window_tokens),
                                       kv_sql_int(info->n_items),
                                       kv_sql_int(info->n_tokens),
                                       kv_sql_text(shape),
                                       kv_sql_text(info->tool_version),
                                       kv_sql_text(info->blas)};
    int code = kv_store_query(s,
                              "INSERT OR IGNORE INTO trace (digest, path, model_name, "
                              "model_digest, model_source, weights_as, task_name, task_path, "
                              "task_prompt, task_digest, subset, window_tokens, n_items, n_tokens, "
                              "shape, tool_version, blas) "
                              "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                              row, COUNT(row), NULL, NULL, e);
    free(shape);
    if (!code) code = number(s, "SELECT id FROM trace WHERE digest = ?", row, 1, -1, trace_id, e);
    if (code) return code;
    struct kv_sql_value values[2] = {kv_sql_int(*trace_id)};
    code = number(s, "SELECT COUNT(*) FROM item WHERE trace = ?", values, 1, 0, &n_items, e);
    if (code || (size_t)n_items == info->n_items) return code;

    char *json = items_json(info, item, t);
    values[1] = kv_sql_text(json);
    code = kv_store_query(s,
                          "INSERT OR REPLACE INTO item SELECT ?1, key, value->>0, value->>1, "
                          "value->>2, value->>3, value->>4, value->>5, value->>6, value->>7 "
                          "FROM json_each(?2)",
                          values, COUNT(values), NULL, NULL, e);
    free(json);
    return code;
}

// ---- runs -----------------------------------------------------------------------------

int kv_store_run(struct kv_store *s, const struct kv_run_key *key, long long *run_id,
                 struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_sql_value spec[] = {kv_sql_text(key->spec), kv_sql_text(key->policy),
                                        kv_sql_text(key->format), kv_sql_text(key->tag),
                                        kv_sql_int(key->oracle)};
    long long spec_id;
    int code = kv_store_query(s,
                              "INSERT OR IGNORE INTO policy_spec (spec, policy, format, tag, "
                              "oracle) VALUES (?, ?, ?, ?, ?)",
                              spec, COUNT(spec), NULL, NULL, e);
    if (!code)
        code = number(s, "SELECT id FROM policy_spec WHERE spec = ?", spec, 1, -1, &spec_id, e);
    if (code) return code;

    char *label = NULL;
    code = kv_store_label(s, key->trace, key->spec, &label, e);
    if (code) return code;
    const struct kv_sql_value run[] = {kv_sql_int(spec_id),
                                       kv_sql_int(key->trace),
                                       kv_sql_text(kv_fidelity_names[key->fidelity]),
                                       kv_sql_text(kv_mode_names[key->mode]),
                                       kv_sql_text(kv_self_names[key->self]),
                                       kv_sql_text(key->compute),
                                       kv_sql_text(kv_variant_name(key->form, key->feedback)),
                                       kv_sql_int(key->seed),
                                       kv_sql_int(key->redraw),
                                       kv_sql_text(key->version),
                                       kv_sql_text(key->commit),
                                       kv_sql_text(key->cpu),
                                       kv_sql_text(key->blas),
                                       kv_sql_text(label)};
    code = kv_store_query(s,
                          "INSERT OR IGNORE INTO run (spec, trace, fidelity, mode, self, compute, "
                          "variant, seed, redraw, version, git_commit, cpu, blas, label) "
                          "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                          run, COUNT(run), NULL, NULL, e);
    free(label);
    if (!code)
        code = number(s,
                      "SELECT id FROM run WHERE spec = ? AND trace = ? AND fidelity = ? AND "
                      "mode = ? AND self = ? AND compute = ? AND variant = ? AND seed = ? AND "
                      "redraw = ? AND version = ? AND git_commit = ? AND cpu = ?",
                      run, 12, -1, run_id, e);
    return code;
}

int kv_store_put_timing(struct kv_store *s, long long run, double wall_s, double cpu_s,
                        size_t items, struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_sql_value row[] = {kv_sql_int(run), kv_sql_real(wall_s), kv_sql_real(cpu_s),
                                       kv_sql_int(items)};
    return kv_store_query(s,
                          "INSERT INTO timing VALUES (?, ?, ?, ?) ON CONFLICT (run) DO UPDATE SET "
                          "wall_s = wall_s + excluded.wall_s, cpu_s = cpu_s + excluded.cpu_s, "
                          "items = items + excluded.items",
                          row, COUNT(row), NULL, NULL, e);
}
