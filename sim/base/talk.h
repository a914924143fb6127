// SPDX-License-Identifier: Apache-2.0
// What is said on stderr while something runs: lines and progress.
#ifndef KV_BASE_TALK_H
#define KV_BASE_TALK_H

#include "policies/policy.h"

KV_BEGIN_DECLS

// Talk on stderr. Level: -1 quiet, 0 normal, 1 verbose. kv_say prints one line unless quiet.
void kv_set_verbosity(int level);
int kv_verbosity(void);
KV_PRINTF(1, 2) void kv_say(const char *format, ...);

// A progress bar on a terminal ("recording  57/120  3.1 items/s  0:20 left"); otherwise a line
// after 2 s, every tenth, and at least every 20 s however long a step takes (a thread looks at the
// clock). Below 1 a second it is "12.3 s/item". A total of 0: a command of which no more is known
// than that it runs; its lines say how far the present kv_parallel has come. Thread-safe:
// kv_progress_step may be called by any worker. NULL shows nothing.
struct kv_progress;
struct kv_progress *kv_progress_start(const char *what, size_t total, const char *unit);
void kv_progress_step(struct kv_progress *p, size_t n);
void kv_progress_end(struct kv_progress *p);

KV_END_DECLS

#endif
