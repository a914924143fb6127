// SPDX-License-Identifier: Apache-2.0
// From benchmark texts to token trees: tokens (BOS first where m->add_bos), choice boundaries,
// scored rows, rarity, subsets.
#ifndef KV_TRACES_ITEMS_H
#define KV_TRACES_ITEMS_H

#include "traces/record.h"

// Tokenized items of a subset. items[i] has everything that is known before the model runs;
// features holds rarity only. All memory is owned here.
struct kv_items {
    size_t n;
    struct kv_trace_item *items;
    float **rarity; // [n] -> [n_tokens] nats
    char *subset;   // in words, for the manifest
    size_t n_tokens;
    // The contexts' tokens in file order, and how many of them an item's choices come behind: what
    // rarity counts.
    uint32_t *counted;
    size_t n_counted, *branch; // branch: [n]
    void *arena;
};
KV_MUST_CHECK int kv_items_new(struct kv_items **items, const struct kv_model *m,
                               const struct kv_tasks *tasks, const struct kv_record_options *o,
                               struct kv_error *e);
void kv_items_free(struct kv_items *items);
// The rarity in nats that each token of the vocabulary has behind item i's context: [vocab].
void kv_items_rarity(const struct kv_items *items, size_t i, uint32_t vocab, float *rarity);

#endif
