// SPDX-License-Identifier: Apache-2.0
// The cache's memory: pages, slots, what goes in and out of them, and demotion.
#include "sim/cache/cache.h"
#include "sim/base/memory.h"
#include "sim/cache/insides.h"
#include "sim/quant/grid.h"
#include "sim/quant/pack.h"

#include <stdlib.h>
#include <sys/mman.h>

const uint8_t kv_port_bits[KV_PORT_WIDTHS] = {2, 4, 8, 16};

enum { SLOT_BITS = 28, MAX_DIM = 256, MAX_UNIT_BYTES = 2 * MAX_DIM + 64 };

static size_t port_of(uint8_t bits) {
    size_t p = 0;
    while (p + 1 < KV_PORT_WIDTHS && kv_port_bits[p] < bits) p++;
    return p;
}
static size_t class_of(const uint8_t bits[2]) {
    return port_of(bits[KV_KEY]) * KV_PORT_WIDTHS + port_of(bits[KV_VALUE]);
}

// ---- layout ---------------------------------------------------------------------------

static uint32_t round_up(uint32_t n, uint32_t to) {
    return (n + to - 1) / to * to;
}

static void half_layout(struct kv_side_layout *l, uint32_t dim) {
    *l = (struct kv_side_layout){
        .bits = 16, .n_groups = 1, .unit_bytes = 2 * dim, .bytes = KV_PAGE_TOKENS * 2 * dim};
}

static void grid_layout(struct kv_side_layout *l, const struct kv_grid *g, uint32_t dim) {
    *l = (struct kv_side_layout){.bits = (uint8_t)g->bits,
                                 .has_min = g->rule == KV_GRID_ASYM,
                                 .centred = g->rule == KV_GRID_SYM,
                                 .n_groups = dim / g->group,
                                 .words = dim * g->bits / 32};
    struct kv_unit_size size = kv_grid_size(g);
    l->unit_bytes = size.bytes;
    l->meta_bytes = size.meta_bits / 8;
    uint32_t numbers = l->n_groups * KV_PAGE_TOKENS * 2;
    l->scale_at = KV_PAGE_TOKENS * l->words * 4;
    l->min_at = l->scale_at + round_up(numbers, 64);
    l->bytes = l->has_min ? l->min_at + round_up(numbers, 64) : l->min_at;
}

// Layouts of both sides at the port widths, or a refusal.
static int lay_out(struct kv_cache *c, struct kv_error *e) {
    const struct kv_format *f = c->format;
    bool gridded = strcmp(f->type->name, "sym") == 0 || strcmp(f->type->name, "asym") == 0;
    if (!gridded || f->scope != KV_SCOPE_VECTOR || f->unit_heads != 1)
        return kv_fail(e, KV_EUSAGE, "cache",
                       "format %s cannot be packed; sym and asym with groups inside a head can",
                       f->canonical);
    const struct kv_gridded *grids = f->self;
    for (size_t p = 0; p < KV_PORT_WIDTHS; p++) {
        size_t w = 0;
        while (w < f->n_widths && f->width_bits[w] != kv_port_bits[p]) w++;
        if (w == f->n_widths)
            return kv_fail(e, KV_EUSAGE, "cache", "format %s does not offer %u bits", f->canonical,
                           kv_port_bits[p]);
        c->width[p] = (uint32_t)w;
        for (int side = 0; side < 2; side++) {
            struct kv_side_layout *l = &c->layouts[side][p];
            const struct kv_grid *g = &grids->grid[side][w];
            if (kv_port_bits[p] == 16)
                half_layout(l, c->shape.head_dim);
            else if (g->wide)
                return kv_fail(e, KV_EUSAGE, "cache", "format %s: the cache keeps fp16 scales",
                               f->canonical);
            else
                grid_layout(l, g, c->shape.head_dim);
            l->port = (uint8_t)p;
        }
    }
    return 0;
}

