// SPDX-License-Identifier: Apache-2.0
// Format zipcache: keys by channel over all tokens of one width, values by token once each channel
// has been divided by the root of its peak.
#include "sim/base/memory.h"
#include "sim/quant/own.h"
#include "sim/quant/pack.h"
#include "sim/quant/plain.h"

#include <stdlib.h>

static const struct kv_param params[] = {
    {"gap", KV_INT, "100", 1, 4096, NULL, "tokens",
     "tokens after the prompt stay exact until so many have gathered"},
    {0}};

static int zip_open(struct kv_format *f, const struct kv_format_setting *s,
                    const struct kv_args *args, struct kv_error *e) {
    static const uint8_t bits[] = {2, 4, 8, 16};
    (void)s, (void)e;
    kv_set_widths(f, bits, sizeof bits);
    f->scope = KV_SCOPE_TENSOR;
    f->gathers = (uint32_t)kv_number(args, "gap");
    return 0;
}

// A unit with its share of what a set of as many tokens of all heads shares.
static struct kv_unit_size zip_unit(const struct kv_format *f, enum kv_side side, uint32_t width) {
    uint32_t d = f->setting.shape.head_dim, heads = f->setting.shape.n_kv_heads,
             bits = f->width_bits[width],
             meta = side == KV_KEY ? (32 * d + KV_NOMINAL_TOKENS - 1) / KV_NOMINAL_TOKENS
                                   : (32 + heads - 1) / heads +
                                         (16 * d + KV_NOMINAL_TOKENS - 1) / KV_NOMINAL_TOKENS;
    if (bits == 16) return kv_half_size(d);
    return (struct kv_unit_size){
        .values = d, .code_bits = d * bits, .meta_bits = meta, .bytes = (d * bits + meta + 7) / 8};
}

// ---- the cells of one width ----------------------------------------------------------------

// A set's rows join the first cell of each head, the second of each, and so on.
struct set {
    unsigned bits;
    size_t n, rows, heads; // cells, the most a head has, heads that have one
    uint32_t *cell, *rank; // [n] token x heads + head, in order; which of its head's cells it is
    uint32_t *count;       // [n_kv_heads]
};

static struct set set_of(const struct kv_format *f, const struct kv_whole *t, uint32_t width) {
    size_t heads = f->setting.shape.n_kv_heads, cells = t->n * heads;
    struct set s = {.bits = f->width_bits[width]};
    s.cell = kv_alloc(2 * cells + heads + 1, sizeof *s.cell);
    s.rank = s.cell + cells;
    s.count = s.rank + cells;
    for (size_t i = 0; i < cells; i++) {
        if (t->width[i] != width) continue;
        s.heads += s.count[i % heads] == 0;
        s.cell[s.n] = (uint32_t)i;
        s.rank[s.n++] = s.count[i % heads]++;
    }
    for (size_t h = 0; h < heads; h++) s.rows = s.count[h] > s.rows ? s.count[h] : s.rows;
    return s;
}

// Scales and minima: of keys a pair a channel of each head that has a cell, of values a pair a row.
static size_t pairs_of(const struct set *s, enum kv_side side, size_t d) {
    return s->bits == 16 ? 0 : side == KV_KEY ? s->heads * d : s->rows;
}

static size_t bytes_of(const struct set *s, enum kv_side side, size_t d) {
    return 4 * pairs_of(s, side, d) + kv_packed_bytes(s->n * d, s->bits);
}

// Heads of which something is coded below 16 bits: their values' channels have a scale each.
static size_t scaled_heads(const struct kv_format *f, const struct kv_whole *t, bool *scaled) {
    size_t heads = f->setting.shape.n_kv_heads, n = 0;
    memset(scaled, 0, heads);
    for (size_t i = 0; i < t->n * heads; i++)
        if (t->width[i] != KV_EVICT && f->width_bits[t->width[i]] < 16) scaled[i % heads] = true;
    for (size_t h = 0; h < heads; h++) n += scaled[h];
    return t->side == KV_VALUE ? n : 0;
}

