// SPDX-License-Identifier: Apache-2.0
// Formats q8_0, q5_0, q5_1, q4_0, q4_1, iq4_nl, and `ggml`, which mixes them by width.
#include "sim/quant/ggml_blocks.h"
#include "sim/base/memory.h"
#include "sim/quant/pack.h"
#include "sim/quant/own.h"
#include "sim/quant/plain.h"

#include <stdlib.h>

// Which block type codes each width; width 16 is f16.
struct ggml_state {
    enum kv_ggml_type at[KV_MAX_WIDTHS];
};

static int open_types(struct kv_format *f, const enum kv_ggml_type *types, size_t n,
                      struct kv_error *e) {
    if (f->setting.shape.head_dim % KV_GGML_BLOCK != 0)
        return kv_fail(e, KV_EFAIL, f->type->name,
                       "ggml's blocks of 32 do not fit a head of %u values",
                       f->setting.shape.head_dim);
    struct ggml_state *s = f->self = kv_alloc(1, sizeof *s);
    for (size_t i = 0; i < n; i++) {
        s->at[i] = types[i];
        f->width_bits[i] = (uint8_t)kv_ggml_traits[types[i]].bits;
    }
    f->width_bits[n] = 16;
    f->n_widths = n + 1;
    f->order = KV_ORDER_GGML;
    return 0;
}

static int ggml_open(struct kv_format *f, const struct kv_format_setting *s,
                     const struct kv_args *args, struct kv_error *e) {
    static const enum kv_ggml_type narrow[] = {KV_Q4_0, KV_Q5_0, KV_Q8_0};
    static const enum kv_ggml_type ranged[] = {KV_Q4_1, KV_Q5_1, KV_Q8_0};
    static const enum kv_ggml_type nonlinear[] = {KV_IQ4_NL, KV_Q5_0, KV_Q8_0};
    static const enum kv_ggml_type *const sets[] = {narrow, ranged, nonlinear};
    (void)s;
    return open_types(f, sets[(size_t)kv_number(args, "types")], 3, e);
}

static struct kv_unit_size ggml_size(const struct kv_format *f, enum kv_side side, uint32_t width) {
    (void)side;
    const struct ggml_state *s = f->self;
    uint32_t dim = f->setting.shape.head_dim, n = dim / KV_GGML_BLOCK;
    if (f->width_bits[width] == 16) return kv_half_size(dim);
    const struct kv_ggml_trait *t = &kv_ggml_traits[s->at[width]];
    return (struct kv_unit_size){.values = dim,
                                 .code_bits = n * t->code_bits,
                                 .meta_bits = n * t->meta_bits,
                                 .bytes = n * t->bytes};
}

static void ggml_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                        size_t n_units, uint8_t *out) {
    const struct ggml_state *s = f->self;
    size_t n = n_units * f->setting.shape.head_dim;
    if (f->width_bits[b->width] == 16)
        kv_put_halves(x, n, out);
    else
        kv_ggml_encode(s->at[b->width], x, n / KV_GGML_BLOCK, out);
}

static void ggml_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                        size_t n_units, float *y) {
    const struct ggml_state *s = f->self;
    size_t n = n_units * f->setting.shape.head_dim;
    if (f->width_bits[b->width] == 16)
        kv_get_halves(codes, n, y);
    else
        kv_ggml_decode(s->at[b->width], codes, n / KV_GGML_BLOCK, y);
}

static void ggml_codes(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                       size_t n_units, uint8_t *q) {
    const struct ggml_state *s = f->self;
    kv_ggml_codes(s->at[b->width], codes, n_units * f->setting.shape.head_dim / KV_GGML_BLOCK, q);
}

