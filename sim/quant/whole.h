// SPDX-License-Identifier: Apache-2.0
// Formats that look at a whole K or V of a layer (KV_SCOPE_TENSOR): what code.c does for them.
//
// Rows of a branch are cut into tensors: the prompt is one; after it, `gathers` tokens are. Cells
// that hold a width of the format are coded, the others (float32, evicted) are left alone.
#ifndef KV_QUANT_WHOLE_H
#define KV_QUANT_WHOLE_H

#include "sim/quant/code.h"

// A copy of rows [from, to) of r->x, in the format's order: [to - from][n_kv_heads][head_dim].
// Caller frees.
float *kv_whole_gather(const struct kv_format *f, const struct kv_vectors *r, size_t from,
                       size_t to);
// Codes and decodes those rows from the copy into r->y, whose other cells stay as they are, and
// counts codes as kv_code_rows does. Decisions must be valid.
void kv_whole_code(const struct kv_format *f, const struct kv_vectors *r, const float *x,
                   size_t from, size_t to, uint64_t *histogram);
// Adds what rows [from, to) take to the bits of codes, metadata and bytes.
void kv_whole_count(const struct kv_format *f, const struct kv_vectors *r, size_t from, size_t to,
                    struct kv_bits *bits);

#endif
