// SPDX-License-Identifier: Apache-2.0
// The learning curve of a controller.
#ifndef KV_REPORTS_DRAW_TRAIN_H
#define KV_REPORTS_DRAW_TRAIN_H

#include "analysis/studies/controller.h"

// DIR/NAME.{tsv,gp,svg,png}, the name that of the network's file without its ending: losses and
// validation accuracy by epoch. Errors: those of kv_gnuplot_draw, a folder that cannot be made.
KV_MUST_CHECK int kv_train_draw(const struct kv_controller *c, const char *dir, struct kv_error *e);

#endif
