// SPDX-License-Identifier: Apache-2.0
// Tensors and texts of a safetensors file, read with plain C: an 8-byte length, a JSON header, raw
// numbers.
//
//     struct kv_tensors t;
//     if (kv_tensors_open(&t, "weights.safetensors", &e)) return e.code;
//     kv_tensors_take(&t, "bias", 1, (size_t[]){180}, &bias, &e);
//     kv_tensors_close(&t);
#ifndef KV_POLICIES_TENSORS_H
#define KV_POLICIES_TENSORS_H

#include "policies/policy.h"

enum { KV_TENSORS_MOST = 32, KV_TENSOR_DIMS = 4, KV_TENSOR_TEXTS = 24 };

struct kv_tensors_entry {
    const char *name;
    size_t n_name;
    char dtype[8]; // "F32", "U8", ...
    uint64_t shape[KV_TENSOR_DIMS], offsets[2];
    size_t n_dims, n_offsets;
};

struct kv_tensors {
    char path[256];
    char digest[17]; // FNV-1a of the file's bytes
    struct kv_tensors_entry tensor[KV_TENSORS_MOST];
    size_t n;
    struct {
        const char *name, *text;
        size_t n_name, n_text;
    } text[KV_TENSOR_TEXTS]; // of __metadata__
    size_t n_texts;
    unsigned char *bytes; // the file, owned
    const unsigned char *data;
    size_t n_data;
    float *block[KV_TENSORS_MOST]; // tensors taken, owned
    size_t n_blocks;
};

// Reads a file, or a copy of bytes that travel with the program (path: what they are called in
// messages). Errors: no such file, not safetensors, more tensors than KV_TENSORS_MOST.
KV_MUST_CHECK int kv_tensors_open(struct kv_tensors *t, const char *path, struct kv_error *e);
KV_MUST_CHECK int kv_tensors_read(struct kv_tensors *t, const char *path,
                                  const unsigned char *bytes, size_t n, struct kv_error *e);
void kv_tensors_close(struct kv_tensors *t); // one that failed to open is fine

bool kv_tensors_has(const struct kv_tensors *t, const char *name);
// A tensor's floats, which live as long as t. shape[n_dims]: what is expected, 0 = any but 0,
// filled in. Errors: it is missing, not F32, of another shape, lies outside the file, holds a
// number that is not finite; each names the tensor.
KV_MUST_CHECK int kv_tensors_take(struct kv_tensors *t, const char *name, size_t n_dims,
                                  size_t *shape, const float **x, struct kv_error *e);
// The same of a tensor of any type, whose numbers stay as they lie in the file: little-endian, at
// no alignment, `bytes` each (kv_little_endian).
KV_MUST_CHECK int kv_tensors_raw(const struct kv_tensors *t, const char *name, const char *dtype,
                                 size_t bytes, size_t n_dims, size_t *shape,
                                 const unsigned char **x, struct kv_error *e);
uint64_t kv_little_endian(const unsigned char *b, size_t n);
// How many dimensions a tensor has; 0 for one that is missing or has more than KV_TENSOR_DIMS.
size_t kv_tensors_dims(const struct kv_tensors *t, const char *name);
// A text of the metadata, cut to its room; "" where the file says nothing.
void kv_tensors_text(const struct kv_tensors *t, const char *name, char *text, size_t room);

#endif
