// SPDX-License-Identifier: Apache-2.0
// The trace reader: maps shards, checks every count against every other, hands out borrowed
// pointers.
#include "traces/trace.h"
#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/shape.h"

#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "traces/angles.h"
#include "traces/layout.h"
#include "traces/manifest.h"
#include "traces/numbers.h"
#include "traces/windows.h"

static const size_t check_on_open_bytes = 64u << 20;

struct shard {
    char *path;
    char xxh64[17];
    size_t n_items;
    struct kv_safetensors file;
};

// Weights of channels: filled when somebody asks, in room that is there from the start.
struct channels {
    pthread_mutex_t lock;
    bool filled;
    double *sum;
    float *weight;
};

struct kv_trace {
    struct kv_trace_info info;
    size_t n_shards;
    struct shard *shards;
    struct kv_trace_item *items;
    json_t *manifest; // ids and sources borrow from it
    struct channels *channels;
};

// ---- manifest -------------------------------------------------------------------------

static int missing(const char *path, const char *key, const char *what, struct kv_error *e) {
    return kv_fail(e, KV_EFAIL, path, "'%s' is missing or not %s", key, what);
}

// "model.name": a text two levels deep, copied.
static int get_text(const json_t *j, const char *group, const char *key, char **out,
                    const char *path, struct kv_error *e) {
    const char *s = json_string_value(json_object_get(group ? json_object_get(j, group) : j, key));
    if (!s) return missing(path, key, "a text", e);
    *out = kv_strdup(s);
    return 0;
}

static int get_count(const json_t *j, const char *key, uint64_t max, uint64_t *out,
                     const char *path, struct kv_error *e) {
    const json_t *v = json_object_get(j, key);
    *out = 0;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max)
        return missing(path, key, "a count", e);
    *out = (uint64_t)json_integer_value(v);
    return 0;
}

// What no model can have; later code divides by these and multiplies them.
static int check_shape(const struct kv_shape *s, const char *path, struct kv_error *e) {
    static const uint64_t most = 1ull << 26; // numbers of a token in all layers
    uint64_t width = (uint64_t)s->n_heads * s->head_dim, layers = s->n_layers;
    if (s->n_heads % s->n_kv_heads)
        return kv_fail(e, KV_EFAIL, path, "n_heads %u is no multiple of n_kv_heads %u", s->n_heads,
                       s->n_kv_heads);
    if (s->head_dim % 2)
        return kv_fail(e, KV_EFAIL, path, "head_dim %u is odd, and channels rotate in pairs",
                       s->head_dim);
    if (width > most / layers || s->hidden > most / layers)
        return kv_fail(e, KV_EFAIL, path, "says a token has more than %llu numbers",
                       (unsigned long long)most);
    return 0;
}

static int read_shape(const json_t *j, struct kv_shape *s, const char *path, struct kv_error *e) {
    for (size_t i = 0; i < KV_N_SHAPE_FIELDS; i++) {
        const char *key = kv_shape_fields[i].name;
        uint64_t n;
        int rc = get_count(j, key, 1u << 24, &n, path, e);
        if (rc) return rc;
        if (n == 0) return missing(path, key, "above zero", e);
        kv_shape_set(s, i, (uint32_t)n);
    }
    return check_shape(s, path, e);
}

// Absent in recordings made before they were kept.
static int read_norms(const json_t *j, struct kv_trace_info *in, const char *path,
                      struct kv_error *e) {
    size_t n = 2 * (size_t)in->shape.n_layers, i;
    const json_t *one;
    if (!j) return 0;
    if (json_array_size(j) != n) return missing(path, "kv_norms", "two numbers a layer", e);
    in->kv_norms = kv_alloc(n, sizeof *in->kv_norms);
    json_array_foreach(j, i, one) {
        double x = json_number_value(one);
        if (!(json_is_number(one) && x >= 0 && x < 1e30)) // a projection may be all zero
            return missing(path, "kv_norms", "finite numbers from zero on", e);
        in->kv_norms[i] = (float)x;
    }
    return 0;
}