static struct kv_whole_size zip_size(const struct kv_format *f, const struct kv_whole *t) {
    size_t d = f->setting.shape.head_dim;
    bool *scaled = kv_alloc(f->setting.shape.n_kv_heads, 1);
    struct kv_whole_size size = {.bytes = 2 * d * scaled_heads(f, t, scaled)};
    size.meta_bits = 8 * size.bytes;
    for (uint32_t w = 0; w < f->n_widths; w++) {
        struct set s = set_of(f, t, w);
        size.code_bits += s.n * d * s.bits;
        size.meta_bits += 32 * pairs_of(&s, t->side, d);
        size.bytes += bytes_of(&s, t->side, d);
        free(s.cell);
    }
    free(scaled);
    return size;
}

// ---- arithmetic ----------------------------------------------------------------------------

static float held(float x) { // within fp16; NaN as 0
    return isnan(x) ? 0.0f : x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
}

struct range {
    float min, max;
};

static void widen(struct range *r, float x) {
    r->min = x < r->min ? x : r->min;
    r->max = x > r->max ? x : r->max;
}

// As asym: minimum to fp16, then the scale (max - min) / (2^b - 1).
static void put_range(const struct range *r, unsigned bits, uint8_t *out) {
    kv_put_half(out + 2, r->min);
    kv_put_half(out, (r->max - kv_get_half(out + 2)) / (float)((1u << bits) - 1));
}

static uint8_t code_of(float x, const uint8_t *pair, unsigned bits) {
    float scale = kv_get_half(pair), top = (float)((1u << bits) - 1),
          q = scale > 0.0f ? rintf((x - kv_get_half(pair + 2)) / scale) : 0.0f;
    return (uint8_t)(q < 0.0f ? 0.0f : q > top ? top : q);
}

// Each channel's sqrt(max |x|) over all tokens below 16 bits, as fp16: scale[n_kv_heads][d].
static void put_peaks(const struct kv_format *f, const struct kv_whole *t, const float *x,
                      uint8_t *scale) {
    size_t d = f->setting.shape.head_dim, heads = f->setting.shape.n_kv_heads;
    float *peak = kv_alloc(heads * d, sizeof *peak);
    for (size_t i = 0; i < t->n * heads; i++) {
        if (t->width[i] == KV_EVICT || f->width_bits[t->width[i]] == 16) continue;
        for (size_t c = 0; c < d; c++) {
            float *p = &peak[i % heads * d + c], a = fabsf(held(x[i * d + c]));
            *p = a > *p ? a : *p;
        }
    }
    for (size_t k = 0; k < heads * d; k++) kv_put_half(scale + 2 * k, sqrtf(peak[k]));
    free(peak);
}

// What is coded of a value: of keys itself; a channel of no height codes as zeros.
static float scaled(enum kv_side side, float x, const uint8_t *scale) {
    float by = side == KV_KEY ? 1.0f : kv_get_half(scale);
    return by > 0.0f ? held(x) / by : 0.0f;
}

// ---- coding --------------------------------------------------------------------------------

// Where things lie while a tensor is coded or decoded.
struct place {
    const struct kv_format *f;
    const struct kv_whole *t;
    size_t d, heads;
    uint8_t *scale; // [heads][d] fp16: of values' channels
    uint32_t *slot; // [heads] which of a set's heads that have a cell this is
};

static struct place place_of(const struct kv_format *f, const struct kv_whole *t) {
    struct place p = {f, t, f->setting.shape.head_dim, f->setting.shape.n_kv_heads, NULL, NULL};
    p.scale = kv_alloc(2 * p.heads * p.d, 1);
    p.slot = kv_alloc(p.heads, sizeof *p.slot);
    return p;
}

static void place_fini(struct place *p) {
    free(p->scale);
    free(p->slot);
}

static void number_heads(struct place *p, const struct set *s) {
    for (size_t h = 0, n = 0; h < p->heads; h++) p->slot[h] = (uint32_t)(n += s->count[h] > 0) - 1;
}

