// SPDX-License-Identifier: Apache-2.0
// What a row is compared with besides 16 bit: static 4 bit, and its own widths on the wrong tokens.
#ifndef KV_ANALYSIS_RESULTS_VERSUS_H
#define KV_ANALYSIS_RESULTS_VERSUS_H

#include "analysis/results/rows.h"

// Fills static4 and shuffle of every row, whose labels and items are there; kv_rows_open does.
void kv_rows_versus(struct kv_rows *rows);

#endif
