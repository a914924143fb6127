// SPDX-License-Identifier: Apache-2.0
// Gathers units of equal width from decisions, codes and decodes them, and counts their bits.
#include "sim/quant/code.h"
#include "sim/quant/centre.h"
#include "sim/quant/own.h"
#include "sim/quant/pack.h"
#include "sim/quant/whole.h"

#include <stdlib.h>

// Floats gathered before one call of the format: about half a first-level cache.
enum { CHUNK_FLOATS = 4096, CHUNK_UNITS = 256 };

// One side of a format as unit sizes.
struct unit {
    size_t tokens, heads, values; // of one unit
    size_t per_block;             // units that share the same tokens
    size_t chunk;                 // units gathered at a time
};

static struct unit unit_of(const struct kv_format *f, enum kv_side side) {
    struct unit u = {.tokens = f->unit_tokens[side], .heads = f->unit_heads};
    u.values = u.tokens * u.heads * f->setting.shape.head_dim;
    u.per_block = f->setting.shape.n_kv_heads / u.heads;
    u.chunk = CHUNK_FLOATS / u.values;
    if (u.chunk < 1) u.chunk = 1;
    if (u.chunk > CHUNK_UNITS) u.chunk = CHUNK_UNITS;
    return u;
}

static size_t largest_bytes(const struct kv_format *f, enum kv_side side) {
    size_t most = 0;
    for (uint32_t w = 0; w < f->n_widths; w++) {
        size_t b = kv_format_size(f, side, w).bytes;
        if (b > most) most = b;
    }
    return most;
}

// Scratch: x of a chunk, y of a chunk, codes of a chunk; where vectors are centred, the centre of
// each head, and one head's values and centre at a position.
struct scratch {
    float *x, *y, *centre, *head, *at;
    uint8_t *codes;
};

static size_t centre_floats(const struct kv_format *f, enum kv_side side) {
    return kv_is_centred(f, side)
               ? ((size_t)f->setting.shape.n_kv_heads + 2) * f->setting.shape.head_dim
               : 0;
}

static struct scratch scratch_of(const struct kv_format *f, enum kv_side side, const struct unit *u,
                                 void *memory) {
    float *x = memory, *y = x + u->chunk * u->values, *centre = y + u->chunk * u->values;
    size_t d = f->setting.shape.head_dim, n = centre_floats(f, side);
    return (struct scratch){.x = x,
                            .y = y,
                            .centre = centre,
                            .head = n ? centre + n - 2 * d : NULL,
                            .at = n ? centre + n - d : NULL,
                            .codes = (uint8_t *)(centre + n)};
}

struct kv_vectors kv_branch_rows(const struct kv_shape *s, uint32_t layer, enum kv_side side,
                                 uint32_t n_context, const uint32_t *first, uint32_t branch,
                                 const uint8_t *cells, const float *x, float *y) {
    size_t width = (size_t)s->n_kv_heads * s->head_dim, per_token = kv_cells(s),
           row = branch ? first[branch - 1] : 0, end = branch ? first[branch] : n_context,
           start = branch ? n_context : 0;
    return (struct kv_vectors){.layer = layer,
                               .side = side,
                               .start = start,
                               .first = start,
                               .n = end - row,
                               .x = x + row * width,
                               .x_stride = width,
                               .y = y + row * width,
                               .y_stride = width,
                               .cells = cells + row * per_token +
                                        layer * (per_token / s->n_layers) + side,
                               .cell_token_stride = per_token,
                               .cell_head_stride = 2,
                               .opening = x,
                               .n_opening = n_context};
}

size_t kv_code_scratch_bytes(const struct kv_format *f) {
    size_t most = 0;
    for (int side = 0; side < 2; side++) {
        struct unit u = unit_of(f, side);
        size_t codes = u.chunk * largest_bytes(f, side), one_byte_a_code = u.chunk * u.values;
        size_t floats = 2 * u.chunk * u.values + centre_floats(f, (enum kv_side)side);
        size_t n = floats * sizeof(float) + codes + one_byte_a_code;
        if (n > most) most = n;
    }
    return most;
}

