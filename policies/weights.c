// SPDX-License-Identifier: Apache-2.0
// Reading six tensors from a safetensors file: an 8-byte length, a JSON header, raw numbers.
#include "policies/weights.h"

#include <ctype.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { MAX_FILE_BYTES = 1 << 26, MAX_HEADER_BYTES = 1 << 20 };

static const char *const names[2 * KV_NET_LAYERS] = {"0.weight", "0.bias",   "2.weight",
                                                     "2.bias",   "4.weight", "4.bias"};

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

struct tensor {
    bool found, is_f32;
    uint64_t shape[2], offsets[2];
    size_t n_dims, n_offsets;
};

static bool is(const char *s, size_t n, const char *word) {
    return n == strlen(word) && memcmp(s, word, n) == 0;
}

static bool read_tensor(struct reader *r, struct tensor *t) {
    const char *s;
    size_t n;
    if (!take(r, '{')) return false;
    t->found = true;
    do {
        bool good = take_string(r, &s, &n) && take(r, ':');
        if (good && is(s, n, "dtype")) {
            good = take_string(r, &s, &n);
            t->is_f32 = good && is(s, n, "F32");
        } else if (good && is(s, n, "shape"))
            good = take_numbers(r, t->shape, 2, &t->n_dims);
        else if (good && is(s, n, "data_offsets"))
            good = take_numbers(r, t->offsets, 2, &t->n_offsets);
        else if (good)
            good = skip_value(r);
        if (!good) return false;
    } while (take(r, ','));
    return take(r, '}');
}

// Metadata are texts by name; `inputs` is kept, cut to its room.
static bool read_metadata(struct reader *r, char inputs[], size_t room) {
    const char *name, *s;
    size_t n_name, n;
    if (!take(r, '{')) return false;
    if (take(r, '}')) return true;
    do {
        if (!take_string(r, &name, &n_name) || !take(r, ':') || !take_string(r, &s, &n))
            return false;
        if (is(name, n_name, "inputs")) snprintf(inputs, room, "%.*s", (int)n, s);
    } while (take(r, ','));
    return take(r, '}');
}

static bool read_header(const char *text, size_t n_text, struct tensor tensors[],
                        struct kv_net *net) {
    struct reader r = {text, text + n_text};
    const char *s;
    size_t n;
    if (!take(&r, '{')) return false;
    if (take(&r, '}')) return true;
    do {
        if (!take_string(&r, &s, &n) || !take(&r, ':')) return false;
        struct tensor *t = NULL;
        for (size_t i = 0; i < 2 * KV_NET_LAYERS; i++)
            if (is(s, n, names[i])) t = &tensors[i];
        bool good = t                          ? read_tensor(&r, t)
                    : is(s, n, "__metadata__") ? read_metadata(&r, net->inputs, sizeof net->inputs)
                                               : skip_value(&r);
        if (!good) return false;
    } while (take(&r, ','));
    return take(&r, '}');
}

// ---- the file ----------------------------------------------------------------------------

static int read_file(const char *path, unsigned char **bytes, size_t *n, struct kv_error *e) {
    struct stat st;
    FILE *f = stat(path, &st) == 0 && S_ISREG(st.st_mode) ? fopen(path, "rb") : NULL;
    if (!f) return kv_fail(e, KV_EFAIL, path, "no such file, or it cannot be read");
    *bytes = malloc(MAX_FILE_BYTES);
    *n = *bytes ? fread(*bytes, 1, MAX_FILE_BYTES, f) : 0;
    bool whole = *bytes && feof(f) && !ferror(f);
    fclose(f);
    return whole ? 0
                 : kv_fail(e, KV_EFAIL, path, "cannot be read whole, or is above %d MB",
                           MAX_FILE_BYTES >> 20);
}

static uint64_t little_endian(const unsigned char *b, size_t n) {
    uint64_t x = 0;
    for (size_t i = n; i-- > 0;) x = x << 8 | b[i];
    return x;
}

