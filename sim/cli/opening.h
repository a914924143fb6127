// SPDX-License-Identifier: Apache-2.0
// Options that several commands read alike: a range of a trace's items, the model of a trace.
#ifndef KV_CLI_OPENING_H
#define KV_CLI_OPENING_H

#include "sim/cli/cli.h"
#include "sim/model/model.h"
#include "traces/trace.h"

// Reads option `name`, "A-B" counted from 0, of a trace with n_items; without it *first and *n stay
// as they are. KV_EUSAGE says what is expected.
KV_MUST_CHECK int kv_opt_items(const struct kv_cli *c, const char *name, size_t n_items,
                               size_t *first, size_t *n, struct kv_error *e);

// Opens the model that exact replay of a trace runs: --model, else $KVSIM_MODEL, else the only file
// data/*.gguf. KV_EUSAGE when there is none.
KV_MUST_CHECK int kv_opt_model(const struct kv_cli *c, const struct kv_trace_info *info,
                               struct kv_model **m, struct kv_error *e);

#endif
