// SPDX-License-Identifier: Apache-2.0
// Tasks that kvsim makes of a text and a seed: their parameters. (private to traces; kv_tasks_make
// is tasks.h's)
#ifndef KV_TRACES_MADE_H
#define KV_TRACES_MADE_H

#include "traces/tasks.h"

extern const struct kv_param kv_needle_params[], kv_recall_params[];

// Fills t->places and t->prompt. Errors: KV_EUSAGE for a list with a number twice or too long, a
// length that is no whole number, pairs beside lengths.
KV_MUST_CHECK int kv_places_take(struct kv_tasks *t, const struct kv_args *args, const char *what,
                                 struct kv_error *e);

#endif
