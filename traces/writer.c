// SPDX-License-Identifier: Apache-2.0
// The trace writer: shard files of known size, filled by pwrite from any worker, sealed by a
// manifest.
#include "traces/writer.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/shape.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "traces/layout.h"

enum { SHARD_ITEMS = 512, MAX_COLUMNS = 32 };
static const uint64_t shard_bytes = 256u << 20;

struct shard {
    char *path, *name;
    int fd;
    size_t first, n_items;
    uint64_t total;
    size_t n_columns;
    const struct kv_column_spec *column[MAX_COLUMNS];
    struct kv_tensor tensor[MAX_COLUMNS];
};

struct kv_trace_writer {
    char *dir;
    struct kv_trace_info info;
    const struct kv_trace_item *items; // borrowed: boundaries and counts
    size_t n_items, n_shards;
    struct shard *shards;
    uint32_t *shard_of;            // [n_items]
    uint64_t (*row_at)[KV_N_AXES]; // [n_items] first row of the item along each axis of its shard
};

static bool kept(const struct kv_column_spec *c, uint32_t keep) {
    return !c->keep || (c->keep & keep);
}

static uint64_t item_bytes(const struct kv_trace_info *info, const struct kv_trace_item *item) {
    uint64_t n = 0;
    for (const struct kv_column_spec *c = kv_trace_columns; c->name; c++)
        if (kept(c, info->keep)) n += kv_axis_rows(item, c->axis) * kv_column_row_bytes(c, info);
    return n;
}

struct kv_trace_size kv_trace_size(const struct kv_trace_info *info,
                                   const struct kv_trace_item *items, size_t n) {
    struct kv_trace_size s = {0};
    uint64_t tokens = 0;
    for (size_t i = 0; i < n; i++) {
        s.total_bytes += item_bytes(info, &items[i]);
        tokens += items[i].n_tokens;
    }
    s.bytes_per_token = tokens ? (double)s.total_bytes / (double)tokens : 0;
    return s;
}

static int write_at(const struct shard *s, const void *data, size_t n, uint64_t at,
                    struct kv_error *e) {
    const char *p = data;
    while (n > 0) {
        ssize_t did = pwrite(s->fd, p, n, (off_t)at);
        if (did < 0 && errno == EINTR) continue;
        if (did <= 0)
            return kv_fail(e, KV_EFAIL, s->path, "cannot be written at byte %llu: %s",
                           (unsigned long long)at, did < 0 ? strerror(errno) : "no progress");
        p += did;
        at += (uint64_t)did;
        n -= (size_t)did;
    }
    return 0;
}

// Lays out one shard over items [first, first + n) and makes its file.
static int open_shard(struct kv_trace_writer *w, struct shard *s, struct kv_error *e) {
    uint64_t rows[KV_N_AXES] = {0};
    for (size_t i = s->first; i < s->first + s->n_items; i++)
        for (int a = 0; a < KV_N_AXES; a++) {
            w->row_at[i][a] = rows[a];
            rows[a] += kv_axis_rows(&w->items[i], (enum kv_axis)a);
        }
    for (const struct kv_column_spec *c = kv_trace_columns; c->name; c++) {
        if (!kept(c, w->info.keep)) continue;
        struct kv_tensor *t = &s->tensor[s->n_columns];
        s->column[s->n_columns++] = c;
        snprintf(t->name, sizeof t->name, "%s", c->name);
        snprintf(t->dtype, sizeof t->dtype, "%s", c->dtype);
        t->n_dims = 1 + c->n_dims;
        t->dims[0] = rows[c->axis];
        for (uint32_t i = 0; i < c->n_dims; i++) t->dims[i + 1] = c->dim[i](&w->info);
    }
    char *header;
    size_t header_bytes;
    const char *const meta[] = {"format", "kvsim-trace-1"};
    int rc = kv_safetensors_layout(s->tensor, s->n_columns, meta, 1, &header, &header_bytes,
                                   &s->total, e);
    if (rc) return rc;
    s->fd = open(s->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (s->fd < 0) rc = kv_fail(e, KV_EFAIL, s->path, "cannot be made: %s", strerror(errno));
    if (rc == 0) rc = write_at(s, header, header_bytes, 0, e);
    if (rc == 0 && ftruncate(s->fd, (off_t)s->total))
        rc = kv_fail(e, KV_EFAIL, s->path, "cannot be grown to %llu bytes: %s",
                     (unsigned long long)s->total, strerror(errno));
    free(header);
    return rc;
}

static char *join(const char *dir, const char *name) {
    return kv_format_text("%s/%s", dir, name);
}

static void cut_shards(struct kv_trace_writer *w) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < w->n_items; i++) {
        uint64_t n = item_bytes(&w->info, &w->items[i]);
        struct shard *s = w->n_shards ? &w->shards[w->n_shards - 1] : NULL;
        if (!s || s->n_items >= SHARD_ITEMS || (bytes + n > shard_bytes && s->n_items > 0)) {
            w->shards = kv_grow(w->shards, w->n_shards + 1, sizeof *w->shards);
            s = &w->shards[w->n_shards];
            *s = (struct shard){.fd = -1, .first = i};
            s->name = kv_format_text("shard-%05zu.safetensors", w->n_shards++);
            s->path = join(w->dir, s->name);
            bytes = 0;
        }
        bytes += n;
        s->n_items++;
        w->shard_of[i] = (uint32_t)(w->n_shards - 1);
    }
}

