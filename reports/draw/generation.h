// SPDX-License-Identifier: Apache-2.0
// Survival curves of what was generated: the share of prompts whose text is still the 16-bit run's.
#ifndef KV_REPORTS_DRAW_GENERATION_H
#define KV_REPORTS_DRAW_GENERATION_H

#include "analysis/studies/generation.h"

// The rows [first, first + n) of a table that are alike (kv_generation_alike): returns n.
size_t kv_generation_group(const struct kv_generation_table *t, size_t first);
// "generation", "generation-2", ... of the group that begins at a row. Caller frees.
char *kv_generation_figure(const struct kv_generation_table *t, size_t first, bool narrow);

// Writes a figure of each group into the folder, which is made, in the formats of a list; narrow:
// for telephones, beside it. At most 15 rows each. Errors: those of kv_gnuplot_draw.
KV_MUST_CHECK int kv_generation_draw(const struct kv_generation_table *t, const char *dir,
                                     const char *formats, struct kv_error *e);

// Pixels of a group's figure.
double kv_generation_height(size_t rows, bool narrow);

#endif
