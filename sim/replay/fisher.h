// SPDX-License-Identifier: Apache-2.0
// Fisher replay: the divergence a policy causes, predicted from recorded sensitivities without
// running the model.
//
//   KL(16 bit || policy), nats a scored token  ~  sum over cells of damage(cell, width) / scored
//   positions
//
// with damage = 0.5 |g|^2 |e|^2 / d (form iso) or its finer forms (traces/tables.h). It is second
// order in the coding errors and takes them as independent with zero mean; see kv_cross_terms for
// where that fails.
#ifndef KV_REPLAY_FISHER_H
#define KV_REPLAY_FISHER_H

#include "sim/replay/replay.h"

KV_BEGIN_DECLS

// S2 / S1 with S1 = sum over cells of (g . e)^2 and S2 = (sum of g . e)^2, summed over label draws
// and items, in total and by layer: 1 when errors act independently. by_layer is [n_layers] or
// NULL.
KV_MUST_CHECK int kv_cross_terms(const struct kv_replay *r, size_t spec, double *ratio,
                                 double *by_layer, struct kv_error *e);

// Replays r->specs by prediction; outcomes carry KL and ledger, picks of -1 and no choices. Errors:
// a mode, window, group of tokens or own-step reading that the recorded adjoint does not answer
// for.
KV_MUST_CHECK int kv_replay_fisher(const struct kv_replay *r, enum kv_cell_table_kind form,
                                   unsigned jobs, struct kv_error *e);

KV_END_DECLS

#endif
