// SPDX-License-Identifier: Apache-2.0
// Figures of the latency model, drawn by gnuplot from tables written beside them.
#ifndef KV_REPORTS_DRAW_DEVICE_H
#define KV_REPORTS_DRAW_DEVICE_H

#include "sim/cost/calibrate.h"

// Writes DIR/NAME_{fit,residual,lines}.svg, .png and the .tsv they are drawn from. Errors: KV_EFAIL
// when gnuplot is missing or fails.
KV_MUST_CHECK int kv_draw_calibration(const struct kv_calibration *c, const struct kv_runs *runs,
                                      const char *dir, struct kv_error *e);

#endif
