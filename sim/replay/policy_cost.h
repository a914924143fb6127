// SPDX-License-Identifier: Apache-2.0
// What a policy itself costs a token: its decision alone, as a decode step would ask for it.
#ifndef KV_REPLAY_POLICY_COST_H
#define KV_REPLAY_POLICY_COST_H

#include "policies/policy.h"

// Median time of one decision about one token at a model's shape, over seeded features. Errors: a
// spec that does not open, a policy that decides about whole items or reads more than features.
KV_MUST_CHECK int kv_policy_cost_ns(const char *spec, const struct kv_shape *shape, double *ns,
                                    struct kv_error *e);

#endif