// Which pair of its set the channel c of the k-th cell goes by.
static size_t pair_at(const struct place *p, const struct set *s, size_t k, size_t c) {
    return p->t->side == KV_VALUE ? s->rank[k] : p->slot[s->cell[k] % p->heads] * p->d + c;
}

static const uint8_t *scale_at(const struct place *p, const struct set *s, size_t k, size_t c) {
    return p->scale + 2 * (s->cell[k] % p->heads * p->d + c);
}

static void encode_set(struct place *p, const struct set *s, const float *x, uint8_t *out) {
    size_t d = p->d, n_pairs = pairs_of(s, p->t->side, d);
    if (s->bits == 16) {
        for (size_t k = 0; k < s->n; k++) kv_put_halves(x + s->cell[k] * d, d, out + 2 * k * d);
        return;
    }
    struct range *range = kv_alloc(n_pairs + 1, sizeof *range);
    uint8_t *code = kv_alloc(s->n * d + 1, 1);
    number_heads(p, s);
    for (size_t i = 0; i < n_pairs; i++) range[i] = (struct range){INFINITY, -INFINITY};
    for (size_t k = 0; k < s->n; k++)
        for (size_t c = 0; c < d; c++)
            widen(&range[pair_at(p, s, k, c)],
                  scaled(p->t->side, x[s->cell[k] * d + c], scale_at(p, s, k, c)));
    for (size_t i = 0; i < n_pairs; i++) put_range(&range[i], s->bits, out + 4 * i);
    for (size_t k = 0; k < s->n; k++)
        for (size_t c = 0; c < d; c++)
            code[k * d + c] =
                code_of(scaled(p->t->side, x[s->cell[k] * d + c], scale_at(p, s, k, c)),
                        out + 4 * pair_at(p, s, k, c), s->bits);
    kv_pack(code, s->n * d, s->bits, out + 4 * n_pairs);
    free(range);
    free(code);
}

static void decode_set(struct place *p, const struct set *s, const uint8_t *in, float *y,
                       uint8_t *q) {
    size_t d = p->d;
    if (s->bits == 16) {
        for (size_t k = 0; y && k < s->n; k++) kv_get_halves(in + 2 * k * d, d, y + s->cell[k] * d);
        return;
    }
    uint8_t *code = kv_alloc(s->n * d + 1, 1);
    number_heads(p, s);
    kv_unpack(in + 4 * pairs_of(s, p->t->side, d), s->n * d, s->bits, code);
    for (size_t k = 0; k < s->n; k++)
        for (size_t c = 0; c < d; c++) {
            const uint8_t *pair = in + 4 * pair_at(p, s, k, c);
            float v = (float)code[k * d + c] * kv_get_half(pair) + kv_get_half(pair + 2);
            if (y)
                y[s->cell[k] * d + c] =
                    p->t->side == KV_KEY ? v : v * kv_get_half(scale_at(p, s, k, c));
            if (q) q[s->cell[k] * d + c] = code[k * d + c];
        }
    free(code);
}

static void zip_encode(const struct kv_format *f, const struct kv_whole *t, const float *x,
                       uint8_t *out) {
    struct place p = place_of(f, t);
    bool *has = kv_alloc(p.heads, 1);
    if (scaled_heads(f, t, has)) put_peaks(f, t, x, p.scale);
    for (size_t h = 0; t->side == KV_VALUE && h < p.heads; h++)
        if (has[h]) {
            memcpy(out, p.scale + 2 * h * p.d, 2 * p.d);
            out += 2 * p.d;
        }
    for (uint32_t w = 0; w < f->n_widths; w++) {
        struct set s = set_of(f, t, w);
        encode_set(&p, &s, x, out);
        out += bytes_of(&s, t->side, p.d);
        free(s.cell);
    }
    free(has);
    place_fini(&p);
}

