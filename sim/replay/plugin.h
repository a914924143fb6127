// SPDX-License-Identifier: Apache-2.0
// Policies built outside this program: shared objects that export kv_policy_entry.
//
// policies/template.c says how one is made. What a shared object promises is checked before it is
// asked anything: ABI, size of its struct, the calls a policy must have, needs that this host
// knows.
#ifndef KV_REPLAY_PLUGIN_H
#define KV_REPLAY_PLUGIN_H

#include "policies/policy.h"

// True for a policy's name that is a path: it has a '/' or ends in ".so".
bool kv_is_plugin(const char *name);

struct kv_plugin {
    struct kv_policy policy; // the object's own, its missing fields zero
    void *library;
    char *path;
    char digest[17]; // of the file, so that a store never takes one build for another
};

// While a call into a plug-in runs, the thread that runs it knows its path, so that a program whose
// plug-in ends or breaks the process can name it. kv_plugin_enter returns what was known before,
// for kv_plugin_leave; path = NULL changes nothing, as for a policy that is no plug-in.
const char *kv_plugin_enter(const char *path);
void kv_plugin_leave(const char *before);
const char *kv_plugin_running(void); // in this thread; NULL = none. Safe in a signal handler

// Loads a shared object. Errors, one sentence each: no such file, not a policy, another ABI, a
// policy without a name or a decision, needs that are not known.
KV_MUST_CHECK int kv_plugin_open(struct kv_plugin **p, const char *path, struct kv_error *e);
void kv_plugin_close(struct kv_plugin *p); // NULL is fine

#endif
