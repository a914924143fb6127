// SPDX-License-Identifier: Apache-2.0
// A mix: which share of a cache's tokens holds its keys and values at which widths.
#ifndef KV_COST_MIX_H
#define KV_COST_MIX_H

#include "policies/policy.h"
#include "sim/base/width_bins.h"

#define KV_MIX_PARTS 16

// Which share of the tokens holds its keys and values at which widths.
struct kv_mix {
    size_t n;
    struct kv_mix_part {
        uint8_t bits[2]; // K, V
        double share;    // of the tokens; shares add up to 1
    } part[KV_MIX_PARTS];
};

// Reads "16", "k8v4" or "k4v2=0.5/8=0.25/16=0.25"; parts without a share divide what is left
// evenly. Widths 1..16 and 32 (float32). Errors: KV_EUSAGE with the text.
KV_MUST_CHECK int kv_mix_parse(struct kv_mix *mix, const char *text, struct kv_error *e);
void kv_mix_text(const struct kv_mix *mix, char *out, size_t room); // the spelling that parses back
// Shares of the cached values by width, K and V apart, as a ledger holds them.
void kv_mix_shares(const struct kv_mix *mix, double share[2][KV_WIDTH_BINS]);
// Nominal bits a cached value, K and V averaged.
double kv_mix_bits(const struct kv_mix *mix);
// Allocated bits a cached value when every vector of head_dim below 16 bits has an fp16 scale.
double kv_mix_allocated_bits(const struct kv_mix *mix, uint32_t head_dim);

#endif
