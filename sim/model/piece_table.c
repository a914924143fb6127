// SPDX-License-Identifier: Apache-2.0
// Open addressing over XXH64.
#include "sim/model/piece_table.h"

#include "sim/base/hash.h"
#include "sim/base/memory.h"

uint32_t *kv_empty_slots(size_t n, uint64_t *mask) {
    uint64_t size = 16;
    while (size < 2 * (uint64_t)n + 2) size *= 2;
    uint32_t *slots = kv_grow(NULL, size, sizeof *slots);
    memset(slots, 0xFF, size * sizeof *slots);
    *mask = size - 1;
    return slots;
}

void kv_piece_table_init(struct kv_piece_table *t, const struct kv_piece_text *text, size_t n) {
    t->text = text;
    t->slots = kv_empty_slots(n, &t->mask);
}

static uint32_t *slot_of(const struct kv_piece_table *t, const char *s, size_t n) {
    uint64_t i = kv_hash(s, n, 0) & t->mask;
    for (; t->slots[i] != KV_NO_TOKEN; i = (i + 1) & t->mask) {
        const struct kv_piece_text *other = &t->text[t->slots[i]];
        if (other->n == n && memcmp(other->s, s, n) == 0) break;
    }
    return &t->slots[i];
}

void kv_piece_table_add(struct kv_piece_table *t, uint32_t id) {
    if (t->text[id].n == 0) return;
    uint32_t *slot = slot_of(t, t->text[id].s, t->text[id].n);
    if (*slot == KV_NO_TOKEN) *slot = id;
}

uint32_t kv_piece_find(const struct kv_piece_table *t, const char *s, size_t n) {
    return n ? *slot_of(t, s, n) : KV_NO_TOKEN;
}
