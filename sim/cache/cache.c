// SPDX-License-Identifier: Apache-2.0
// The cache's memory: pages, slots, what goes in and out of them, and demotion.
#include "sim/cache/cache.h"
#include "sim/base/memory.h"
#include "sim/cache/insides.h"

#include <stdlib.h>
#include <sys/mman.h>

static uint8_t port_of(uint8_t bits) {
    uint8_t p = 0;
    while (p + 1 < KV_PORT_WIDTHS && kv_port_bits[p] < bits) p++;
    return p;
}
static uint8_t tag_of(const uint8_t bits[2]) {
    return (uint8_t)(port_of(bits[KV_KEY]) | port_of(bits[KV_VALUE]) << 4);
}

int kv_cache_new(struct kv_cache **out, const struct kv_cache_setting *s, struct kv_error *e) {
    const struct kv_shape *m = &s->shape;
    *out = NULL;
    if (m->head_dim % 16 || m->head_dim > KV_MAX_CACHED_DIM || m->n_heads % m->n_kv_heads ||
        m->n_heads * m->head_dim > KV_MAX_QUERY)
        return kv_fail(e, KV_EFAIL, "cache",
                       "%u heads of %u over %u KV heads: heads must be a multiple of 16 up to %d "
                       "and share KV heads evenly",
                       m->n_heads, m->head_dim, m->n_kv_heads, KV_MAX_CACHED_DIM);
    struct kv_cache *c = kv_alloc(1, sizeof *c);
    c->shape = *m;
    struct kv_format_setting setting = {.shape = *m};
    int rc = kv_format_open(&c->format, s->format, &setting, e);
    if (rc == 0) rc = kv_cells_lay_out(c, e);
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
    c->windows = s->windows;
    c->kernel = kv_cache_best_kernel();
    *out = c;
    return 0;
}

