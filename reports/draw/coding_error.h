// SPDX-License-Identifier: Apache-2.0
// The figure of formats' errors.
#ifndef KV_REPORTS_DRAW_CODING_ERROR_H
#define KV_REPORTS_DRAW_CODING_ERROR_H

#include "analysis/studies/coding_error.h"

// DIR/quant_error.{tsv,gp,svg,png}: relative error against effective bits, K above V. Errors: those
// of kv_gnuplot_draw; KV_EFAIL where nothing below 16 bits has an error to draw.
KV_MUST_CHECK int kv_quant_draw(const struct kv_quant_row *rows, size_t n,
                                const struct kv_quant_source *source, const char *dir,
                                struct kv_error *e);

#endif