static void digest(const unsigned char *b, size_t n, char out[17]) {
    uint64_t h = 0xCBF29CE484222325u; // FNV-1a, 64 bit
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 0x100000001B3u;
    snprintf(out, 17, "%016llx", (unsigned long long)h);
}

// Checks tensor i against the layers before it and returns how many floats it holds, 0 = wrong.
static size_t check_tensor(struct kv_net *net, size_t i, const struct tensor *t, size_t n_data,
                           const char *path, struct kv_error *e) {
    size_t l = i / 2, dims = i % 2 ? 1 : 2;
    const char *why = !t->found           ? "is missing"
                      : !t->is_f32        ? "is not F32"
                      : t->n_dims != dims ? "has another number of dimensions"
                      : t->n_offsets != 2 ? "has no data_offsets"
                                          : NULL;
    if (!why && i % 2 == 0) {
        if (l == 0) net->width[0] = t->shape[1];
        net->width[l + 1] = t->shape[0];
        if (t->shape[1] != net->width[l] || net->width[l] == 0 || t->shape[0] == 0 ||
            t->shape[0] > KV_NET_MAX_WIDTH || t->shape[1] > KV_NET_MAX_WIDTH)
            why = "does not fit the layer before it";
    }
    if (!why && i % 2 == 1 && t->shape[0] != net->width[l + 1]) why = "does not fit its weight";
    size_t n = why ? 0 : t->shape[0] * (i % 2 ? 1 : t->shape[1]);
    if (!why && (t->offsets[1] > n_data || t->offsets[0] > t->offsets[1] ||
                 t->offsets[1] - t->offsets[0] != n * sizeof(float)))
        why = "lies outside the file, or has another size than its shape says";
    if (!why) return n;
    kv_fail(e, KV_EFAIL, path, "tensor %s %s", names[i], why);
    return 0;
}

static int unpack(struct kv_net *net, const unsigned char *bytes, size_t n, const char *path,
                  struct kv_error *e) {
    struct tensor tensors[2 * KV_NET_LAYERS] = {{0}};
    uint64_t header = n < 8 ? UINT64_MAX : little_endian(bytes, 8);
    if (header > MAX_HEADER_BYTES || header > n - 8 ||
        !read_header((const char *)bytes + 8, header, tensors, net))
        return kv_fail(e, KV_EFAIL, path, "is not a safetensors file");
    const unsigned char *data = bytes + 8 + header;
    size_t floats[2 * KV_NET_LAYERS], total = 0;
    for (size_t i = 0; i < 2 * KV_NET_LAYERS; i++) {
        floats[i] = check_tensor(net, i, &tensors[i], n - 8 - header, path, e);
        if (floats[i] == 0) return KV_EFAIL;
        total += floats[i];
    }
    float *to = net->block = malloc(total * sizeof *to);
    if (!to) return kv_fail(e, KV_ENOMEM, path, "out of memory");
    for (size_t i = 0; i < 2 * KV_NET_LAYERS; i++) {
        *(i % 2 ? &net->bias[i / 2] : &net->weight[i / 2]) = to;
        for (size_t k = 0; k < floats[i]; k++, to++) {
            uint32_t bits = (uint32_t)little_endian(data + tensors[i].offsets[0] + 4 * k, 4);
            memcpy(to, &bits, sizeof *to);
            if (!isfinite(*to))
                return kv_fail(e, KV_EFAIL, path, "tensor %s holds a number that is not finite",
                               names[i]);
        }
    }
    return 0;
}

int kv_net_open(struct kv_net *net, const char *path, struct kv_error *e) {
    unsigned char *bytes = NULL;
    size_t n = 0;
    *net = (struct kv_net){0};
    int rc = read_file(path, &bytes, &n, e);
    if (rc == 0) {
        digest(bytes, n, net->digest);
        rc = unpack(net, bytes, n, path, e);
    }
    free(bytes);
    if (rc) kv_net_close(net);
    return rc;
}

void kv_net_close(struct kv_net *net) {
    free(net->block);
    net->block = NULL;
}
