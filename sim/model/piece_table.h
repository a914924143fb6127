// SPDX-License-Identifier: Apache-2.0
// A hash table from a text to the token that it is.
#ifndef KV_MODEL_PIECE_TABLE_H
#define KV_MODEL_PIECE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define KV_NO_TOKEN UINT32_MAX

struct kv_piece_text {
    const char *s; // not NUL-terminated
    size_t n;
};

// slots is freed by the caller; texts are borrowed.
struct kv_piece_table {
    const struct kv_piece_text *text; // [n_pieces]
    uint32_t *slots;                  // [mask + 1]
    uint64_t mask;
};

// A table of n slots or more, all KV_NO_TOKEN and at most half of them to be filled.
uint32_t *kv_empty_slots(size_t n, uint64_t *mask);
void kv_piece_table_init(struct kv_piece_table *t, const struct kv_piece_text *text, size_t n);
// Of equal texts the first stays; an empty one is none.
void kv_piece_table_add(struct kv_piece_table *t, uint32_t id);
// The token of a text; KV_NO_TOKEN where there is none.
uint32_t kv_piece_find(const struct kv_piece_table *t, const char *s, size_t n);

#endif
