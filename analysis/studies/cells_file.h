// SPDX-License-Identifier: Apache-2.0
// The file of weights that policy cells reads.
#ifndef KV_ANALYSIS_STUDIES_CELLS_FILE_H
#define KV_ANALYSIS_STUDIES_CELLS_FILE_H

#include "analysis/studies/cells_budget.h"

// Writes the safetensors file r->path, all F32: `channel` [P][head_dim] m; `bias` [P]; `linear`
// [P][n_x] where there are features; `probe` [P][hidden]; `embedding` [P][8] and `net.0`, `net.2`,
// `net.4` (weight, bias) with a net; `attention.mean`, `attention.deviation` [n_layers *
// n_kv_heads][6]; `token.mean`, `token.deviation` [n_token]; `budget.lambda`, `budget.bits` [49],
// `budget.step_bits` [49][4 * n_layers] of the first budget, `budget.1.lambda`... of the next: one
// a format of `cache_formats` (n, with blanks between); `spread` [12][12 * n_layers],
// `spread.ratio` [3 n][n_widths] and `table` [6][P] (policies/cells_weights.h). Parts that the
// model lacks are absent. Metadata says what the policy must know (`format`, `inputs`, `net`,
// `grain`, `widths`, `cache_format`) and what made it. Fills digest, bytes and spec of *r.
KV_MUST_CHECK int kv_cells_write(const struct kv_cells_ground *g, const struct kv_cells_model *m,
                                 const struct kv_cells_budget *budgets, size_t n,
                                 struct kv_cells_trained *r, struct kv_error *e);

// Writes trace digest, task, id and part ("trained", "held out") of each item, tab-separated.
KV_MUST_CHECK int kv_cells_write_items(const struct kv_cells_ground *g, const char *path,
                                       struct kv_error *e);

#endif