static int abandon(struct kv_trace_writer *w) {
    for (size_t i = 0; i < w->n_shards; i++) {
        if (w->shards[i].fd >= 0) {
            close(w->shards[i].fd);
            unlink(w->shards[i].path);
        }
        free(w->shards[i].path);
        free(w->shards[i].name);
    }
    free(w->shards);
    free(w->shard_of);
    free(w->row_at);
    free(w->dir);
    free(w);
    return 0;
}

int kv_trace_writer_open(struct kv_trace_writer **out, const char *dir,
                         const struct kv_trace_info *info, const struct kv_trace_item *items,
                         size_t n, struct kv_error *e) {
    *out = NULL;
    char *manifest = join(dir, "manifest.json");
    bool taken = access(manifest, F_OK) == 0;
    free(manifest);
    if (taken)
        return kv_fail(e, KV_EFAIL, dir,
                       "holds a trace already; remove it or choose another folder");
    struct kv_trace_size size = kv_trace_size(info, items, n);
    uint64_t room = kv_free_bytes(dir);
    if (size.total_bytes > room)
        return kv_fail(
            e, KV_EFAIL, dir,
            "the trace needs %.2f GB and the disk has %.2f GB free; keep less (--keep final) or "
            "fewer items (-n)",
            1e-9 * (double)size.total_bytes, 1e-9 * (double)room);
    int rc = kv_make_dir(dir, e);
    if (rc) return rc;
    struct kv_trace_writer *w = kv_alloc(1, sizeof *w);
    *w = (struct kv_trace_writer){
        .dir = kv_strdup(dir), .info = *info, .items = items, .n_items = n};
    w->shard_of = kv_alloc(n, sizeof *w->shard_of);
    w->row_at = kv_alloc(n, sizeof *w->row_at);
    cut_shards(w);
    for (size_t i = 0; i < w->n_shards && rc == 0; i++) rc = open_shard(w, &w->shards[i], e);
    if (rc)
        abandon(w);
    else
        *out = w;
    return rc;
}

int kv_trace_writer_put(struct kv_trace_writer *w, size_t i, const struct kv_trace_item *item,
                        struct kv_error *e) {
    struct shard *s = &w->shards[w->shard_of[i]];
    int rc = 0;
    for (size_t j = 0; j < s->n_columns && rc == 0; j++) {
        const struct kv_column_spec *c = s->column[j];
        uint64_t row_bytes = kv_column_row_bytes(c, &w->info);
        uint64_t n = kv_axis_rows(item, c->axis) * row_bytes;
        const void *field = (const char *)item + c->field;
        const void *data = field;
        if (c->axis != KV_AXIS_ITEM) memcpy(&data, field, sizeof data);
        if (n)
            rc = write_at(s, data, n, s->tensor[j].offset + w->row_at[i][c->axis] * row_bytes, e);
    }
    return rc;
}

// ---- manifest -------------------------------------------------------------------------

static json_t *shape_json(const struct kv_shape *s) {
    json_t *j = json_object();
    for (size_t i = 0; i < KV_N_SHAPE_FIELDS; i++)
        json_object_set_new(j, kv_shape_fields[i].name, json_integer(kv_shape_get(s, i)));
    return j;
}