// Recordings that say nothing of a rule were made by an older one.
static void read_rules(const json_t *semantics, struct kv_trace_info *in) {
    for (const struct kv_feature_rule *r = kv_feature_rules; r->key; r++) {
        const char *said = json_string_value(json_object_get(semantics, r->key));
        if (!said || strcmp(said, r->rule) != 0) in->other_features |= KV_NEED(r->feature);
    }
}

static int read_adjoint(const json_t *j, struct kv_adjoint_info *a, const char *path,
                        struct kv_error *e) {
    const struct {
        const char *key;
        char *to;
        size_t room;
    } texts[] = {{"mode", a->mode, sizeof a->mode},
                 {"self", a->self, sizeof a->self},
                 {"score", a->score, sizeof a->score}};
    uint64_t draws;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *s = json_string_value(json_object_get(j, texts[i].key));
        if (!s || strlen(s) >= texts[i].room) return missing(path, texts[i].key, "a short text", e);
        memcpy(texts[i].to, s, strlen(s) + 1);
    }
    int rc = get_count(j, "draws", 4096, &draws, path, e);
    if (rc == 0) rc = get_count(j, "seed", UINT64_MAX >> 1, &a->seed, path, e);
    a->draws = (uint32_t)draws;
    return rc;
}

static int read_info(const json_t *j, struct kv_trace_info *in, const char *path,
                     struct kv_error *e) {
    const struct {
        const char *group, *key;
        char **to;
    } texts[] = {{NULL, "tool", &in->tool_version},
                 {NULL, "blas", &in->blas},
                 {"model", "name", &in->model_name},
                 {"model", "digest", &in->model_digest},
                 {"model", "source", &in->model_source},
                 {"model", "weights", &in->weights_as},
                 {"tasks", "name", &in->task_name},
                 {"tasks", "path", &in->task_path},
                 {"tasks", "prompt", &in->task_prompt},
                 {"tasks", "digest", &in->task_digest},
                 {"tasks", "subset", &in->subset},
                 {"semantics", "tokenizer_digest", &in->tokenizer_digest}};
    const char *format = json_string_value(json_object_get(j, "format"));
    uint64_t version, n_items, n_tokens, window;
    if (!format || strcmp(format, "kvsim-trace") != 0)
        return kv_fail(e, KV_EFAIL, path, "is not the manifest of a kvsim trace");
    int rc = get_count(j, "version", 1u << 30, &version, path, e);
    if (rc) return rc;
    if (version != KV_TRACE_FORMAT)
        return kv_fail(e, KV_EFAIL, path, "has format version %llu; this kvsim reads %d",
                       (unsigned long long)version, KV_TRACE_FORMAT);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if ((rc = get_text(j, texts[i].group, texts[i].key, texts[i].to, path, e))) return rc;
    const json_t *model = json_object_get(j, "model");
    const char *order = json_string_value(json_object_get(model, "channel_order"));
    if (!order || (strcmp(order, "ggml") != 0 && strcmp(order, "hf") != 0))
        return missing(path, "channel_order", "ggml or hf", e);
    in->rope_base = (float)json_number_value(json_object_get(model, "rope_base"));
    if (!(in->rope_base > 0 && isfinite(in->rope_base))) // what angles are powers of
        return missing(path, "rope_base", "a finite number above zero", e);
    in->order = strcmp(order, "hf") == 0 ? KV_ORDER_HF : KV_ORDER_GGML;
    if ((rc = read_shape(json_object_get(model, "shape"), &in->shape, path, e)) ||
        (rc = get_count(j, "n_items", 1u << 30, &n_items, path, e)) ||
        (rc = get_count(j, "n_tokens", 1ull << 40, &n_tokens, path, e)) ||
        (rc = get_count(json_object_get(j, "tasks"), "window_tokens", 1u << 20, &window, path, e)))
        return rc;
    if ((rc = read_norms(json_object_get(model, "kv_norms"), in, path, e))) return rc;
    if ((rc = kv_angles_read(json_object_get(model, "rope"), in, path, e))) return rc;
    if ((rc = kv_windows_read(json_object_get(model, "windows"), in, path, e))) return rc;
    if ((rc = read_adjoint(json_object_get(j, "adjoint"), &in->adjoint, path, e))) return rc;
    read_rules(json_object_get(j, "semantics"), in);
    in->n_items = n_items;
    in->n_tokens = n_tokens;
    in->window_tokens = (uint32_t)window;
    const json_t *one;
    size_t i;
    json_array_foreach(json_object_get(j, "keep"), i, one) {
        for (size_t k = 0; kv_keep_names[k]; k++)
            if (json_is_string(one) && strcmp(json_string_value(one), kv_keep_names[k]) == 0)
                in->keep |= 1u << k;
    }
    if (!(in->keep & KV_KEEP_CELLS)) return 0;
    if (!(in->keep & KV_KEEP_KV)) return missing(path, "keep", "with kv beside cells", e);
    return get_text(j, NULL, "cells_format", &in->cells_format, path, e);
}

