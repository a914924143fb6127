// SPDX-License-Identifier: Apache-2.0
// What a sweep must be for its decisions to make a plan.
#include "analysis/studies/sweep_plan.h"

#include "sim/base/files.h"

int kv_sweep_plan_check(const struct kv_sweep_options *o, struct kv_error *e) {
    const char *why = o->db                   ? "a store, which may hold items already,"
                      : o->attention          ? "fidelity attention"
                      : o->exact == o->fisher ? "more than one fidelity"
                      : o->published          ? "mode published"
                      : o->n_modes > 1        ? "more than one mode"
                      : o->redraws > 1        ? "more than one redraw"
                                              : NULL;
    return why ? kv_fail(e, KV_EUSAGE, "plan-out", "a plan is of one run; %s cannot go with it",
                         why)
               : kv_check_output(o->plan_out, e);
}

int kv_sweep_plan_new(struct kv_plan_out **p, const struct kv_trace *t,
                      const struct kv_replay_spec *specs, size_t n,
                      const struct kv_item_range *items, struct kv_error *e) {
    *p = NULL;
    return n == 1 ? kv_plan_out_new(p, t, specs, items->first, items->n, e)
                  : kv_fail(e, KV_EUSAGE, "plan-out", "a plan is of one spec, not of %zu", n);
}