// Half bytes: value i in the low half of byte i, value i + 16 in the high half.
static void take_halves(kv_field_fn *take, void *self, const char *what, uint32_t at,
                        uint32_t value) {
    struct kv_field of = {.what = what, .type = "uint", .bits = 4, .n = 16, .step = 8};
    of.next = of.covers = of.apart = 1;
    for (uint32_t half = 0; half < 2; half++) {
        of.at = at + 4 * half;
        of.value = value + 16 * half;
        take(self, &of);
    }
}

// A number of the block whose values begin at `value`.
static void take_shared(kv_field_fn *take, void *self, const char *what, uint32_t at,
                        uint32_t value) {
    take(self, &(struct kv_field){.what = what,
                                  .type = "fp16",
                                  .bits = 16,
                                  .n = 1,
                                  .at = at,
                                  .step = 16,
                                  .value = value,
                                  .next = KV_GGML_BLOCK,
                                  .covers = KV_GGML_BLOCK,
                                  .apart = 1});
}

static void take_stream(kv_field_fn *take, void *self, const char *what, const char *type,
                        uint32_t bits, uint32_t at, uint32_t value) {
    take(self, &(struct kv_field){.what = what,
                                  .type = type,
                                  .bits = bits,
                                  .n = KV_GGML_BLOCK,
                                  .at = at,
                                  .step = bits,
                                  .value = value,
                                  .next = 1,
                                  .covers = 1,
                                  .apart = 1});
}

static void take_block(enum kv_ggml_type type, uint32_t at, uint32_t value, kv_field_fn *take,
                       void *self) {
    bool ranged = type == KV_Q4_1 || type == KV_Q5_1, fifth = type == KV_Q5_0 || type == KV_Q5_1;
    take_shared(take, self, "scale", at, value);
    at += 16;
    if (ranged) {
        take_shared(take, self, "minimum", at, value);
        at += 16;
    }
    if (type == KV_Q8_0) {
        take_stream(take, self, "code", "int8", 8, at, value);
        return;
    }
    if (fifth) {
        take_stream(take, self, "code's bit 4", "uint", 1, at, value);
        at += KV_GGML_BLOCK;
    }
    take_halves(take, self, fifth ? "code's bits 0 to 3" : "code", at, value);
}

static void ggml_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                        kv_field_fn *take, void *self) {
    const struct ggml_state *s = f->self;
    uint32_t n = kv_unit_values(f, side) / KV_GGML_BLOCK,
             bytes = kv_ggml_traits[s->at[width]].bytes;
    for (uint32_t b = 0; b < n; b++)
        take_block(s->at[width], 8 * bytes * b, KV_GGML_BLOCK * b, take, self);
}

static void ggml_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                       struct kv_plain_width *to) {
    (void)side;
    to->rule = KV_PLAIN_BLOCKS;
    to->group = KV_GGML_BLOCK;
    to->block_type = ((const struct ggml_state *)f->self)->at[width];
}

static void ggml_close(struct kv_format *f) {
    free(f->self);
}

#define CITATION "ggml, ggml-quants.c (quantize_row_*_ref); checked against the gguf Python package"
#define GUARDS                                                                                     \
    "a block of zeros has scale 0; scales above 65519 become infinite as in ggml; NaN, which "     \
    "ggml "                                                                                        \
    "leaves undefined, never sets the scale and codes as the lowest code (q8_0: 0)"

static const struct kv_param ggml_params[] = {
    {"types", KV_CHOICE, "0", 0, 0, "0/1/nl", NULL,
     "which types the widths 4, 5, 8 are: 0 = q4_0 q5_0 q8_0, 1 = q4_1 q5_1 q8_0, nl = iq4_nl q5_0 "
     "q8_0"},
    {0}};

