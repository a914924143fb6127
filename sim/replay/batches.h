// SPDX-License-Identifier: Apache-2.0
// Exact replay through an engine (sim/model/engine.h): many runs at once, an item under a spec
// each. Batches are cut by items and specs alone, so a run's bits do not depend on workers.
#ifndef KV_REPLAY_BATCHES_H
#define KV_REPLAY_BATCHES_H

#include "sim/replay/replay.h"

struct kv_progress;

// Replays what r->model->engine serves, calling r->take as kv_replay_exact does, and says which
// specs that was: served[n_specs]. Left to the caller: policies that read the run they steer or
// decide by layers and have no plain numbers (those that have, in an audit, too), formats that code
// whole tensors in ways the engine does not know, prompts coded more than once, redraws, mode
// requant.
KV_MUST_CHECK int kv_replay_batches(const struct kv_replay *r, unsigned jobs,
                                    struct kv_progress *progress, bool *served, struct kv_error *e);

#endif