static uint8_t cell_at(const struct kv_vectors *r, size_t row, size_t head) {
    return r->cells[row * r->cell_token_stride + head * r->cell_head_stride];
}

// The width that all cells of a unit agree on; KV_EVICT when all are evicted.
static int unit_width(const struct kv_format *f, const struct kv_vectors *r, const struct unit *u,
                      size_t row, size_t head, uint8_t *width, struct kv_error *e) {
    *width = KV_EVICT;
    for (size_t t = row; t < row + u->tokens; t++)
        for (size_t h = head; h < head + u->heads; h++) {
            uint8_t c = cell_at(r, t, h);
            if (c == KV_EVICT) continue;
            if (c != KV_FLOAT32 && c >= f->n_widths)
                return kv_fail(e, KV_EFAIL, "decision",
                               "token %zu, layer %u, KV head %zu: %u is no width of format %s",
                               r->first + t, r->layer, h, c, f->type->name);
            if (*width != KV_EVICT && *width != c)
                return kv_fail(
                    e, KV_EFAIL, "decision",
                    "token %zu, layer %u, KV head %zu: %s of format %s share a scale with "
                    "cells of another width; give them one width or use a format whose "
                    "unit is a head's vector",
                    r->first + t, r->layer, h, r->side == KV_KEY ? "keys" : "values",
                    f->type->name);
            *width = c;
        }
    return 0;
}

static void exact_row(const struct kv_format *f, const struct kv_vectors *r, size_t row,
                      size_t head, size_t heads) {
    uint8_t h[2 * 256];
    size_t d = f->setting.shape.head_dim, n = heads * d;
    const float *x = r->x + row * r->x_stride + head * d;
    float *y = r->y + row * r->y_stride + head * d;
    for (size_t i = 0; i < n; i += 256) {
        size_t here = n - i < 256 ? n - i : 256;
        kv_put_halves(x + i, here, h);
        kv_get_halves(h, here, y + i);
    }
}

// Rows outside coded blocks: fp16, or untouched where float32 was decided.
static int exact_rows(const struct kv_format *f, const struct kv_vectors *r, size_t from, size_t to,
                      struct kv_error *e) {
    size_t d = f->setting.shape.head_dim, heads = f->setting.shape.n_kv_heads;
    const struct unit cell = {.tokens = 1, .heads = 1};
    for (size_t row = from; row < to; row++)
        for (size_t h = 0; h < heads; h++) {
            uint8_t w;
            int rc = unit_width(f, r, &cell, row, h, &w, e);
            if (rc) return rc;
            if (w == KV_FLOAT32)
                memmove(r->y + row * r->y_stride + h * d, r->x + row * r->x_stride + h * d,
                        d * sizeof(float));
            else
                exact_row(f, r, row, h, 1);
        }
    return 0;
}

static bool permuted(const struct kv_format *f, const struct kv_vectors *r) {
    return r->side == KV_KEY &&
           f->order != f->setting.order; // values have no RoPE to be ordered by
}

// Copies a unit between the model's layout and [tokens][heads][dim] in the format's order, less
// its centre where it is centred.
static void gather(const struct kv_format *f, const struct kv_vectors *r, const struct unit *u,
                   const struct scratch *s, bool centred, size_t row, size_t head, float *out) {
    size_t d = f->setting.shape.head_dim;
    enum kv_order to = permuted(f, r) ? f->order : f->setting.order;
    for (size_t t = row; t < row + u->tokens; t++)
        for (size_t h = head; h < head + u->heads; h++, out += d) {
            const float *x = r->x + t * r->x_stride + h * d;
            if (centred) {
                kv_centre_at(f, r->layer, s->centre, h, r->first + t, s->at);
                for (size_t i = 0; i < d; i++) s->head[i] = x[i] - s->at[i];
                x = s->head;
            }
            kv_reorder(x, out, d, f->setting.order, to);
        }
}