int kv_cache_new(struct kv_cache **out, const struct kv_cache_setting *s, struct kv_error *e) {
    const struct kv_shape *m = &s->shape;
    *out = NULL;
    if (m->head_dim % 16 || m->head_dim > MAX_DIM || m->n_heads % m->n_kv_heads ||
        m->n_heads * m->head_dim > KV_MAX_QUERY)
        return kv_fail(e, KV_EFAIL, "cache",
                       "%u heads of %u over %u KV heads: heads must be a multiple of 16 up to %d "
                       "and share KV heads evenly",
                       m->n_heads, m->head_dim, m->n_kv_heads, MAX_DIM);
    struct kv_cache *c = kv_alloc(1, sizeof *c);
    c->shape = *m;
    struct kv_format_setting setting = {.shape = *m};
    int rc = kv_format_open(&c->format, s->format, &setting, e);
    if (rc == 0) rc = lay_out(c, e);
    if (rc) {
        kv_cache_free(c);
        return rc;
    }
    size_t cells = (size_t)m->n_layers * m->n_kv_heads;
    c->n_streams = s->varies & KV_VARIES_HEAD    ? cells
                   : s->varies & KV_VARIES_LAYER ? m->n_layers
                                                 : 1;
    c->n_members = cells / c->n_streams;
    c->streams = kv_alloc(c->n_streams, sizeof *c->streams);
    c->kernel = kv_cache_best_kernel();
    *out = c;
    return 0;
}

void kv_cache_free(struct kv_cache *c) {
    if (!c) return;
    for (size_t s = 0; s < c->n_streams && c->streams; s++) {
        for (size_t k = 0; k < KV_CLASSES; k++) {
            free(c->streams[s].classes[k].pages);
            free(c->streams[s].classes[k].token);
        }
        free(c->streams[s].where);
    }
    while (c->chunks) {
        struct kv_chunk *next = c->chunks->next;
        munmap(c->chunks, c->chunks->bytes);
        c->chunks = next;
    }
    kv_format_close(c->format);
    free(c->streams);
    free(c);
}

// ---- pages ----------------------------------------------------------------------------

static uint8_t *new_page(struct kv_cache *c, size_t bytes) {
    const size_t huge = 2u << 20, least = 32u << 20, header = 64;
    if (!c->chunks || c->chunks->bytes - c->chunks->used < bytes) {
        size_t n = bytes + header > least ? (bytes + header + huge - 1) / huge * huge : least;
        void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) p = kv_alloc(SIZE_MAX / 2, 1); // ends the program in its usual words
#if defined(MADV_HUGEPAGE)
        madvise(p, n, MADV_HUGEPAGE);
#endif
        struct kv_chunk *k = p;
        *k = (struct kv_chunk){.next = c->chunks, .bytes = n, .used = header};
        c->chunks = k;
    }
    uint8_t *page = (uint8_t *)c->chunks + c->chunks->used;
    c->chunks->used += bytes;
    return page;
}

// The slot after the last of a class, with a page under it.
static uint32_t open_slot(struct kv_cache *c, struct kv_stream *s, size_t class, uint32_t token) {
    struct kv_class *k = &s->classes[class];
    if (k->n == k->n_pages * KV_PAGE_TOKENS) {
        k->pages = kv_grow(k->pages, k->n_pages + 1, sizeof *k->pages);
        k->token = kv_grow(k->token, (size_t)(k->n_pages + 1) * KV_PAGE_TOKENS, sizeof *k->token);
        k->pages[k->n_pages++] = new_page(c, c->n_members * kv_member_bytes(c, class));
    }
    k->token[k->n] = token;
    s->where[token] = (uint32_t) class << SLOT_BITS | k->n;
    return k->n++;
}

static size_t class_at(uint32_t where) {
    return where >> SLOT_BITS;
}
static uint32_t slot_at(uint32_t where) {
    return where & ((1u << SLOT_BITS) - 1);
}

static uint8_t *block_of(const struct kv_cache *c, const struct kv_stream *s, uint32_t where,
                         size_t member, int side) {
    return s->classes[class_at(where)].pages[slot_at(where) / KV_PAGE_TOKENS] +
           kv_block_at(c, class_at(where), member, side);
}

