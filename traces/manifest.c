// SPDX-License-Identifier: Apache-2.0
// The manifest of a trace as JSON, and the checksum that covers it.
#include "traces/manifest.h"

#include <stdlib.h>

#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/shape.h"
#include "sim/base/utf8.h"
#include "traces/angles.h"
#include "traces/layout.h"
#include "traces/windows.h"

static const char seal_key[] = "manifest_xxh64", no_sum[] = "0000000000000000";

// A text as JSON holds it: bytes that are no UTF-8 are spelled out.
static json_t *text_json(const char *s) {
    struct kv_text t = {0};
    size_t n = s ? strlen(s) : 0;
    for (size_t i = 0; i < n;) {
        size_t good = kv_utf8_valid(s + i, n - i);
        kv_text_add(&t, s + i, good);
        i += good;
        if (i < n) kv_text_addf(&t, "\\x%02X", (unsigned char)s[i++]);
    }
    char *all = kv_text_take(&t);
    json_t *j = json_string(all);
    free(all);
    return j;
}

struct pair {
    const char *key, *text;
};
static json_t *texts_json(const struct pair *p, size_t n) {
    json_t *j = json_object();
    for (size_t i = 0; i < n; i++) json_object_set_new(j, p[i].key, text_json(p[i].text));
    return j;
}
#define TEXTS(...)                                                                                 \
    texts_json((const struct pair[]){__VA_ARGS__},                                                 \
               sizeof((const struct pair[]){__VA_ARGS__}) / sizeof(struct pair))

static json_t *shape_json(const struct kv_shape *s) {
    json_t *j = json_object();
    for (size_t i = 0; i < KV_N_SHAPE_FIELDS; i++)
        json_object_set_new(j, kv_shape_fields[i].name, json_integer(kv_shape_get(s, i)));
    return j;
}

static json_t *model_json(const struct kv_trace_info *in) {
    json_t *j = TEXTS({"name", in->model_name}, {"digest", in->model_digest},
                      {"source", in->model_source}, {"weights", in->weights_as},
                      {"channel_order", in->order == KV_ORDER_GGML ? "ggml" : "hf"});
    json_object_set_new(j, "rope_base", json_real((double)in->rope_base));
    json_object_set_new(j, "shape", shape_json(&in->shape));
    json_t *rope = kv_angles_json(in);
    if (rope) json_object_set_new(j, "rope", rope);
    json_t *windows = kv_windows_json(in);
    if (windows) json_object_set_new(j, "windows", windows);
    json_t *norms = in->kv_norms ? json_array() : NULL;
    for (size_t i = 0; norms && i < 2 * (size_t)in->shape.n_layers; i++)
        json_array_append_new(norms, json_real((double)in->kv_norms[i]));
    if (norms) json_object_set_new(j, "kv_norms", norms);
    return j;
}

static json_t *tasks_json(const struct kv_trace_info *in) {
    json_t *j = TEXTS({"name", in->task_name}, {"path", in->task_path}, {"prompt", in->task_prompt},
                      {"digest", in->task_digest}, {"subset", in->subset});
    json_object_set_new(j, "window_tokens", json_integer(in->window_tokens));
    return j;
}

static json_t *adjoint_json(const struct kv_adjoint_info *a) {
    json_t *j = TEXTS({"mode", a->mode}, {"self", a->self}, {"score", a->score});
    json_object_set_new(j, "draws", json_integer(a->draws));
    json_object_set_new(j, "seed", json_integer((json_int_t)a->seed));
    return j;
}

static json_t *semantics_json(const struct kv_trace_info *in) {
    json_t *j = TEXTS({"arithmetic", "float32"}, {"cache", "K after RoPE and V in fp16"},
                      {"tokenizer_digest", in->tokenizer_digest});
    for (const struct kv_feature_rule *r = kv_feature_rules; r->key; r++)
        json_object_set_new(j, r->key, json_string(r->rule));
    return j;
}

static int by_id(const void *a, const void *b) {
    const struct kv_trace_item *const *x = a, *const *y = b;
    int order = strcmp((*x)->id, (*y)->id);
    return order ? order : (*x > *y) - (*x < *y);
}

