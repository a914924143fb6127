// SPDX-License-Identifier: Apache-2.0
// Which policies closed feedback can answer.
#include "sim/replay/closed.h"

static const uint32_t live = KV_NEED(KV_ENTROPY_NATS) | KV_NEED(KV_CONFIDENCE) |
                             KV_NEED(KV_ATTN_VAR) | KV_NEED(KV_KEY_RANGE) | KV_NEED(KV_VALUE_RANGE),
                      late = KV_NEED(KV_ATTN_SO_FAR) | KV_NEEDS_FUTURE | KV_NEED_ERROR |
                             KV_NEED_KV | KV_NEED_Q | KV_NEED_HIDDEN;

bool kv_reads_run(const struct kv_replay_spec *spec) {
    return spec->needs & (live | late);
}

int kv_closed_answers(const struct kv_replay_spec *spec, enum kv_mode mode, bool self_exact,
                      struct kv_error *e) {
    if (!kv_reads_run(spec)) return 0;
    if (spec->inner)
        return kv_fail(e, KV_EUSAGE, spec->canonical,
                       "closed feedback does not answer for policy %s around one that reads the "
                       "run: its answers go to other tokens or are coded again",
                       spec->policy_name);
    if (spec->needs & late || spec->delay_tokens == KV_DELAY_PROMPT)
        return kv_fail(e, KV_EUSAGE, spec->canonical,
                       "closed feedback goes token by token; policy %s reads vectors, or what is "
                       "known at the end of the prompt or later",
                       spec->policy_name);
    if (mode == KV_REQUANT)
        return kv_fail(e, KV_EUSAGE, spec->canonical,
                       "closed feedback runs in modes inline, prefill and prefill1, not requant");
    if (!self_exact)
        return kv_fail(e, KV_EUSAGE, spec->canonical,
                       "policy %s decides by its token's own step, in which the token's K and V "
                       "are not coded yet; closed feedback needs --self exact",
                       spec->policy_name);
    return 0;
}
