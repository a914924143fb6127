// SPDX-License-Identifier: Apache-2.0
// How a page lays out one head's keys or values, and what an attention kernel is handed.
#ifndef KV_CACHE_LAYOUT_H
#define KV_CACHE_LAYOUT_H

#include "sim/cache/cache.h"

#define KV_KEY_TILE 16 // tokens whose key words are interleaved

// One side of one head in a page, 64 tokens. Codes lie in one or two bit planes: the low
// plane[0] bits of a code (2, 4 or 8) in the one, the high plane[1] bits (1, 2 or none) in the
// other. A word is 32 bits of one token's plane.
//   keys, bits < 16:   planes[words of the plane by 4 tiles: [tile][word][16 tokens]] u32
//   values, bits < 16: planes[words of the plane: [64 tokens][word]] u32
//   16 bits:           keys [4 tiles][head_dim][16 tokens] u16, values [64][head_dim] u16
//   scales and minima: [n_groups][64] fp16
// Word w of the low plane, a bits a code, holds codes [32/a w, 32/a (w + 1)), lowest first, as the
// format's own stream does. Word w / r of the high plane, b bits a code, r = a / b, holds the rest
// of the codes of r low words: that of code i of word w, whose place in its half word is
// j = i mod 16/a, lies at bit 16 (i div 16/a) + b ((w mod r) 16/a + j). So a pair of codes that one
// shift and mask takes from the halves of a low word has its high bits in the two halves, too.
struct kv_side_layout {
    uint8_t bits, port; // port: index into kv_port_bits
    uint8_t plane[2];   // bits of a code in each plane
    bool has_min;
    bool centred; // stored codes are code + 2^(bits - 1)
    uint32_t n_groups, words[2];
    uint32_t unit_bytes, meta_bytes;           // of the format's unit: metadata, the code stream
    uint32_t high_at, scale_at, min_at, bytes; // offsets from the codes; size, a multiple of 64
};

// Stores a unit as the format coded it into slot t (0..63) of a block, and gets it back.
void kv_cell_store(const struct kv_side_layout *l, enum kv_side side, uint8_t *block, uint32_t t,
                   const uint8_t *unit, uint32_t dim);
void kv_cell_load(const struct kv_side_layout *l, enum kv_side side, const uint8_t *block,
                  uint32_t t, uint8_t *unit, uint32_t dim);

struct kv_cell_page {
    uint8_t *data;      // [64] u16: which token of the span a slot holds; then [members] blocks
    uint16_t low, high; // its tokens lie within these, counted in the span
    bool consecutive;   // slots hold consecutive tokens
};

// Keys or values of one width in a span of a stream.
struct kv_cell_run {
    uint32_t n, n_pages;
    struct kv_cell_page *pages;
};
#define KV_PAGE_HEAD (KV_PAGE_TOKENS * 2)
static inline uint16_t *kv_slot_token(const struct kv_cell_run *run, uint32_t slot) {
    return (uint16_t *)run->pages[slot / KV_PAGE_TOKENS].data + slot % KV_PAGE_TOKENS;
}

struct kv_token_span {
    struct kv_cell_run runs[2][KV_PORT_WIDTHS];
};

// Attention of the query heads of one KV head over tokens [first, end) of a span, joined to what
// max, sum, out and weighted hold.
struct kv_attend_job {
    const struct kv_side_layout (*layouts)[KV_PORT_WIDTHS]; // [2]
    const struct kv_token_span *span;
    size_t member; // which block of a page
    uint32_t first, end;
    // What the same thread attends to next: its first pages are asked for. NULL: nothing.
    const struct kv_attend_job *next;
    uint32_t heads, dim;
    const float *query;                // [heads][dim], already times 1/sqrt(dim)
    float *max, *sum, *weighted, *out; // [heads] x 3, [heads][dim]; struct kv_partial
    float *oldest;                     // [heads] score of the span's token 0, when first = 0
};
// A tag: port of a token's key | port of its value << 4.
static inline uint32_t kv_tag_port(uint8_t tag, int side) {
    return side == KV_KEY ? tag & 15u : tag >> 4;
}
typedef void kv_attend_fn(const struct kv_attend_job *j);

// The kernel for a level of kv_attend_kernels.
kv_attend_fn *kv_attend_kernel(size_t level);

#endif
