// SPDX-License-Identifier: Apache-2.0
// The figure of where bits matter.
#ifndef KV_REPORTS_DRAW_ATLAS_H
#define KV_REPORTS_DRAW_ATLAS_H

#include "analysis/studies/atlas.h"

// DIR/atlas.{tsv,gp,svg,png}: maps of keys and values over layers and heads, bars over position,
// class and distance. Errors: those of kv_gnuplot_draw, a folder that cannot be made.
KV_MUST_CHECK int kv_atlas_draw(const struct kv_atlas *a, const char *dir, struct kv_error *e);

#endif
