// SPDX-License-Identifier: Apache-2.0
// What the outcomes of a sweep add up to, for kv_sweep_lines. Items arrive in any order: each sum
// is of integers or is kept per item and added in order, so that no line depends on it.
#ifndef KV_ANALYSIS_STUDIES_TALLY_H
#define KV_ANALYSIS_STUDIES_TALLY_H

#include "analysis/studies/sweep.h"

struct kv_tally;
// modes are borrowed; items: those that will be replayed.
struct kv_tally *kv_tally_new(size_t n_specs, const enum kv_mode *modes, size_t n_modes,
                              const struct kv_item_range *items);
void kv_tally_free(struct kv_tally *t); // NULL is fine

// Not from several threads at once.
void kv_tally_add(struct kv_tally *t, size_t spec, size_t item, enum kv_fidelity fidelity,
                  enum kv_mode mode, const struct kv_outcome *o);
void kv_tally_add_attention(struct kv_tally *t, size_t spec, size_t item,
                            const struct kv_attention_layer *mean);

// Lines of what was added, as kv_sweep_lines says. Borrowed until the next call.
const struct kv_sweep_line *kv_tally_lines(struct kv_tally *t, size_t *n);

#endif
