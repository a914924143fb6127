// SPDX-License-Identifier: Apache-2.0
// The model that a trace was recorded from, opened to be run again.
#ifndef KV_REPLAY_RECORDED_MODEL_H
#define KV_REPLAY_RECORDED_MODEL_H

#include "sim/model/compute.h"
#include "traces/trace.h"

// Opens the model file `path` with its weights held as they were when the trace was recorded;
// `how` does its products. Whether it is that model exact replay checks by its digest. Errors:
// those of kv_model_open and kv_model_compute; KV_EUSAGE where path is NULL.
KV_MUST_CHECK int kv_recorded_model_open(struct kv_model **m, const struct kv_trace_info *info,
                                         const char *path, enum kv_compute how, struct kv_error *e);

#endif
