// SPDX-License-Identifier: Apache-2.0
// Sensitivities at a replayed policy's own point, and policies that decide in rounds on them.
//
// Recorded sensitivities belong to the 16-bit run: they say what a small error does to a cache that
// is otherwise exact. Damage there grows with what is stored coarse already. For Gaussian errors e,
// independent and zero in mean, the expected divergence D(e) = KL(P || Q_e) changes with a cell's
// error variance by half the expected curvature where the cache stands,
//
//   d E[D(e)] / d sigma_c^2 = 0.5 E[d^2 D / d e_c^2]   (Price, IRE Trans. Inf. Theory 4, 1958)
//
// so an allocation asks for the curvature at its own e. In logits the curvature of KL(P || Q) is
// diag(q) - q q^T, the covariance under the *replayed* distribution Q, whatever P is (its gradient,
// q - p, holds all of P). Gauss and Newton's part of the curvature of D is therefore the Fisher
// information of Q_e: E[g g^T] over labels drawn from Q_e (Martens, arXiv 1412.1193). Labels drawn
// from the 16-bit run P would give J^T (Cov_p + (p - q)(p - q)^T) J: another covariance, and the
// square of the gradient, which is no curvature. So labels are drawn from the replayed run. What is
// left out: the part (q - p) . d^2 logits / d e_c^2, zero where nothing is coded and of the order
// of the errors elsewhere; and quantizers are taken as the identity plus an error on the way back
// (straight-through).
#ifndef KV_REPLAY_RELINEAR_H
#define KV_REPLAY_RELINEAR_H

#include "sim/model/forward.h"
#include "sim/replay/replay.h"
#include "traces/sensitivity.h"

// Runs an item with a decided cache, cells[n_tokens][n_layers][n_kv_heads][2] in spec's format, and
// measures the sensitivities of what its queries read. Mode inline, own step coded: every read
// counts. how: draws, seed, scored positions. Free *out with kv_sensitivity_fini. Errors: an
// evicted cell, whose gradient is not defined; cells that share units at different widths.
KV_MUST_CHECK int kv_relinear_measure(const struct kv_model *m, const struct kv_trace_item *item,
                                      const struct kv_replay_spec *spec, const uint8_t *cells,
                                      const struct kv_adjoint_info *how, bool keep_gradients,
                                      struct kv_scratch *s, struct kv_sensitivity *out,
                                      struct kv_error *e);

// Whether a spec's rounds can be measured in this replay: one round always. Errors: no model; a
// mode, window or own-step reading of which the backward pass knows nothing; a trace without K, V
// or sensitivities.
KV_MUST_CHECK int kv_relinear_answers(const struct kv_replay *r, const struct kv_replay_spec *spec,
                                      struct kv_error *e);

// Damage of one item after the rounds that a spec's policy asks for: *damage, [n_tokens][n_widths]
// [cells], starts from view->damage and is the mean over the points visited, the 16-bit run's
// included; caller frees. view: what the spec is shown. Labels of each round are drawn anew.
KV_MUST_CHECK int kv_relinear_damage(const struct kv_replay *r, size_t spec, size_t item,
                                     const struct kv_item *view, float **damage,
                                     struct kv_error *e);

#endif
