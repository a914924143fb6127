// SPDX-License-Identifier: Apache-2.0
// The backward pass handed to the accelerator that holds the model's weights (private to
// sim/model).
#ifndef KV_MODEL_BACK_H
#define KV_MODEL_BACK_H

#include "sim/model/adjoint.h"
#include "sim/model/paths.h"

// An item as the accelerator is told of it; `self` is the given job's.
struct kv_back_job;
typedef int kv_back_fn(const struct kv_back_job *job, char *why, size_t room);
// Returns what `back` returns: 0 when all was taken. at: the tree's paths.
int kv_back_hand_over(const struct kv_model *m, const struct kv_adjoint *job,
                      const struct kv_paths *at, struct kv_scratch *s, kv_back_fn *back, char *why,
                      size_t room);

#endif
