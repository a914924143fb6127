// SPDX-License-Identifier: Apache-2.0
// Reads the container of a GGUF file: metadata pairs and tensors' entries, each count checked
// against the file's size before it is believed.
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3).
#include "sim/model/gguf.h"

#include <inttypes.h>
#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/weight_types.h"

#define DEFAULT_ALIGNMENT 32
#define MAX_TENSOR_DIMS 4
// The least a metadata pair and a tensor's entry can occupy: what bounds their counts.
#define LEAST_PAIR_BYTES 13
#define LEAST_ENTRY_BYTES 24

static const uint8_t value_bytes[KV_GGUF_N_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

// ---- reading --------------------------------------------------------------------------

// "file: byte N", the end of a path too long for a message being its telling part.
static const char *place(char where[192], const char *path, size_t at) {
    size_t n = strlen(path);
    snprintf(where, 192, "%s%s: byte %zu", n > 150 ? "..." : "", n > 150 ? path + n - 147 : path,
             at);
    return where;
}

KV_PRINTF(4, 5)
int kv_gguf_fail(const struct kv_gguf *g, size_t at, struct kv_error *e, const char *format, ...) {
    char where[192], text[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return kv_fail(e, KV_EFAIL, place(where, g->path, at), "%s", text);
}

static int need(struct kv_gguf *g, uint64_t bytes, const char *what, struct kv_error *e) {
    if (bytes <= g->map.n - g->at) return KV_OK;
    return kv_gguf_fail(g, g->at, e,
                        "%s needs %" PRIu64 " bytes, but the file ends after %zu: it is "
                        "truncated or its header lies",
                        what, bytes, g->map.n - g->at);
}

static uint64_t little_endian(const uint8_t *p, size_t bytes) {
    uint64_t x = 0;
    for (size_t i = bytes; i-- > 0;) x = x << 8 | p[i];
    return x;
}

static int read_number(struct kv_gguf *g, size_t bytes, const char *what, uint64_t *x,
                       struct kv_error *e) {
    int rc = need(g, bytes, what, e);
    if (rc) return rc;
    *x = little_endian(g->map.data + g->at, bytes);
    g->at += bytes;
    return KV_OK;
}

static int read_u32(struct kv_gguf *g, const char *what, uint32_t *x, struct kv_error *e) {
    uint64_t wide = 0;
    int rc = read_number(g, 4, what, &wide, e);
    *x = (uint32_t)wide;
    return rc;
}

static int read_text(struct kv_gguf *g, const char *what, struct kv_gguf_text *t,
                     struct kv_error *e) {
    uint64_t n = 0;
    int rc = read_number(g, 8, what, &n, e);
    if (!rc) rc = need(g, n, what, e);
    if (rc) return rc;
    *t = (struct kv_gguf_text){(const char *)g->map.data + g->at, (size_t)n};
    g->at += (size_t)n;
    return KV_OK;
}

// For a list whose values, however short each is, cannot all be there.
static int too_long(const struct kv_gguf *g, uint64_t n, const char *what, struct kv_error *e) {
    return kv_gguf_fail(
        g, g->at, e,
        "%s is a list of %" PRIu64
        " values, more than the %zu bytes that are left in the file can hold: it is "
        "truncated or its header lies",
        what, n, g->map.n - g->at);
}

// Skips n values of a type that is no array.
static int skip_values(struct kv_gguf *g, uint32_t type, uint64_t n, const char *what,
                       struct kv_error *e) {
    if (type == KV_GGUF_STRING) {
        struct kv_gguf_text t;
        int rc = KV_OK;
        if (n > (g->map.n - g->at) / 8)
            return too_long(g, n, what, e); // each begins with its length
        for (uint64_t i = 0; i < n && !rc; i++) rc = read_text(g, what, &t, e);
        return rc;
    }
    uint64_t bytes;
    if (__builtin_mul_overflow(n, (uint64_t)value_bytes[type], &bytes))
        return too_long(g, n, what, e);
    int rc = need(g, bytes, what, e);
    if (!rc) g->at += (size_t)bytes;
    return rc;
}

static int read_pair(struct kv_gguf *g, struct kv_gguf_pair *p, struct kv_error *e) {
    int rc = read_text(g, "a metadata key", &p->key, e);
    if (!rc) rc = read_u32(g, "the type of a metadata value", &p->type, e);
    if (rc) return rc;
    char what[96];
    snprintf(what, sizeof what, "the value of %.*s", p->key.n < 64 ? (int)p->key.n : 64, p->key.s);
    if (p->type >= KV_GGUF_N_TYPES)
        return kv_gguf_fail(g, g->at - 4, e, "%s has type %u, which the format does not know", what,
                            p->type);
    p->at = g->at;
    if (p->type != KV_GGUF_ARRAY) return skip_values(g, p->type, 1, what, e);
    rc = read_u32(g, what, &p->element, e);
    if (!rc) rc = read_number(g, 8, what, &p->count, e);
    if (rc) return rc;
    if (p->element >= KV_GGUF_N_TYPES || p->element == KV_GGUF_ARRAY)
        return kv_gguf_fail(g, p->at, e, "%s is a list of type %u, which is not read", what,
                            p->element);
    p->at = g->at;
    return skip_values(g, p->element, p->count, what, e);
}

static int read_entry(struct kv_gguf *g, struct kv_gguf_tensor *t, struct kv_error *e) {
    struct kv_gguf_text name;
    size_t at = g->at;
    int rc = read_text(g, "a tensor's name", &name, e);
    if (rc) return rc;
    if (name.n == 0 || name.n >= sizeof t->name || memchr(name.s, 0, name.n))
        return kv_gguf_fail(g, at, e, "a tensor's name has %zu bytes; 1 to %zu are read", name.n,
                            sizeof t->name - 1);
    memcpy(t->name, name.s, name.n);
    uint32_t n_dims = 0, type = 0;
    rc = read_u32(g, "a tensor's number of dimensions", &n_dims, e);
    if (!rc && (n_dims == 0 || n_dims > MAX_TENSOR_DIMS))
        rc = kv_gguf_fail(g, g->at - 4, e, "tensor %s has %u dimensions; 1 to %u are read", t->name,
                          n_dims, MAX_TENSOR_DIMS);
    if (rc) return rc;
    uint64_t rows = 1, cols = 1;
    for (uint32_t i = 0; i < n_dims && !rc; i++) {
        uint64_t dim = 0;
        rc = read_number(g, 8, "a tensor's dimension", &dim, e);
        if (!rc &&
            (i == 0 ? (cols = dim, dim > INT64_MAX) : __builtin_mul_overflow(rows, dim, &rows)))
            rc = kv_gguf_fail(g, g->at - 8, e,
                              "tensor %s has a dimension of %" PRIu64 ", more than any file holds",
                              t->name, dim);
    }
    if (!rc) rc = read_u32(g, "a tensor's type", &type, e);
    if (!rc) rc = read_number(g, 8, "a tensor's offset", &t->offset, e);
    t->rows = (size_t)rows;
    t->cols = (size_t)cols;
    const char *known = kv_weight_type_name(type);
    if (known)
        snprintf(t->type, sizeof t->type, "%s", known);
    else
        snprintf(t->type, sizeof t->type, "number %u", type & 0xFFFFFF);
    return rc;
}

// Finds where each tensor's data lies and that all of it is there. Sizes of types that can't be
// decoded are unknown here: such a tensor is refused by name when it is asked for.
static int check_entry(const struct kv_gguf *g, struct kv_gguf_tensor *t, size_t data_begin,
                       uint64_t alignment, struct kv_error *e) {
    const struct kv_weight_type *type = kv_weight_type_named(t->type);
    uint64_t bytes = 0, begin, end;
    if (type && t->cols % type->block_values)
        return kv_gguf_fail(g, data_begin, e,
                            "tensor %s has rows of %zu, no multiple of the %u values "
                            "in a block of %s",
                            t->name, t->cols, type->block_values, t->type);
    if (t->offset % alignment)
        return kv_gguf_fail(g, data_begin, e,
                            "tensor %s lies at offset %" PRIu64
                            ", no multiple of the alignment %" PRIu64,
                            t->name, t->offset, alignment);
    bool lies = type && (__builtin_mul_overflow((uint64_t)(t->cols / type->block_values),
                                                (uint64_t)type->block_bytes, &bytes) ||
                         __builtin_mul_overflow(bytes, (uint64_t)t->rows, &bytes));
    lies = lies || __builtin_add_overflow((uint64_t)data_begin, t->offset, &begin) ||
           __builtin_add_overflow(begin, bytes, &end) || end > g->map.n;
    if (lies)
        return kv_gguf_fail(g, data_begin, e,
                            "tensor %s (%zu rows of %zu, %s) ends after the file's "
                            "%zu bytes: the file is truncated or its header lies",
                            t->name, t->rows, t->cols, t->type, g->map.n);
    t->data = g->map.data + begin;
    return KV_OK;
}

// ggml's reader demands that each tensor begins where the one before it ends, rounded up to the
// alignment (gguf_init_from_file in ggml/src/gguf.cpp): overlaps and holes are lies. *expected is
// the offset due next, NONE after a type whose size is not known here.
#define NONE UINT64_MAX
static int check_order(const struct kv_gguf *g, const struct kv_gguf_tensor *t, size_t data_begin,
                       uint64_t alignment, uint64_t *expected, struct kv_error *e) {
    if (*expected != NONE && t->offset != *expected)
        return kv_gguf_fail(g, data_begin, e,
                            "tensor %s lies at offset %" PRIu64
                            ", but the one before it ends at %" PRIu64
                            ": their data overlap, leave a hole or are out of order",
                            t->name, t->offset, *expected);
    const struct kv_weight_type *type = kv_weight_type_named(t->type);
    uint64_t bytes =
        type ? (uint64_t)t->cols / type->block_values * type->block_bytes * t->rows : 0;
    *expected = type ? (t->offset + bytes + alignment - 1) / alignment * alignment : NONE;
    return KV_OK;
}

const struct kv_gguf_pair *kv_gguf_find(const struct kv_gguf *g, const char *key) {
    size_t n = strlen(key);
    for (size_t i = 0; i < g->n_pairs; i++)
        if (g->pairs[i].key.n == n && memcmp(g->pairs[i].key.s, key, n) == 0) return &g->pairs[i];
    return NULL;
}

static int by_key(const void *a, const void *b) {
    const struct kv_gguf_pair *x = *(const struct kv_gguf_pair *const *)a,
                              *y = *(const struct kv_gguf_pair *const *)b;
    int order = memcmp(x->key.s, y->key.s, x->key.n < y->key.n ? x->key.n : y->key.n);
    if (order == 0) order = (x->key.n > y->key.n) - (x->key.n < y->key.n);
    return order ? order : (x->at > y->at) - (x->at < y->at);
}

// A key that stands twice says two things.
static int check_keys_differ(const struct kv_gguf *g, struct kv_error *e) {
    const struct kv_gguf_pair **sorted = kv_alloc(g->n_pairs + 1, sizeof *sorted);
    int rc = KV_OK;
    for (size_t i = 0; i < g->n_pairs; i++) sorted[i] = &g->pairs[i];
    qsort(sorted, g->n_pairs, sizeof *sorted, by_key);
    for (size_t i = 1; i < g->n_pairs && !rc; i++) {
        const struct kv_gguf_text *a = &sorted[i - 1]->key, *b = &sorted[i]->key;
        if (a->n == b->n && memcmp(a->s, b->s, a->n) == 0)
            rc = kv_gguf_fail(g, sorted[i]->at, e, "the key %.*s stands twice",
                              (int)(b->n < 100 ? b->n : 100), b->s);
    }
    free(sorted);
    return rc;
}

static int read_header(struct kv_gguf *g, struct kv_error *e) {
    if (g->map.n < 4 || memcmp(g->map.data, "GGUF", 4) != 0)
        return kv_gguf_fail(g, 0, e, "this is no GGUF file: %s",
                            kv_file_kind(g->map.data, g->map.n, "it does not begin with \"GGUF\""));
    g->at = 4;
    uint64_t n_entries = 0, n_pairs = 0;
    int rc = read_u32(g, "the version", &g->version, e);
    if (!rc && g->version != 2 && g->version != 3)
        rc = kv_gguf_fail(g, 4, e,
                          g->version & 0xFFFF ? "GGUF version %u is not read; 2 and 3 are"
                                              : "GGUF version %u is that of a big-endian file, "
                                                "which is not read",
                          g->version);
    if (!rc) rc = read_number(g, 8, "the number of tensors", &n_entries, e);
    if (!rc) rc = read_number(g, 8, "the number of metadata pairs", &n_pairs, e);
    if (rc) return rc;
    size_t left = g->map.n - g->at;
    if (n_entries > left / LEAST_ENTRY_BYTES)
        return kv_gguf_fail(g, 8, e,
                            "the header claims %" PRIu64 " tensors, more than the file's %zu "
                            "bytes can describe",
                            n_entries, g->map.n);
    if (n_pairs > left / LEAST_PAIR_BYTES)
        return kv_gguf_fail(g, 16, e,
                            "the header claims %" PRIu64 " metadata pairs, more than the "
                            "file's %zu bytes can hold",
                            n_pairs, g->map.n);
    g->pairs = kv_alloc((size_t)n_pairs + 1, sizeof *g->pairs);
    g->entries = kv_alloc((size_t)n_entries + 1, sizeof *g->entries);
    for (; g->n_pairs < n_pairs && !rc; g->n_pairs++) rc = read_pair(g, &g->pairs[g->n_pairs], e);
    for (; g->n_entries < n_entries && !rc; g->n_entries++)
        rc = read_entry(g, &g->entries[g->n_entries], e);
    return rc ? rc : check_keys_differ(g, e);
}

// The alignment of the data: as in ggml's reader a u32, and a power of two.
static int read_alignment(const struct kv_gguf *g, uint64_t *alignment, struct kv_error *e) {
    const struct kv_gguf_pair *p = kv_gguf_find(g, "general.alignment");
    *alignment = DEFAULT_ALIGNMENT;
    if (!p) return KV_OK;
    if (p->type != KV_GGUF_U32)
        return kv_gguf_fail(
            g, p->at, e,
            "general.alignment has type %u; the format demands an unsigned 32-bit number", p->type);
    *alignment = little_endian(g->map.data + p->at, 4);
    if (*alignment == 0 || (*alignment & (*alignment - 1)) || *alignment > 1u << 20)
        return kv_gguf_fail(g, p->at, e,
                            "general.alignment is %" PRIu64 ", no power of two up to 2^20",
                            *alignment);
    return KV_OK;
}

static int place_tensors(struct kv_gguf *g, struct kv_error *e) {
    uint64_t alignment, expected = 0;
    int rc = read_alignment(g, &alignment, e);
    if (rc) return rc;
    size_t begin = (g->at + alignment - 1) / alignment * alignment;
    for (size_t i = 0; i < g->n_entries; i++) {
        rc = check_entry(g, &g->entries[i], begin, alignment, e);
        if (!rc) rc = check_order(g, &g->entries[i], begin, alignment, &expected, e);
        if (rc) return rc;
        g->entries[i].path = g->path;
    }
    return KV_OK;
}

int kv_gguf_read(struct kv_gguf *g, struct kv_error *e) {
    int rc = read_header(g, e);
    return rc ? rc : place_tensors(g, e);
}

// ---- metadata -------------------------------------------------------------------------

static int wrong_type(const struct kv_gguf *g, const struct kv_gguf_pair *p, const char *expected,
                      struct kv_error *e) {
    return kv_gguf_fail(g, p->at, e, "%.*s should be %s", (int)(p->key.n < 100 ? p->key.n : 100),
                        p->key.s, expected);
}

static int missing(const struct kv_gguf *g, const char *key, struct kv_error *e) {
    return kv_fail(e, KV_EFAIL, g->path, "the metadata lack %s", key);
}

// A whole number of any width. Absent: *x keeps its value when `optional`.
int kv_gguf_u32(const struct kv_gguf *g, const char *key, bool optional, uint32_t *x,
                struct kv_error *e) {
    const struct kv_gguf_pair *p = kv_gguf_find(g, key);
    if (!p) return optional ? KV_OK : missing(g, key, e);
    bool whole = p->type <= KV_GGUF_I32 || p->type == KV_GGUF_U64 || p->type == KV_GGUF_I64;
    uint64_t value = whole ? little_endian(g->map.data + p->at, value_bytes[p->type]) : 0;
    if (!whole || value > UINT32_MAX)
        return wrong_type(g, p, "one whole number that fits 32 bits", e);
    *x = (uint32_t)value;
    return KV_OK;
}

int kv_gguf_float(const struct kv_gguf *g, const char *key, bool optional, float *x,
                  struct kv_error *e) {
    const struct kv_gguf_pair *p = kv_gguf_find(g, key);
    if (!p) return optional ? KV_OK : missing(g, key, e);
    if (p->type == KV_GGUF_F32) {
        memcpy(x, g->map.data + p->at, 4);
    } else if (p->type == KV_GGUF_F64) {
        double wide;
        memcpy(&wide, g->map.data + p->at, 8);
        *x = (float)wide;
    } else {
        return wrong_type(g, p, "a floating-point number", e);
    }
    return isfinite(*x) && *x > 0 ? KV_OK : wrong_type(g, p, "a positive number", e);
}

// A text, NUL-terminated in buf (cut when it is longer). Absent: buf keeps its value.
int kv_gguf_string(const struct kv_gguf *g, const char *key, bool optional, char *buf, size_t room,
                   struct kv_error *e) {
    const struct kv_gguf_pair *p = kv_gguf_find(g, key);
    if (!p) return optional ? KV_OK : missing(g, key, e);
    if (p->type != KV_GGUF_STRING) return wrong_type(g, p, "a text", e);
    size_t n = (size_t)little_endian(g->map.data + p->at, 8);
    n = n < room ? n : room - 1;
    memcpy(buf, g->map.data + p->at + 8, n);
    buf[n] = 0;
    return KV_OK;
}

double kv_gguf_number(const struct kv_gguf *g, const struct kv_gguf_pair *p) {
    float f;
    double d;
    const uint8_t *at = g->map.data + p->at;
    if (p->type == KV_GGUF_F32) return memcpy(&f, at, 4), (double)f;
    if (p->type == KV_GGUF_F64) return memcpy(&d, at, 8), d;
    if (p->type == KV_GGUF_STRING || p->type == KV_GGUF_ARRAY) return NAN;
    return (double)little_endian(at, value_bytes[p->type]);
}

// The texts of a list, NUL-terminated, in one block behind the pointers. Caller frees *list.
int kv_gguf_strings(const struct kv_gguf *g, const char *key, const char ***list, size_t *n,
                    struct kv_error *e) {
    *list = NULL;
    const struct kv_gguf_pair *p = kv_gguf_find(g, key);
    if (!p) return missing(g, key, e);
    if (p->type != KV_GGUF_ARRAY || p->element != KV_GGUF_STRING)
        return wrong_type(g, p, "a list of texts", e);
    size_t count = (size_t)p->count, at = p->at, bytes = 0;
    for (size_t i = 0; i < count; i++) {
        size_t length = (size_t)little_endian(g->map.data + at, 8);
        at += 8 + length;
        bytes += length + 1;
    }
    char *block = kv_grow(NULL, count * sizeof **list + bytes, 1);
    *list = (const char **)block;
    *n = count;
    block += count * sizeof **list;
    at = p->at;
    for (size_t i = 0; i < count; i++) {
        size_t length = (size_t)little_endian(g->map.data + at, 8);
        if (memchr(g->map.data + at + 8, 0, length)) {
            free(*list);
            *list = NULL;
            return kv_gguf_fail(g, at, e, "%s[%zu] holds a zero byte", key, i);
        }
        (*list)[i] = memcpy(block, g->map.data + at + 8, length);
        block[length] = 0;
        block += length + 1;
        at += 8 + length;
    }
    return KV_OK;
}

bool kv_gguf_true(const struct kv_gguf *g, const char *key) {
    const struct kv_gguf_pair *p = kv_gguf_find(g, key);
    return p && p->type == KV_GGUF_BOOL && g->map.data[p->at];
}

bool kv_gguf_int_list(const struct kv_gguf *g, const char *key, int32_t *x, size_t n) {
    const struct kv_gguf_pair *p = kv_gguf_find(g, key);
    bool fits = p && p->type == KV_GGUF_ARRAY && p->count == n &&
                (p->element == KV_GGUF_I32 || p->element == KV_GGUF_U32);
    if (fits) memcpy(x, g->map.data + p->at, n * sizeof *x);
    return fits;
}