// A unit's metadata go to the number columns, its code stream word by word to its place.
static void store_unit(const struct kv_side_layout *l, int side, uint8_t *block, uint32_t slot,
                       const uint8_t *unit, uint32_t dim) {
    uint32_t t = slot % KV_PAGE_TOKENS, tile = t / KV_KEY_TILE, lane = t % KV_KEY_TILE;
    if (l->bits == 16) {
        uint16_t *x = (uint16_t *)block;
        for (uint32_t i = 0; i < dim; i++)
            x[side == KV_KEY ? (tile * dim + i) * KV_KEY_TILE + lane : t * dim + i] =
                kv_get16(unit + 2 * i);
        return;
    }
    for (uint32_t g = 0; g < l->n_groups; g++) {
        const uint8_t *meta = unit + g * (l->has_min ? 4 : 2);
        ((uint16_t *)(block + l->scale_at))[g * KV_PAGE_TOKENS + t] = kv_get16(meta);
        if (l->has_min)
            ((uint16_t *)(block + l->min_at))[g * KV_PAGE_TOKENS + t] = kv_get16(meta + 2);
    }
    uint32_t *x = (uint32_t *)block;
    for (uint32_t i = 0; i < l->words; i++)
        x[side == KV_KEY ? (tile * l->words + i) * KV_KEY_TILE + lane : t * l->words + i] =
            kv_get32(unit + l->meta_bytes + 4 * i);
}

static void load_unit(const struct kv_side_layout *l, int side, const uint8_t *block, uint32_t slot,
                      uint8_t *unit, uint32_t dim) {
    uint32_t t = slot % KV_PAGE_TOKENS, tile = t / KV_KEY_TILE, lane = t % KV_KEY_TILE;
    if (l->bits == 16) {
        const uint16_t *x = (const uint16_t *)block;
        for (uint32_t i = 0; i < dim; i++)
            kv_put16(unit + 2 * i,
                     x[side == KV_KEY ? (tile * dim + i) * KV_KEY_TILE + lane : t * dim + i]);
        return;
    }
    for (uint32_t g = 0; g < l->n_groups; g++) {
        uint8_t *meta = unit + g * (l->has_min ? 4 : 2);
        kv_put16(meta, ((const uint16_t *)(block + l->scale_at))[g * KV_PAGE_TOKENS + t]);
        if (l->has_min)
            kv_put16(meta + 2, ((const uint16_t *)(block + l->min_at))[g * KV_PAGE_TOKENS + t]);
    }
    const uint32_t *x = (const uint32_t *)block;
    for (uint32_t i = 0; i < l->words; i++)
        kv_put32(unit + l->meta_bytes + 4 * i,
                 x[side == KV_KEY ? (tile * l->words + i) * KV_KEY_TILE + lane : t * l->words + i]);
}

// ---- tokens ---------------------------------------------------------------------------

size_t kv_cache_streams(const struct kv_cache *c) {
    return c->n_streams;
}
uint32_t kv_cache_tokens(const struct kv_cache *c) {
    return c->n;
}

static void make_room(struct kv_cache *c, uint32_t tokens) {
    if (tokens <= c->room) return;
    c->room = tokens > 2 * c->room ? tokens : 2 * c->room;
    for (size_t s = 0; s < c->n_streams; s++)
        c->streams[s].where = kv_grow(c->streams[s].where, c->room, sizeof *c->streams[s].where);
}

void kv_cache_extend(struct kv_cache *c, const uint8_t *bits) {
    make_room(c, c->n + 1);
    for (size_t s = 0; s < c->n_streams; s++)
        open_slot(c, &c->streams[s], class_of(bits + 2 * s), c->n);
    c->n++;
}

// Codes one vector at a port's width. unit: MAX_UNIT_BYTES.
static void encode(const struct kv_cache *c, uint32_t layer, int side, size_t port, const float *x,
                   uint8_t *unit) {
    struct kv_block b = {.layer = layer, .side = (enum kv_side)side, .width = c->width[port]};
    kv_format_encode(c->format, &b, x, 1, unit);
}
static void decode(const struct kv_cache *c, uint32_t layer, int side, size_t port,
                   const uint8_t *unit, float *x) {
    struct kv_block b = {.layer = layer, .side = (enum kv_side)side, .width = c->width[port]};
    kv_format_decode(c->format, &b, unit, 1, x);
}

