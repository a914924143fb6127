// SPDX-License-Identifier: Apache-2.0
// The figure of predicted against exact divergence.
#ifndef KV_REPORTS_DRAW_FIDELITY_H
#define KV_REPORTS_DRAW_FIDELITY_H

#include "analysis/studies/calibration.h"

// DIR/fidelity.{tsv,gp,svg,png}: exact KL against the headline form and two rivals, each with its
// calibration and band. Errors: those of kv_gnuplot_draw, a folder that cannot be made.
KV_MUST_CHECK int kv_fidelity_draw(const struct kv_kl_calibration *c, const char *dir,
                                   struct kv_error *e);

#endif
