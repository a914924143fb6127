// SPDX-License-Identifier: Apache-2.0
// A spec's decisions as a file that policy `plan` reads back: replay(plan of P) = replay(P), bit
// for bit.
//
//     kv_plan_out_new(&p, trace, spec, items, &e);
//     r.decided = ...;                        kv_plan_out_take(p, item, cells) for each item
//     kv_plan_out_write(p, "cells.safetensors", &e);
//     kv_plan_out_free(p);
#ifndef KV_REPLAY_PLAN_OUT_H
#define KV_REPLAY_PLAN_OUT_H

#include "sim/replay/replay.h"

struct kv_plan_out;

// Room for items [first, first + n) of the trace. Errors: KV_EUSAGE for a spec whose stored values
// do not follow from the widths of its cells alone: one that codes the prompt several times, that
// lowers widths as tokens age, or that has no format.
KV_MUST_CHECK int kv_plan_out_new(struct kv_plan_out **p, const struct kv_trace *t,
                                  const struct kv_replay_spec *spec, size_t first, size_t n,
                                  struct kv_error *e);
void kv_plan_out_free(struct kv_plan_out *p); // NULL is fine

// Keeps an item's decisions, cells[n_tokens][n_layers][n_kv_heads][2]. Different items from any
// thread.
void kv_plan_out_take(struct kv_plan_out *p, size_t item, const uint8_t *cells);

// Writes the file, whole or not at all. Errors: an item that was not taken; those of kv_write_file.
KV_MUST_CHECK int kv_plan_out_write(const struct kv_plan_out *p, const char *path,
                                    struct kv_error *e);

#endif
