// SPDX-License-Identifier: Apache-2.0
// What a recording's sensitivities answer for: they were measured in one mode, for one reading of a
// token's own step, with every other position read as it was stored.
#ifndef KV_REPLAY_ANSWERS_H
#define KV_REPLAY_ANSWERS_H

#include "sim/base/outcome.h"
#include "sim/replay/spec.h"
#include "traces/trace.h"

// The mode and the own-step reading that sensitivities were recorded for: inline and coded in a
// trace without.
enum kv_mode kv_adjoint_mode(const struct kv_trace_info *info);
enum kv_self kv_adjoint_self(const struct kv_trace_info *info);

// Whether the recorded adjoint answers for a spec: its mode, windows, own step and hops. It does
// for format center, whose first tokens are read exact by each other until their mean is known:
// those reads count as coded, so that what is foretold lies above by their share.
KV_MUST_CHECK int kv_adjoint_answers(const struct kv_trace_info *info,
                                     const struct kv_replay_spec *spec, enum kv_mode mode,
                                     bool self_exact, struct kv_error *e);
// Whether a spec may be predicted from this trace; the same errors, and a policy that decides in
// rounds.
KV_MUST_CHECK int kv_fisher_answers(const struct kv_trace_info *info,
                                    const struct kv_replay_spec *spec, enum kv_mode mode,
                                    bool self_exact, struct kv_error *e);

#endif
