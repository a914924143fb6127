// SPDX-License-Identifier: Apache-2.0
// Bins of everything that is counted by width: 0 = dropped, 1 to 16 bits, float32.
#ifndef KV_BASE_WIDTH_BINS_H
#define KV_BASE_WIDTH_BINS_H

#include <stddef.h>

enum { KV_FLOAT32_BIN = 17, KV_WIDTH_BINS = 18 };

static inline size_t kv_bin_of_bits(unsigned bits) {
    return bits == 32 ? (size_t)KV_FLOAT32_BIN : bits;
}
static inline unsigned kv_bits_of_bin(size_t bin) {
    return bin == KV_FLOAT32_BIN ? 32 : (unsigned)bin;
}

#endif
