// SPDX-License-Identifier: Apache-2.0
// The ledger: bits that decisions take in the cache, as an outcome states them.
#ifndef KV_REPLAY_LEDGER_H
#define KV_REPLAY_LEDGER_H

#include "sim/base/outcome.h"
#include "sim/replay/spec.h"
#include "traces/trace.h"

// Bits that the decisions take at the end of each context + choice, averaged over choices: a value
// that is held there. A layer with a window holds its newest tokens and no more, in whole blocks;
// bytes are still told by token of the path.
void kv_ledger_count(const struct kv_replay_spec *spec, const struct kv_trace_item *item,
                     const uint8_t *cells, struct kv_ledger *ledger);
// The same in mode requant: coded up to the last time a window was full, groups of tokens running
// on over the branch point, exact from there on.
void kv_ledger_count_requant(const struct kv_replay_spec *spec, const struct kv_trace_item *item,
                             const uint8_t *cells, struct kv_ledger *ledger);

#endif