// ---- shards ---------------------------------------------------------------------------

// Gives back the memory that mapped bytes took when they were read; of what shares a page with
// others, nothing.
static void let_go(const void *data, size_t n) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)data,
              from = (at + page - 1) / page * page, to = (at + n) / page * page;
    if (from < to) (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

static int check_sum(const struct shard *s, struct kv_error *e) {
    char hex[17];
    kv_hex64(kv_hash(s->file.map.data, s->file.map.n, 0), hex);
    if (strcmp(hex, s->xxh64) == 0) return 0;
    return kv_fail(e, KV_EFAIL, s->path, "is damaged: its XXH64 is %s, the manifest says %s", hex,
                   s->xxh64);
}

static int open_shard(struct kv_trace *t, const json_t *j, const char *dir, size_t *at,
                      struct kv_error *e) {
    struct shard *s = &t->shards[t->n_shards];
    const char *name = json_string_value(json_object_get(j, "file"));
    const char *sum = json_string_value(json_object_get(j, "xxh64"));
    uint64_t n, bytes;
    if (!name || strchr(name, '/')) return missing(dir, "shards.file", "a plain file name", e);
    if (!sum || strlen(sum) != 16) return missing(dir, "shards.xxh64", "16 hexadecimal digits", e);
    int rc = get_count(j, "items", t->info.n_items - *at, &n, dir, e);
    if (rc == 0) rc = get_count(j, "bytes", UINT64_MAX >> 1, &bytes, dir, e);
    if (rc) return rc;
    s->path = kv_format_text("%s/%s", dir, name);
    memcpy(s->xxh64, sum, sizeof s->xxh64);
    s->n_items = n;
    t->n_shards++;
    if ((rc = kv_safetensors_open(&s->file, s->path, e))) return rc;
    if (s->file.map.n != bytes)
        return kv_fail(e, KV_EFAIL, s->path, "has %zu bytes, the manifest says %llu", s->file.map.n,
                       (unsigned long long)bytes);
    return bytes <= check_on_open_bytes ? check_sum(s, e) : 0;
}

// Whether a shard whose first item is `at` lacks a column that older recordings do not have:
// squares summed by channel, beside sensitivities alone. All shards have it or none has.
static bool lacks(const struct kv_trace *t, const struct kv_column_spec *c, size_t at,
                  const struct kv_tensor *tensor) {
    if (c->field != offsetof(struct kv_trace_item, channel_gradient) ||
        (t->info.keep & KV_KEEP_CELLS))
        return false;
    return at ? !t->items[0].channel_gradient : !tensor;
}

// Points the items' fields of one column into the shard, checking that rows add up.
static int bind_column(struct kv_trace *t, const struct shard *s, const struct kv_column_spec *c,
                       size_t at, struct kv_error *e) {
    const struct kv_tensor *tensor = kv_safetensors_find(&s->file, c->name);
    uint64_t row_bytes = kv_column_row_bytes(c, &t->info), rows = 0;
    if (lacks(t, c, at, tensor)) return 0;
    if (!tensor) return kv_fail(e, KV_EFAIL, s->path, "tensor %s is missing", c->name);
    bool fits = strcmp(tensor->dtype, c->dtype) == 0 && tensor->n_dims == 1 + c->n_dims;
    for (uint32_t i = 0; fits && i < c->n_dims; i++)
        fits = tensor->dims[i + 1] == c->dim[i](&t->info);
    if (!fits)
        return kv_fail(e, KV_EFAIL, s->path,
                       "tensor %s has another type or shape than the model's %s", c->name,
                       c->dtype);
    if ((uintptr_t)tensor->data % kv_dtype_bytes(c->dtype))
        return kv_fail(e, KV_EFAIL, s->path, "tensor %s lies at an odd place for its type %s",
                       c->name, c->dtype);
    for (size_t i = at; i < at + s->n_items; i++) {
        uint64_t n = kv_axis_rows(&t->items[i], c->axis);
        if (n > tensor->dims[0] - rows) break;
        const void *data = tensor->data + rows * row_bytes;
        void *field = (char *)&t->items[i] + c->field;
        if (c->axis == KV_AXIS_ITEM)
            memcpy(field, data, row_bytes);
        else
            memcpy(field, &data, sizeof data);
        rows += n;
        if (i + 1 == at + s->n_items && rows == tensor->dims[0]) return 0;
    }
    return kv_fail(e, KV_EFAIL, s->path, "tensor %s has %llu rows; its items need another number",
                   c->name, (unsigned long long)tensor->dims[0]);
}

// The row that follows `row` among the scored ones of an item with choices (struct kv_trace_item);
// start from UINT32_MAX. n_tokens: there is none.
static uint32_t next_scored(const struct kv_trace_item *it, uint32_t row) {
    if (row == UINT32_MAX) return it->n_context - 1;
    row++;
    // A choice's last row predicts nothing.
    for (uint32_t c = 0; c < it->n_choices; c++)
        if (row + 1 == it->first[c + 1]) row++;
    return row;
}

// Boundaries must be ascending and inside the item, scored rows those of the definition, ids inside
// the vocabulary: later code trusts them.
static int check_item(const struct kv_trace *t, const struct kv_trace_item *it, const char *path,
                      struct kv_error *e) {
    bool good = it->n_tokens > 0 && it->n_context > 0 && it->n_context <= it->n_tokens &&
                it->first[0] == it->n_context && it->first[it->n_choices] == it->n_tokens &&
                it->gold >= -1 && it->gold < (int32_t)it->n_choices && it->n_final > 0;
    uint32_t longest = 0;
    for (uint32_t c = 0; good && c < it->n_choices; c++) {
        uint32_t n = it->first[c + 1] - it->first[c];
        good = it->first[c] < it->first[c + 1];
        if (n > longest) longest = n;
    }
    good = good && (uint64_t)it->n_context + longest <= t->info.shape.max_tokens;
    uint32_t row = UINT32_MAX;
    if (it->n_choices == 0) // any of a text's rows may be left out, but not the order
        for (uint32_t i = 0; good && i < it->n_final; i++, row = it->final_rows[i - 1])
            good = it->final_rows[i] + 1 < it->n_tokens && (i == 0 || it->final_rows[i] > row);
    for (uint32_t i = 0; good && it->n_choices && i < it->n_final; i++)
        good = (row = next_scored(it, row)) < it->n_tokens && it->final_rows[i] == row;
    good = good && (it->n_choices == 0 || next_scored(it, row) >= it->n_tokens);
    for (uint32_t i = 0; good && i < it->n_tokens; i++)
        good = it->ids[i] < t->info.shape.vocab && it->kinds[i] < KV_N_KINDS;
    if (good) return 0;
    return kv_fail(e, KV_EFAIL, path,
                   "item %u (id %s) has impossible boundaries, scored rows or token ids", it->index,
                   it->id);
}

static int bind_shard(struct kv_trace *t, const struct shard *s, size_t at, struct kv_error *e) {
    for (int counts = 1; counts >= 0;
         counts--) // items' counts first: the other columns' rows follow them
        for (const struct kv_column_spec *c = kv_trace_columns; c->name; c++) {
            bool due =
                (c->axis == KV_AXIS_ITEM) == counts && (!c->keep || (c->keep & t->info.keep));
            int rc = due ? bind_column(t, s, c, at, e) : 0;
            if (rc) return rc;
        }
    for (size_t i = at; i < at + s->n_items; i++) {
        int rc = check_item(t, &t->items[i], s->path, e);
        // What is hashed on opening is looked through too; of larger shards, each item as it is
        // read.
        if (rc == 0 && s->file.map.n <= check_on_open_bytes)
            rc = kv_item_check_numbers(&t->info, &t->items[i], UINT32_MAX, s->path, e);
        if (rc) return rc;
    }
    if (s->file.map.n <= check_on_open_bytes) let_go(s->file.map.data, s->file.map.n);
    return 0;
}

// ---- public ---------------------------------------------------------------------------

static int open_all(struct kv_trace *t, const char *dir, const char *path, struct kv_error *e) {
    int rc = read_info(t->manifest, &t->info, path, e);
    if (rc) return rc;
    const json_t *shards = json_object_get(t->manifest, "shards");
    const json_t *ids = json_object_get(t->manifest, "ids"),
                 *sources = json_object_get(t->manifest, "sources");
    if (json_array_size(ids) != t->info.n_items || json_array_size(sources) != t->info.n_items)
        return missing(path, "ids, sources", "one a item", e);
    t->items = kv_alloc(t->info.n_items, sizeof *t->items);
    t->shards = kv_alloc(json_array_size(shards), sizeof *t->shards);
    for (size_t i = 0; i < t->info.n_items; i++) {
        t->items[i].index = (uint32_t)i;
        t->items[i].id = json_string_value(json_array_get(ids, i));
        t->items[i].source = json_string_value(json_array_get(sources, i));
        if (!t->items[i].id || !t->items[i].source)
            return missing(path, "ids, sources", "texts", e);
    }
    if ((rc = kv_manifest_check_ids(t->items, t->info.n_items, path, e))) return rc;
    size_t at = 0, tokens = 0;
    for (size_t i = 0; i < json_array_size(shards); i++) {
        if ((rc = open_shard(t, json_array_get(shards, i), dir, &at, e))) return rc;
        if ((rc = bind_shard(t, &t->shards[i], at, e))) return rc;
        at += t->shards[i].n_items;
    }
    if (at != t->info.n_items || at == 0)
        return kv_fail(e, KV_EFAIL, path, "says %zu items, its shards hold %zu", t->info.n_items,
                       at);
    if (t->items[0].channel_gradient) {
        size_t n = kv_cells(&t->info.shape) * t->info.shape.head_dim;
        t->channels->sum = kv_alloc(n, sizeof(double));
        t->channels->weight = kv_alloc(n, sizeof(float));
    }
    for (size_t i = 0; i < at; i++) tokens += t->items[i].n_tokens;
    if (tokens != t->info.n_tokens)
        return kv_fail(e, KV_EFAIL, path, "says %zu tokens, its items hold %zu", t->info.n_tokens,
                       tokens);
    return 0;
}

int kv_trace_open(struct kv_trace **out, const char *dir, struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    if (!kv_is_dir(dir))
        return kv_fail(e, KV_EFAIL, dir, "is not a trace folder (kvsim record makes one)");
    char *path = kv_format_text("%s/manifest.json", dir), *text;
    size_t n;
    int rc = kv_read_file(path, &text, &n, e);
    if (rc) {
        kv_fail(e, rc, dir, "is not a finished trace: it has no readable manifest.json");
        free(path);
        return rc;
    }
    struct kv_trace *t = kv_alloc(1, sizeof *t);
    json_error_t why;
    t->channels = kv_alloc(1, sizeof *t->channels);
    pthread_mutex_init(&t->channels->lock, NULL);
    t->info.path = kv_strdup(dir);
    kv_hex64(kv_hash(text, n, 0), t->info.digest);
    t->manifest = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    rc = t->manifest ? kv_manifest_check(t->manifest, text, n, path, t->info.seal, e)
                     : kv_fail(e, KV_EFAIL, path, "line %d is not JSON: %s", why.line, why.text);
    if (rc == 0) rc = open_all(t, dir, path, e);
    free(text);
    free(path);
    if (rc)
        kv_trace_close(t);
    else
        *out = t;
    return rc;
}

void kv_trace_close(struct kv_trace *t) {
    if (!t) return;
    for (size_t i = 0; i < t->n_shards; i++) {
        kv_safetensors_close(&t->shards[i].file);
        free(t->shards[i].path);
    }
    struct kv_trace_info *in = &t->info;
    char *texts[] = {
        in->path,         in->model_name, in->model_digest,     in->model_source, in->weights_as,
        in->task_name,    in->task_path,  in->task_prompt,      in->task_digest,  in->subset,
        in->tool_version, in->blas,       in->tokenizer_digest, in->cells_format};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) free(texts[i]);
    free(in->kv_norms);
    free(in->rope);
    free(in->windows);
    pthread_mutex_destroy(&t->channels->lock);
    free(t->channels->sum);
    free(t->channels->weight);
    free(t->channels);
    free(t->shards);
    free(t->items);
    json_decref(t->manifest);
    free(t);
}

