// SPDX-License-Identifier: Apache-2.0
// The figure of a headroom study: divergence under each freedom, a panel a budget.
#ifndef KV_REPORTS_DRAW_HEADROOM_H
#define KV_REPORTS_DRAW_HEADROOM_H

#include "analysis/studies/headroom.h"

// Writes headroom.svg, .png, .gp and .tsv into the folder, which is made. Errors: those of
// kv_gnuplot_draw.
KV_MUST_CHECK int kv_headroom_draw(const struct kv_headroom *h, const char *dir,
                                   struct kv_error *e);

#endif
