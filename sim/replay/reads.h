// SPDX-License-Identifier: Apache-2.0
// What exact replay asks of a spec wherever it runs: which positions are read coded, what codes
// say.
#ifndef KV_REPLAY_READS_H
#define KV_REPLAY_READS_H

#include "sim/model/forward.h"
#include "sim/replay/replay.h"

// Which positions each row of a tree reads coded: upto[n_tokens][2], K and V. Returns whether some
// row reads an exact one.
bool kv_lay_out_reads(const struct kv_replay *r, const struct kv_replay_spec *spec,
                      const struct kv_tree *t, uint32_t *upto);

// Order-0 entropy of all codes made, bits a code, of histograms [n_widths][256]; NAN when some
// width's codes were not counted.
double kv_codes_entropy_bits(const uint64_t *histogram, size_t n_widths);

// Rows of an item's prompt that the mode computes exactly, once for all specs.
uint32_t kv_prompt_rows(enum kv_mode mode, const struct kv_trace_item *it);

#endif
