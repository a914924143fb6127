// SPDX-License-Identifier: Apache-2.0
// A mix: which share of a cache's tokens, or of its cells, holds keys and values at which widths.
#ifndef KV_COST_MIX_H
#define KV_COST_MIX_H

#include "policies/policy.h"
#include "sim/base/cache_types.h"

#define KV_MIX_PARTS 16

// Which share of the tokens holds its keys and values at which widths; by_cell: which share of the
// cells, each key and each value of a layer and head for itself.
struct kv_mix {
    size_t n;
    bool by_cell;
    struct kv_mix_part {
        uint8_t bits[2]; // K, V
        double share;    // of the tokens; shares add up to 1
        uint8_t
            type[2]; // K, V: a cache type's number (sim/base/cache_types.h); 0 = the width alone
    } part[KV_MIX_PARTS];
};

// Reads "16", "k8v4", "kq8_0viq4_nl" or "k4v2=0.5/8=0.25/16=0.25"; parts without a share divide
// what is left evenly. Widths 1..16 and 32 (float32), or llama.cpp's cache types, one a width and
// side. "cells:2=0.5/8=0.5" gives each key and value a width for itself: K and V alike, no types.
// Errors: KV_EUSAGE with the text.
KV_MUST_CHECK int kv_mix_parse(struct kv_mix *mix, const char *text, struct kv_error *e);
void kv_mix_text(const struct kv_mix *mix, char *out, size_t room); // the spelling that parses back
// Sets a ledger's shares of the cached values by width and the types of those, K and V apart, and
// that a controller decided them where they are by cell.
void kv_mix_shares(const struct kv_mix *mix, struct kv_ledger *ledger);
// The same shares by cost bin.
void kv_mix_cost_shares(const struct kv_mix *mix, double share[2][KV_COST_BINS]);
// Nominal bits a cached value, K and V averaged.
double kv_mix_bits(const struct kv_mix *mix);
// Allocated bits a cached value: a type's own, else the width's with an fp16 scale a vector of
// head_dim below 16 bits.
double kv_mix_allocated_bits(const struct kv_mix *mix, uint32_t head_dim);

#endif
