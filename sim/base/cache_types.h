// SPDX-License-Identifier: Apache-2.0
// The types that llama.cpp names a cache by, and the bins of everything that is priced by type or
// by width.
//
// A cost bin is a width's bin (width_bins.h), or behind those a type's: f16 and f32 are the bins of
// their widths, since every format holds exact values so.
#ifndef KV_BASE_CACHE_TYPES_H
#define KV_BASE_CACHE_TYPES_H

#include "sim/base/outcome.h"

KV_BEGIN_DECLS

// Number 0 is no type at all: a width alone.
enum { KV_N_CACHE_TYPES = 9, KV_COST_BINS = KV_WIDTH_BINS + KV_N_CACHE_TYPES };

struct kv_cache_type {
    const char *name;   // as llama-bench's -ctk takes it
    unsigned bits;      // of a code
    double stored_bits; // a value, scales included
};

// The type of a number; NULL beyond them.
const struct kv_cache_type *kv_cache_type_at(unsigned type);
// Width and number of the longest name that text begins with ("f16" is width 16, number 0).
// Returns its length; 0 = none.
size_t kv_cache_type_read(const char *text, unsigned *bits, unsigned *type);

static inline size_t kv_cost_bin(unsigned bits, unsigned type) {
    return type ? (size_t)KV_WIDTH_BINS - 1 + type : kv_bin_of_bits(bits);
}
unsigned kv_bits_of_cost_bin(size_t bin);
// "4" or "q4_0"; the same buffer each call of a thread.
const char *kv_cost_bin_name(size_t bin);
// Reads what that writes, and "f16" and "f32". False: text is no width from 1 to 16, 32, or type.
KV_MUST_CHECK bool kv_cost_bin_read(const char *text, size_t *bin);

// Says in a ledger which type a format of llama.cpp ("q4_0", "ggml:types=1") holds each width in,
// rotated or not: since 2026 it rotates whatever it quantizes (ggml-org/llama.cpp pull 21038), so
// that its times are those of "hadamard(q4_0)". Other formats have none.
void kv_ledger_name_types(struct kv_ledger *ledger, const char *format);

KV_END_DECLS

#endif
