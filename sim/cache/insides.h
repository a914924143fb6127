// SPDX-License-Identifier: Apache-2.0
// The cache's insides, shared by its memory (cache.c), its cells (cells.c) and its reader
// (attend.c).
#ifndef KV_CACHE_INSIDES_H
#define KV_CACHE_INSIDES_H

#include "sim/cache/layout.h"
#include "sim/quant/format.h"

enum { KV_MAX_CACHED_DIM = 256, KV_MAX_UNIT_BYTES = 2 * KV_MAX_CACHED_DIM + 64 };
#define KV_MAX_QUERY 8192 // floats of all heads' queries

struct kv_stream {
    uint32_t n; // tokens that have cells here; a token is opened stream by stream
    uint32_t n_spans;
    struct kv_token_span *spans;
    uint8_t *tag; // [room]: port of a token's key | port of its value << 4
    // Memory its next pages are cut from, and all that it has had: what a job reads lies together.
    uint8_t *free_at;
    size_t free_bytes, had_bytes;
};

struct kv_cache {
    struct kv_shape shape;
    struct kv_format *format;
    struct kv_side_layout layouts[2][KV_PORT_WIDTHS];
    uint32_t width[KV_PORT_WIDTHS]; // index into the format's width table
    size_t n_streams, n_members;    // members: (layer, KV head) pairs of a stream
    uint32_t n, room;               // tokens
    struct kv_stream *streams;
    const uint32_t *windows; // [n_layers] or NULL (kv_cache_setting)
    size_t kernel;
    struct kv_chunk { // memory that pages are cut from, on huge pages where the system has them
        struct kv_chunk *next;
        size_t bytes, used;
    } * chunks;
};

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

// Layouts of both sides at the port widths. Errors: KV_EUSAGE for a format that cannot be packed.
KV_MUST_CHECK int kv_cells_lay_out(struct kv_cache *c, struct kv_error *e);

// Codes one vector at a port's width, and decodes it. unit: KV_MAX_UNIT_BYTES.
void kv_cell_encode(const struct kv_cache *c, uint32_t layer, int side, size_t port, const float *x,
                    uint8_t *unit);
void kv_cell_decode(const struct kv_cache *c, uint32_t layer, int side, size_t port,
                    const uint8_t *unit, float *x);

// Where a token's key or value of a stream lies.
struct kv_place {
    struct kv_cell_run *run;
    uint32_t port, slot;
};
struct kv_place kv_place_of(const struct kv_cache *c, size_t stream, uint32_t token, int side);
static inline uint8_t *kv_block_of(const struct kv_cache *c, const struct kv_place *p,
                                   size_t member, int side) {
    return p->run->pages[p->slot / KV_PAGE_TOKENS].data + KV_PAGE_HEAD +
           member * c->layouts[side][p->port].bytes;
}

#endif
