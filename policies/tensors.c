// SPDX-License-Identifier: Apache-2.0
// Reading safetensors: the header's JSON, then tensors as they are asked for.
#include "policies/tensors.h"

#include <ctype.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { MAX_HEADER_BYTES = 1 << 20 };
static const uint64_t max_file_bytes = (uint64_t)1 << 32;

// ---- the header --------------------------------------------------------------------------

// Just enough JSON for {"name": {"dtype": "F32", "shape": [..], "data_offsets": [..]}, ...}:
// strings without escapes that matter here, whole numbers, nesting.
struct reader {
    const char *at, *end;
};

static void skip_blanks(struct reader *r) {
    while (r->at < r->end && isspace((unsigned char)*r->at)) r->at++;
}

static bool take(struct reader *r, char c) {
    skip_blanks(r);
    if (r->at >= r->end || *r->at != c) return false;
    r->at++;
    return true;
}

// The bytes between quotes, as they stand.
static bool take_string(struct reader *r, const char **s, size_t *n) {
    if (!take(r, '"')) return false;
    *s = r->at;
    while (r->at < r->end && *r->at != '"') r->at += *r->at == '\\' ? 2 : 1;
    if (r->at >= r->end) return false;
    *n = (size_t)(r->at++ - *s);
    return true;
}

// Up to `room` whole numbers in square brackets.
static bool take_numbers(struct reader *r, uint64_t *x, size_t room, size_t *n) {
    *n = 0;
    if (!take(r, '[')) return false;
    if (take(r, ']')) return true;
    do {
        skip_blanks(r);
        uint64_t value = 0;
        const char *start = r->at;
        while (r->at < r->end && isdigit((unsigned char)*r->at) && r->at - start < 18)
            value = 10 * value + (uint64_t)(*r->at++ - '0');
        if (r->at == start || *n == room) return false;
        x[(*n)++] = value;
    } while (take(r, ','));
    return take(r, ']');
}

// Any value, skipped: a string, a number, a word, or something in brackets.
static bool skip_value(struct reader *r) {
    const char *s;
    size_t n;
    int depth = 0;
    skip_blanks(r);
    do {
        skip_blanks(r);
        if (r->at >= r->end) return false;
        if (*r->at == '"') {
            if (!take_string(r, &s, &n)) return false;
        } else {
            if (*r->at == '{' || *r->at == '[') depth++;
            if (*r->at == '}' || *r->at == ']') depth--;
            r->at++;
        }
        skip_blanks(r);
    } while (depth > 0 || (r->at < r->end && !strchr(",}]", *r->at)));
    return depth == 0;
}

static bool is(const char *s, size_t n, const char *word) {
    return n == strlen(word) && memcmp(s, word, n) == 0;
}

// One with more dimensions than are kept keeps none, and fits nothing that is asked for.
static bool take_shape(struct reader *r, struct kv_tensors_entry *t) {
    const char *at = r->at;
    if (take_numbers(r, t->shape, KV_TENSOR_DIMS, &t->n_dims)) return true;
    r->at = at;
    t->n_dims = 0;
    return skip_value(r);
}

static bool read_tensor(struct reader *r, struct kv_tensors_entry *t) {
    const char *s;
    size_t n;
    if (!take(r, '{')) return false;
    do {
        bool good = take_string(r, &s, &n) && take(r, ':');
        if (good && is(s, n, "dtype")) {
            good = take_string(r, &s, &n) && n < sizeof t->dtype;
            if (good) snprintf(t->dtype, sizeof t->dtype, "%.*s", (int)n, s);
        } else if (good && is(s, n, "shape"))
            good = take_shape(r, t);
        else if (good && is(s, n, "data_offsets"))
            good = take_numbers(r, t->offsets, 2, &t->n_offsets);
        else if (good)
            good = skip_value(r);
        if (!good) return false;
    } while (take(r, ','));
    return take(r, '}');
}

