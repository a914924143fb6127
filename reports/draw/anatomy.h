// SPDX-License-Identifier: Apache-2.0
// The figure of a model's anatomy: heat maps by layer and channel.
#ifndef KV_REPORTS_DRAW_ANATOMY_H
#define KV_REPORTS_DRAW_ANATOMY_H

#include "analysis/studies/anatomy.h"

// Writes DIR/anatomy.tsv, .gp, .svg and .png: constants of keys, and where keys and values are
// damaged; of the weights alone the biases. Errors: those of kv_gnuplot_draw.
KV_MUST_CHECK int kv_anatomy_draw(const struct kv_anatomy *a, const char *dir, struct kv_error *e);

#endif
