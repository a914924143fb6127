// SPDX-License-Identifier: Apache-2.0
// Loads a model from a GGUF file: metadata, tokenizer and tensors, each count
// checked against the file's size before it is believed.
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3).
#include <inttypes.h>
#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/model/model.h"
#include "sim/model/weights.h"

#define DEFAULT_ALIGNMENT 32
#define MAX_TENSOR_DIMS 4
// The least a metadata pair and a tensor's entry can occupy: what bounds their counts.
#define LEAST_PAIR_BYTES 13
#define LEAST_ENTRY_BYTES 24

// Types of metadata values, by the format's numbers.
enum value_type {
    V_U8,
    V_I8,
    V_U16,
    V_I16,
    V_U32,
    V_I32,
    V_F32,
    V_BOOL,
    V_STRING,
    V_ARRAY,
    V_U64,
    V_I64,
    V_F64,
    N_VALUE_TYPES
};
static const uint8_t value_bytes[N_VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

// Pre-tokenizers whose pattern is ours: GPT-2's, for some after setting each digit apart
// (llm_tokenizer_bpe in llama.cpp's src/llama-vocab.cpp).
struct pre_tokenizer {
    const char *name;
    bool split_digits;
};
static const struct pre_tokenizer pre_tokenizers[] = {
    {"smollm", true},    {"starcoder", true}, {"refact", true},
    {"command-r", true}, {"codeshell", true}, {"gpt-2", false},
};
#define PRE_TOKENIZERS "smollm, starcoder, refact, command-r, codeshell, gpt-2"

struct text {
    const char *s; // in the map, not NUL-terminated
    size_t n;
};

struct pair {
    struct text key;
    uint32_t type, element; // element: of an array
    uint64_t count;         // of an array
    size_t at;              // of the value in the file
};

struct entry {
    char name[128];
    char type[16];
    size_t rows, cols;
    uint64_t offset;
    const uint8_t *data;
    bool used;
};

struct gguf {
    const char *path;
    const struct kv_architecture *architecture;
    struct kv_map map;
    size_t at; // what is read next
    uint32_t version;
    size_t n_pairs, n_entries;
    struct pair *pairs;
    struct entry *entries; // sorted by name
};

// ---- reading --------------------------------------------------------------------------

// "file: byte N", the end of a path too long for a message being its telling part.
static const char *place(char where[192], const char *path, size_t at) {
    size_t n = strlen(path);
    snprintf(where, 192, "%s%s: byte %zu", n > 150 ? "..." : "", n > 150 ? path + n - 147 : path,
             at);
    return where;
}

KV_PRINTF(4, 5)
static int fail_at(const struct gguf *g, size_t at, struct kv_error *e, const char *format, ...) {
    char where[192], text[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return kv_fail(e, KV_EFAIL, place(where, g->path, at), "%s", text);
}

static int need(struct gguf *g, uint64_t bytes, const char *what, struct kv_error *e) {
    if (bytes <= g->map.n - g->at) return KV_OK;
    return fail_at(g, g->at, e,
                   "%s needs %" PRIu64 " bytes, but the file ends after %zu: it is "
                   "truncated or its header lies",
                   what, bytes, g->map.n - g->at);
}

static uint64_t little_endian(const uint8_t *p, size_t bytes) {
    uint64_t x = 0;
    for (size_t i = bytes; i-- > 0;) x = x << 8 | p[i];
    return x;
}

static int read_number(struct gguf *g, size_t bytes, const char *what, uint64_t *x,
                       struct kv_error *e) {
    int rc = need(g, bytes, what, e);
    if (rc) return rc;
    *x = little_endian(g->map.data + g->at, bytes);
    g->at += bytes;
    return KV_OK;
}

static int read_u32(struct gguf *g, const char *what, uint32_t *x, struct kv_error *e) {
    uint64_t wide = 0;
    int rc = read_number(g, 4, what, &wide, e);
    *x = (uint32_t)wide;
    return rc;
}

static int read_text(struct gguf *g, const char *what, struct text *t, struct kv_error *e) {
    uint64_t n = 0;
    int rc = read_number(g, 8, what, &n, e);
    if (!rc) rc = need(g, n, what, e);
    if (rc) return rc;
    *t = (struct text){(const char *)g->map.data + g->at, (size_t)n};
    g->at += (size_t)n;
    return KV_OK;
}

// Skips n values of a type that is no array.
static int skip_values(struct gguf *g, uint32_t type, uint64_t n, const char *what,
                       struct kv_error *e) {
    if (type == V_STRING) {
        struct text t;
        int rc = KV_OK;
        if (n > (g->map.n - g->at) / 8) return need(g, UINT64_MAX, what, e);
        for (uint64_t i = 0; i < n && !rc; i++) rc = read_text(g, what, &t, e);
        return rc;
    }
    uint64_t bytes;
    if (__builtin_mul_overflow(n, (uint64_t)value_bytes[type], &bytes)) bytes = UINT64_MAX;
    int rc = need(g, bytes, what, e);
    if (!rc) g->at += (size_t)bytes;
    return rc;
}

static int read_pair(struct gguf *g, struct pair *p, struct kv_error *e) {
    int rc = read_text(g, "a metadata key", &p->key, e);
    if (!rc) rc = read_u32(g, "the type of a metadata value", &p->type, e);
    if (rc) return rc;
    char what[96];
    snprintf(what, sizeof what, "the value of %.*s", p->key.n < 64 ? (int)p->key.n : 64, p->key.s);
    if (p->type >= N_VALUE_TYPES)
        return fail_at(g, g->at - 4, e, "%s has type %u, which the format does not know", what,
                       p->type);
    p->at = g->at;
    if (p->type != V_ARRAY) return skip_values(g, p->type, 1, what, e);
    rc = read_u32(g, what, &p->element, e);
    if (!rc) rc = read_number(g, 8, what, &p->count, e);
    if (rc) return rc;
    if (p->element >= N_VALUE_TYPES || p->element == V_ARRAY)
        return fail_at(g, p->at, e, "%s is a list of type %u, which is not read", what, p->element);
    p->at = g->at;
    return skip_values(g, p->element, p->count, what, e);
}

static int read_entry(struct gguf *g, struct entry *t, struct kv_error *e) {
    struct text name;
    size_t at = g->at;
    int rc = read_text(g, "a tensor's name", &name, e);
    if (rc) return rc;
    if (name.n == 0 || name.n >= sizeof t->name || memchr(name.s, 0, name.n))
        return fail_at(g, at, e, "a tensor's name has %zu bytes; 1 to %zu are read", name.n,
                       sizeof t->name - 1);
    memcpy(t->name, name.s, name.n);
    uint32_t n_dims = 0, type = 0;
    rc = read_u32(g, "a tensor's number of dimensions", &n_dims, e);
    if (!rc && (n_dims == 0 || n_dims > MAX_TENSOR_DIMS))
        rc = fail_at(g, g->at - 4, e, "tensor %s has %u dimensions; 1 to %u are read", t->name,
                     n_dims, MAX_TENSOR_DIMS);
    if (rc) return rc;
    uint64_t rows = 1, cols = 1;
    for (uint32_t i = 0; i < n_dims && !rc; i++) {
        uint64_t dim = 0;
        rc = read_number(g, 8, "a tensor's dimension", &dim, e);
        if (!rc &&
            (i == 0 ? (cols = dim, dim > INT64_MAX) : __builtin_mul_overflow(rows, dim, &rows)))
            rc = fail_at(g, g->at - 8, e,
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
static int check_entry(const struct gguf *g, struct entry *t, size_t data_begin, uint64_t alignment,
                       struct kv_error *e) {
    const struct kv_weight_type *type = kv_weight_type_named(t->type);
    uint64_t bytes = 0, begin, end;
    if (type && t->cols % type->block_values)
        return fail_at(g, data_begin, e,
                       "tensor %s has rows of %zu, no multiple of the %u values "
                       "in a block of %s",
                       t->name, t->cols, type->block_values, t->type);
    if (t->offset % alignment)
        return fail_at(g, data_begin, e,
                       "tensor %s lies at offset %" PRIu64
                       ", no multiple of the alignment %" PRIu64,
                       t->name, t->offset, alignment);
    bool lies = type && (__builtin_mul_overflow((uint64_t)(t->cols / type->block_values),
                                                (uint64_t)type->block_bytes, &bytes) ||
                         __builtin_mul_overflow(bytes, (uint64_t)t->rows, &bytes));
    lies = lies || __builtin_add_overflow((uint64_t)data_begin, t->offset, &begin) ||
           __builtin_add_overflow(begin, bytes, &end) || end > g->map.n;
    if (lies)
        return fail_at(g, data_begin, e,
                       "tensor %s (%zu rows of %zu, %s) ends after the file's "
                       "%zu bytes: the file is truncated or its header lies",
                       t->name, t->rows, t->cols, t->type, g->map.n);
    t->data = g->map.data + begin;
    return KV_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static const struct pair *find_pair(const struct gguf *g, const char *key) {
    size_t n = strlen(key);
    for (size_t i = 0; i < g->n_pairs; i++)
        if (g->pairs[i].key.n == n && memcmp(g->pairs[i].key.s, key, n) == 0) return &g->pairs[i];
    return NULL;
}

static int read_header(struct gguf *g, struct kv_error *e) {
    if (g->map.n < 4 || memcmp(g->map.data, "GGUF", 4) != 0)
        return fail_at(g, 0, e, "this is no GGUF file: it does not begin with \"GGUF\"");
    g->at = 4;
    uint64_t n_entries = 0, n_pairs = 0;
    int rc = read_u32(g, "the version", &g->version, e);
    if (!rc && g->version != 2 && g->version != 3)
        rc = fail_at(g, 4, e,
                     g->version & 0xFFFF ? "GGUF version %u is not read; 2 and 3 are"
                                         : "GGUF version %u is that of a big-endian file, "
                                           "which is not read",
                     g->version);
    if (!rc) rc = read_number(g, 8, "the number of tensors", &n_entries, e);
    if (!rc) rc = read_number(g, 8, "the number of metadata pairs", &n_pairs, e);
    if (rc) return rc;
    size_t left = g->map.n - g->at;
    if (n_entries > left / LEAST_ENTRY_BYTES)
        return fail_at(g, 8, e,
                       "the header claims %" PRIu64 " tensors, more than the file's %zu "
                       "bytes can describe",
                       n_entries, g->map.n);
    if (n_pairs > left / LEAST_PAIR_BYTES)
        return fail_at(g, 16, e,
                       "the header claims %" PRIu64 " metadata pairs, more than the "
                       "file's %zu bytes can hold",
                       n_pairs, g->map.n);
    g->pairs = kv_alloc((size_t)n_pairs + 1, sizeof *g->pairs);
    g->entries = kv_alloc((size_t)n_entries + 1, sizeof *g->entries);
    for (; g->n_pairs < n_pairs && !rc; g->n_pairs++) rc = read_pair(g, &g->pairs[g->n_pairs], e);
    for (; g->n_entries < n_entries && !rc; g->n_entries++)
        rc = read_entry(g, &g->entries[g->n_entries], e);
    return rc;
}

static int place_tensors(struct gguf *g, struct kv_error *e) {
    uint64_t alignment = DEFAULT_ALIGNMENT;
    const struct pair *p = find_pair(g, "general.alignment");
    if (p && p->type == V_U32) alignment = little_endian(g->map.data + p->at, 4);
    if (alignment == 0 || (alignment & (alignment - 1)) || alignment > 1u << 20)
        return fail_at(g, p->at, e, "general.alignment is %" PRIu64 ", no power of two up to 2^20",
                       alignment);
    size_t begin = (g->at + alignment - 1) / alignment * alignment;
    for (size_t i = 0; i < g->n_entries; i++) {
        int rc = check_entry(g, &g->entries[i], begin, alignment, e);
        if (rc) return rc;
    }
    qsort(g->entries, g->n_entries, sizeof *g->entries, by_name);
    for (size_t i = 1; i < g->n_entries; i++)
        if (strcmp(g->entries[i - 1].name, g->entries[i].name) == 0)
            return fail_at(g, begin, e, "tensor %s is named twice", g->entries[i].name);
    return KV_OK;
}

// ---- metadata -------------------------------------------------------------------------

static int wrong_type(const struct gguf *g, const struct pair *p, const char *expected,
                      struct kv_error *e) {
    return fail_at(g, p->at, e, "%.*s should be %s", (int)(p->key.n < 100 ? p->key.n : 100),
                   p->key.s, expected);
}

static int missing(const struct gguf *g, const char *key, struct kv_error *e) {
    return kv_fail(e, KV_EFAIL, g->path, "the metadata lack %s", key);
}

// A whole number of any width. Absent: *x keeps its value when `optional`.
static int get_u32(const struct gguf *g, const char *key, bool optional, uint32_t *x,
                   struct kv_error *e) {
    const struct pair *p = find_pair(g, key);
    if (!p) return optional ? KV_OK : missing(g, key, e);
    bool whole = p->type <= V_I32 || p->type == V_U64 || p->type == V_I64;
    uint64_t value = whole ? little_endian(g->map.data + p->at, value_bytes[p->type]) : 0;
    if (!whole || value > UINT32_MAX)
        return wrong_type(g, p, "one whole number that fits 32 bits", e);
    *x = (uint32_t)value;
    return KV_OK;
}

static int get_float(const struct gguf *g, const char *key, bool optional, float *x,
                     struct kv_error *e) {
    const struct pair *p = find_pair(g, key);
    if (!p) return optional ? KV_OK : missing(g, key, e);
    if (p->type == V_F32) {
        memcpy(x, g->map.data + p->at, 4);
    } else if (p->type == V_F64) {
        double wide;
        memcpy(&wide, g->map.data + p->at, 8);
        *x = (float)wide;
    } else {
        return wrong_type(g, p, "a floating-point number", e);
    }
    return isfinite(*x) && *x > 0 ? KV_OK : wrong_type(g, p, "a positive number", e);
}

// Keys about the model begin with the architecture's name: "llama.block_count".
#define KEY_BYTES 96
static const char *key_of(const struct gguf *g, char key[KEY_BYTES], const char *name) {
    snprintf(key, KEY_BYTES, "%s.%s", g->architecture->name[KV_LAYOUT_GGUF], name);
    return key;
}

static int need_size(const struct gguf *g, const char *name, uint32_t *x, struct kv_error *e) {
    char key[KEY_BYTES];
    return get_u32(g, key_of(g, key, name), false, x, e);
}

static int may_have_size(const struct gguf *g, const char *name, uint32_t *x, struct kv_error *e) {
    char key[KEY_BYTES];
    return get_u32(g, key_of(g, key, name), true, x, e);
}

// A text, NUL-terminated in buf (cut when it is longer). Absent: buf keeps its value.
static int get_text(const struct gguf *g, const char *key, bool optional, char *buf, size_t room,
                    struct kv_error *e) {
    const struct pair *p = find_pair(g, key);
    if (!p) return optional ? KV_OK : missing(g, key, e);
    if (p->type != V_STRING) return wrong_type(g, p, "a text", e);
    size_t n = (size_t)little_endian(g->map.data + p->at, 8);
    n = n < room ? n : room - 1;
    memcpy(buf, g->map.data + p->at + 8, n);
    buf[n] = 0;
    return KV_OK;
}

static int read_shape(struct kv_model *m, const struct gguf *g, struct kv_error *e) {
    struct kv_shape *s = &m->shape;
    const struct pair *tokens = find_pair(g, "tokenizer.ggml.tokens");
    s->vocab = tokens && tokens->type == V_ARRAY && tokens->count <= UINT32_MAX
                   ? (uint32_t)tokens->count
                   : 0;
    m->rope_base = 10000; // llama.cpp's default where the key is absent
    uint32_t experts = 0, rotated = 0;
    char key[KEY_BYTES];
    int rc = need_size(g, "block_count", &s->n_layers, e);
    if (!rc) rc = need_size(g, "embedding_length", &s->hidden, e);
    if (!rc) rc = need_size(g, "feed_forward_length", &s->ffn, e);
    if (!rc) rc = need_size(g, "attention.head_count", &s->n_heads, e);
    s->n_kv_heads = s->n_heads;
    if (!rc) rc = may_have_size(g, "attention.head_count_kv", &s->n_kv_heads, e);
    s->head_dim = s->n_heads ? s->hidden / s->n_heads : 0;
    if (!rc) rc = may_have_size(g, "attention.key_length", &s->head_dim, e);
    if (!rc) rc = need_size(g, "context_length", &s->max_tokens, e);
    if (!rc) rc = may_have_size(g, "expert_count", &experts, e);
    key_of(g, key, "attention.layer_norm_rms_epsilon");
    if (!rc) rc = get_float(g, key, false, &m->rms_eps, e);
    if (!rc) rc = get_float(g, key_of(g, key, "rope.freq_base"), true, &m->rope_base, e);
    if (!rc) rc = kv_weights_check_shape(s, g->path, e);
    rotated = s->head_dim;
    if (!rc) rc = may_have_size(g, "rope.dimension_count", &rotated, e);
    uint32_t value_length = s->head_dim;
    if (!rc) rc = may_have_size(g, "attention.value_length", &value_length, e);
    if (rc) return rc;
    if (experts)
        return kv_fail(e, KV_EFAIL, g->path, "%s is %u, but mixtures of experts are not computed",
                       key_of(g, key, "expert_count"), experts);
    if (rotated != s->head_dim || value_length != s->head_dim)
        return kv_fail(e, KV_EFAIL, g->path,
                       "heads of %u channels rotate %u of them and hold values of %u; only heads "
                       "of one size, rotated whole, are computed",
                       s->head_dim, rotated, value_length);
    return KV_OK;
}

static int find_architecture(struct gguf *g, struct kv_error *e) {
    char name[64], scaling[32] = "none", key[KEY_BYTES];
    int rc = get_text(g, "general.architecture", false, name, sizeof name, e);
    if (!rc)
        rc = kv_architecture_find(&g->architecture, KV_LAYOUT_GGUF, name, "general.architecture",
                                  g->path, e);
    if (rc) return rc;
    rc = get_text(g, key_of(g, key, "rope.scaling.type"), true, scaling, sizeof scaling, e);
    if (!rc && strcmp(scaling, "none") != 0)
        rc =
            kv_fail(e, KV_EFAIL, g->path, "%s is %s; only unscaled RoPE is computed", key, scaling);
    return rc;
}

// ---- tokenizer ------------------------------------------------------------------------

// The texts of a list, NUL-terminated, in one block behind the pointers. Caller frees *list.
static int get_list(const struct gguf *g, const char *key, const char ***list, size_t *n,
                    struct kv_error *e) {
    *list = NULL;
    const struct pair *p = find_pair(g, key);
    if (!p) return missing(g, key, e);
    if (p->type != V_ARRAY || p->element != V_STRING) return wrong_type(g, p, "a list of texts", e);
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
            return fail_at(g, at, e, "%s[%zu] holds a zero byte", key, i);
        }
        (*list)[i] = memcpy(block, g->map.data + at + 8, length);
        block[length] = 0;
        block += length + 1;
        at += 8 + length;
    }
    return KV_OK;
}

static int load_tokenizer(struct kv_model *m, const struct gguf *g, struct kv_error *e) {
    char model[32], pre[32];
    int rc = get_text(g, "tokenizer.ggml.model", false, model, sizeof model, e);
    if (!rc && strcmp(model, "gpt2") != 0)
        rc = kv_fail(e, KV_EFAIL, g->path,
                     "tokenizer.ggml.model is %s; only gpt2 (byte-level BPE) is read", model);
    if (!rc) rc = get_text(g, "tokenizer.ggml.pre", false, pre, sizeof pre, e);
    if (rc) return rc;
    const struct pre_tokenizer *known = NULL;
    for (size_t i = 0; i < sizeof pre_tokenizers / sizeof *pre_tokenizers; i++)
        if (strcmp(pre_tokenizers[i].name, pre) == 0) known = &pre_tokenizers[i];
    if (!known)
        return kv_fail(
            e, KV_EFAIL, g->path,
            "tokenizer.ggml.pre is %s, whose pattern is not known; supported: " PRE_TOKENIZERS,
            pre);
    const struct pair *bos = find_pair(g, "tokenizer.ggml.add_bos_token");
    if (bos && bos->type == V_BOOL && g->map.data[bos->at])
        return fail_at(g, bos->at, e,
                       "tokenizer.ggml.add_bos_token is true, but texts are scored without BOS");
    const char **tokens, **merges = NULL;
    size_t n_tokens = 0, n_merges = 0;
    rc = get_list(g, "tokenizer.ggml.tokens", &tokens, &n_tokens, e);
    if (!rc) rc = get_list(g, "tokenizer.ggml.merges", &merges, &n_merges, e);
    if (!rc) {
        rc = kv_tokenizer_new(&m->tokenizer, tokens, n_tokens, merges, n_merges,
                              known->split_digits, e);
        if (rc && e) snprintf(e->where, sizeof e->where, "%.190s", g->path);
    }
    free(tokens);
    free(merges);
    return rc;
}

// ---- the model ------------------------------------------------------------------------

static struct entry *find_entry(const struct gguf *g, const char *name) {
    struct entry key = {0};
    snprintf(key.name, sizeof key.name, "%s", name);
    return bsearch(&key, g->entries, g->n_entries, sizeof *g->entries, by_name);
}

static bool find_source(void *self, const char *name, struct kv_weight_source *source) {
    const struct gguf *g = self;
    struct entry *t = find_entry(g, name);
    if (!t) return false;
    t->used = true;
    *source = (struct kv_weight_source){g->path, t->type, t->data, t->rows, t->cols};
    return true;
}

// A tensor nobody asked for is a bias, a scaled RoPE or another thing the forward pass would miss.
static int check_all_used(const struct gguf *g, struct kv_error *e) {
    for (size_t i = 0; i < g->n_entries; i++)
        if (!g->entries[i].used)
            return kv_fail(e, KV_EFAIL, g->path,
                           "tensor %s is not part of the %s architecture as computed here",
                           g->entries[i].name, g->architecture->title);
    return KV_OK;
}

int kv_gguf_load(struct kv_model *m, const char *path, enum kv_weights_as as, struct kv_error *e) {
    struct gguf g = {.path = path};
    int rc = kv_map_open(&g.map, path, e);
    if (!rc) rc = read_header(&g, e);
    if (!rc) rc = find_architecture(&g, e);
    if (!rc) rc = place_tensors(&g, e);
    if (!rc) rc = read_shape(m, &g, e);
    if (rc) goto done;

    m->architecture = g.architecture;
    m->order = g.architecture->order[KV_LAYOUT_GGUF];
    m->tied = find_entry(&g, "output.weight") == NULL;
    struct kv_weight_file file = {KV_LAYOUT_GGUF, path, &g, find_source};
    const char *main_type = "";
    rc = kv_weights_load(m, &file, as, &main_type, e);
    if (!rc) rc = check_all_used(&g, e);
    if (!rc) rc = load_tokenizer(m, &g, e);
    const char *base = strrchr(path, '/');
    snprintf(m->name, sizeof m->name, "%.95s", base ? base + 1 : path);
    if (!rc) rc = get_text(&g, "general.name", true, m->name, sizeof m->name, e);
    if (rc) goto done;
    snprintf(m->source, sizeof m->source, "GGUF v%u (%s)", g.version, main_type);
    kv_hex64(kv_hash(g.map.data, g.map.n, 0), m->digest);
done:
    free(g.pairs);
    free(g.entries);
    kv_map_close(&g.map);
    return rc;
}
