// SPDX-License-Identifier: Apache-2.0
// What a recording keeps for policies that learn a width for every cell (--keep cells): the format
// whose errors weigh squared gradients, and the cells' attention.
//
//     kv_cell_errors_open(&c, "asym:group=32", &setting, jobs, &e)
//     kv_cell_errors_fill(c, worker, &info, &item, error, &e)     of every cell, at 4 bits
//     kv_cell_errors_close(c)
#ifndef KV_TRACES_CELLS_H
#define KV_TRACES_CELLS_H

#include "sim/model/forward.h"
#include "traces/trace.h"

enum { KV_CELLS_BITS = 4 };             // width of the recorded errors
#define KV_CELLS_FORMAT "asym:group=32" // unless the caller names another

struct kv_cell_errors; // a format, and each worker's room

// Errors: a spec that does not open (KV_EUSAGE), a format without 4 bits or whose unit is more than
// one head's vector, in which a cell has no error of its own.
KV_MUST_CHECK int kv_cell_errors_open(struct kv_cell_errors **c, const char *spec,
                                      const struct kv_format_setting *setting, unsigned jobs,
                                      struct kv_error *e);
void kv_cell_errors_close(struct kv_cell_errors *c);               // NULL is fine
const char *kv_cell_errors_format(const struct kv_cell_errors *c); // canonical

// Fills error[n_tokens][n_layers][n_kv_heads][2][head_dim] from the item's k and v.
KV_MUST_CHECK int kv_cell_errors_fill(struct kv_cell_errors *c, unsigned worker,
                                      const struct kv_trace_info *info,
                                      const struct kv_trace_item *item, float *error,
                                      struct kv_error *e);

// Fills one layer of attention[n_tokens][n_layers][n_kv_heads][KV_N_CELL_FEATURES]: q
// [n_tokens][n_heads * head_dim] after RoPE, kv the run's own, k_exact
// [n_tokens][n_kv_heads * head_dim] its keys rounded to fp16, as later tokens read them.
void kv_cell_attention(const struct kv_model *m, const struct kv_trace_item *item, uint32_t layer,
                       const float *q, const struct kv_layer_kv *kv, const float *k_exact,
                       float *attention);

#endif
