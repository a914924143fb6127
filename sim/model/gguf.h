// SPDX-License-Identifier: Apache-2.0
// A GGUF file as it lies on the disk: pairs of metadata and entries of tensors, checked, with those
// of a split file's other parts. What they mean is gguf.c's.
//
//     struct kv_gguf g = {.path = path};
//     int rc = kv_gguf_open(&g, e);
//     if (!rc) rc = kv_gguf_u32(&g, "llama.block_count", false, &n_layers, e);
//     kv_gguf_close(&g); // also after an error
//
// All calls return 0 or a negative code and name file and byte in *e.
#ifndef KV_MODEL_GGUF_H
#define KV_MODEL_GGUF_H

#include "sim/base/files.h"
#include "sim/model/architecture.h"

// Types of metadata values, by the format's numbers.
enum kv_gguf_type {
    KV_GGUF_U8,
    KV_GGUF_I8,
    KV_GGUF_U16,
    KV_GGUF_I16,
    KV_GGUF_U32,
    KV_GGUF_I32,
    KV_GGUF_F32,
    KV_GGUF_BOOL,
    KV_GGUF_STRING,
    KV_GGUF_ARRAY,
    KV_GGUF_U64,
    KV_GGUF_I64,
    KV_GGUF_F64,
    KV_GGUF_N_TYPES
};

struct kv_gguf_text {
    const char *s; // in the map, not NUL-terminated
    size_t n;
};

struct kv_gguf_pair {
    struct kv_gguf_text key;
    uint32_t type, element; // element: of an array
    uint64_t count;         // of an array
    size_t at;              // of the value in the file
};

struct kv_gguf_tensor {
    char name[128];
    char type[16];
    size_t rows, cols;
    uint64_t offset;
    const uint8_t *data;
    const char *path; // of the file that holds it
    bool used;
};

struct kv_gguf {
    const char *path;
    const struct kv_architecture *architecture;
    struct kv_map map;
    size_t at; // what is read next
    uint32_t version;
    size_t n_pairs, n_entries;
    struct kv_gguf_pair *pairs;
    struct kv_gguf_tensor *entries; // sorted by name
    struct kv_gguf *parts;          // the further files of a split model, [n_parts]
    char **part_paths, *first_path; // first_path: where another part was named
    size_t n_parts;
};

// Opens and checks the file and, of a split one (NAME-00001-of-00003.gguf), all other parts,
// whichever is named: g->path is the first's then. Refused: truncated files, counts that lie, keys
// or tensors that stand twice, tensors that overlap, another alignment than the format allows.
// (gguf_parts.c)
KV_MUST_CHECK int kv_gguf_open(struct kv_gguf *g, struct kv_error *e);
void kv_gguf_close(struct kv_gguf *g);
// Reads and checks what g->map holds: one file, whatever parts there are. (gguf_file.c)
KV_MUST_CHECK int kv_gguf_read(struct kv_gguf *g, struct kv_error *e);

// Fails at a byte of the file.
KV_PRINTF(4, 5)
int kv_gguf_fail(const struct kv_gguf *g, size_t at, struct kv_error *e, const char *format, ...);
// The pair of a key; NULL when there is none.
const struct kv_gguf_pair *kv_gguf_find(const struct kv_gguf *g, const char *key);
// The value of a key as a whole number of any width, a positive number, a text (NUL-terminated and
// cut to room). Absent: an error unless optional, and the target keeps its value.
KV_MUST_CHECK int kv_gguf_u32(const struct kv_gguf *g, const char *key, bool optional, uint32_t *x,
                              struct kv_error *e);
KV_MUST_CHECK int kv_gguf_float(const struct kv_gguf *g, const char *key, bool optional, float *x,
                                struct kv_error *e);
KV_MUST_CHECK int kv_gguf_string(const struct kv_gguf *g, const char *key, bool optional, char *buf,
                                 size_t room, struct kv_error *e);
// The texts of a list, NUL-terminated, in one block behind the pointers. Caller frees *list.
KV_MUST_CHECK int kv_gguf_strings(const struct kv_gguf *g, const char *key, const char ***list,
                                  size_t *n, struct kv_error *e);
// The value of any number; NAN for texts and lists.
double kv_gguf_number(const struct kv_gguf *g, const struct kv_gguf_pair *p);
// Whether a key is there and true.
bool kv_gguf_true(const struct kv_gguf *g, const char *key);
// Fills x[n] from a list of 32-bit whole numbers of n elements; false when it is not that.
bool kv_gguf_int_list(const struct kv_gguf *g, const char *key, int32_t *x, size_t n);
// The tensor of a name; NULL when there is none.
struct kv_gguf_tensor *kv_gguf_tensor_named(const struct kv_gguf *g, const char *name);

// Sets m->tokenizer from the file's metadata (gguf_tokenizer.c). Errors name the key.
struct kv_model;
KV_MUST_CHECK int kv_gguf_tokenizer(struct kv_model *m, const struct kv_gguf *g,
                                    struct kv_error *e);

#endif
