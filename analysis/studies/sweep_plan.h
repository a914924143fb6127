// SPDX-License-Identifier: Apache-2.0
// A sweep of one spec whose decisions are kept as a plan (sim/replay/plan_out.h).
#ifndef KV_ANALYSIS_STUDIES_SWEEP_PLAN_H
#define KV_ANALYSIS_STUDIES_SWEEP_PLAN_H

#include "analysis/studies/sweep.h"
#include "sim/replay/plan_out.h"

// Whether the options leave one run whose decisions are a plan's. Errors: KV_EUSAGE naming what
// asks for more than one, or for fewer items; those of kv_check_output.
KV_MUST_CHECK int kv_sweep_plan_check(const struct kv_sweep_options *o, struct kv_error *e);

// Room for the plan of the sweep's only spec. Errors: several specs; those of kv_plan_out_new.
KV_MUST_CHECK int kv_sweep_plan_new(struct kv_plan_out **p, const struct kv_trace *t,
                                    const struct kv_replay_spec *specs, size_t n,
                                    const struct kv_item_range *items, struct kv_error *e);

#endif
