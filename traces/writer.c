// SPDX-License-Identifier: Apache-2.0
// The trace writer: shard files of known size, filled by pwrite from any worker, sealed by a
// manifest.
#include "traces/writer.h"
#include "sim/base/hash.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "traces/layout.h"
#include "traces/manifest.h"
#include "traces/unfinished.h"

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
    struct kv_unfinished unfinished;
    json_t *manifest;              // what will seal it, but for the shards
    char *sealed;                  // its finished text, or NULL
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
    s->fd =
        open(s->path, O_RDWR | O_CREAT | O_CLOEXEC | (w->unfinished.resumed ? 0 : O_TRUNC), 0666);
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

// Frees the writer; `remove`: with the files that it made.
static void let_go(struct kv_trace_writer *w, bool remove_files) {
    for (size_t i = 0; i < w->n_shards; i++) {
        if (w->shards[i].fd >= 0) close(w->shards[i].fd);
        if (remove_files && w->shards[i].fd >= 0) unlink(w->shards[i].path);
        free(w->shards[i].path);
        free(w->shards[i].name);
    }
    kv_unfinished_close(&w->unfinished, remove_files);
    json_decref(w->manifest);
    free(w->sealed);
    free(w->shards);
    free(w->shard_of);
    free(w->row_at);
    free(w->dir);
    free(w);
}

// Bytes that an earlier run has taken already.
static uint64_t taken_bytes(const struct kv_trace_writer *w) {
    uint64_t bytes = 0;
    struct stat st;
    for (size_t i = 0; i < w->n_shards; i++)
        if (stat(w->shards[i].path, &st) == 0) bytes += 512 * (uint64_t)st.st_blocks;
    return bytes;
}

static int check_room(const struct kv_trace_writer *w, struct kv_error *e) {
    uint64_t need = kv_trace_size(&w->info, w->items, w->n_items).total_bytes,
             taken = taken_bytes(w), room = kv_free_bytes(w->dir);
    need -= taken < need ? taken : need;
    if (need <= room) return 0;
    return kv_fail(
        e, KV_EFAIL, w->dir,
        "the trace needs %.2f GB and the disk has %.2f GB free; keep less (--keep final) or "
        "fewer items (-n)",
        1e-9 * (double)need, 1e-9 * (double)room);
}

// What must be equal for a recording to go on: the manifest but for its lists, which are long, and
// a checksum over all items; and `how`.
static json_t *plan_json(const struct kv_trace_writer *w, const char *how) {
    json_t *plan = json_copy(w->manifest);
    uint64_t sum = 0;
    char hex[17];
    for (size_t i = 0; i < w->n_items; i++) {
        const struct kv_trace_item *it = &w->items[i];
        sum = kv_hash(it->id, strlen(it->id), sum);
        sum = kv_hash(&it->key, sizeof it->key, sum);
    }
    kv_hex64(sum, hex);
    json_object_del(plan, "ids");
    json_object_del(plan, "sources");
    json_object_set_new(plan, "items", json_string(hex));
    json_object_set_new(plan, "how", json_string(how));
    return plan;
}

static bool is_trace(const char *dir) {
    char *manifest = join(dir, "manifest.json");
    bool there = access(manifest, F_OK) == 0;
    free(manifest);
    return there;
}

static int open_all(struct kv_trace_writer *w, const char *how, struct kv_error *e) {
    w->manifest = kv_manifest_json(&w->info, w->items, w->n_items, e);
    if (!w->manifest) return KV_EFAIL;
    int rc = check_room(w, e);
    if (rc == 0) rc = kv_make_dir(w->dir, e);
    if (rc) return rc;
    json_t *plan = plan_json(w, how);
    rc = kv_unfinished_open(&w->unfinished, w->dir, plan, w->n_items, e);
    json_decref(plan);
    if (rc == 0 && is_trace(w->dir)) // another process has finished it in the meantime
        rc = kv_fail(e, KV_EFAIL, w->dir,
                     "holds a trace already; remove it or choose another folder");
    for (size_t i = 0; i < w->n_shards && rc == 0; i++) rc = open_shard(w, &w->shards[i], e);
    return rc;
}

int kv_trace_writer_open(struct kv_trace_writer **out, const char *dir,
                         const struct kv_trace_info *info, const char *how,
                         const struct kv_trace_item *items, size_t n, struct kv_error *e) {
    *out = NULL;
    if (is_trace(dir))
        return kv_fail(e, KV_EFAIL, dir,
                       "holds a trace already; remove it or choose another folder");
    struct kv_trace_writer *w = kv_alloc(1, sizeof *w);
    *w = (struct kv_trace_writer){.dir = kv_strdup(dir),
                                  .info = *info,
                                  .items = items,
                                  .n_items = n,
                                  .unfinished = {.lock = -1, .sums_fd = -1}};
    w->shard_of = kv_alloc(n, sizeof *w->shard_of);
    w->row_at = kv_alloc(n, sizeof *w->row_at);
    cut_shards(w);
    int rc = open_all(w, how, e);
    if (rc)
        let_go(w, w->unfinished.lock >= 0 && kv_unfinished_count(&w->unfinished) == 0);
    else
        *out = w;
    return rc;
}

