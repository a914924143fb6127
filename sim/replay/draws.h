// SPDX-License-Identifier: Apache-2.0
// Fisher replay draw by draw: what tables average away, for judging the forms and their cross
// terms.
//
// For decisions known in advance the whole gradients of every label draw meet the coding errors of
// exactly these decisions, so formats whose cells share units are coded as they will be.
#ifndef KV_REPLAY_DRAWS_H
#define KV_REPLAY_DRAWS_H

#include "sim/replay/fisher.h"

enum { KV_DRAW_FORMS = 4 };
extern const char *const kv_draw_forms[]; // "iso", "element", "vector", "total", NULL

// Nats over all scored positions of one item, for one draw.
struct kv_draw_sums {
    double form[KV_DRAW_FORMS]; // total: 0.5 (sum over cells of g . e)^2
    double evicted;             // of evicted cells; mean over draws, the same in each form
};

// Hands out draws[n_draws] of each item and spec; from any worker, one at a time. layer_total:
// [n_draws][n_layers] signed sums of g . e; layer_square: sums of (g . e)^2; layer_element: of
// (g_i e_i)^2.
struct kv_draws {
    size_t n_draws, n_layers;
    double scored; // positions
    const struct kv_draw_sums *draw;
    const double *layer_total, *layer_square, *layer_element;
};
// Errors: as kv_replay_fisher; a trace without whole gradients.
KV_MUST_CHECK int kv_replay_draws(const struct kv_replay *r, unsigned jobs,
                                  int (*take)(void *self, size_t item, size_t spec,
                                              const struct kv_draws *x, struct kv_error *e),
                                  void *self, struct kv_error *e);

// The same for decisions given outright: cells [n_tokens][n_cells] of item i, in a format. draw:
// [n_draws]; layers [3][n_draws][n_layers] gets the three layer sums, or is NULL.
struct kv_draw_work;
struct kv_draw_work *kv_draw_work_new(const struct kv_trace *t, const struct kv_format *f);
void kv_draw_work_free(struct kv_draw_work *w);
KV_MUST_CHECK int kv_draws_of(struct kv_draw_work *w, size_t item, const uint8_t *cells,
                              struct kv_draw_sums *draw, double *layers, struct kv_error *e);

#endif