// Fills y, or q with the codes.
static void read_back(const struct kv_format *f, const struct kv_whole *t, const uint8_t *in,
                      float *y, uint8_t *q) {
    struct place p = place_of(f, t);
    bool *has = kv_alloc(p.heads, 1);
    scaled_heads(f, t, has);
    for (size_t h = 0; t->side == KV_VALUE && h < p.heads; h++)
        if (has[h]) {
            memcpy(p.scale + 2 * h * p.d, in, 2 * p.d);
            in += 2 * p.d;
        }
    for (uint32_t w = 0; w < f->n_widths; w++) {
        struct set s = set_of(f, t, w);
        decode_set(&p, &s, in, y, q);
        in += bytes_of(&s, t->side, p.d);
        free(s.cell);
    }
    free(has);
    place_fini(&p);
}

static void zip_decode(const struct kv_format *f, const struct kv_whole *t, const uint8_t *in,
                       float *y) {
    read_back(f, t, in, y, NULL);
}

static void zip_codes(const struct kv_format *f, const struct kv_whole *t, const uint8_t *in,
                      uint8_t *q) {
    read_back(f, t, in, NULL, q);
}

// ---- where things lie -----------------------------------------------------------------------

// Cells that scales are of, first to last, as far apart as each other; apart 0: they are not.
struct spread {
    uint32_t first, n, apart;
};

static void spread_to(struct spread *s, uint32_t cell) {
    uint32_t last = s->first + (s->n ? (s->n - 1) * s->apart : 0);
    if (s->n == 0)
        *s = (struct spread){cell, 0, 1};
    else if (s->n == 1)
        s->apart = cell - last;
    else if (cell - last != s->apart)
        s->apart = 0;
    s->n++;
}

// Numbers of the channels of one head, each of every cell of a spread; covers 0 where those do not
// lie evenly: which cells they are, the cells' codes tell.
static void take_channels(const struct kv_format *f, const struct spread *of, const char *what,
                          uint32_t at, uint32_t step, kv_field_fn *take, void *self) {
    uint32_t d = f->setting.shape.head_dim;
    take(self, &(struct kv_field){.what = what,
                                  .type = "fp16",
                                  .bits = 16,
                                  .n = d,
                                  .at = at,
                                  .step = step,
                                  .value = of->apart ? of->first * d : 0,
                                  .next = of->apart ? 1 : 0,
                                  .covers = of->apart ? of->n : 0,
                                  .apart = of->apart * d});
}

// Heights of values' channels.
static uint32_t take_peaks(const struct kv_format *f, const struct kv_whole *t, kv_field_fn *take,
                           void *self) {
    uint32_t heads = f->setting.shape.n_kv_heads, at = 0;
    for (uint32_t h = 0; t->side == KV_VALUE && h < heads; h++) {
        struct spread of = {0};
        for (uint32_t i = h; i < t->n * heads; i += heads)
            if (t->width[i] != KV_EVICT && f->width_bits[t->width[i]] < 16) spread_to(&of, i);
        if (of.n == 0) continue;
        take_channels(f, &of, "scale of a channel", at, 16, take, self);
        at += 16 * f->setting.shape.head_dim;
    }
    return at;
}

// Cells between a row of a set and the next, where rows are whole tokens that lie evenly; else 0.
static uint32_t row_step(const struct set *s, uint32_t heads) {
    uint32_t step = s->n > heads ? s->cell[heads] - s->cell[0] : heads;
    if (s->cell[0] % heads || s->n != s->rows * heads) return 0;
    for (uint32_t k = 0; k < s->n; k++)
        if (s->cell[k] != s->cell[0] + k / heads * step + k % heads) return 0;
    return step;
}

// Scales and minima of a set: of keys by head and channel, of values by row.
static void take_pairs(const struct kv_format *f, const struct set *s, enum kv_side side,
                       uint32_t at, kv_field_fn *take, void *self) {
    static const char *const what[] = {"scale", "minimum"};
    uint32_t d = f->setting.shape.head_dim, heads = f->setting.shape.n_kv_heads;
    uint32_t step = row_step(s, heads);
    for (uint32_t h = 0; side == KV_KEY && h < heads; h++) {
        struct spread of = {0};
        for (size_t k = 0; k < s->n; k++)
            if (s->cell[k] % heads == h) spread_to(&of, s->cell[k]);
        if (of.n == 0) continue;
        for (uint32_t i = 0; i < 2; i++)
            take_channels(f, &of, what[i], at + 16 * i, 32, take, self);
        at += 32 * d;
    }
    for (uint32_t i = 0; side == KV_VALUE && i < 2;
         i++) // of whole tokens, or of cells as they come
        take(self, &(struct kv_field){.what = what[i],
                                      .type = "fp16",
                                      .bits = 16,
                                      .n = (uint32_t)s->rows,
                                      .at = at + 16 * i,
                                      .step = 32,
                                      .value = step ? s->cell[0] * d : 0,
                                      .next = step * d,
                                      .covers = step ? heads * d : 0,
                                      .apart = step ? 1 : 0});
}

