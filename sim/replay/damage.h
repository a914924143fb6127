// SPDX-License-Identifier: Apache-2.0
// Damage of decisions, read off tables (traces/tables.h): what fisher replay, sums and fits add up.
#ifndef KV_REPLAY_DAMAGE_H
#define KV_REPLAY_DAMAGE_H

#include "sim/replay/replay.h"

// Sum of a table over decisions: table [n_tokens][n_widths][cells], cells [n_tokens][cells].
// KV_FLOAT32 adds nothing; evicted cells are left to the caller and add nothing.
double kv_table_sum(const float *table, const uint8_t *cells, size_t n_tokens, size_t n_widths,
                    size_t n_cells);

// Positions whose divergence the sensitivities add up: the branch point once a choice.
double kv_fisher_scored(const struct kv_trace_info *info, const struct kv_trace_item *item);

// Predicted KL of one item in nats a scored token; *error (may be NULL) is its standard error from
// the label draws, taking the draws of all cells as fully dependent, hence an upper bound. NAN for
// one draw.
double kv_fisher_kl(const struct kv_trace *t, size_t item, const struct kv_cell_table *table,
                    size_t n_widths, const uint8_t *cells, double *error);

// Opens a table for each spec that declares `need` (0: for each), shared among specs of one format:
// *tables, [r->n_specs], NULL where none is needed. Close also what was opened before an error.
KV_MUST_CHECK int kv_cell_tables_open(struct kv_cell_table ***tables, const struct kv_replay *r,
                                      uint32_t need, enum kv_cell_table_kind kind, unsigned jobs,
                                      struct kv_error *e);
// Closes an array of n tables, some of which may be shared or NULL, and frees it.
void kv_cell_tables_close(struct kv_cell_table **tables, size_t n);

#endif
