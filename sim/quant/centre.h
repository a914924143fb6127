// SPDX-License-Identifier: Apache-2.0
// What wrapper center(F) asks of code.h: the mean of a sequence's first vectors, by channel, is
// held in fp16 and taken off each vector before F codes it, and added again after F decodes it.
//
// Softmax does not see a vector that all keys have in common (q.k - q.m is the same shift for all),
// so what F codes is what tells keys apart. As it is added again, coded keys meet exact ones
// (sinks, windows, a token's own) in the same frame.
#ifndef KV_QUANT_CENTRE_H
#define KV_QUANT_CENTRE_H

#include "sim/quant/code.h"

// Whether a side of the format is coded less a centre.
static inline bool kv_is_centred(const struct kv_format *f, enum kv_side side) {
    return f->centre.tokens > 0 && f->centre.sides[side];
}

// fp16 is held as it came: 16 bits then mean the same in every format.
static inline bool kv_width_is_centred(const struct kv_format *f, enum kv_side side, size_t w) {
    return kv_is_centred(f, side) && f->width_bits[w] < 16;
}

// Positions below it read exact keys while the sequence's own prompt is read: the centre is not
// known before. A prompt that ends earlier is centred about what it has.
static inline size_t kv_centre_known(const struct kv_format *f, enum kv_side side) {
    return kv_is_centred(f, side) ? f->sinks + f->centre.tokens : 0;
}

// The mean over positions [sinks, sinks + tokens) of the rows' path, added up in their order in
// double and rounded to fp16: centre[n_kv_heads][head_dim] in the model's order of channels, of
// keys before RoPE where the format says so. 0 where the prompt ends in the sinks. Errors: KV_EFAIL
// for rows whose path's first ones are not at hand, and where RoPE's angles are needed and unknown.
KV_MUST_CHECK int kv_centre_find(const struct kv_format *f, const struct kv_vectors *r,
                                 float *centre, struct kv_error *e);

// One head's centre as it stands at a position: at[head_dim].
void kv_centre_at(const struct kv_format *f, uint32_t layer, const float *centre, size_t head,
                  size_t position, float *at);

// Adds the centres of a layer's heads, which a sequence holds once, to what its prompt takes.
void kv_centre_count(const struct kv_format *f, const struct kv_vectors *r, size_t upto,
                     struct kv_bits *bits);

#endif