void kv_cache_put(struct kv_cache *c, uint32_t layer, const float *k, const float *v) {
    uint32_t dim = c->shape.head_dim;
    uint8_t unit[MAX_UNIT_BYTES];
    for (uint32_t h = 0; h < c->shape.n_kv_heads; h++) {
        const struct kv_stream *s = &c->streams[kv_stream_of(c, layer, h)];
        uint32_t where = s->where[c->n - 1];
        for (int side = 0; side < 2; side++) {
            size_t port = kv_class_port(class_at(where), side);
            encode(c, layer, side, port, (side == KV_KEY ? k : v) + h * dim, unit);
            store_unit(&c->layouts[side][port], side,
                       block_of(c, s, where, kv_member_of(c, layer, h), side), slot_at(where), unit,
                       dim);
        }
    }
}

void kv_cache_read(const struct kv_cache *c, uint32_t layer, uint32_t head, uint32_t token,
                   float *k, float *v) {
    const struct kv_stream *s = &c->streams[kv_stream_of(c, layer, head)];
    uint32_t where = s->where[token];
    uint8_t unit[MAX_UNIT_BYTES];
    for (int side = 0; side < 2; side++) {
        size_t port = kv_class_port(class_at(where), side);
        load_unit(&c->layouts[side][port], side,
                  block_of(c, s, where, kv_member_of(c, layer, head), side), slot_at(where), unit,
                  c->shape.head_dim);
        decode(c, layer, side, port, unit, side == KV_KEY ? k : v);
    }
}

void kv_cache_widths(const struct kv_cache *c, size_t stream, uint32_t token, uint8_t bits[2]) {
    size_t class = class_at(c->streams[stream].where[token]);
    for (int side = 0; side < 2; side++) bits[side] = kv_port_bits[kv_class_port(class, side)];
}

void kv_cache_repeat(struct kv_cache *c, const uint8_t bits[2], size_t n) {
    size_t class = class_of(bits);
    uint32_t last = c->n - 1, dim = c->shape.head_dim;
    float *vectors =
        kv_alloc((size_t)c->shape.n_layers * c->shape.n_kv_heads * 2 * dim, sizeof *vectors);
    float *x = vectors;
    for (uint32_t l = 0; l < c->shape.n_layers; l++)
        for (uint32_t h = 0; h < c->shape.n_kv_heads; h++, x += 2 * dim)
            kv_cache_read(c, l, h, last, x, x + dim);
    make_room(c, c->n + (uint32_t)n);
    for (size_t s = 0; s < c->n_streams; s++) {
        struct kv_class *k = &c->streams[s].classes[class];
        uint32_t begin = k->n, whole = 0; // whole: a page filled by this call, or 0
        for (uint32_t t = 0; t < n; t++) open_slot(c, &c->streams[s], class, c->n + t);
        for (uint32_t slot = begin; slot < k->n; slot++) {
            uint32_t page = slot / KV_PAGE_TOKENS;
            if (whole && slot % KV_PAGE_TOKENS == 0) {
                memcpy(k->pages[page], k->pages[whole], c->n_members * kv_member_bytes(c, class));
                slot += KV_PAGE_TOKENS - 1;
                continue;
            }
            for (size_t m = 0; m < c->n_members; m++) {
                size_t cell = s * c->n_members + m;
                for (int side = 0; side < 2; side++) {
                    uint8_t unit[MAX_UNIT_BYTES];
                    size_t port = kv_class_port(class, side);
                    encode(c, (uint32_t)(cell / c->shape.n_kv_heads), side, port,
                           vectors + (cell * 2 + (size_t)side) * dim, unit);
                    store_unit(&c->layouts[side][port], side,
                               k->pages[page] + kv_block_at(c, class, m, side), slot, unit, dim);
                }
            }
            if (slot % KV_PAGE_TOKENS == KV_PAGE_TOKENS - 1 && slot - begin >= KV_PAGE_TOKENS - 1)
                whole = page;
        }
    }
    c->n += (uint32_t)n;
    free(vectors);
}

