// SPDX-License-Identifier: Apache-2.0
// One chunk of tokens through the model of cells.h, and back.
#ifndef KV_ANALYSIS_SEARCH_CELLS_NET_H
#define KV_ANALYSIS_SEARCH_CELLS_NET_H

#include "analysis/search/cells.h"

// Room of one worker: what one layer's rows [KV_CELLS_CHUNK][2 n_kv_heads] need.
struct kv_cells_room;
struct kv_cells_room *kv_cells_room_new(const struct kv_cells_shape *s);
void kv_cells_room_free(struct kv_cells_room *r); // NULL is fine

static const float kv_cells_clip = 12; // of f in the loss

// Rows [from, from + n), n at most KV_CELLS_CHUNK, through every layer. With f: fills f[n][P]. With
// gradient: adds the gradient of the loss times scale. Returns the loss, or 0 without a gradient.
double kv_cells_chunk(const struct kv_cells_model *m, const struct kv_cells_data *d,
                      const struct kv_cells_rows *rows, size_t from, size_t n,
                      struct kv_cells_room *r, float *f, float scale, float *gradient);

// The parts of a model's parameters in any array of as many numbers: the gradient's, for one.
struct kv_cells_model kv_cells_view(const struct kv_cells_shape *s, float *parameter);

#endif
