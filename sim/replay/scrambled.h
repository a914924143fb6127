// SPDX-License-Identifier: Apache-2.0
// For audits: an item of which a policy may read no more than it may know.
//
//     struct kv_scrambled s;
//     kv_scrambled_init(&s, view, row);
//     ... ask about &s.item: the answer must be the same
//     kv_scrambled_fini(&s);
#ifndef KV_REPLAY_SCRAMBLED_H
#define KV_REPLAY_SCRAMBLED_H

#include "policies/policy.h"

// An item in which all is noise that may not be known at `row`: later tokens, other choices, and
// what was not declared.
struct kv_scrambled {
    struct kv_item item;
    struct kv_token *tokens;
    float *surprisal_nats;
};
void kv_scrambled_init(struct kv_scrambled *s, const struct kv_item *item, uint32_t row);
void kv_scrambled_fini(struct kv_scrambled *s);

#endif
