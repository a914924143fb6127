// SPDX-License-Identifier: Apache-2.0
// Cells: how a port's width is laid out in a page, and a unit's way into its planes and back.
#include "sim/base/memory.h"
#include "sim/cache/insides.h"
#include "sim/quant/grid.h"
#include "sim/quant/pack.h"

const uint8_t kv_port_bits[KV_PORT_WIDTHS] = {2, 3, 4, 5, 6, 8, 16};
static const uint8_t planes[KV_PORT_WIDTHS][2] = {{2, 0}, {2, 1}, {4, 0}, {4, 1},
                                                  {4, 2}, {8, 0}, {16, 0}};
enum { MAX_WORDS = KV_MAX_CACHED_DIM * 8 / 32 };

// ---- layout ---------------------------------------------------------------------------

static uint32_t divide_up(uint32_t n, uint32_t by) {
    return (n + by - 1) / by;
}

static void half_layout(struct kv_side_layout *l, uint32_t dim) {
    *l = (struct kv_side_layout){
        .bits = 16, .n_groups = 1, .unit_bytes = 2 * dim, .bytes = KV_PAGE_TOKENS * 2 * dim};
}

static void grid_layout(struct kv_side_layout *l, const struct kv_grid *g, const uint8_t plane[2],
                        uint32_t dim) {
    *l = (struct kv_side_layout){.bits = (uint8_t)g->bits,
                                 .plane = {plane[0], plane[1]},
                                 .has_min = g->rule == KV_GRID_ASYM,
                                 .centred = g->rule == KV_GRID_SYM,
                                 .n_groups = dim / g->group};
    l->words[0] = divide_up(dim * plane[0], 32);
    l->words[1] = plane[1] ? divide_up(l->words[0], plane[0] / plane[1]) : 0;
    struct kv_unit_size size = kv_grid_size(g);
    l->unit_bytes = size.bytes;
    l->meta_bytes = size.meta_bits / 8;
    uint32_t numbers = divide_up(l->n_groups * KV_PAGE_TOKENS * 2, 64) * 64;
    l->high_at = KV_PAGE_TOKENS * l->words[0] * 4;
    l->scale_at = l->high_at + KV_PAGE_TOKENS * l->words[1] * 4;
    l->min_at = l->scale_at + numbers;
    l->bytes = l->has_min ? l->min_at + numbers : l->min_at;
}

int kv_cells_lay_out(struct kv_cache *c, struct kv_error *e) {
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
                grid_layout(l, g, planes[p], c->shape.head_dim);
            l->port = (uint8_t)p;
        }
    }
    return 0;
}

// ---- codes ----------------------------------------------------------------------------

void kv_cell_encode(const struct kv_cache *c, uint32_t layer, int side, size_t port, const float *x,
                    uint8_t *unit) {
    struct kv_block b = {.layer = layer, .side = (enum kv_side)side, .width = c->width[port]};
    kv_format_encode(c->format, &b, x, 1, unit);
}
void kv_cell_decode(const struct kv_cache *c, uint32_t layer, int side, size_t port,
                    const uint8_t *unit, float *x) {
    struct kv_block b = {.layer = layer, .side = (enum kv_side)side, .width = c->width[port]};
    kv_format_decode(c->format, &b, unit, 1, x);
}

// Where the high bits of code i lie in the high plane.
static inline uint32_t high_bit(uint32_t i, uint32_t a, uint32_t b, uint32_t *word) {
    uint32_t ratio = a / b, per_half = 16 / a, low = i / (2 * per_half), half = i / per_half % 2;
    *word = low / ratio;
    return 16 * half + b * (low % ratio * per_half + i % per_half);
}

// Both ways between codes and the words of two planes; a and b are constants where these are
// called, so that places are.
static inline __attribute__((always_inline)) void to_planes(const uint8_t *code, uint32_t dim,
                                                            uint32_t a, uint32_t b, uint32_t *low,
                                                            uint32_t *high) {
    for (uint32_t i = 0; i < dim; i++) {
        uint32_t w, at = high_bit(i, a, b, &w);
        low[i / (32 / a)] |= (code[i] & ((1u << a) - 1)) << a * (i % (32 / a));
        high[w] |= (uint32_t)(code[i] >> a) << at;
    }
}
static inline __attribute__((always_inline)) void from_planes(const uint32_t *low,
                                                              const uint32_t *high, uint32_t dim,
                                                              uint32_t a, uint32_t b,
                                                              uint8_t *code) {
    for (uint32_t i = 0; i < dim; i++) {
        uint32_t w, at = high_bit(i, a, b, &w);
        code[i] = (uint8_t)((low[i / (32 / a)] >> a * (i % (32 / a)) & ((1u << a) - 1)) |
                            (high[w] >> at & ((1u << b) - 1)) << a);
    }
}

