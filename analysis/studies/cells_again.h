// SPDX-License-Identifier: Apache-2.0
// Weights of policy cells read back, so that what they lack is measured: what other grains and
// widths than those of training start from, and the table of policy frozen.
#ifndef KV_ANALYSIS_STUDIES_CELLS_AGAIN_H
#define KV_ANALYSIS_STUDIES_CELLS_AGAIN_H

#include "analysis/studies/cells_budget.h"

// Opens o->again and sets inputs, net, grain and widths of o to the file's. Errors: no file of
// weights, one for another model or shape than the trace's.
KV_MUST_CHECK int kv_cells_again_open(struct kv_cells_weights *w, const struct kv_trace *trace,
                                      struct kv_cells_training *o, struct kv_error *e);
// The file's parameters, over the biases of the ground.
KV_MUST_CHECK int kv_cells_again_model(const struct kv_cells_ground *g, struct kv_cells_model *m,
                                       struct kv_error *e);
// The file's curves in place of those measured, of its formats: what was trained keeps its budgets,
// and their spread alone is new. Errors: curves of other formats, or of another length.
KV_MUST_CHECK int kv_cells_again_budgets(const struct kv_cells_ground *g,
                                         struct kv_cells_budget *budget, size_t n,
                                         struct kv_error *e);

#endif