static void scatter(const struct kv_format *f, const struct kv_vectors *r, const struct unit *u,
                    const struct scratch *s, bool centred, size_t row, size_t head,
                    const float *in) {
    size_t d = f->setting.shape.head_dim;
    enum kv_order from = permuted(f, r) ? f->order : f->setting.order;
    for (size_t t = row; t < row + u->tokens; t++)
        for (size_t h = head; h < head + u->heads; h++, in += d) {
            float *y = r->y + t * r->y_stride + h * d;
            kv_reorder(in, y, d, from, f->setting.order);
            if (!centred) continue;
            kv_centre_at(f, r->layer, s->centre, h, r->first + t, s->at);
            for (size_t i = 0; i < d; i++) y[i] += s->at[i];
        }
}

static void count_codes(const struct kv_format *f, const struct kv_block *b,
                        const struct scratch *s, const struct unit *u, size_t n,
                        uint64_t *histogram) {
    if (!histogram || !f->type->codes || f->width_bits[b->width] > 8) return;
    uint8_t *q = s->codes + u->chunk * largest_bytes(f, b->side);
    f->type->codes(f, b, s->codes, n, q);
    for (size_t i = 0; i < n * u->values; i++) histogram[256 * b->width + q[i]]++;
}

// Codes the units [0, n) of a chunk, whose first one starts at row `row` with unit `k` of its
// block.
static int code_chunk(const struct kv_format *f, const struct kv_vectors *r, const struct unit *u,
                      const struct scratch *s, size_t unit0, size_t n, size_t row0,
                      uint64_t *histogram, struct kv_error *e) {
    uint8_t width[CHUNK_UNITS];
    bool seen[KV_MAX_WIDTHS] = {false};
    size_t d = f->setting.shape.head_dim;
#define ROW(i) (row0 + (unit0 + (i)) / u->per_block * u->tokens)
#define HEAD(i) ((unit0 + (i)) % u->per_block * u->heads)
    for (size_t i = 0; i < n; i++) {
        int rc = unit_width(f, r, u, ROW(i), HEAD(i), &width[i], e);
        if (rc) return rc;
        if (width[i] < KV_MAX_WIDTHS) seen[width[i]] = true;
        for (size_t t = 0; t < u->tokens; t++) {
            size_t row = ROW(i) + t;
            if (width[i] == KV_EVICT) exact_row(f, r, row, HEAD(i), u->heads);
            if (width[i] == KV_FLOAT32)
                memmove(r->y + row * r->y_stride + HEAD(i) * d,
                        r->x + row * r->x_stride + HEAD(i) * d, u->heads * d * sizeof(float));
        }
    }
    for (uint32_t w = 0; w < f->n_widths; w++) {
        if (!seen[w]) continue;
        struct kv_block b = {r->layer, r->side, w};
        bool centred = kv_width_is_centred(f, r->side, w);
        size_t m = 0;
        for (size_t i = 0; i < n; i++)
            if (width[i] == w) gather(f, r, u, s, centred, ROW(i), HEAD(i), s->x + m++ * u->values);
        kv_format_encode(f, &b, s->x, m, s->codes);
        kv_format_decode(f, &b, s->codes, m, s->y);
        count_codes(f, &b, s, u, m, histogram);
        m = 0;
        for (size_t i = 0; i < n; i++)
            if (width[i] == w)
                scatter(f, r, u, s, centred, ROW(i), HEAD(i), s->y + m++ * u->values);
    }
#undef ROW
#undef HEAD
    return 0;
}

// True when every cell of the rows holds the same width and units lie in x and y as they are coded.
static bool uniform(const struct kv_format *f, const struct kv_vectors *r, const struct unit *u,
                    size_t from, size_t to) {
    size_t heads = f->setting.shape.n_kv_heads, dim = heads * f->setting.shape.head_dim;
    if (u->tokens != 1 || permuted(f, r) || kv_is_centred(f, r->side) || r->x_stride != dim ||
        r->y_stride != dim)
        return false;
    uint8_t first = cell_at(r, from, 0);
    if (first >= f->n_widths) return false;
    for (size_t row = from; row < to; row++)
        for (size_t h = 0; h < heads; h++)
            if (cell_at(r, row, h) != first) return false;
    return true;
}