void kv_cache_free(struct kv_cache *c) {
    if (!c) return;
    for (size_t s = 0; s < c->n_streams && c->streams; s++) {
        struct kv_stream *stream = &c->streams[s];
        for (uint32_t i = 0; i < stream->n_spans; i++)
            for (size_t k = 0; k < 2 * KV_PORT_WIDTHS; k++) {
                struct kv_cell_run *run =
                    &stream->spans[i].runs[k / KV_PORT_WIDTHS][k % KV_PORT_WIDTHS];
                free(run->pages);
            }
        free(stream->spans);
        free(stream->tag);
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

static uint8_t *new_memory(struct kv_cache *c, size_t bytes) {
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
    uint8_t *at = (uint8_t *)c->chunks + c->chunks->used;
    c->chunks->used += bytes;
    return at;
}

// A stream takes memory for some pages at once, up to a sixteenth of what it has: a job reads one
// stream, and pages strewn among those of hundreds cost it an address translation or two each.
static uint8_t *new_page(struct kv_cache *c, struct kv_stream *s, size_t bytes) {
    const size_t most = 64u << 10;
    if (s->free_bytes < bytes) {
        size_t take = s->had_bytes / 16 < most ? s->had_bytes / 16 / 64 * 64 : most;
        s->free_bytes = take > bytes ? take : bytes;
        s->free_at = new_memory(c, s->free_bytes);
        s->had_bytes += s->free_bytes;
    }
    uint8_t *page = s->free_at;
    s->free_at += bytes;
    s->free_bytes -= bytes;
    return page;
}

static struct kv_cell_run *run_of(const struct kv_stream *s, uint32_t token, int side,
                                  size_t port) {
    return &s->spans[token / KV_SPAN_TOKENS].runs[side][port];
}

static size_t page_bytes(const struct kv_cache *c, size_t side, size_t port) {
    return KV_PAGE_HEAD + c->n_members * (size_t)c->layouts[side][port].bytes;
}

// The slot after the last of a run, with a page under it.
static uint32_t open_slot(struct kv_cache *c, struct kv_stream *s, int side, size_t port,
                          uint32_t token) {
    struct kv_cell_run *run = run_of(s, token, side, port);
    uint16_t at = (uint16_t)(token % KV_SPAN_TOKENS);
    uint32_t slot = run->n++, t = slot % KV_PAGE_TOKENS;
    if (slot == run->n_pages * KV_PAGE_TOKENS) {
        run->pages = kv_grow(run->pages, run->n_pages + 1, sizeof *run->pages);
        run->pages[run->n_pages++].data = new_page(c, s, page_bytes(c, side, port));
    }
    struct kv_cell_page *page = &run->pages[slot / KV_PAGE_TOKENS];
    if (t == 0) *page = (struct kv_cell_page){page->data, at, at, true};
    page->consecutive &= t == 0 || *kv_slot_token(run, slot - 1) + 1 == at;
    if (at < page->low) page->low = at;
    if (at > page->high) page->high = at;
    *kv_slot_token(run, slot) = at;
    return slot;
}

// The slot of a token in its run: mostly the last one, since the newest are asked for.
static uint32_t find_slot(const struct kv_cell_run *run, uint32_t token) {
    uint16_t at = (uint16_t)(token % KV_SPAN_TOKENS);
    if (*kv_slot_token(run, run->n - 1) == at) return run->n - 1;
    for (uint32_t p = 0; p < run->n_pages; p++) {
        if (at < run->pages[p].low || at > run->pages[p].high) continue;
        uint32_t first = p * KV_PAGE_TOKENS;
        if (run->pages[p].consecutive) return first + at - run->pages[p].low;
        for (uint32_t slot = first; slot < first + KV_PAGE_TOKENS && slot < run->n; slot++)
            if (*kv_slot_token(run, slot) == at) return slot;
    }
    return UINT32_MAX; // each token of a stream has a slot: never here
}

struct kv_place kv_place_of(const struct kv_cache *c, size_t stream, uint32_t token, int side) {
    const struct kv_stream *s = &c->streams[stream];
    uint32_t port = (uint32_t)kv_tag_port(s->tag[token], side);
    struct kv_cell_run *run = run_of(s, token, side, port);
    return (struct kv_place){run, port, find_slot(run, token)};
}

// Gives a place to the last cell of its run.
static void close_slot(struct kv_cache *c, const struct kv_place *p, int side) {
    struct kv_cell_run *run = p->run;
    struct kv_place last = {run, p->port, run->n - 1};
    if (last.slot != p->slot) {
        const struct kv_side_layout *l = &c->layouts[side][p->port];
        uint8_t unit[KV_MAX_UNIT_BYTES];
        for (size_t m = 0; m < c->n_members; m++) {
            kv_cell_load(l, side, kv_block_of(c, &last, m, side), last.slot % KV_PAGE_TOKENS, unit,
                         c->shape.head_dim);
            kv_cell_store(l, side, kv_block_of(c, p, m, side), p->slot % KV_PAGE_TOKENS, unit,
                          c->shape.head_dim);
        }
        struct kv_cell_page *page = &run->pages[p->slot / KV_PAGE_TOKENS];
        uint16_t at = *kv_slot_token(run, last.slot);
        *kv_slot_token(run, p->slot) = at;
        page->consecutive = false;
        if (at < page->low) page->low = at;
        if (at > page->high) page->high = at;
    }
    run->n--;
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
        c->streams[s].tag = kv_grow(c->streams[s].tag, c->room, sizeof *c->streams[s].tag);
}

// Opens the cells of a stream's next token.
static void open_cells(struct kv_cache *c, struct kv_stream *s, uint8_t tag) {
    uint32_t token = s->n++;
    if (token / KV_SPAN_TOKENS == s->n_spans) {
        s->spans = kv_grow(s->spans, s->n_spans + 1, sizeof *s->spans);
        s->spans[s->n_spans++] = (struct kv_token_span){0};
    }
    s->tag[token] = tag;
    for (int side = 0; side < 2; side++) {
        size_t port = kv_tag_port(tag, side);
        open_slot(c, s, side, port, token);
    }
}

void kv_cache_extend(struct kv_cache *c, const uint8_t *bits) {
    make_room(c, ++c->n);
    for (size_t s = 0; s < c->n_streams && bits; s++)
        open_cells(c, &c->streams[s], tag_of(bits + 2 * s));
}

void kv_cache_place(struct kv_cache *c, uint32_t layer, const uint8_t *bits) {
    size_t n = c->n_streams / c->shape.n_layers;
    for (size_t i = 0; i < n; i++) open_cells(c, &c->streams[layer * n + i], tag_of(bits + 2 * i));
}

void kv_cache_put(struct kv_cache *c, uint32_t layer, const float *k, const float *v) {
    uint32_t dim = c->shape.head_dim;
    uint8_t unit[KV_MAX_UNIT_BYTES];
    for (uint32_t h = 0; h < c->shape.n_kv_heads; h++)
        for (int side = 0; side < 2; side++) {
            struct kv_place p = kv_place_of(c, kv_stream_of(c, layer, h), c->n - 1, side);
            kv_cell_encode(c, layer, side, p.port, (side == KV_KEY ? k : v) + h * dim, unit);
            kv_cell_store(&c->layouts[side][p.port], side,
                          kv_block_of(c, &p, kv_member_of(c, layer, h), side),
                          p.slot % KV_PAGE_TOKENS, unit, dim);
        }
}

static void read_cell(const struct kv_cache *c, uint32_t layer, uint32_t head, uint32_t token,
                      int side, float *x) {
    uint8_t unit[KV_MAX_UNIT_BYTES];
    struct kv_place p = kv_place_of(c, kv_stream_of(c, layer, head), token, side);
    kv_cell_load(&c->layouts[side][p.port], side,
                 kv_block_of(c, &p, kv_member_of(c, layer, head), side), p.slot % KV_PAGE_TOKENS,
                 unit, c->shape.head_dim);
    kv_cell_decode(c, layer, side, p.port, unit, x);
}

void kv_cache_read(const struct kv_cache *c, uint32_t layer, uint32_t head, uint32_t token,
                   float *k, float *v) {
    read_cell(c, layer, head, token, KV_KEY, k);
    read_cell(c, layer, head, token, KV_VALUE, v);
}

void kv_cache_widths(const struct kv_cache *c, size_t stream, uint32_t token, uint8_t bits[2]) {
    for (int side = 0; side < 2; side++)
        bits[side] = kv_port_bits[kv_tag_port(c->streams[stream].tag[token], side)];
}

// ---- copies of a token ----------------------------------------------------------------

// Fills the slots of a run from `begin` on with units [members]; *whole: a page that holds nothing
// else, once there is one.
static void fill_run(const struct kv_cache *c, const struct kv_cell_run *run, uint32_t begin,
                     int side, size_t port, const uint8_t *units, const uint8_t **whole) {
    const struct kv_side_layout *l = &c->layouts[side][port];
    for (uint32_t slot = begin; slot < run->n; slot++) {
        uint8_t *page = run->pages[slot / KV_PAGE_TOKENS].data + KV_PAGE_HEAD;
        uint32_t t = slot % KV_PAGE_TOKENS;
        if (*whole && t == 0) {
            memcpy(page, *whole, c->n_members * (size_t)l->bytes);
            slot += KV_PAGE_TOKENS - 1;
            continue;
        }
        for (size_t m = 0; m < c->n_members; m++)
            kv_cell_store(l, side, page + m * l->bytes, t, units + m * KV_MAX_UNIT_BYTES,
                          c->shape.head_dim);
        if (t == KV_PAGE_TOKENS - 1 && slot - begin >= KV_PAGE_TOKENS - 1) *whole = page;
    }
}

// Fills one side of a stream's tokens from `begin` on with the codes of token begin - 1.
static void repeat_side(struct kv_cache *c, size_t stream, uint32_t begin, const uint32_t *slots,
                        int side) {
    const struct kv_stream *s = &c->streams[stream];
    size_t port = kv_tag_port(s->tag[begin], side);
    uint8_t *units = kv_alloc(c->n_members, KV_MAX_UNIT_BYTES);
    for (size_t m = 0; m < c->n_members; m++) {
        size_t cell = stream * c->n_members + m;
        uint32_t layer = (uint32_t)(cell / c->shape.n_kv_heads);
        float x[KV_MAX_CACHED_DIM];
        read_cell(c, layer, (uint32_t)(cell % c->shape.n_kv_heads), begin - 1, side, x);
        kv_cell_encode(c, layer, side, port, x, units + m * KV_MAX_UNIT_BYTES);
    }
    const uint8_t *whole = NULL;
    for (uint32_t i = begin / KV_SPAN_TOKENS; i <= (s->n - 1) / KV_SPAN_TOKENS; i++)
        fill_run(c, &s->spans[i].runs[side][port], i == begin / KV_SPAN_TOKENS ? slots[side] : 0,
                 side, port, units, &whole);
    free(units);
}

void kv_cache_repeat(struct kv_cache *c, const uint8_t bits[2], size_t n) {
    uint32_t begin = c->n;
    if (n == 0) return;
    make_room(c, c->n += (uint32_t)n);
    for (size_t i = 0; i < c->n_streams; i++) {
        struct kv_stream *s = &c->streams[i];
        uint8_t tag = tag_of(bits);
        uint32_t slots[2] = {0, 0}; // where the first span's runs go on
        for (int side = 0; side < 2 && begin % KV_SPAN_TOKENS; side++)
            slots[side] = run_of(s, begin, side, kv_tag_port(tag, side))->n;
        for (size_t t = 0; t < n; t++) open_cells(c, s, tag);
        for (int side = 0; side < 2; side++) repeat_side(c, i, begin, slots, side);
    }
}

// ---- forgetting and ageing ------------------------------------------------------------

void kv_cache_truncate(struct kv_cache *c, uint32_t n) {
    if (n < c->n) c->n = n;
    for (size_t i = 0; i < c->n_streams; i++)
        for (struct kv_stream *s = &c->streams[i]; s->n > n; s->n--)
            for (int side = 0; side < 2; side++) {
                struct kv_place p = kv_place_of(c, i, s->n - 1, side);
                close_slot(c, &p, side);
            }
}

// Recodes one side of a token at a narrower port.
static void demote_side(struct kv_cache *c, size_t stream, uint32_t token, int side, size_t to) {
    struct kv_stream *s = &c->streams[stream];
    struct kv_place old = kv_place_of(c, stream, token, side);
    struct kv_place new = {run_of(s, token, side, to), (uint32_t)to, 0};
    new.slot = open_slot(c, s, side, to, token);
    for (size_t m = 0; m < c->n_members; m++) {
        uint32_t layer = (uint32_t)((stream * c->n_members + m) / c->shape.n_kv_heads);
        uint8_t unit[KV_MAX_UNIT_BYTES];
        float x[KV_MAX_CACHED_DIM];
        kv_cell_load(&c->layouts[side][old.port], side, kv_block_of(c, &old, m, side),
                     old.slot % KV_PAGE_TOKENS, unit, c->shape.head_dim);
        kv_cell_decode(c, layer, side, old.port, unit, x);
        kv_cell_encode(c, layer, side, to, x, unit);
        kv_cell_store(&c->layouts[side][to], side, kv_block_of(c, &new, m, side),
                      new.slot % KV_PAGE_TOKENS, unit, c->shape.head_dim);
    }
    close_slot(c, &old, side);
    uint8_t *tag = &s->tag[token];
    *tag = (uint8_t)(side == KV_KEY ? (*tag & 0xF0) | to : (*tag & 0x0F) | to << 4);
}

void kv_cache_demote(struct kv_cache *c, size_t stream, uint32_t token, uint8_t key_bits,
                     uint8_t value_bits) {
    for (int side = 0; side < 2; side++) {
        size_t to = port_of(side == KV_KEY ? key_bits : value_bits);
        if (to < kv_tag_port(c->streams[stream].tag[token], side))
            demote_side(c, stream, token, side, to);
    }
}

size_t kv_cache_age(struct kv_cache *c, uint32_t age, uint8_t key_bits, uint8_t value_bits) {
    size_t cells = 0;
    for (size_t s = 0; s < c->n_streams; s++)
        for (uint32_t t = 0; t + age < c->n; t++) {
            uint8_t before = c->streams[s].tag[t];
            kv_cache_demote(c, s, t, key_bits, value_bits);
            if (before != c->streams[s].tag[t]) cells += 2 * c->n_members;
        }
    return cells;
}

// ---- bytes ----------------------------------------------------------------------------

static size_t bytes_of(const struct kv_cache *c, bool allocated) {
    size_t bytes = 0;
    for (size_t s = 0; s < c->n_streams; s++)
        for (uint32_t i = 0; i < c->streams[s].n_spans; i++)
            for (size_t k = 0; k < 2 * KV_PORT_WIDTHS; k++) {
                size_t side = k / KV_PORT_WIDTHS, port = k % KV_PORT_WIDTHS;
                const struct kv_cell_run *run = &c->streams[s].spans[i].runs[side][port];
                const struct kv_side_layout *l = &c->layouts[side][port];
                bytes += allocated ? run->n_pages * (page_bytes(c, side, port) + sizeof *run->pages)
                                   : run->n * c->n_members * (size_t)l->unit_bytes;
            }
    return bytes;
}

size_t kv_cache_bytes_held(const struct kv_cache *c) {
    return bytes_of(c, false);
}
size_t kv_cache_bytes_tags(const struct kv_cache *c) {
    return ((size_t)c->n * c->n_streams * 2 * KV_TAG_BITS + 7) / 8;
}
size_t kv_cache_bytes_allocated(const struct kv_cache *c) {
    size_t spans = 0, unused = 0;
    for (size_t s = 0; s < c->n_streams; s++) {
        spans += c->streams[s].n_spans;
        unused += c->streams[s].free_bytes;
    }
    return bytes_of(c, true) + unused + spans * sizeof(struct kv_token_span) +
           c->n_streams * (size_t)c->room;
}