const struct kv_trace_info *kv_trace_info(const struct kv_trace *t) {
    return &t->info;
}
const struct kv_trace_item *kv_trace_item(const struct kv_trace *t, size_t i) {
    return i < t->info.n_items ? &t->items[i] : NULL;
}

static void weigh_channels(const struct kv_trace *t, double *sum, float *weight) {
    const struct kv_shape *s = &t->info.shape;
    size_t d = s->head_dim, n = kv_cells(s) * d;
    for (size_t i = 0; i < t->info.n_items; i++)
        for (size_t k = 0; k < n; k++) sum[k] += (double)t->items[i].channel_gradient[k];
    for (size_t at = 0; at < n; at += d) {
        double all = 0;
        for (size_t k = 0; k < d; k++) all += sum[at + k];
        for (size_t k = 0; k < d; k++)
            weight[at + k] = all > 0 ? (float)(sum[at + k] * (double)d / all) : 1;
    }
}

const float *kv_trace_channels(const struct kv_trace *t) {
    struct channels *c = t->channels;
    if (!c->weight) return NULL;
    KV_LOCK(&c->lock);
    if (!c->filled) weigh_channels(t, c->sum, c->weight);
    c->filled = true;
    return c->weight;
}

int kv_trace_check_item(const struct kv_trace *t, size_t i, uint32_t keep, struct kv_error *e) {
    KV_GUARD(e);
    return kv_item_check_numbers(&t->info, &t->items[i], keep, t->info.path, e);
}

void kv_trace_item_read(const struct kv_trace *t, size_t i) {
    const struct kv_trace_item *it = &t->items[i];
    if (it->final) let_go(it->final, (size_t)it->n_final * t->info.shape.hidden * sizeof(float));
}

int kv_trace_verify(const struct kv_trace *t, struct kv_error *e) {
    KV_GUARD(e);
    for (size_t i = 0; i < t->n_shards; i++) {
        int rc = check_sum(&t->shards[i], e);
        if (rc) return rc;
    }
    for (size_t i = 0; i < t->info.n_items; i++) {
        int rc = kv_trace_check_item(t, i, UINT32_MAX, e);
        if (rc) return rc;
    }
    return 0;
}