// Gives a token's slot to the last one of its class.
static void close_slot(struct kv_cache *c, struct kv_stream *s, uint32_t token) {
    uint32_t where = s->where[token];
    size_t class = class_at(where);
    struct kv_class *k = &s->classes[class];
    uint32_t last = (uint32_t) class << SLOT_BITS | (k->n - 1);
    if (last != where) {
        uint8_t unit[MAX_UNIT_BYTES];
        for (size_t m = 0; m < c->n_members; m++)
            for (int side = 0; side < 2; side++) {
                const struct kv_side_layout *l = &c->layouts[side][kv_class_port(class, side)];
                load_unit(l, side, block_of(c, s, last, m, side), slot_at(last), unit,
                          c->shape.head_dim);
                store_unit(l, side, block_of(c, s, where, m, side), slot_at(where), unit,
                           c->shape.head_dim);
            }
        k->token[slot_at(where)] = k->token[slot_at(last)];
        s->where[k->token[slot_at(where)]] = where;
    }
    k->n--;
}

void kv_cache_truncate(struct kv_cache *c, uint32_t n) {
    while (c->n > n) {
        c->n--;
        for (size_t s = 0; s < c->n_streams; s++) close_slot(c, &c->streams[s], c->n);
    }
}

void kv_cache_demote(struct kv_cache *c, size_t stream, uint32_t token, uint8_t key_bits,
                     uint8_t value_bits) {
    struct kv_stream *s = &c->streams[stream];
    uint32_t old = s->where[token], dim = c->shape.head_dim;
    uint8_t bits[2], want[2] = {key_bits, value_bits};
    kv_cache_widths(c, stream, token, bits);
    for (int side = 0; side < 2; side++)
        if (want[side] < bits[side]) bits[side] = want[side];
    size_t class = class_of(bits);
    if (class == class_at(old)) return;
    open_slot(c, s, class, token);
    uint32_t new = s->where[token];
    for (size_t m = 0; m < c->n_members; m++) {
        uint32_t layer = (uint32_t)((stream * c->n_members + m) / c->shape.n_kv_heads);
        for (int side = 0; side < 2; side++) {
            size_t from = kv_class_port(class_at(old), side), to = kv_class_port(class, side);
            uint8_t unit[MAX_UNIT_BYTES];
            float x[MAX_DIM];
            load_unit(&c->layouts[side][from], side, block_of(c, s, old, m, side), slot_at(old),
                      unit, dim);
            if (from != to) {
                decode(c, layer, side, from, unit, x);
                encode(c, layer, side, to, x, unit);
            }
            store_unit(&c->layouts[side][to], side, block_of(c, s, new, m, side), slot_at(new),
                       unit, dim);
        }
    }
    s->where[token] = old;
    close_slot(c, s, token);
    s->where[token] = new;
}

size_t kv_cache_age(struct kv_cache *c, uint32_t age, uint8_t key_bits, uint8_t value_bits) {
    size_t cells = 0;
    for (size_t s = 0; s < c->n_streams; s++)
        for (uint32_t t = 0; t + age < c->n; t++) {
            uint32_t before = c->streams[s].where[t];
            kv_cache_demote(c, s, t, key_bits, value_bits);
            if (class_at(before) != class_at(c->streams[s].where[t])) cells += 2 * c->n_members;
        }
    return cells;
}

size_t kv_cache_bytes_held(const struct kv_cache *c) {
    size_t bytes = 0;
    for (size_t s = 0; s < c->n_streams; s++)
        for (size_t k = 0; k < KV_CLASSES; k++)
            bytes += c->streams[s].classes[k].n * c->n_members *
                     ((size_t)c->layouts[0][kv_class_port(k, 0)].unit_bytes +
                      c->layouts[1][kv_class_port(k, 1)].unit_bytes);
    return bytes;
}

size_t kv_cache_bytes_allocated(const struct kv_cache *c) {
    size_t bytes = c->n_streams * c->room * sizeof(uint32_t);
    for (size_t s = 0; s < c->n_streams; s++)
        for (size_t k = 0; k < KV_CLASSES; k++) {
            const struct kv_class *class = &c->streams[s].classes[k];
            bytes += class->n_pages *
                     (c->n_members * kv_member_bytes(c, k) + KV_PAGE_TOKENS * sizeof *class->token);
        }
    return bytes;
}
