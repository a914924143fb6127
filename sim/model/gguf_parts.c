// SPDX-License-Identifier: Apache-2.0
// Opens a GGUF model whole: a file alone, or all parts of a split one, whichever of them is named.
//
// llama.cpp's gguf-split (tools/gguf-split): NAME-00001-of-00003.gguf holds all metadata, each part
// its own tensors, and split.no, split.count say which part of how many a file is.
#include "sim/model/gguf.h"

#include <stdlib.h>

#include "sim/base/memory.h"

// ---- tensors of all parts -------------------------------------------------------------

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct kv_gguf_tensor *)a)->name,
                  ((const struct kv_gguf_tensor *)b)->name);
}

static int sort_tensors(struct kv_gguf *g, struct kv_error *e) {
    qsort(g->entries, g->n_entries, sizeof *g->entries, by_name);
    for (size_t i = 1; i < g->n_entries; i++)
        if (strcmp(g->entries[i - 1].name, g->entries[i].name) == 0)
            return kv_fail(e, KV_EFAIL, g->entries[i].path, "tensor %s is named twice",
                           g->entries[i].name);
    return KV_OK;
}

struct kv_gguf_tensor *kv_gguf_tensor_named(const struct kv_gguf *g, const char *name) {
    struct kv_gguf_tensor key = {0};
    snprintf(key.name, sizeof key.name, "%s", name);
    return bsearch(&key, g->entries, g->n_entries, sizeof *g->entries, by_name);
}

// ---- parts ----------------------------------------------------------------------------

static int read_split(const struct kv_gguf *g, uint32_t *no, uint32_t *count, struct kv_error *e) {
    *no = 0;
    *count = 1;
    int rc = kv_gguf_u32(g, "split.no", true, no, e);
    if (!rc) rc = kv_gguf_u32(g, "split.count", true, count, e);
    if (!rc && *count > 1 && *no >= *count)
        rc = kv_fail(e, KV_EFAIL, g->path, "split.no is %u of %u parts; the first is 0", *no,
                     *count);
    if (!rc && *count > 9999)
        rc = kv_fail(e, KV_EFAIL, g->path, "split.count is %u; up to 9999 parts are read", *count);
    return rc;
}

// The name of part no of count, from that of another part; NULL when it follows no pattern.
static char *part_path(const char *path, uint32_t from, uint32_t no, uint32_t count) {
    char tail[32];
    size_t n = strlen(path);
    int length = snprintf(tail, sizeof tail, "-%05u-of-%05u.gguf", from + 1, count);
    if (n < (size_t)length || strcmp(path + n - length, tail) != 0) return NULL;
    return kv_format_text("%.*s-%05u-of-%05u.gguf", (int)(n - (size_t)length), path, no + 1, count);
}

static int open_part(struct kv_gguf *part, uint32_t no, uint32_t count, struct kv_error *e) {
    uint32_t is = 0, of = 0;
    int rc = kv_map_open(&part->map, part->path, e);
    if (rc) {
        if (e)
            kv_fail(e, rc, part->path, "part %u of %u of the model is missing or cannot be opened",
                    no + 1, count);
        return rc;
    }
    rc = kv_gguf_read(part, e);
    if (!rc) rc = read_split(part, &is, &of, e);
    if (!rc && (is != no || of != count))
        rc = kv_fail(e, KV_EFAIL, part->path, "this says that it is part %u of %u, not %u of %u",
                     is + 1, of, no + 1, count);
    return rc;
}

// Turns from the part that was named to the first, which holds the metadata.
static int turn_to_first(struct kv_gguf *g, uint32_t no, uint32_t count, struct kv_error *e) {
    char *first = part_path(g->path, no, 0, count);
    if (!first)
        return kv_fail(e, KV_EFAIL, g->path,
                       "this is part %u of %u of a split model, but is not named "
                       "NAME-%05u-of-%05u.gguf, so that the others cannot be found",
                       no + 1, count, no + 1, count);
    if (no == 0) {
        free(first);
        return KV_OK;
    }
    kv_gguf_close(g);
    *g = (struct kv_gguf){.path = first, .first_path = first};
    return open_part(g, 0, count, e);
}

static int check_announced(const struct kv_gguf *g, struct kv_error *e) {
    uint32_t tensors = (uint32_t)g->n_entries;
    int rc = kv_gguf_u32(g, "split.tensors.count", true, &tensors, e);
    if (!rc && tensors != g->n_entries)
        rc = kv_fail(e, KV_EFAIL, g->path, "the parts hold %zu tensors, but %u are announced",
                     g->n_entries, tensors);
    return rc;
}

// Opens the other parts of a split model and takes their tensors in.
static int join_parts(struct kv_gguf *g, struct kv_error *e) {
    uint32_t no, count;
    int rc = read_split(g, &no, &count, e);
    if (rc || count <= 1) return rc;
    rc = turn_to_first(g, no, count, e);
    if (rc) return rc;
    g->parts = kv_alloc(count, sizeof *g->parts);
    g->part_paths = kv_alloc(count, sizeof *g->part_paths);
    for (uint32_t i = 1; i < count && !rc; i++) {
        struct kv_gguf *part = &g->parts[g->n_parts];
        part->path = g->part_paths[g->n_parts++] = part_path(g->path, 0, i, count);
        rc = open_part(part, i, count, e);
        if (rc) break;
        g->entries = kv_grow(g->entries, g->n_entries + part->n_entries + 1, sizeof *g->entries);
        memcpy(g->entries + g->n_entries, part->entries, part->n_entries * sizeof *g->entries);
        g->n_entries += part->n_entries;
    }
    return rc ? rc : check_announced(g, e);
}

// ---- the model ------------------------------------------------------------------------

int kv_gguf_open(struct kv_gguf *g, struct kv_error *e) {
    int rc = kv_map_open(&g->map, g->path, e);
    if (!rc) rc = kv_gguf_read(g, e);
    if (!rc) rc = join_parts(g, e);
    return rc ? rc : sort_tensors(g, e);
}

void kv_gguf_close(struct kv_gguf *g) {
    for (size_t i = 0; i < g->n_parts; i++) {
        kv_gguf_close(&g->parts[i]);
        free(g->part_paths[i]);
    }
    free(g->parts);
    free(g->part_paths);
    free(g->first_path);
    free(g->pairs);
    free(g->entries);
    kv_map_close(&g->map);
}
