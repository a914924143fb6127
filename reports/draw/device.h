// SPDX-License-Identifier: Apache-2.0
// Figures of a device's latency model beside the runs that it was fitted to.
#ifndef KV_REPORTS_DRAW_DEVICE_H
#define KV_REPORTS_DRAW_DEVICE_H

#include "sim/cost/calibrate.h"

// Draws NAME_fit (predicted against measured), NAME_residual and NAME_lines (ms a token against
// context) into `dir`, which is made: what kv_gnuplot_draw writes of each. Errors: as there.
KV_MUST_CHECK int kv_device_draw(const struct kv_calibration *c, const char *dir,
                                 struct kv_error *e);

#endif
