// SPDX-License-Identifier: Apache-2.0
// From final states to outcomes: a replayed item compared with the recorded 16-bit run.
//
//     kv_targets_init(&targets[j], it);                                 once a spec
//     kv_compare_final(m, scratch, it, n_specs, scored, targets, kl);
//     kv_compare_outcome(it, &targets[j], kl[j], &outcome);
//     kv_targets_fini(&targets[j]);
#ifndef KV_REPLAY_COMPARE_H
#define KV_REPLAY_COMPARE_H

#include "sim/base/outcome.h"
#include "sim/model/forward.h"
#include "traces/trace.h"

// The next-token targets of an item: choice c's tokens in order, each with the index of its scored
// row.
struct kv_targets {
    size_t n;
    struct kv_target *list;
    double *ref;      // [n] log-prob under the 16-bit run
    uint32_t *choice; // [n]
    bool *other_top;  // [n_final] another token is the likeliest than in the 16-bit run
    bool tops;        // list says of each target whether it is the likeliest token
};

void kv_targets_init(struct kv_targets *t, const struct kv_trace_item *it);
void kv_targets_fini(struct kv_targets *t);

// Compares final states at an item's scored rows, scored[n_specs][n_final][hidden], with the
// recorded ones: fills kl_nats[n_specs][n_final] and the log-probs of targets[n_specs].
void kv_compare_final(const struct kv_model *m, struct kv_scratch *s,
                      const struct kv_trace_item *it, size_t n_specs, float *const *scored,
                      struct kv_targets *targets, double *const *kl_nats);
// What one spec's comparison adds up to: choices, KL and picks; the ledger is left alone. Free with
// kv_outcome_fini.
void kv_compare_outcome(const struct kv_trace_item *it, const struct kv_targets *t,
                        const double *kl_nats, struct kv_outcome *o);

#endif
