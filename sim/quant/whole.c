// SPDX-License-Identifier: Apache-2.0
// Cuts a branch's rows into tensors and hands them to the format, whole or width by width.
#include "sim/quant/whole.h"
#include "sim/quant/own.h"
#include "sim/base/memory.h"

#include <stdlib.h>

static size_t heads_of(const struct kv_format *f) {
    return f->setting.shape.n_kv_heads;
}

// The order in which the format sees a side's channels: values have no RoPE to be ordered by.
static enum kv_order order_of(const struct kv_format *f, enum kv_side side) {
    return side == KV_KEY ? f->order : f->setting.order;
}

float *kv_whole_gather(const struct kv_format *f, const struct kv_vectors *r, size_t from,
                       size_t to) {
    size_t heads = heads_of(f), d = f->setting.shape.head_dim;
    float *x = kv_alloc((to - from) * heads * d + 1, sizeof *x);
    for (size_t row = from; row < to; row++)
        for (size_t h = 0; h < heads; h++)
            kv_reorder(r->x + row * r->x_stride + h * d, x + ((row - from) * heads + h) * d, d,
                       f->setting.order, order_of(f, r->side));
    return x;
}

// Widths of the cells of rows [row, row + n); KV_EVICT where none of the format's is held.
static uint8_t *widths_of(const struct kv_format *f, const struct kv_vectors *r, size_t row,
                          size_t n) {
    size_t heads = heads_of(f);
    uint8_t *width = kv_alloc(n * heads + 1, 1);
    for (size_t i = 0; i < n * heads; i++) {
        uint8_t c =
            r->cells[(row + i / heads) * r->cell_token_stride + i % heads * r->cell_head_stride];
        width[i] = c < f->n_widths ? c : KV_EVICT;
    }
    return width;
}

static void count_codes(const struct kv_format *f, const uint8_t *q, size_t n, size_t width,
                        uint64_t *histogram) {
    for (size_t i = 0; f->width_bits[width] <= 8 && i < n; i++) histogram[256 * width + q[i]]++;
}

// A format that codes the tensor itself.
static void code_whole(const struct kv_format *f, const struct kv_whole *t, const float *x,
                       float *y, uint64_t *histogram) {
    const struct kv_format_type *type = f->type;
    size_t d = f->setting.shape.head_dim, cells = t->n * heads_of(f);
    uint8_t *codes = kv_alloc(type->whole_size(f, t).bytes + 1, 1);
    type->whole_encode(f, t, x, codes);
    type->whole_decode(f, t, codes, y);
    if (histogram && type->whole_codes) {
        uint8_t *q = kv_alloc(cells * d + 1, 1);
        type->whole_codes(f, t, codes, q);
        for (size_t i = 0; i < cells; i++)
            if (t->width[i] != KV_EVICT) count_codes(f, q + i * d, d, t->width[i], histogram);
        free(q);
    }
    free(codes);
}

// A format whose units of one call belong together: all cells of a width are one call.
static void code_width(const struct kv_format *f, const struct kv_whole *t, uint8_t width,
                       const float *x, float *y, uint64_t *histogram) {
    size_t d = f->setting.shape.head_dim, cells = t->n * heads_of(f), m = 0;
    struct kv_block b = {t->layer, t->side, width};
    size_t bytes = kv_format_size(f, t->side, width).bytes;
    float *units = kv_alloc(2 * cells * d + 1, sizeof *units), *back = units + cells * d;
    uint8_t *codes = kv_alloc(cells * (bytes + d) + 1, 1), *q = codes + cells * bytes;
    for (size_t i = 0; i < cells; i++)
        if (t->width[i] == width) memcpy(units + m++ * d, x + i * d, d * sizeof *x);
    kv_format_encode(f, &b, units, m, codes);
    kv_format_decode(f, &b, codes, m, back);
    if (histogram && f->type->codes && f->width_bits[width] <= 8) {
        f->type->codes(f, &b, codes, m, q);
        count_codes(f, q, m * d, width, histogram);
    }
    m = 0;
    for (size_t i = 0; i < cells; i++)
        if (t->width[i] == width) memcpy(y + i * d, back + m++ * d, d * sizeof *y);
    free(units);
    free(codes);
}

static bool holds(const struct kv_whole *t, size_t cells, uint8_t width) {
    return memchr(t->width, width, cells) != NULL;
}

static void code_one(const struct kv_format *f, const struct kv_vectors *r, const float *x,
                     size_t row, size_t n, uint64_t *histogram) {
    size_t heads = heads_of(f), d = f->setting.shape.head_dim, cells = n * heads;
    uint8_t *width = widths_of(f, r, row, n);
    float *y = kv_alloc(cells * d + 1, sizeof *y);
    struct kv_whole t = {r->layer, r->side, n, width};
    if (f->type->whole_encode) code_whole(f, &t, x, y, histogram);
    for (uint8_t w = 0; !f->type->whole_encode && w < f->n_widths; w++)
        if (holds(&t, cells, w)) code_width(f, &t, w, x, y, histogram);
    for (size_t i = 0; i < cells; i++)
        if (width[i] != KV_EVICT)
            kv_reorder(y + i * d, r->y + (row + i / heads) * r->y_stride + i % heads * d, d,
                       order_of(f, r->side), f->setting.order);
    free(width);
    free(y);
}

void kv_whole_code(const struct kv_format *f, const struct kv_vectors *r, const float *x,
                   size_t from, size_t to, uint64_t *histogram) {
    size_t n = r->start > 0 ? f->gathers : to - from,
           floats = heads_of(f) * f->setting.shape.head_dim;
    for (size_t row = from; row < to; row += n)
        code_one(f, r, x + (row - from) * floats, row, n, histogram);
}

void kv_whole_count(const struct kv_format *f, const struct kv_vectors *r, size_t from, size_t to,
                    struct kv_bits *bits) {
    size_t n = r->start > 0 ? f->gathers : to - from;
    for (size_t row = from; row < to; row += n) {
        size_t here = to - row < n ? to - row : n;
        uint8_t *width = widths_of(f, r, row, here);
        struct kv_whole_size size =
            f->type->whole_size(f, &(struct kv_whole){r->layer, r->side, here, width});
        bits->code_bits += size.code_bits;
        bits->meta_bits += size.meta_bits;
        bits->bytes += size.bytes;
        free(width);
    }
}
