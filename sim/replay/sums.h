// SPDX-License-Identifier: Apache-2.0
// Damage tables added up in advance, so that policies of few degrees of freedom cost microseconds.
//
//     struct kv_cell_table_sums *s = kv_cell_table_sums_new(trace, table, n_widths);
//     nats = kv_sums_damage(s, item, spec->varies, cells);
//
// A policy that gives all tokens the same widths needs one entry a cell of the item's sum; one that
// gives all layers and heads of a token the same widths needs two entries a token. Others read the
// table itself.
#ifndef KV_REPLAY_SUMS_H
#define KV_REPLAY_SUMS_H

#include "sim/replay/damage.h"

struct kv_cell_table_sums;
struct kv_cell_table_sums *kv_cell_table_sums_new(const struct kv_trace *trace,
                                                  const struct kv_cell_table *table,
                                                  size_t n_widths);
void kv_cell_table_sums_free(struct kv_cell_table_sums *s); // NULL is fine

// Damage of one item's decisions in nats over its scored positions; `varies` as the spec declares.
double kv_sums_damage(const struct kv_cell_table_sums *s, size_t item, uint32_t varies,
                      const uint8_t *cells);
// An item's entries added over its tokens: [n_widths][n_cells].
const double *kv_sums_item(const struct kv_cell_table_sums *s, size_t item);
// A token's entries added over layers and heads: [n_tokens][n_widths][2], K and V.
const float *kv_sums_tokens(const struct kv_cell_table_sums *s, size_t item);

#endif