// The code stream of a unit as the words of its planes: low ones, then high ones.
static void split(const struct kv_side_layout *l, const uint8_t *stream, uint32_t dim,
                  uint32_t *word) {
    if (!l->plane[1]) {
        for (uint32_t i = 0; i < l->words[0]; i++) word[i] = kv_get32(stream + 4 * i);
        return;
    }
    uint8_t code[KV_MAX_CACHED_DIM];
    uint32_t *high = word + l->words[0];
    kv_unpack(stream, dim, l->bits, code);
    memset(word, 0, (l->words[0] + l->words[1]) * sizeof *word);
    if (l->bits == 3)
        to_planes(code, dim, 2, 1, word, high);
    else if (l->bits == 5)
        to_planes(code, dim, 4, 1, word, high);
    else
        to_planes(code, dim, 4, 2, word, high);
}

static void join(const struct kv_side_layout *l, const uint32_t *word, uint32_t dim,
                 uint8_t *stream) {
    if (!l->plane[1]) {
        for (uint32_t i = 0; i < l->words[0]; i++) kv_put32(stream + 4 * i, word[i]);
        return;
    }
    uint8_t code[KV_MAX_CACHED_DIM];
    const uint32_t *high = word + l->words[0];
    if (l->bits == 3)
        from_planes(word, high, dim, 2, 1, code);
    else if (l->bits == 5)
        from_planes(word, high, dim, 4, 1, code);
    else
        from_planes(word, high, dim, 4, 2, code);
    kv_pack(code, dim, l->bits, stream);
}

// ---- slots ----------------------------------------------------------------------------

// Index of word w of a token among the words of a plane.
static size_t word_at(enum kv_side side, uint32_t t, uint32_t words, uint32_t w) {
    return side == KV_KEY ? ((size_t)(t / KV_KEY_TILE) * words + w) * KV_KEY_TILE + t % KV_KEY_TILE
                          : (size_t)t * words + w;
}

void kv_cell_store(const struct kv_side_layout *l, enum kv_side side, uint8_t *block, uint32_t t,
                   const uint8_t *unit, uint32_t dim) {
    if (l->bits == 16) {
        for (uint32_t i = 0; i < dim; i++)
            ((uint16_t *)block)[word_at(side, t, dim, i)] = kv_get16(unit + 2 * i);
        return;
    }
    for (uint32_t g = 0; g < l->n_groups; g++) {
        const uint8_t *meta = unit + g * (l->has_min ? 4 : 2);
        ((uint16_t *)(block + l->scale_at))[g * KV_PAGE_TOKENS + t] = kv_get16(meta);
        if (l->has_min)
            ((uint16_t *)(block + l->min_at))[g * KV_PAGE_TOKENS + t] = kv_get16(meta + 2);
    }
    uint32_t word[2 * MAX_WORDS];
    split(l, unit + l->meta_bytes, dim, word);
    for (uint32_t i = 0; i < l->words[0]; i++)
        ((uint32_t *)block)[word_at(side, t, l->words[0], i)] = word[i];
    for (uint32_t i = 0; i < l->words[1]; i++)
        ((uint32_t *)(block + l->high_at))[word_at(side, t, l->words[1], i)] =
            word[l->words[0] + i];
}

void kv_cell_load(const struct kv_side_layout *l, enum kv_side side, const uint8_t *block,
                  uint32_t t, uint8_t *unit, uint32_t dim) {
    if (l->bits == 16) {
        for (uint32_t i = 0; i < dim; i++)
            kv_put16(unit + 2 * i, ((const uint16_t *)block)[word_at(side, t, dim, i)]);
        return;
    }
    for (uint32_t g = 0; g < l->n_groups; g++) {
        uint8_t *meta = unit + g * (l->has_min ? 4 : 2);
        kv_put16(meta, ((const uint16_t *)(block + l->scale_at))[g * KV_PAGE_TOKENS + t]);
        if (l->has_min)
            kv_put16(meta + 2, ((const uint16_t *)(block + l->min_at))[g * KV_PAGE_TOKENS + t]);
    }
    uint32_t word[2 * MAX_WORDS];
    for (uint32_t i = 0; i < l->words[0]; i++)
        word[i] = ((const uint32_t *)block)[word_at(side, t, l->words[0], i)];
    for (uint32_t i = 0; i < l->words[1]; i++)
        word[l->words[0] + i] =
            ((const uint32_t *)(block + l->high_at))[word_at(side, t, l->words[1], i)];
    join(l, word, dim, unit + l->meta_bytes);
}
