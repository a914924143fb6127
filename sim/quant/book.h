// SPDX-License-Identifier: Apache-2.0
// Codebooks: uneven levels that a scaled value is matched to.
#ifndef KV_QUANT_BOOK_H
#define KV_QUANT_BOOK_H

#include <stddef.h>
#include <stdint.h>

#define KV_MAX_BOOK 16

// Levels ascending. A value takes the nearest; exactly between two, the lower.
struct kv_book {
    uint32_t n;
    float level[KV_MAX_BOOK];
    float middle[KV_MAX_BOOK]; // middle[i] = (level[i] + level[i + 1]) / 2 in float32
};

static inline struct kv_book kv_book_of(const float *level, uint32_t n) {
    struct kv_book b = {.n = n};
    for (uint32_t i = 0; i < n; i++) b.level[i] = level[i];
    for (uint32_t i = 0; i + 1 < n; i++) b.middle[i] = (level[i] + level[i + 1]) * 0.5f;
    return b;
}

// NaN counts as 0.
static inline uint8_t kv_book_code(const struct kv_book *b, float x) {
    uint8_t code = 0;
    x = x == x ? x : 0.0f;
    for (uint32_t i = 0; i + 1 < b->n; i++) code = (uint8_t)(code + (x > b->middle[i]));
    return code;
}

#endif
