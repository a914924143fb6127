// SPDX-License-Identifier: Apache-2.0
// Putting an item before a policy, and checking what it answers.
//
//     kv_show_item(r, which, item, features, tokens, &view, &e);
//     kv_ask_checked(&r->specs[which], &view, it->id, cells, &e);
#ifndef KV_REPLAY_ASK_H
#define KV_REPLAY_ASK_H

#include "sim/replay/replay.h"

// What a spec's policy sees of item i: tokens[n_tokens] with the features and classes that it
// declared (others read NAN and 0; features: [n_tokens][KV_N_FEATURES]), vectors of the recording,
// and the tables that r holds for it. The view borrows from tokens and r. Errors: tables that the
// policy declared and nobody opened.
KV_MUST_CHECK int kv_show_item(const struct kv_replay *r, size_t spec, size_t item,
                               const float *features, struct kv_token *tokens, struct kv_item *view,
                               struct kv_error *e);

// Asks a spec's policy about what it was shown and checks its answers: cells[n_tokens][...]. item:
// the name it has in messages. Errors: the policy's own; those of kv_check_answers.
KV_MUST_CHECK int kv_ask_checked(const struct kv_replay_spec *spec, const struct kv_item *view,
                                 const char *item, uint8_t *cells, struct kv_error *e);

// Checks a policy's answers: cells[n_tokens][...]. Errors: a width that the format does not offer,
// a cell left undecided, a key evicted without its value, answers that differ along an axis that
// the policy does not declare; each names item and token.
KV_MUST_CHECK int kv_check_answers(const struct kv_replay_spec *spec, const char *item,
                                   size_t n_tokens, const uint8_t *cells, struct kv_error *e);

#endif
