// SPDX-License-Identifier: Apache-2.0
// Closed feedback: policies read features of the run that they steer instead of the recording's.
//
// A token's features come from its own step, in which earlier tokens are read as they were decided
// and its own K and V exact, since nothing is decided about them yet (--self exact; with a delay of
// n tokens the n + 1 newest are read exact). They decide its width, and later tokens read it so.
// Rarity and class are the recording's, they do not depend on a run; in the prefill modes so are
// the features of the prompt, which attends exactly.
//
// No token waits for another pass: all rows run at once with the decisions so far, features of that
// run decide anew, and so on until decisions do not change. Then each token's decision follows from
// features that follow from the decisions before it, which is what one token after another would
// have given; every pass settles at least one more position. Every pass runs all rows: products of
// other shapes round otherwise, codes flip with that, and parts would not settle on the whole's
// answer.
#ifndef KV_REPLAY_CLOSED_H
#define KV_REPLAY_CLOSED_H

#include "sim/replay/replay.h"

// Whether a spec's decisions depend on features of the run.
bool kv_reads_run(const struct kv_replay_spec *spec);

// Whether a spec can be run with closed feedback. Errors: a policy that reads what a run has only
// at the end of the prompt or later, or vectors; one whose own step would be read coded.
KV_MUST_CHECK int kv_closed_answers(const struct kv_replay_spec *spec, enum kv_mode mode,
                                    bool self_exact, struct kv_error *e);

#endif
