// SPDX-License-Identifier: Apache-2.0
// The cache a device would run: tokens packed at their own widths, and attention that reads them
// so.
//
//     struct kv_cache *c;
//     if (kv_cache_new(&c, &(struct kv_cache_setting){.shape = s, .format = "sym"}, &e)) ...
//     kv_cache_extend(c, widths);                    a slot for the next token, at its widths
//     kv_cache_put(c, layer, k, v);                  its keys and values, layer after layer
//     kv_cache_attend(c, layer, q, out);             softmax(q K / sqrt(d)) V over all tokens
//     kv_cache_age(c, 128, 4, 4);                    tokens older than 128 go down to 4 bits
//     kv_cache_free(c);
//
// Keys lie with keys and values with values of one width, in pages of 64 that hold all layers and
// heads that share a decision. Each page of keys brings its scores to a row by token, the softmax
// runs over that, and each page of values fetches its weights from it. So keys and values take
// their widths apart: seven and seven kinds of pages, not forty-nine, of which each would be left
// half full at its end in every stream (at 2k tokens three quarters of a cache); and one softmax a
// row, with no rescaling page by page. A page names its tokens, slot by slot, in whatever order
// they lie; one of consecutive tokens is read from the row and written to it as it is. A row is a
// span of 16,384 tokens at most: scores stay in the second-level cache, and a part may begin at any
// token.
//
// Codes are the format's own bits, in bit planes: 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2 (layout.h). Their
// metadata lies apart, and the words of 16 keys are interleaved so that a SIMD lane is a token.
// Other widths go to the next port.
#ifndef KV_CACHE_CACHE_H
#define KV_CACHE_CACHE_H

#include "policies/policy.h"

#define KV_PAGE_TOKENS 64
#define KV_SPAN_TOKENS 16384
#define KV_PORT_WIDTHS 7 // 2, 3, 4, 5, 6, 8, 16
#define KV_TAG_BITS 3    // that tell a cell's width, as the ledger counts them
extern const uint8_t kv_port_bits[KV_PORT_WIDTHS];

struct kv_cache;

struct kv_cache_setting {
    struct kv_shape shape;
    const char *format; // "sym" or "asym" with their keys; groups may be shorter than the head
    // How decisions may differ: 0 = a token has one pair of widths in all layers and heads;
    // KV_VARIES_LAYER: one a layer; KV_VARIES_LAYER | KV_VARIES_HEAD: one a layer and KV head.
    uint32_t varies;
    // [n_layers] newest tokens that a layer's queries see, 0: all; read until kv_cache_free. NULL:
    // all see all. What a window has passed stays where it lies: attention passes it over.
    const uint32_t *windows;
};

// Errors: KV_EUSAGE for a format whose units are not single vectors or whose scale is not fp16.
KV_MUST_CHECK int kv_cache_new(struct kv_cache **c, const struct kv_cache_setting *s,
                               struct kv_error *e);
void kv_cache_free(struct kv_cache *c); // NULL is fine

// Decisions a token takes: 1, n_layers or n_layers x n_kv_heads, in that order.
size_t kv_cache_streams(const struct kv_cache *c);
uint32_t kv_cache_tokens(const struct kv_cache *c);

// Opens a slot for the next token. bits: [streams][2], 1..16, rounded up to a port; NULL: layers
// open theirs by kv_cache_place, each once and in turn with kv_cache_put.
void kv_cache_extend(struct kv_cache *c, const uint8_t *bits);
// The newest token's widths in one layer, where streams are layers or finer: [streams of a
// layer][2]. Until then attention in that layer is over the earlier tokens.
void kv_cache_place(struct kv_cache *c, uint32_t layer, const uint8_t *bits);
// Codes and stores the newest token's vectors of one layer. k, v: [n_kv_heads][head_dim].
void kv_cache_put(struct kv_cache *c, uint32_t layer, const float *k, const float *v);
// Appends n tokens that repeat the coded bytes of the last put token, at bits [2] in all streams:
// a cheap way to a long cache when only its cost matters.
void kv_cache_repeat(struct kv_cache *c, const uint8_t bits[2], size_t n);
// Forgets the newest tokens until n are left.
void kv_cache_truncate(struct kv_cache *c, uint32_t n);

// Recodes a token of a stream from its decoded values at narrower widths (design: as it ages).
// Widths that are already as narrow stay.
void kv_cache_demote(struct kv_cache *c, size_t stream, uint32_t token, uint8_t key_bits,
                     uint8_t value_bits);
// Demotes every token that has at least `age` newer ones. Returns the cells it recoded.
size_t kv_cache_age(struct kv_cache *c, uint32_t age, uint8_t key_bits, uint8_t value_bits);

// Decodes one token's vectors of a layer and KV head. k, v: [head_dim].
void kv_cache_read(const struct kv_cache *c, uint32_t layer, uint32_t head, uint32_t token,
                   float *k, float *v);
// Widths at which a token lies.
void kv_cache_widths(const struct kv_cache *c, size_t stream, uint32_t token, uint8_t bits[2]);

// Bytes held by tokens (codes and metadata: the ledger's bits), their tags at KV_TAG_BITS a
// decision, and bytes allocated (whole pages, tags, which token a slot holds).
size_t kv_cache_bytes_held(const struct kv_cache *c);
size_t kv_cache_bytes_tags(const struct kv_cache *c);
size_t kv_cache_bytes_allocated(const struct kv_cache *c);

// ---- attention ------------------------------------------------------------------------

// Unnormalised attention of some heads over some tokens; parts of one query merge.
struct kv_partial {
    float *max; // [n_heads] largest score; -INFINITY when the part saw no token
    float *sum; // [n_heads] of exp(score - max)
    float *out; // [n_heads][head_dim] sum of exp(score - max) value
    // What features of the row are made of; NULL: not wanted.
    float *weighted; // [n_heads] sum of exp(score - max) (score - max)
    float *oldest;   // [n_heads] score of position 0; NAN in parts that did not see it
};

// One worker's share of a layer's tokens, heads weighed by the bytes of their cells.
// q: [n_heads][head_dim]. Fills all heads of *p. Thread-safe: reads the cache only.
void kv_cache_attend_part(const struct kv_cache *c, uint32_t layer, const float *q, unsigned part,
                          unsigned n_parts, struct kv_partial *p);
// Joins the parts into out [n_heads][head_dim].
void kv_cache_attend_merge(const struct kv_cache *c, const struct kv_partial *p, unsigned n_parts,
                           float *out);
// Both, on the calling thread.
void kv_cache_attend(const struct kv_cache *c, uint32_t layer, const float *q, float *out);

// The kernels this machine can run, fastest last; tests and benchmarks force one (NULL name = the
// best). Returns false for a name that is unknown or cannot run here.
extern const char *const kv_attend_kernels[]; // "base", "avx2", "avx512", "avx512vnni", NULL
size_t kv_cache_best_kernel(void);            // index into kv_attend_kernels
bool kv_cache_force_kernel(struct kv_cache *c, const char *name);

#endif