static void code_uniform(const struct kv_format *f, const struct kv_vectors *r,
                         const struct unit *u, const struct scratch *s, size_t from, size_t to,
                         uint64_t *histogram) {
    struct kv_block b = {r->layer, r->side, cell_at(r, from, 0)};
    size_t n = (to - from) * u->per_block;
    const float *x = r->x + from * r->x_stride;
    float *y = r->y + from * r->y_stride;
    for (size_t i = 0; i < n; i += u->chunk) {
        size_t here = n - i < u->chunk ? n - i : u->chunk;
        kv_format_encode(f, &b, x + i * u->values, here, s->codes);
        kv_format_decode(f, &b, s->codes, here, y + i * u->values);
        count_codes(f, &b, s, u, here, histogram);
    }
}

size_t kv_block_tokens(const struct kv_format *f, enum kv_side side, size_t start) {
    return f->scope == KV_SCOPE_TENSOR && start > 0 ? f->gathers : f->flush[side];
}

// Rows of a format that looks at whole tensors.
static int code_wholes(const struct kv_format *f, const struct kv_vectors *r, size_t from,
                       size_t to, uint64_t *histogram, struct kv_error *e) {
    float *x = kv_whole_gather(f, r, from, to);
    int rc = exact_rows(f, r, from, to, e); // those that hold no width of the format
    if (rc == 0) kv_whole_code(f, r, x, from, to, histogram);
    free(x);
    return rc;
}

// Rows [*from, *to) of the call lie in whole blocks behind the sinks.
static void coded_rows(const struct kv_format *f, const struct kv_vectors *r, size_t *from,
                       size_t *to) {
    size_t base = r->start > f->sinks ? r->start : f->sinks, end = r->first + r->n;
    size_t flush = kv_block_tokens(f, r->side, r->start);
    if (end < base) end = base;
    end = base + (end - base) / flush * flush;
    *from = base > r->first ? base - r->first : 0;
    *to = end > r->first ? end - r->first : 0;
    if (*from > r->n) *from = r->n;
    if (*to > r->n) *to = r->n; // sinks that reach past the rows
    if (*to < *from) *to = *from;
}

int kv_code_rows(const struct kv_format *f, const struct kv_vectors *r, void *memory,
                 uint64_t *histogram, struct kv_error *e) {
    struct unit u = unit_of(f, r->side);
    struct scratch s = scratch_of(f, r->side, &u, memory);
    size_t from, to, base = r->start > f->sinks ? r->start : f->sinks,
                     block = kv_block_tokens(f, r->side, r->start);
    if (r->n == 0) return 0;
    if (r->first < r->start || (r->first > base && (r->first - base) % block != 0))
        return kv_fail(
            e, KV_EFAIL, "coding",
            "rows must begin at position %zu or a multiple of %zu tokens after it, not at "
            "%zu",
            base, block, r->first);
    coded_rows(f, r, &from, &to);
    int rc = exact_rows(f, r, 0, from, e);
    if (rc == 0) rc = exact_rows(f, r, to, r->n, e);
    if (rc || from == to) return rc;
    if (f->scope == KV_SCOPE_TENSOR) return code_wholes(f, r, from, to, histogram, e);
    if (kv_is_centred(f, r->side) && (rc = kv_centre_find(f, r, s.centre, e))) return rc;
    if (uniform(f, r, &u, from, to)) {
        code_uniform(f, r, &u, &s, from, to, histogram);
        return 0;
    }
    size_t n = (to - from) / u.tokens * u.per_block;
    for (size_t i = 0; i < n && rc == 0; i += u.chunk)
        rc = code_chunk(f, r, &u, &s, i, n - i < u.chunk ? n - i : u.chunk, from, histogram, e);
    return rc;
}

static void count_exact(const struct kv_format *f, const struct kv_vectors *r, size_t from,
                        size_t to, struct kv_bits *bits) {
    size_t d = f->setting.shape.head_dim, heads = f->setting.shape.n_kv_heads;
    for (size_t row = from; row < to; row++)
        for (size_t h = 0; h < heads; h++) {
            uint8_t w = cell_at(r, row, h);
            unsigned width = w == KV_FLOAT32 ? 32 : w == KV_EVICT ? 0 : 16;
            bits->values[kv_bin_of_bits(width)] += d;
            bits->code_bits += width * d;
            bits->bytes += width / 8 * d;
        }
}