// ---- items ----------------------------------------------------------------------------

// Where column j's rows of item i lie in its shard, and how many bytes they are.
static uint64_t place(const struct kv_trace_writer *w, size_t i, size_t j,
                      const struct kv_trace_item *item, uint64_t *n) {
    const struct shard *s = &w->shards[w->shard_of[i]];
    const struct kv_column_spec *c = s->column[j];
    uint64_t row_bytes = kv_column_row_bytes(c, &w->info);
    *n = kv_axis_rows(item, c->axis) * row_bytes;
    return s->tensor[j].offset + w->row_at[i][c->axis] * row_bytes;
}

// 0 says that an item is not there.
static uint64_t never_zero(uint64_t sum) {
    return sum ? sum : 1;
}

int kv_trace_writer_put(struct kv_trace_writer *w, size_t i, const struct kv_trace_item *item,
                        uint64_t beside, struct kv_error *e) {
    struct shard *s = &w->shards[w->shard_of[i]];
    uint64_t sum = beside;
    int rc = 0;
    for (size_t j = 0; j < s->n_columns && rc == 0; j++) {
        const struct kv_column_spec *c = s->column[j];
        const void *field = (const char *)item + c->field, *data = field;
        uint64_t n, at = place(w, i, j, item, &n);
        if (c->axis != KV_AXIS_ITEM) memcpy(&data, field, sizeof data);
        if (n == 0) continue;
        sum = kv_hash(data, n, sum);
        rc = write_at(s, data, n, at, e);
    }
    return rc ? rc : kv_unfinished_mark(&w->unfinished, i, never_zero(sum), e);
}

static bool read_at(int fd, char *to, uint64_t n, uint64_t at) {
    while (n > 0) {
        ssize_t did = pread(fd, to, n, (off_t)at);
        if (did < 0 && errno == EINTR) continue;
        if (did <= 0) return false;
        to += did;
        at += (uint64_t)did;
        n -= (uint64_t)did;
    }
    return true;
}

bool kv_trace_writer_holds(const struct kv_trace_writer *w, size_t i, uint64_t beside) {
    const struct shard *s = &w->shards[w->shard_of[i]];
    uint64_t sum = beside;
    bool good = w->unfinished.sums[i] != 0;
    for (size_t j = 0; good && j < s->n_columns; j++) {
        uint64_t n, at = place(w, i, j, &w->items[i], &n);
        if (n == 0) continue;
        char *data = kv_alloc(n, 1);
        good = read_at(s->fd, data, n, at);
        sum = kv_hash(data, n, sum);
        free(data);
    }
    return good && w->unfinished.sums[i] == never_zero(sum);
}

size_t kv_trace_writer_done(const struct kv_trace_writer *w) {
    return kv_unfinished_count(&w->unfinished);
}

void kv_trace_writer_forget(struct kv_trace_writer *w) {
    memset(w->unfinished.sums, 0, w->n_items * sizeof *w->unfinished.sums);
}

// ---- the end --------------------------------------------------------------------------

static int seal_shard(struct shard *s, json_t *list, struct kv_error *e) {
    if (fsync(s->fd))
        return kv_fail(e, KV_EFAIL, s->path, "cannot be written: %s", strerror(errno));
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

int kv_trace_writer_seal(struct kv_trace_writer *w, char digest[17], struct kv_error *e) {
    json_t *shards = json_array();
    int rc = 0;
    for (size_t i = 0; i < w->n_shards && rc == 0; i++) rc = seal_shard(&w->shards[i], shards, e);
    json_object_set_new(w->manifest, "shards", shards);
    if (rc) return rc;
    free(w->sealed);
    w->sealed = kv_manifest_seal(w->manifest, digest);
    return w->sealed ? 0 : kv_fail(e, KV_EFAIL, w->dir, "its manifest cannot be made");
}

int kv_trace_writer_close(struct kv_trace_writer *w, bool finish, struct kv_error *e) {
    char digest[17];
    int rc = 0;
    if (!w) return 0;
    if (finish) {
        char *path = join(w->dir, "manifest.json");
        if (!w->sealed) rc = kv_trace_writer_seal(w, digest, e);
        kv_sync_folder(w->dir); // the shards' names before the manifest's
        if (rc == 0) rc = kv_write_file(path, w->sealed, strlen(w->sealed), e);
        free(path);
    }
    if (finish && rc == 0) {
        for (size_t i = 0; i < w->n_shards; i++) {
            close(w->shards[i].fd);
            w->shards[i].fd = -1; // so that it stays
        }
        let_go(w, true);
    } else
        let_go(w, kv_trace_writer_done(w) == 0);
    return rc;
}
