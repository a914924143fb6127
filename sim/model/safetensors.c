// SPDX-License-Identifier: Apache-2.0
// Reads and lays out safetensors files: every offset and size in the header is checked before use.
#include "sim/model/safetensors.h"
#include "sim/base/memory.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

// The reference implementation refuses longer headers (its MAX_HEADER_SIZE).
#define MAX_HEADER_BYTES 100000000u
#define ALIGN_BYTES 64u

struct dtype {
    const char *name;
    size_t bytes;
};

static const struct dtype dtypes[] = {{"F32", 4}, {"F16", 2},     {"BF16", 2},   {"F64", 8},
                                      {"U8", 1},  {"I8", 1},      {"BOOL", 1},   {"U16", 2},
                                      {"I16", 2}, {"U32", 4},     {"I32", 4},    {"U64", 8},
                                      {"I64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

size_t kv_dtype_bytes(const char *dtype) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtypes[i].name, dtype) == 0) return dtypes[i].bytes;
    return 0;
}

// Bytes of a dense tensor; false when the product passes 2^63, which no file can hold.
static bool tensor_bytes(const struct kv_tensor *t, uint64_t *bytes) {
    uint64_t n = kv_dtype_bytes(t->dtype);
    bool empty = false;
    for (size_t i = 0; i < t->n_dims; i++) empty |= t->dims[i] == 0;
    for (size_t i = 0; i < t->n_dims && !empty; i++)
        if (__builtin_mul_overflow(n, t->dims[i], &n)) return false;
    *bytes = empty ? 0 : n;
    return *bytes <= INT64_MAX;
}

// ---- reading --------------------------------------------------------------------------

static int bad_tensor(const char *path, const char *name, const char *what, struct kv_error *e) {
    return kv_fail(e, KV_EFAIL, path, "tensor %.100s %s", name, what);
}

static int read_shape(struct kv_tensor *t, const json_t *shape, const char *path,
                      struct kv_error *e) {
    size_t max_dims = sizeof t->dims / sizeof *t->dims;
    if (!json_is_array(shape)) return bad_tensor(path, t->name, "has no \"shape\" list", e);
    t->n_dims = json_array_size(shape);
    if (t->n_dims > max_dims)
        return kv_fail(e, KV_EFAIL, path, "tensor %.100s has %zu dimensions; at most %zu are read",
                       t->name, t->n_dims, max_dims);
    for (size_t i = 0; i < t->n_dims; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return bad_tensor(path, t->name, "has a dimension that is no whole number from 0 up",
                              e);
        t->dims[i] = (uint64_t)json_integer_value(dim);
    }
    return KV_OK;
}

// Fills one tensor from its JSON entry. data_begin: where the header ends in the file.
static int read_tensor(struct kv_tensor *t, const char *name, const json_t *entry,
                       const struct kv_map *map, uint64_t data_begin, const char *path,
                       struct kv_error *e) {
    if (strlen(name) >= sizeof t->name)
        return kv_fail(e, KV_EFAIL, path,
                       "tensor name %.40s... has %zu bytes; at most %zu are read", name,
                       strlen(name), sizeof t->name - 1);
    memcpy(t->name, name, strlen(name) + 1);
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype) return bad_tensor(path, name, "has no \"dtype\"", e);
    if (kv_dtype_bytes(dtype) == 0)
        return kv_fail(e, KV_EFAIL, path, "tensor %.100s has dtype %.20s, which is not known", name,
                       dtype);
    memcpy(t->dtype, dtype, strlen(dtype) + 1);
    int rc = read_shape(t, json_object_get(entry, "shape"), path, e);
    if (rc) return rc;

    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(from) || !json_is_integer(to) ||
        json_integer_value(from) < 0 || json_integer_value(to) < json_integer_value(from))
        return bad_tensor(path, name, "has no \"data_offsets\" [begin, end] with begin <= end", e);
    uint64_t begin = (uint64_t)json_integer_value(from), end = (uint64_t)json_integer_value(to);
    uint64_t room = map->n - data_begin;
    if (end > room)
        return kv_fail(e, KV_EFAIL, path,
                       "tensor %.100s ends at byte %" PRIu64 ", but the file has %zu bytes; it is "
                       "truncated or its header lies",
                       name, data_begin + end, map->n);
    uint64_t expected;
    if (!tensor_bytes(t, &expected) || expected != end - begin)
        return kv_fail(e, KV_EFAIL, path,
                       "tensor %.100s occupies %" PRIu64
                       " bytes, which is not what its shape and dtype %s need",
                       name, end - begin, t->dtype);
    t->offset = data_begin + begin;
    t->n_bytes = end - begin;
    t->data = map->data + t->offset;
    return KV_OK;
}

