// SPDX-License-Identifier: Apache-2.0
// What must stand beside a table or figure of rows: items that no number counts, and contexts that
// are priced but at which no quality was measured. Sentences; NULL where there is nothing to say.
// Caller frees.
#ifndef KV_ANALYSIS_RESULTS_NOTES_H
#define KV_ANALYSIS_RESULTS_NOTES_H

#include "analysis/results/rows.h"

// Contexts within this factor count as the same.
#define KV_SAME_CONTEXT 1.5

// Whether a row's quality as a whole was measured on sequences of about this length; of text
// windows it is that of the tokens which scored positions see.
bool kv_measured_at(const struct kv_row *row, double context);
// "quality was measured at 44 tokens (mean), not 4096", where it was not measured at some of the
// contexts; the mean is of the sequences' lengths.
char *kv_context_note(const struct kv_row *const *rows, size_t n, const double *context,
                      size_t n_contexts);
// "KL at 4096: of positions that see 2049 to 4096 tokens", for the contexts at which some row knows
// its divergence (kv_row.depth).
char *kv_depth_note(const struct kv_row *const *rows, size_t n, const double *context,
                    size_t n_contexts);
// "1 of 8 items, whose scores or divergence are not finite (ids 3)" for a row that leaves items
// out, "2 of 24 redraws of items, which count by their others (ids 5)" for one that leaves redraws
// out.
char *kv_left_out_note(const struct kv_row *row);
// The same of the items of a run that are marked: [n_items] from the trace's item `first` on.
struct kv_trace;
char *kv_left_out_items(const struct kv_trace *trace, size_t first, size_t n_items,
                        const bool *left_out, size_t n_left_out, size_t n);

#endif
