// SPDX-License-Identifier: Apache-2.0
// An open format as plain numbers: what a program that cannot call it (a GPU's) needs to code as it
// does, bit for bit.
//
//     struct kv_plain_format plain;
//     if (kv_format_plain(f, &plain, &e)) return e.code;      no pointer in it: copy it anywhere
//
// Every number that a format derives from its parameters (levels, middles, scales of rotations) is
// taken over, none is derived again. Tables of RoPE's turns are apart: they belong to a model.
#ifndef KV_QUANT_PLAIN_H
#define KV_QUANT_PLAIN_H

#include "policies/policy.h"

KV_BEGIN_DECLS

enum { KV_PLAIN_BOOK = 16, KV_PLAIN_ROTATIONS = 4 };

// How a unit's values become codes once they have been rotated.
enum kv_plain_rule {
    KV_PLAIN_NONE, // not coded this way: refused by kv_format_plain
    KV_PLAIN_HALF,
    KV_PLAIN_BF16,
    KV_PLAIN_GRID,     // grid_judge.h
    KV_PLAIN_OUTLIERS, // qaq.c
    KV_PLAIN_LEVELS,   // nf4.c
    KV_PLAIN_NORM,     // turbo.c
    KV_PLAIN_SMALL,    // fp8.c
    KV_PLAIN_BLOCKS,   // ggml_judge.h
    KV_PLAIN_REFINED,  // hqq.c: the units of a tensor together
    KV_PLAIN_CHANNELS  // zipcache.c: whole tensors
};

// One side at one width.
struct kv_plain_width {
    uint32_t rule, bits, group;               // group: values that share a scale
    uint32_t values, meta_bytes, bytes;       // of a unit
    uint32_t n_rotations;                     // outermost first; each of runs of that many values
    uint32_t rotation[KV_PLAIN_ROTATIONS];    //
    float rotation_scale[KV_PLAIN_ROTATIONS]; // 1 / sqrt(size)
    // GRID: struct kv_grid. by_channel: group k is every (values / group)-th value from k on.
    uint32_t grid_rule, wide, by_channel, offset;
    float levels, lo, hi, clip, scale_min;
    uint32_t low, high, index_bytes; // OUTLIERS
    uint32_t n_levels;               // LEVELS, NORM: struct kv_book
    float level[KV_PLAIN_BOOK], middle[KV_PLAIN_BOOK];
    uint32_t fraction_bits, bias, scaled; // SMALL
    float largest, step;                  //
    uint32_t block_type;                  // BLOCKS: enum kv_ggml_type
    uint32_t steps;                       // REFINED
};

struct kv_plain_format {
    uint32_t n_layers, n_kv_heads, head_dim;
    uint32_t n_widths;
    uint8_t width_bits[KV_MAX_WIDTHS];
    uint32_t tensor;                     // units of a tensor are coded together
    uint32_t unit_tokens[2], unit_heads; //
    uint32_t order, model_order;         // enum kv_order
    uint32_t sinks, flush[2], gathers;
    uint32_t centred[2], centre_turns, centre_tokens; // struct kv_centring
    uint32_t has_codes;                               // codes that entropies are taken of
    struct kv_plain_width at[2][KV_MAX_WIDTHS];
};

struct kv_format;
struct kv_error;
// Errors: KV_EFAIL naming the format, where it does not say how it codes.
KV_MUST_CHECK int kv_format_plain(const struct kv_format *f, struct kv_plain_format *to,
                                  struct kv_error *e);
// Cosine and sine of RoPE's turns as kv_turn takes them: to[n][head_dim / 2][2] of positions 0 to
// n - 1, from angles of head_dim / 2 pairs. A turn back takes the sine's negative.
void kv_plain_turns(const double *angle, uint32_t head_dim, uint32_t n, float *to);

KV_END_DECLS

#endif