static int seal_shard(struct shard *s, json_t *list, struct kv_error *e) {
    if (fsync(s->fd) || close(s->fd)) {
        s->fd = -1;
        return kv_fail(e, KV_EFAIL, s->path, "cannot be written: %s", strerror(errno));
    }
    s->fd = -1;
    struct kv_map map;
    int rc = kv_map_open(&map, s->path, e);
    if (rc) return rc;
    char hex[17];
    kv_hex64(kv_hash(map.data, map.n, 0), hex);
    json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:s}", "file", s->name, "items",
                                          (json_int_t)s->n_items, "bytes", (json_int_t)map.n,
                                          "xxh64", hex));
    kv_map_close(&map);
    return 0;
}

static json_t *model_json(const struct kv_trace_info *in) {
    json_t *norms = in->kv_norms ? json_array() : NULL;
    for (size_t i = 0; norms && i < 2 * (size_t)in->shape.n_layers; i++)
        json_array_append_new(norms, json_real((double)in->kv_norms[i]));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:o, s:o*}", "name", in->model_name, "digest",
                     in->model_digest, "source", in->model_source, "weights", in->weights_as,
                     "channel_order", in->order == KV_ORDER_GGML ? "ggml" : "hf", "rope_base",
                     (double)in->rope_base, "shape", shape_json(&in->shape), "kv_norms", norms);
}

static json_t *tasks_json(const struct kv_trace_info *in) {
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i}", "name", in->task_name, "path", in->task_path,
                     "prompt", in->task_prompt, "digest", in->task_digest, "subset", in->subset,
                     "window_tokens", (int)in->window_tokens);
}

static json_t *adjoint_json(const struct kv_adjoint_info *a) {
    return json_pack("{s:s, s:s, s:s, s:i, s:I}", "mode", a->mode, "self", a->self, "score",
                     a->score, "draws", (int)a->draws, "seed", (json_int_t)a->seed);
}

static json_t *semantics_json(const struct kv_trace_info *in) {
    json_t *j = json_pack("{s:s, s:s, s:s}", "arithmetic", "float32", "cache",
                          "K after RoPE and V in fp16", "tokenizer_digest", in->tokenizer_digest);
    for (const struct kv_feature_rule *r = kv_feature_rules; r->key; r++)
        json_object_set_new(j, r->key, json_string(r->rule));
    return j;
}

static json_t *manifest_json(const struct kv_trace_writer *w, json_t *shards) {
    const struct kv_trace_info *in = &w->info;
    json_t *ids = json_array(), *sources = json_array(), *keep = json_array();
    for (size_t i = 0; i < w->n_items; i++) {
        json_array_append_new(ids, json_string(w->items[i].id));
        json_array_append_new(sources, json_string(w->items[i].source));
    }
    for (size_t k = 0; kv_keep_names[k]; k++)
        if (in->keep & (1u << k)) json_array_append_new(keep, json_string(kv_keep_names[k]));
    return json_pack("{s:s, s:i, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:o, s:o, s:o}",
                     "format", "kvsim-trace", "version", KV_TRACE_FORMAT, "tool", in->tool_version,
                     "blas", in->blas, "model", model_json(in), "tasks", tasks_json(in),
                     "semantics", semantics_json(in), "adjoint", adjoint_json(&in->adjoint), "keep",
                     keep, "n_items", (json_int_t)w->n_items, "n_tokens", (json_int_t)in->n_tokens,
                     "shards", shards, "ids", ids, "sources", sources);
}

int kv_trace_writer_close(struct kv_trace_writer *w, bool finish, struct kv_error *e) {
    int rc = 0;
    if (!w || !finish) return w ? abandon(w) : 0;
    json_t *shards = json_array();
    for (size_t i = 0; i < w->n_shards && rc == 0; i++) rc = seal_shard(&w->shards[i], shards, e);
    if (rc == 0) {
        json_t *j = manifest_json(w, shards);
        char *text = json_dumps(j, JSON_INDENT(1)), *path = join(w->dir, "manifest.json");
        rc = kv_write_file(path, text, strlen(text), e);
        free(path);
        free(text);
        json_decref(j);
    } else
        json_decref(shards);
    abandon(w); // files are closed: only memory is left
    return rc;
}