// A run of codes for each run of cells that follow each other.
static void take_cells(const struct set *s, uint32_t d, uint32_t at, kv_field_fn *take,
                       void *self) {
    for (size_t k = 0, end; k < s->n; k = end) {
        for (end = k + 1; end < s->n && s->cell[end] == s->cell[end - 1] + 1;) end++;
        take(self, &(struct kv_field){.what = "code",
                                      .type = s->bits == 16 ? "fp16" : "uint",
                                      .bits = s->bits,
                                      .n = (uint32_t)(end - k) * d,
                                      .at = at + (uint32_t)k * d * s->bits,
                                      .step = s->bits,
                                      .value = s->cell[k] * d,
                                      .next = 1,
                                      .covers = 1,
                                      .apart = 1});
    }
}

static void zip_fields(const struct kv_format *f, const struct kv_whole *t, kv_field_fn *take,
                       void *self) {
    uint32_t d = f->setting.shape.head_dim, at = take_peaks(f, t, take, self);
    for (uint32_t w = 0; w < f->n_widths; w++) {
        struct set s = set_of(f, t, w);
        if (s.n && s.bits < 16) take_pairs(f, &s, t->side, at, take, self);
        take_cells(&s, d, at + 32 * (uint32_t)pairs_of(&s, t->side, d), take, self);
        at += 8 * (uint32_t)bytes_of(&s, t->side, d);
        free(s.cell);
    }
}

static void zip_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                      struct kv_plain_width *to) {
    (void)f, (void)side, (void)width;
    to->rule = KV_PLAIN_CHANNELS;
}

const struct kv_format_type kv_format_type_zipcache = {
    .name = "zipcache",
    .summary = "ZipCache: keys by channel over all tokens of a width, values by token with their "
               "channels evened out",
    .citation = "He et al. 2024, arXiv:2405.14256, section 4.1; "
                "zipcache/models/CompressUtils/compress_function.py, commit b6932b99 "
                "(mixed_channelwiseQ, channel_separate_mixed_tokenwiseQ)",
    .tag = "approximate",
    .layout = "all tokens of the prompt at once. Values: fp16 sqrt(max |x|) a channel. Then the "
              "cells of each width: keys fp16 scale and minimum a channel of each head, values a "
              "row, which joins the i-th cell of every head; then their codes, b bits each, token "
              "after token. Sizes of a vector are those in a set of 128 tokens; the ledger counts "
              "sets as they are",
    .formula = "keys b + 32/tokens of the width; values b + 32/(heads head) + 16/tokens",
    .rounding = "minimum and scale (max - min) / (2^b - 1) in fp16, (x - min) / scale in float32 "
                "(its source: fp16) half to even; values divided by their channel's scale first",
    .guards = "NaN counts as 0, infinities saturate; a constant channel has scale 0 and decodes to "
              "its minimum, a channel of zeros to 0 (its source gives NaN). Differs from its "
              "source: rows join the narrow cells of the heads by position, not by rank of "
              "saliency; 100 new tokens are coded by themselves, not with the whole cache again "
              "(mode requant does that)",
    .params = params,
    .open = zip_open,
    .size = zip_unit,
    .close = NULL,
    .whole_size = zip_size,
    .whole_encode = zip_encode,
    .whole_decode = zip_decode,
    .whole_codes = zip_codes,
    .whole_fields = zip_fields,
    .plain = zip_plain,
    .published_mode = KV_PUBLISHED_PREFILL,
};