static bool read_texts(struct reader *r, struct kv_tensors *t) {
    if (!take(r, '{')) return false;
    if (take(r, '}')) return true;
    do {
        const char *name, *s;
        size_t n_name, n;
        if (!take_string(r, &name, &n_name) || !take(r, ':') || !take_string(r, &s, &n))
            return false;
        if (t->n_texts == KV_TENSOR_TEXTS) continue;
        t->text[t->n_texts].name = name, t->text[t->n_texts].n_name = n_name;
        t->text[t->n_texts].text = s, t->text[t->n_texts++].n_text = n;
    } while (take(r, ','));
    return take(r, '}');
}

static bool read_header(const char *text, size_t n_text, struct kv_tensors *t) {
    struct reader r = {text, text + n_text};
    const char *s;
    size_t n;
    if (!take(&r, '{')) return false;
    if (take(&r, '}')) return true;
    do {
        if (!take_string(&r, &s, &n) || !take(&r, ':')) return false;
        if (is(s, n, "__metadata__")) {
            if (!read_texts(&r, t)) return false;
            continue;
        }
        if (t->n == KV_TENSORS_MOST) return false;
        struct kv_tensors_entry *to = &t->tensor[t->n++];
        to->name = s;
        to->n_name = n;
        if (!read_tensor(&r, to)) return false;
    } while (take(&r, ','));
    return take(&r, '}');
}

// ---- the file ----------------------------------------------------------------------------

uint64_t kv_little_endian(const unsigned char *b, size_t n) {
    uint64_t x = 0;
    for (size_t i = n; i-- > 0;) x = x << 8 | b[i];
    return x;
}

static void digest(const unsigned char *b, size_t n, char out[17]) {
    uint64_t h = 0xCBF29CE484222325u; // FNV-1a, 64 bit
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 0x100000001B3u;
    snprintf(out, 17, "%016llx", (unsigned long long)h);
}

// Takes what t->bytes hold.
static int unpack(struct kv_tensors *t, size_t n, struct kv_error *e) {
    uint64_t header = n < 8 ? UINT64_MAX : kv_little_endian(t->bytes, 8);
    digest(t->bytes, n, t->digest);
    if (header > MAX_HEADER_BYTES || header > n - 8 ||
        !read_header((const char *)t->bytes + 8, header, t)) {
        kv_tensors_close(t);
        return kv_fail(e, KV_EFAIL, t->path, "is not a safetensors file");
    }
    t->data = t->bytes + 8 + header;
    t->n_data = n - 8 - header;
    return 0;
}

static int begin(struct kv_tensors *t, const char *path, size_t room, struct kv_error *e) {
    memset(t, 0, sizeof *t);
    snprintf(t->path, sizeof t->path, "%s", path);
    t->bytes = malloc(room);
    return t->bytes ? 0 : kv_fail(e, KV_ENOMEM, path, "out of memory");
}

int kv_tensors_read(struct kv_tensors *t, const char *path, const unsigned char *bytes, size_t n,
                    struct kv_error *e) {
    int rc = begin(t, path, n + 1, e);
    if (rc) return rc;
    memcpy(t->bytes, bytes, n);
    return unpack(t, n, e);
}

int kv_tensors_open(struct kv_tensors *t, const char *path, struct kv_error *e) {
    memset(t, 0, sizeof *t);
    struct stat st; // a pipe that nobody writes would keep the program waiting
    FILE *f = stat(path, &st) == 0 && S_ISREG(st.st_mode) ? fopen(path, "rb") : NULL;
    if (!f) return kv_fail(e, KV_EFAIL, path, "no such file, or it cannot be read");
    size_t n = (size_t)st.st_size;
    int rc = (uint64_t)st.st_size > max_file_bytes
                 ? kv_fail(e, KV_EFAIL, path, "is above %d MB", (int)(max_file_bytes >> 20))
                 : begin(t, path, n + 1, e);
    bool whole = rc == 0 && fread(t->bytes, 1, n, f) == n;
    fclose(f);
    if (rc == 0 && !whole) {
        kv_tensors_close(t);
        rc = kv_fail(e, KV_EFAIL, path, "cannot be read whole");
    }
    return rc ? rc : unpack(t, n, e);
}

void kv_tensors_close(struct kv_tensors *t) {
    for (size_t i = 0; i < t->n_blocks; i++) free(t->block[i]);
    free(t->bytes);
    t->bytes = NULL;
    t->n_blocks = t->n = t->n_texts = 0;
}

