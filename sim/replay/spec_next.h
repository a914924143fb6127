// SPDX-License-Identifier: Apache-2.0
// What a spec that is being typed may become.
#ifndef KV_REPLAY_SPEC_NEXT_H
#define KV_REPLAY_SPEC_NEXT_H

#include "policies/policy.h"

// Hands `take` each text that begins with `text` and is a spec, or a part of one that goes on:
// "sta" gives "static:", that gives "static:bits=" and its other keys, "static:bits=4@a" the
// formats of that letter. Nothing behind a '=', whose values are not listed. `format`: a format
// alone is typed, without a policy. What is handed over lives as long as the call.
void kv_spec_next(const char *text, bool format, void (*take)(void *self, const char *next),
                  void *self);

#endif
