// SPDX-License-Identifier: Apache-2.0
// What a sweep is asked for, and what is wrong with it.
#include "analysis/studies/sweep_files.h"
#include "sim/base/guard.h"

struct kv_sweep_options kv_sweep_defaults(void) {
    return (struct kv_sweep_options){.struct_bytes = sizeof(struct kv_sweep_options),
                                     .exact = true,
                                     .modes = {KV_INLINE},
                                     .n_modes = 1,
                                     .redraws = 1,
                                     .jobs = 1,
                                     .seed = 1};
}

int kv_sweep_check(const struct kv_sweep_options *o, struct kv_error *e) {
    KV_GUARD(e);
    if (o->struct_bytes != sizeof *o)
        return kv_fail(e, KV_EUSAGE, "struct_bytes", "begin with kv_sweep_defaults");
    if (!o->trace) return kv_fail(e, KV_EUSAGE, "trace", "a trace folder is needed");
    if (o->n_specs + o->n_named == 0) return kv_fail(e, KV_EUSAGE, "specs", "there is none");
    if (o->n_modes == 0 || o->n_modes > KV_N_MODES)
        return kv_fail(e, KV_EUSAGE, "mode", "1 to %d modes are expected", KV_N_MODES);
    if (o->form > KV_FORM_CHANNEL)
        return kv_fail(e, KV_EUSAGE, "form", "iso, element, vector or channel is expected");
    if (o->redraws == 0) return kv_fail(e, KV_EUSAGE, "redraws", "at least 1 is expected");
    if (o->jobs == 0) return kv_fail(e, KV_EUSAGE, "jobs", "at least 1 is expected");
    if (!o->exact && !o->fisher && !o->attention)
        return kv_fail(e, KV_EUSAGE, "fidelity", "exact, fisher or attention is expected");
    if (o->feedback == KV_FEEDBACK_CLOSED && o->fisher)
        return kv_fail(e, KV_EUSAGE, "feedback",
                       "closed feedback reads a run, and fisher replay has none; use --fidelity "
                       "exact");
    if ((o->shard.parts || o->ranks) && (!o->db || o->attention))
        return kv_fail(e, KV_EUSAGE, o->ranks ? "mpi" : "shard",
                       "outcomes that are shared come together in a store, which is not asked for");
    return kv_sweep_files_check(o, e);
}