int kv_manifest_check_ids(const struct kv_trace_item *items, size_t n, const char *path,
                          struct kv_error *e) {
    const struct kv_trace_item **sorted = kv_alloc(n + 1, sizeof *sorted);
    int rc = 0;
    for (size_t i = 0; i < n; i++) sorted[i] = &items[i];
    qsort(sorted, n, sizeof *sorted, by_id);
    for (size_t i = 1; i < n && rc == 0; i++)
        if (strcmp(sorted[i - 1]->id, sorted[i]->id) == 0)
            rc = kv_fail(e, KV_EFAIL, path,
                         "items %td and %td have one id, '%.80s', and results go by ids; each item "
                         "needs its own",
                         sorted[i - 1] - items, sorted[i] - items, sorted[i]->id);
    free(sorted);
    return rc;
}

json_t *kv_manifest_json(const struct kv_trace_info *in, const struct kv_trace_item *items,
                         size_t n, struct kv_error *e) {
    if (kv_manifest_check_ids(items, n, in->task_path ? in->task_path : "tasks", e)) return NULL;
    json_t *ids = json_array(), *sources = json_array(), *keep = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(ids, text_json(items[i].id));
        json_array_append_new(sources, text_json(items[i].source));
    }
    for (size_t k = 0; kv_keep_names[k]; k++)
        if (in->keep & (1u << k)) json_array_append_new(keep, json_string(kv_keep_names[k]));
    json_t *j = json_pack(
        "{s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:o, s:o}", "format",
        "kvsim-trace", "version", KV_TRACE_FORMAT, "tool", text_json(in->tool_version), "blas",
        text_json(in->blas), "model", model_json(in), "tasks", tasks_json(in), "semantics",
        semantics_json(in), "adjoint", adjoint_json(&in->adjoint), "keep", keep, "n_items",
        (json_int_t)n, "n_tokens", (json_int_t)in->n_tokens, "ids", ids, "sources", sources);
    if (j && (in->keep & KV_KEEP_CELLS))
        json_object_set_new(j, "cells_format", text_json(in->cells_format));
    if (!j) kv_fail(e, KV_EFAIL, "manifest.json", "cannot be made");
    return j;
}

// Where the sixteen digits stand in the text; NULL = nowhere. In a text value the quotes would be
// escaped.
static char *find_sum(char *text, size_t n) {
    char *mark = kv_format_text("\"%s\": \"", seal_key);
    size_t length = strlen(mark);
    char *at = memmem(text, n, mark, length);
    free(mark);
    return at && (size_t)(at - text) + length + 16 <= n ? at + length : NULL;
}

char *kv_manifest_seal(json_t *j, char digest[17]) {
    char hex[17];
    json_object_set_new(j, seal_key, json_string(no_sum));
    char *text = json_dumps(j, JSON_INDENT(1));
    if (!text) return NULL;
    size_t n = strlen(text);
    kv_hex64(kv_hash(text, n, 0), hex);
    memcpy(find_sum(text, n), hex, 16);
    kv_hex64(kv_hash(text, n, 0), digest);
    return text;
}

int kv_manifest_check(const json_t *j, const char *text, size_t n, const char *path, char seal[17],
                      struct kv_error *e) {
    const json_t *said = json_object_get(j, seal_key);
    char hex[17];
    *seal = 0;
    if (!said) return 0;
    char *copy = memcpy(kv_alloc(n + 1, 1), text, n), *at = find_sum(copy, n);
    if (at) memcpy(at, no_sum, 16);
    kv_hex64(kv_hash(copy, n, 0), hex);
    free(copy);
    const char *sum = json_string_value(said);
    if (at && sum && strcmp(sum, hex) == 0) {
        memcpy(seal, hex, sizeof hex);
        return 0;
    }
    return kv_fail(e, KV_EFAIL, path, "was edited or damaged: its XXH64 is %s, it says %.40s", hex,
                   sum ? sum : "none");
}
