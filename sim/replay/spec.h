// SPDX-License-Identifier: Apache-2.0
// A spec ready to replay: policy and format opened together, with its canonical text.
#ifndef KV_REPLAY_SPEC_H
#define KV_REPLAY_SPEC_H

#include "sim/quant/format.h"

struct kv_replay_spec {
    char
        *canonical; // "static:k=4,v=4@sym:group=64,..."; "none" for the policy that needs no format
    char *policy_name; // "static"
    char *format_text; // canonical format, "" for none
    const struct kv_policy *policy;
    void *self; // the policy's state: read-only, shared by workers
    struct kv_format *format;
    struct kv_run run;
    uint32_t varies, options; // axes along which decisions differ; answers a cell may have
};

// Opens "policy[:..][@format[:..]]"; the format defaults to sym. Errors: KV_EUSAGE, one sentence,
// with the nearest known name or key, or the widths that the format offers.
KV_MUST_CHECK int kv_replay_spec_open(struct kv_replay_spec *spec, const char *text,
                                      const struct kv_format_setting *s, uint64_t seed,
                                      struct kv_error *e);
void kv_replay_spec_close(struct kv_replay_spec *spec); // an empty spec is fine

// The canonical text of any spelling of a spec. Caller frees.
KV_MUST_CHECK int kv_spec_canonical(const char *text, const struct kv_format_setting *s,
                                    char **canonical, struct kv_error *e);

// The table of policies, for listings. NULL past the end.
const struct kv_policy *kv_policy_at(size_t i);

#endif
