// SPDX-License-Identifier: Apache-2.0
// The figure of joint damage against the sum of its parts.
#ifndef KV_REPORTS_DRAW_ADDITIVITY_H
#define KV_REPORTS_DRAW_ADDITIVITY_H

#include "analysis/studies/additivity.h"

// DIR/additivity.{tsv,gp,svg,png}: each joint flip's exact divergence against its parts' sum.
// Errors: those of kv_gnuplot_draw, a folder that cannot be made.
KV_MUST_CHECK int kv_additivity_draw(const struct kv_additivity *a, const char *dir,
                                     struct kv_error *e);

#endif
