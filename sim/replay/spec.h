// SPDX-License-Identifier: Apache-2.0
// A spec ready to replay: policy and format opened together, with its canonical text.
#ifndef KV_REPLAY_SPEC_H
#define KV_REPLAY_SPEC_H

#include "sim/base/outcome.h"
#include "sim/base/spec.h"
#include "sim/quant/format.h"

KV_BEGIN_DECLS

struct kv_replay_spec {
    char
        *canonical; // "static:k=4,v=4@sym:group=64,..."; "none" for the policy that needs no format
    char *policy_name; // "static"
    char *format_text; // canonical format, "" for none
    const struct kv_policy *policy;
    void *self; // the policy's state: read-only, shared by workers
    struct kv_format *format;
    struct kv_run run;
    const uint32_t *windows;      // [n_layers], of the setting that it was opened with; or NULL
    uint32_t varies, options;     // axes along which decisions differ; answers a cell may have
    uint32_t hops;                // times the prompt is coded
    uint32_t rounds;              // times the policy, or the one that it wraps, is asked
    uint32_t needs, delay_tokens; // the policy's own and those of the policy that it wraps
    struct kv_replay_spec *inner; // of a wrapper: the policy inside, without a format; else NULL
    struct kv_inner *inner_view;  // what run.inner points at
    struct kv_plugin *plugin;     // when the policy is a shared object
};

// Opens "policy[:..][@format[:..]]"; the format defaults to sym. A policy may wrap another:
// "shuffle(static:bits=4):within=item"; or be a shared object: "work/mine.so:cut=32". Errors:
// KV_EUSAGE, one sentence, with the nearest known name or key, or the widths that the format
// offers.
KV_MUST_CHECK int kv_replay_spec_open(struct kv_replay_spec *spec, const char *text,
                                      const struct kv_format_setting *s, uint64_t seed,
                                      struct kv_error *e);
void kv_replay_spec_close(struct kv_replay_spec *spec); // an empty spec is fine

// Gives a spec whose policy has changed its setting (settle) the canonical text of the new one.
KV_MUST_CHECK int kv_spec_rename(struct kv_replay_spec *spec, struct kv_error *e);

// The policy among a spec's that decides by layers, inside a running pass: the spec itself or one
// that it wraps. NULL when there is none.
const struct kv_replay_spec *kv_by_layers(const struct kv_replay_spec *spec);

// Asks a spec's policy, as kv_ask does; kv_plugin_running names the plug-in among its policies
// meanwhile.
int kv_spec_ask(const struct kv_replay_spec *spec, const struct kv_item *item, uint8_t *cells,
                struct kv_error *e);
// The path of the plug-in among a spec's policies; NULL when there is none.
const char *kv_spec_plugin(const struct kv_replay_spec *spec);

// The canonical text of any spelling of a spec. Caller frees.
KV_MUST_CHECK int kv_spec_canonical(const char *text, const struct kv_format_setting *s,
                                    char **canonical, struct kv_error *e);

// What a bit of KV_NEED_* is called: "entropy_nats", "keys and values"; NULL for one that is none.
const char *kv_need_name(uint32_t bit);

// Says in a ledger how the cache of a spec lies, where only its text is known: by place where the
// policy (of a wrapper: what it wraps) gives all tokens the same widths; by cell where it may give
// each head of a token a width for itself and its grain, as written or by default, is no coarser.
// Of a policy that is not here, nothing.
void kv_ledger_name_grain(struct kv_ledger *ledger, const struct kv_spec_parts *parts);

// The table of policies, for listings. NULL past the end.
const struct kv_policy *kv_policy_at(size_t i);

KV_END_DECLS

#endif