// ---- what is asked for -------------------------------------------------------------------

static const struct kv_tensors_entry *find(const struct kv_tensors *t, const char *name) {
    for (size_t i = 0; i < t->n; i++)
        if (is(t->tensor[i].name, t->tensor[i].n_name, name)) return &t->tensor[i];
    return NULL;
}

bool kv_tensors_has(const struct kv_tensors *t, const char *name) {
    return find(t, name) != NULL;
}

// What is wrong with a tensor, or NULL; fills shape and how many numbers it holds.
static const char *flaw(const struct kv_tensors *t, const struct kv_tensors_entry *x, size_t bytes,
                        size_t n_dims, size_t *shape, size_t *n) {
    if (x->n_dims != n_dims) return "has another number of dimensions";
    if (x->n_offsets != 2) return "has no data_offsets";
    *n = 1;
    for (size_t i = 0; i < n_dims; i++) {
        if (x->shape[i] == 0 || x->shape[i] > max_file_bytes ||
            (shape[i] && shape[i] != x->shape[i]))
            return "has another shape than is expected";
        shape[i] = x->shape[i];
        *n *= shape[i];
        if (*n > max_file_bytes)
            return "lies outside the file, or has another size than its shape says";
    }
    if (x->offsets[1] > t->n_data || x->offsets[0] > x->offsets[1] ||
        x->offsets[1] - x->offsets[0] != *n * bytes)
        return "lies outside the file, or has another size than its shape says";
    return NULL;
}

static int numbers_of(const struct kv_tensors *t, const char *name, const char *dtype, size_t bytes,
                      size_t n_dims, size_t *shape, size_t *n, const unsigned char **out,
                      struct kv_error *e) {
    const struct kv_tensors_entry *x = find(t, name);
    if (!x) return kv_fail(e, KV_EFAIL, t->path, "tensor %s is missing", name);
    if (strcmp(x->dtype, dtype) != 0)
        return kv_fail(e, KV_EFAIL, t->path, "tensor %s is not %s", name, dtype);
    const char *why = flaw(t, x, bytes, n_dims, shape, n);
    if (why) return kv_fail(e, KV_EFAIL, t->path, "tensor %s %s", name, why);
    *out = t->data + x->offsets[0];
    return 0;
}

int kv_tensors_raw(const struct kv_tensors *t, const char *name, const char *dtype, size_t bytes,
                   size_t n_dims, size_t *shape, const unsigned char **x, struct kv_error *e) {
    size_t n;
    return numbers_of(t, name, dtype, bytes, n_dims, shape, &n, x, e);
}

size_t kv_tensors_dims(const struct kv_tensors *t, const char *name) {
    const struct kv_tensors_entry *x = find(t, name);
    return x ? x->n_dims : 0;
}

int kv_tensors_take(struct kv_tensors *t, const char *name, size_t n_dims, size_t *shape,
                    const float **out, struct kv_error *e) {
    const unsigned char *from;
    size_t n;
    int rc = numbers_of(t, name, "F32", sizeof(float), n_dims, shape, &n, &from, e);
    if (rc) return rc;
    if (t->n_blocks == KV_TENSORS_MOST)
        return kv_fail(e, KV_EFAIL, t->path, "holds more tensors than are read");
    float *to = malloc(n * sizeof *to);
    if (!to) return kv_fail(e, KV_ENOMEM, t->path, "out of memory");
    t->block[t->n_blocks++] = to;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)kv_little_endian(from + 4 * i, 4);
        memcpy(to + i, &bits, sizeof *to);
        if (!isfinite(to[i]))
            return kv_fail(e, KV_EFAIL, t->path, "tensor %s holds a number that is not finite",
                           name);
    }
    *out = to;
    return 0;
}

void kv_tensors_text(const struct kv_tensors *t, const char *name, char *text, size_t room) {
    *text = 0;
    for (size_t i = 0; i < t->n_texts; i++)
        if (is(t->text[i].name, t->text[i].n_name, name))
            snprintf(text, room, "%.*s", (int)t->text[i].n_text, t->text[i].text);
}