static int by_offset(const void *a, const void *b) {
    const struct kv_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct kv_tensor *)a)->name, ((const struct kv_tensor *)b)->name);
}

static int read_meta(struct kv_safetensors *s, json_t *meta, const char *path, struct kv_error *e) {
    if (!json_is_object(meta))
        return kv_fail(e, KV_EFAIL, path, "\"__metadata__\" in the header is not an object");
    s->meta_keys = kv_alloc(json_object_size(meta) + 1, sizeof *s->meta_keys);
    s->meta_values = kv_alloc(json_object_size(meta) + 1, sizeof *s->meta_values);
    const char *key;
    json_t *value;
    json_object_foreach(meta, key, value) {
        if (!json_is_string(value))
            return kv_fail(e, KV_EFAIL, path, "metadata %.100s in the header is not a string", key);
        s->meta_keys[s->n_meta] = kv_strdup(key);
        s->meta_values[s->n_meta++] = kv_strdup(json_string_value(value));
    }
    return KV_OK;
}

static int read_header(struct kv_safetensors *s, json_t *header, uint64_t data_begin,
                       const char *path, struct kv_error *e) {
    s->tensors = kv_alloc(json_object_size(header) + 1, sizeof *s->tensors);
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry) {
        int rc = strcmp(name, "__metadata__") == 0
                     ? read_meta(s, entry, path, e)
                     : read_tensor(&s->tensors[s->n++], name, entry, &s->map, data_begin, path, e);
        if (rc) return rc;
    }
    qsort(s->tensors, s->n, sizeof *s->tensors, by_offset);
    for (size_t i = 1; i < s->n; i++)
        if (s->tensors[i].offset < s->tensors[i - 1].offset + s->tensors[i - 1].n_bytes)
            return kv_fail(e, KV_EFAIL, path, "tensors %.80s and %.80s overlap at byte %" PRIu64,
                           s->tensors[i - 1].name, s->tensors[i].name, s->tensors[i].offset);
    qsort(s->tensors, s->n, sizeof *s->tensors, by_name);
    return KV_OK;
}

int kv_safetensors_open(struct kv_safetensors *s, const char *path, struct kv_error *e) {
    *s = (struct kv_safetensors){0};
    int rc = kv_map_open(&s->map, path, e);
    if (rc) return rc;
    json_t *header = NULL;
    if (s->map.n < 8) {
        rc = kv_fail(e, KV_EFAIL, path,
                     "the file has %zu bytes; a safetensors file begins with 8 bytes of length",
                     s->map.n);
        goto fail;
    }
    // Its own kind begins with a length, whatever that is.
    const char *kind =
        s->map.data[8 < s->map.n ? 8 : 0] == '{' ? NULL : kv_file_kind(s->map.data, s->map.n, NULL);
    if (kind) {
        rc = kv_fail(e, KV_EFAIL, path, "this is no safetensors file: %s", kind);
        goto fail;
    }
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | s->map.data[i];
    if (length > MAX_HEADER_BYTES || length > s->map.n - 8) {
        rc = kv_fail(e, KV_EFAIL, path,
                     "the header claims %" PRIu64 " bytes at byte 0, but the file has %zu; it is "
                     "truncated or no safetensors file",
                     length, s->map.n);
        goto fail;
    }
    json_error_t bad;
    header =
        json_loadb((const char *)s->map.data + 8, (size_t)length, JSON_REJECT_DUPLICATES, &bad);
    if (!json_is_object(header)) {
        rc = kv_fail(e, KV_EFAIL, path, "the header is not a JSON object: %.160s at byte %d",
                     header ? "another value" : bad.text, header ? 8 : 8 + bad.position);
        goto fail;
    }
    rc = read_header(s, header, 8 + length, path, e);
    if (rc) goto fail;
    json_decref(header);
    return KV_OK;
fail:
    json_decref(header);
    kv_safetensors_close(s);
    return rc;
}

