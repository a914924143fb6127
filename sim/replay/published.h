// SPDX-License-Identifier: Apache-2.0
// Does a read mode fit what a policy and a format were published in? Any mode may be asked for;
// where it is another one, tables and warnings say so.
//
//     const char *why = kv_mode_mismatch(&spec, KV_INLINE);
//     if (why) kv_say("%s, mode %s: %s", spec.canonical, kv_mode_names[KV_INLINE], why);
#ifndef KV_REPLAY_PUBLISHED_H
#define KV_REPLAY_PUBLISHED_H

#include "sim/base/outcome.h"
#include "sim/replay/spec.h"

// NULL where they fit, else a short sentence; static text. Of a wrapper the policy inside counts.
// A policy that decides when the prompt has been read does not fit inline, where the prompt's own
// queries read what it has decided, unless it was published so.
const char *kv_mode_mismatch(const struct kv_replay_spec *spec, enum kv_mode mode);

// The mode that a spec was published in: its policy's (of a wrapper the one inside), else its
// format's; where both leave it open, prefill for a policy that decides when the prompt has been
// read, and inline.
enum kv_mode kv_published_mode(const struct kv_replay_spec *spec);

// The name of the mode that a policy or a format declares: "inline", ...; "" for any, and for one
// that this kvsim does not know (a later plug-in's).
const char *kv_published_name(uint32_t published_mode);

#endif
