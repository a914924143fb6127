// SPDX-License-Identifier: Apache-2.0
// How a page lays out one head's keys or values, and what an attention kernel is handed.
#ifndef KV_CACHE_LAYOUT_H
#define KV_CACHE_LAYOUT_H

#include "sim/cache/cache.h"

#define KV_KEY_TILE 16 // tokens whose key words are interleaved

// One side of one head in a page, 64 tokens. A word is 32 bits of a unit's code stream.
//   keys, bits < 16:   codes[4 tiles][words][16 tokens] u32    bits = 16: [4][head_dim][16] u16
//   values, bits < 16: codes[64 tokens][words] u32             bits = 16: [64][head_dim] u16
//   scales and minima: [n_groups][64] fp16
struct kv_side_layout {
    uint8_t bits, port; // port: index into kv_port_bits
    bool has_min;
    bool centred; // stored codes are code + 2^(bits - 1)
    uint32_t n_groups, words;
    uint32_t unit_bytes, meta_bytes;  // of the format's unit: metadata, then the code stream
    uint32_t scale_at, min_at, bytes; // offsets from the codes; size, a multiple of 64
};

struct kv_attend_job {
    const struct kv_side_layout *layout[2];
    uint32_t heads, dim;
    const float *query;     // [heads][dim], already times 1/sqrt(dim)
    uint8_t *const *pages;  // the class's pages, from the first one of this job
    size_t at[2];           // offset of this head's K and V inside a page
    uint32_t n;             // tokens, from the first page's first slot on
    float *max, *sum, *out; // [heads], [heads], [heads][dim]: updated
};
typedef void kv_attend_fn(const struct kv_attend_job *j);

// The kernel for a level of kv_attend_kernels.
kv_attend_fn *kv_attend_kernel(size_t level);

#endif
