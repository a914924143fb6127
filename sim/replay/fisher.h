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
#include "traces/tables.h"

// Sum of a table over decisions: table [n_tokens][n_widths][cells], cells [n_tokens][cells].
// KV_FLOAT32 adds nothing; evicted cells are left to the caller and add nothing.
double kv_table_sum(const float *table, const uint8_t *cells, size_t n_tokens, size_t n_widths,
                    size_t n_cells);

// Positions whose divergence the sensitivities add up: the branch point once a choice.
double kv_fisher_scored(const struct kv_trace_info *info, const struct kv_trace_item *item);

// Predicted KL of one item in nats a scored token; *error (may be NULL) is its standard error from
// the label draws, taking the draws of all cells as fully dependent, hence an upper bound. NAN for
// one draw.
double kv_fisher_kl(const struct kv_trace *t, size_t item, const struct kv_cell_table *table,
                    size_t n_widths, const uint8_t *cells, double *error);

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
// Whether the recorded adjoint answers for a spec: its mode, windows, own step and hops.
KV_MUST_CHECK int kv_adjoint_answers(const struct kv_trace_info *info,
                                     const struct kv_replay_spec *spec, enum kv_mode mode,
                                     bool self_exact, struct kv_error *e);
// Whether a spec may be predicted from this trace; the same errors, and a policy that decides in
// rounds.
KV_MUST_CHECK int kv_fisher_answers(const struct kv_trace_info *info,
                                    const struct kv_replay_spec *spec, enum kv_mode mode,
                                    bool self_exact, struct kv_error *e);

#endif
