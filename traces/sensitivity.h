// SPDX-License-Identifier: Apache-2.0
// Sensitivities of one item: the backward pass for each label draw, squared and averaged.
#ifndef KV_TRACES_SENSITIVITY_H
#define KV_TRACES_SENSITIVITY_H

#include "sim/model/adjoint.h"
#include "traces/trace.h"

// What the draws leave behind; arrays as in struct kv_trace_item, owned.
struct kv_sensitivity {
    float *sens, *spread, *evict;
    float *channel;            // [n_layers][n_kv_heads][2][head_dim]
    float *numerator;          // [n_tokens][n_layers][n_kv_heads][2]; NULL without coding errors
    uint16_t *k_grad, *v_grad; // NULL unless whole gradients are kept
};
// tape and final come from the item's forward pass, final [n_tokens][hidden]; labels are drawn from
// the distributions that it leads to. error: [n_tokens][n_layers][n_kv_heads][2][head_dim], the
// cells' coding errors, or NULL. Free with kv_sensitivity_fini.
void kv_sensitivity_measure(const struct kv_model *m, const struct kv_trace_item *item,
                            const struct kv_adjoint_info *how, bool keep_gradients,
                            struct kv_tape *tape, const float *final, const float *error,
                            struct kv_scratch *s, struct kv_sensitivity *out);
void kv_sensitivity_fini(struct kv_sensitivity *s);

// Predictions that are scored, the branch point's once a choice: whose divergences add up to what
// sensitivities foretell. score: one of kv_adjoint_scores.
size_t kv_scored_count(const struct kv_trace_item *item, const char *score);

// Names of whose reads count and of what is scored; end with NULL.
extern const char *const kv_adjoint_modes[], *const kv_adjoint_scores[];

#endif