const struct kv_format_type kv_format_type_ggml = {
    .name = "ggml",
    .summary = "llama.cpp's cache types by width: 4 -> q4_0, 5 -> q5_0, 8 -> q8_0, 16 -> f16",
    .citation = CITATION,
    .tag = "exact",
    .layout = "blocks of 32 as the type of the width has them",
    .formula = "4.5, 5.5, 8.5; types=1: 5, 6, 8.5",
    .rounding = "as the type of the width",
    .guards = GUARDS,
    .params = ggml_params,
    .open = ggml_open,
    .size = ggml_size,
    .encode = ggml_encode,
    .decode = ggml_decode,
    .codes = ggml_codes,
    .fields = ggml_fields,
    .plain = ggml_plain,
    .close = ggml_close,
    .published_mode = KV_PUBLISHED_INLINE, // a prompt's later batches read the cache
};

// One row a block type.
#define TYPE(NAME, TYPE_ID, STABLE, SUMMARY, LAYOUT, FORMULA, ROUNDING)                            \
    static int NAME##_open(struct kv_format *f, const struct kv_format_setting *s,                 \
                           const struct kv_args *args, struct kv_error *e) {                       \
        static const enum kv_ggml_type one[] = {TYPE_ID};                                          \
        (void)s, (void)args;                                                                       \
        return open_types(f, one, 1, e);                                                           \
    }                                                                                              \
    const struct kv_format_type kv_format_type_##NAME = {                                          \
        .name = #NAME,                                                                             \
        .summary = SUMMARY,                                                                        \
        .citation = CITATION,                                                                      \
        .tag = "exact",                                                                            \
        .layout = LAYOUT,                                                                          \
        .formula = FORMULA,                                                                        \
        .rounding = ROUNDING,                                                                      \
        .guards = GUARDS,                                                                          \
        .stable = STABLE,                                                                          \
        .open = NAME##_open,                                                                       \
        .size = ggml_size,                                                                         \
        .encode = ggml_encode,                                                                     \
        .decode = ggml_decode,                                                                     \
        .codes = ggml_codes,                                                                       \
        .fields = ggml_fields,                                                                     \
        .plain = ggml_plain,                                                                       \
        .close = ggml_close,                                                                       \
        .published_mode = KV_PUBLISHED_INLINE,                                                     \
    };

TYPE(q8_0, KV_Q8_0, true, "ggml block of 32: int8 x scale", "34 bytes a block: fp16 d, 32 int8",
     "8.5", "x (1/d), half away from zero; d = max|x| / 127, stored as fp16 after coding")
TYPE(q5_0, KV_Q5_0, true, "ggml block of 32: 5 bits, the largest value exact",
     "22 bytes a block: fp16 d, 32 high bits, 16 bytes of half-byte pairs (i, i + 16)", "5.5",
     "trunc(x (1/d) + 16.5); d = signed max / -16, stored as fp16 after coding")
TYPE(q5_1, KV_Q5_1, true, "ggml block of 32: 5 bits from min to max",
     "24 bytes a block: fp16 d, fp16 m, 32 high bits, 16 bytes of half-byte pairs", "6",
     "trunc((x - min) (1/d) + 0.5); d = (max - min) / 31, d and min stored as fp16 after coding")
TYPE(q4_0, KV_Q4_0, true, "ggml block of 32: 4 bits, the largest value exact",
     "18 bytes a block: fp16 d, 16 bytes of half-byte pairs (i, i + 16)", "4.5",
     "trunc(x (1/d) + 8.5); d = signed max / -8, stored as fp16 after coding")
TYPE(q4_1, KV_Q4_1, true, "ggml block of 32: 4 bits from min to max",
     "20 bytes a block: fp16 d, fp16 m, 16 bytes of half-byte pairs", "5",
     "trunc((x - min) (1/d) + 0.5); d = (max - min) / 15, d and min stored as fp16 after coding")
TYPE(iq4_nl, KV_IQ4_NL, false, "ggml block of 32: 4-bit index into 16 uneven levels",
     "18 bytes a block: fp16 d, 16 bytes of half-byte pairs (i, i + 16)", "4.5",
     "nearest level of x (1/d), ties to the upper; d refitted by least squares with weights x^2")