void kv_safetensors_close(struct kv_safetensors *s) {
    for (size_t i = 0; i < s->n_meta; i++) {
        free(s->meta_keys[i]);
        free(s->meta_values[i]);
    }
    free(s->meta_keys);
    free(s->meta_values);
    free(s->tensors);
    kv_map_close(&s->map);
    *s = (struct kv_safetensors){0};
}

const struct kv_tensor *kv_safetensors_find(const struct kv_safetensors *s, const char *name) {
    size_t low = 0, high = s->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(s->tensors[mid].name, name);
        if (order == 0) return &s->tensors[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

const char *kv_safetensors_meta(const struct kv_safetensors *s, const char *key) {
    for (size_t i = 0; i < s->n_meta; i++)
        if (strcmp(s->meta_keys[i], key) == 0) return s->meta_values[i];
    return NULL;
}

// ---- writing --------------------------------------------------------------------------

// Sets offsets from the end of the header. Readers of the format refuse holes, so tensors follow
// each other without padding; those of larger elements come first, which keeps each one aligned to
// its own element.
static int place(struct kv_tensor *tensors, size_t n, uint64_t *data_bytes, struct kv_error *e) {
    uint64_t at = 0;
    for (size_t width = 8; width > 0; width /= 2)
        for (size_t i = 0; i < n; i++) {
            struct kv_tensor *t = &tensors[i];
            if (kv_dtype_bytes(t->dtype) != width) continue;
            uint64_t end;
            if (t->n_dims > sizeof t->dims / sizeof *t->dims || !tensor_bytes(t, &t->n_bytes) ||
                __builtin_add_overflow(at, t->n_bytes, &end) || end > INT64_MAX)
                return bad_tensor("safetensors", t->name, "is too large to write", e);
            t->offset = at;
            at = end;
        }
    *data_bytes = at;
    return KV_OK;
}

static json_t *tensor_entry(const struct kv_tensor *t) {
    json_t *shape = json_array();
    for (size_t i = 0; i < t->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->dims[i]));
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", t->dtype, "shape", shape, "data_offsets",
                     (json_int_t)t->offset, (json_int_t)(t->offset + t->n_bytes));
}

int kv_safetensors_layout(struct kv_tensor *tensors, size_t n, const char *const *meta,
                          size_t n_meta, char **header, size_t *header_bytes, uint64_t *total,
                          struct kv_error *e) {
    *header = NULL;
    for (size_t i = 0; i < n; i++)
        if (kv_dtype_bytes(tensors[i].dtype) == 0)
            return bad_tensor("safetensors", tensors[i].name, "has an unknown dtype", e);
    uint64_t data_bytes = 0;
    int rc = place(tensors, n, &data_bytes, e);
    if (rc) return rc;

    json_t *root = json_object(), *pairs = json_object();
    for (size_t i = 0; i < n_meta; i++)
        json_object_set_new(pairs, meta[2 * i], json_string(meta[2 * i + 1]));
    if (n_meta) json_object_set(root, "__metadata__", pairs);
    json_decref(pairs);
    for (size_t i = 0; i < n && !rc; i++) {
        if (json_object_get(root, tensors[i].name))
            rc = bad_tensor("safetensors", tensors[i].name, "is named twice", e);
        else if (json_object_set_new(root, tensors[i].name, tensor_entry(&tensors[i])))
            rc = bad_tensor("safetensors", tensors[i].name, "has a name that is not UTF-8", e);
    }
    char *json = rc ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (rc) return rc;
    if (!json) return kv_fail(e, KV_ENOMEM, "safetensors", "there is no memory for the header");

    size_t length = strlen(json);
    size_t padded = (8 + length + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    char *out = kv_grow(NULL, padded, 1);
    for (int i = 0; i < 8; i++) out[i] = (char)((uint64_t)(padded - 8) >> (8 * i));
    memcpy(out + 8, json, length);
    memset(out + 8 + length, ' ', padded - 8 - length);
    free(json);
    for (size_t i = 0; i < n; i++) tensors[i].offset += padded;
    *header = out;
    *header_bytes = padded;
    *total = padded + data_bytes;
    return KV_OK;
}
