// SPDX-License-Identifier: Apache-2.0
// The safetensors format, read and written: an 8-byte length, a JSON header, then raw tensors.
//
// Format: https://github.com/huggingface/safetensors (header {"name": {"dtype", "shape",
// "data_offsets": [begin, end]}, "__metadata__": {string: string}}; offsets from the end of the
// header).
#ifndef KV_MODEL_SAFETENSORS_H
#define KV_MODEL_SAFETENSORS_H

#include "sim/base/files.h"

struct kv_tensor {
    char name[128];
    char dtype[8]; // "F32", "F16", "BF16", "U32", "U8", "I32", "F64", "I64", ...
    size_t n_dims;
    uint64_t dims[6];
    uint64_t offset, n_bytes; // from the start of the file once read or laid out
    const uint8_t *data;      // borrowed from the map; NULL when writing
};

struct kv_safetensors {
    struct kv_map map;
    size_t n;
    struct kv_tensor *tensors; // sorted by name
    size_t n_meta;
    char **meta_keys, **meta_values;
};

// Maps and checks a file: header length, JSON, offsets inside the file, sizes that match dtype x
// shape, no overlap. Errors name file and tensor.
KV_MUST_CHECK int kv_safetensors_open(struct kv_safetensors *s, const char *path,
                                      struct kv_error *e);
void kv_safetensors_close(struct kv_safetensors *s);
const struct kv_tensor *kv_safetensors_find(const struct kv_safetensors *s, const char *name);
const char *kv_safetensors_meta(const struct kv_safetensors *s, const char *key); // NULL = absent

// Bytes of one element of a dtype; 0 = unknown.
size_t kv_dtype_bytes(const char *dtype);

// Writing: lays the tensors out (sets offset and n_bytes of each from dtype and dims, data aligned
// to 64 bytes by padding the header with spaces) and returns header bytes to put at the start of
// the file. Write each tensor at its offset: those of wider elements come first, whatever their
// place in `tensors`, so that each is aligned to its element (readers of the format refuse holes).
// meta: n_meta pairs key, value, key, value. Caller frees *header. *total is the size of
// the whole file.
KV_MUST_CHECK int kv_safetensors_layout(struct kv_tensor *tensors, size_t n,
                                        const char *const *meta, size_t n_meta, char **header,
                                        size_t *header_bytes, uint64_t *total, struct kv_error *e);
#endif
