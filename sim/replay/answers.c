// SPDX-License-Identifier: Apache-2.0
// What a recording's sensitivities answer for.
#include "sim/replay/answers.h"

#include "sim/base/args.h"

enum kv_mode kv_adjoint_mode(const struct kv_trace_info *in) {
    int mode = kv_index_of(in->adjoint.mode, kv_mode_names);
    return mode < 0 ? KV_INLINE : (enum kv_mode)mode;
}

enum kv_self kv_adjoint_self(const struct kv_trace_info *in) {
    int self = kv_index_of(in->adjoint.self, kv_self_names);
    return self < 0 ? KV_SELF_CODED : (enum kv_self)self;
}

int kv_adjoint_answers(const struct kv_trace_info *in, const struct kv_replay_spec *spec,
                       enum kv_mode mode, bool self_exact, struct kv_error *e) {
    const struct kv_format *f = spec->format;
    if (kv_index_of(in->adjoint.mode, kv_mode_names) < 0)
        return kv_fail(e, KV_EFAIL, in->path, "keeps no sensitivities; record with --keep kv,sens");
    if (strcmp(in->adjoint.mode, kv_mode_names[mode]) != 0)
        return kv_fail(e, KV_EFAIL, in->path,
                       "its sensitivities were recorded for mode %s and do not answer for %s",
                       in->adjoint.mode, kv_mode_names[mode]);
    if (strcmp(in->adjoint.self, self_exact ? "exact" : "coded") != 0)
        return kv_fail(e, KV_EFAIL, in->path,
                       "its sensitivities were recorded for the own step read %s",
                       in->adjoint.self);
    if (spec->hops > 1)
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "fisher replay does not answer for a prompt coded %u times; use --fidelity "
                       "exact",
                       spec->hops);
    if (f->window[KV_KEY] || f->window[KV_VALUE] || f->flush[KV_KEY] > 1 ||
        f->flush[KV_VALUE] > 1 || f->gathers > 1)
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "fisher replay does not answer for windows or open groups of tokens: who "
                       "reads exact values "
                       "changes with age; use --fidelity exact");
    return 0;
}

int kv_fisher_answers(const struct kv_trace_info *in, const struct kv_replay_spec *spec,
                      enum kv_mode mode, bool self_exact, struct kv_error *e) {
    if (spec->rounds > 1)
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "rounds=%u measures sensitivities again by running the model; use "
                       "--fidelity exact",
                       spec->rounds);
    return kv_adjoint_answers(in, spec, mode, self_exact, e);
}
