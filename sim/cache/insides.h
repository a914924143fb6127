// SPDX-License-Identifier: Apache-2.0
// The cache's insides, shared by its memory (cache.c) and its reader (attend.c).
#ifndef KV_CACHE_INSIDES_H
#define KV_CACHE_INSIDES_H

#include "sim/cache/layout.h"
#include "sim/quant/format.h"

#define KV_CLASSES (KV_PORT_WIDTHS * KV_PORT_WIDTHS) // pairs of ports: K x 4 + V
#define KV_MAX_QUERY 8192                            // floats of all heads' queries

// Tokens of one pair of widths. A page holds [members][K block, V block].
struct kv_class {
    uint32_t n, n_pages;
    uint8_t **pages;
    uint32_t *token; // [n_pages x 64]: which token a slot holds
};

struct kv_stream {
    struct kv_class classes[KV_CLASSES];
    uint32_t *where; // [room]: class << 28 | slot of a token
};

struct kv_cache {
    struct kv_shape shape;
    struct kv_format *format;
    struct kv_side_layout layouts[2][KV_PORT_WIDTHS];
    uint32_t width[KV_PORT_WIDTHS]; // index into the format's width table
    size_t n_streams, n_members;    // members: (layer, KV head) pairs of a stream
    uint32_t n, room;               // tokens
    struct kv_stream *streams;
    size_t kernel;
    struct kv_chunk { // memory that pages are cut from, on huge pages where the system has them
        struct kv_chunk *next;
        size_t bytes, used;
    } * chunks;
};

static inline size_t kv_class_port(size_t class, int side) {
    return side == KV_KEY ? class / KV_PORT_WIDTHS : class % KV_PORT_WIDTHS;
}
static inline size_t kv_stream_of(const struct kv_cache *c, uint32_t layer, uint32_t head) {
    return c->n_streams == 1                   ? 0
           : c->n_streams == c->shape.n_layers ? layer
                                               : (size_t)layer * c->shape.n_kv_heads + head;
}
static inline size_t kv_member_of(const struct kv_cache *c, uint32_t layer, uint32_t head) {
    return c->n_streams == 1                   ? (size_t)layer * c->shape.n_kv_heads + head
           : c->n_streams == c->shape.n_layers ? head
                                               : 0;
}
// Bytes of one member of a page, and where its K or V block begins.
static inline size_t kv_member_bytes(const struct kv_cache *c, size_t class) {
    return (size_t)c->layouts[0][kv_class_port(class, 0)].bytes +
           c->layouts[1][kv_class_port(class, 1)].bytes;
}
static inline size_t kv_block_at(const struct kv_cache *c, size_t class, size_t member, int side) {
    return member * kv_member_bytes(c, class) +
           (side == KV_VALUE ? c->layouts[0][kv_class_port(class, 0)].bytes : 0);
}

#endif
