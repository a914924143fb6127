// SPDX-License-Identifier: Apache-2.0
// The options that `tune` and `headroom` share.
#ifndef KV_CLI_STUDY_OPTIONS_H
#define KV_CLI_STUDY_OPTIONS_H

#include "analysis/studies/planner.h"
#include "sim/cli/opening.h"

// Reads the trace, the first argument, and --form, --mean, --train, --items, --budget and --context
// into *o, which borrows from the command line; an option that the command lacks stays as it is.
KV_MUST_CHECK int kv_opt_planner(const struct kv_cli *c, struct kv_planner_options *o,
                                 struct kv_error *e);

// Reads a list of widths in bits, "2,3,4"; without the option there are none.
KV_MUST_CHECK int kv_opt_widths(const struct kv_cli *c, const char *name, uint32_t *widths,
                                size_t room, size_t *n, struct kv_error *e);

#endif