// Values of a unit by their own decision: an evicted cell in a kept unit is counted as evicted,
// though its bits stay.
static void count_values(const struct kv_format *f, const struct kv_vectors *r,
                         const struct unit *u, size_t row, size_t head, struct kv_bits *bits) {
    size_t d = f->setting.shape.head_dim;
    for (size_t t = row; t < row + u->tokens; t++)
        for (size_t h = head; h < head + u->heads; h++) {
            uint8_t w = cell_at(r, t, h);
            bits->values[w == KV_EVICT     ? 0
                         : w == KV_FLOAT32 ? KV_FLOAT32_BIN
                                           : f->width_bits[w]] += d;
        }
}

void kv_held_rows(const struct kv_format *f, const struct kv_vectors *r, size_t upto, size_t *from,
                  size_t *to) {
    size_t tokens = f->unit_tokens[r->side];
    coded_rows(f, r, from, to);
    if (upto >= r->first + *to) return;
    *to = upto > r->first + *from ? upto - r->first : *from;
    *to = *from + (*to - *from) / tokens * tokens;
}

void kv_count_rows(const struct kv_format *f, const struct kv_vectors *r, size_t upto,
                   struct kv_bits *bits) {
    struct unit u = unit_of(f, r->side);
    struct kv_unit_size size[KV_MAX_WIDTHS];
    size_t from, to;
    for (uint32_t w = 0; w < f->n_widths; w++) size[w] = kv_format_size(f, r->side, w);
    kv_held_rows(f, r, upto, &from, &to);
    count_exact(f, r, 0, from, bits);
    count_exact(f, r, to, r->n, bits);
    kv_centre_count(f, r, upto, bits);
    bool whole = f->type->whole_size != NULL; // then units take only what they hold in float32
    if (whole) kv_whole_count(f, r, from, to, bits);
    for (size_t row = from; row < to; row += u.tokens)
        for (size_t k = 0; k < u.per_block; k++) {
            uint8_t w;
            size_t head = k * u.heads;
            if (unit_width(f, r, &u, row, head, &w, NULL)) continue; // refused by kv_code_rows
            count_values(f, r, &u, row, head, bits);
            if (w == KV_EVICT) continue;
            if (w == KV_FLOAT32) {
                bits->code_bits += 32 * u.values;
                bits->bytes += 4 * u.values;
            } else if (!whole) {
                bits->code_bits += size[w].code_bits;
                bits->meta_bits += size[w].meta_bits;
                bits->bytes += size[w].bytes;
            }
        }
}

size_t kv_coded_upto(const struct kv_format *f, enum kv_side side, size_t branch, size_t query_pos,
                     size_t newest_exact) {
    size_t window = f->window[side], flush = kv_block_tokens(f, side, branch), sinks = f->sinks;
    size_t held = window > newest_exact ? window : newest_exact;
    size_t aged = query_pos + 1 > held ? query_pos + 1 - held : 0;
    if (branch > 0 && aged > branch) {
        size_t base = branch > sinks ? branch : sinks;
        size_t blocks = aged > base ? (aged - base) / flush : 0;
        if (blocks > 0) return base + blocks * flush;
        aged = branch;
    }
    if (branch == 0 && aged < kv_centre_known(f, side)) return 0;
    flush = kv_block_tokens(f, side, 0);
    return aged > sinks ? sinks + (aged - sinks) / flush * flush : 0;
}

double kv_entropy_bits(const uint64_t *histogram) {
    double n = 0.0, sum = 0.0;
    for (int i = 0; i < 256; i++) n += (double)histogram[i];
    if (n == 0.0) return NAN;
    for (int i = 0; i < 256; i++)
        if (histogram[i]) sum -= (double)histogram[i] * log2((double)histogram[i] / n);
    return sum / n;
}
