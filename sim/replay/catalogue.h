// SPDX-License-Identifier: Apache-2.0
// What the tables of formats and policies say about themselves, in words for `list` and `describe`.
#ifndef KV_REPLAY_CATALOGUE_H
#define KV_REPLAY_CATALOGUE_H

#include "sim/quant/format.h"

// The shape that listings speak of: SmolLM2-135M's 30 layers, 3 KV heads of 64, GGUF order.
struct kv_format_setting kv_listing_setting(void);
// Opens a format of the table with its defaults, a wrapper round sym.
KV_MUST_CHECK int kv_listing_open(struct kv_format **f, const struct kv_format_type *t,
                                  struct kv_error *e);

// Texts below: caller frees.
char *kv_listing_widths(const struct kv_format *f);           // "2/3/4/8/16"
char *kv_listing_scope(const struct kv_format *f);            // "32 tokens of a head (K), ..."
char *kv_listing_keys(const struct kv_param *params);         // "group=head scale=fp16"
char *kv_listing_param(const struct kv_param *p);             // type, range, default, help
char *kv_listing_needs(uint32_t needs);                       // "entropy_nats rarity_nats"
char *kv_listing_varies(uint32_t varies);                     // "token layer"
const char *kv_listing_order(const struct kv_format_type *t); // ggml | hf | the model's
const char *kv_listing_rope_side(const struct kv_format *f);  // before | after

#endif
