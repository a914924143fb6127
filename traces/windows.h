// SPDX-License-Identifier: Apache-2.0
// How many tokens each layer's queries see, between a model, a manifest and those who read a
// recording. (private to traces)
//
// Absent where every layer sees all of them. A key that the newest query does not see is not stored
// any more (sim/replay/ledger.h).
#ifndef KV_TRACES_WINDOWS_H
#define KV_TRACES_WINDOWS_H

#include <jansson.h>

#include "traces/trace.h"

struct kv_model;

// [n_layers] tokens, 0: all; NULL where all layers see all. Caller frees.
uint32_t *kv_windows_of_model(const struct kv_model *m);

// The manifest's model.windows; NULL where it has none. Caller decrefs.
json_t *kv_windows_json(const struct kv_trace_info *in);

// Fills in->windows from model.windows (NULL: absent). Errors: KV_EFAIL for a list of another
// length, or of what is no number of tokens.
KV_MUST_CHECK int kv_windows_read(const json_t *windows, struct kv_trace_info *in, const char *path,
                                  struct kv_error *e);

// Whether the trace says of them what the model does.
bool kv_windows_agree(const struct kv_trace_info *in, const struct kv_model *m);

#endif
