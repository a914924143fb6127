// SPDX-License-Identifier: Apache-2.0
// Runs gnuplot on a figure's script and the data its SQL makes.
#ifndef KV_REPORTS_DRAW_GNUPLOT_H
#define KV_REPORTS_DRAW_GNUPLOT_H

#include "analysis/store/store.h"

struct kv_gnuplot {
    const char *name;                  // of the pair reports/NAME.gp and reports/NAME.sql
    const char *file;                  // of what is written, without its ending
    const char *dir;                   // where; exists
    const char *settings;              // gnuplot lines that come first
    const struct kv_sql_value *values; // bound to the SQL
    size_t n_values;
    const char *formats; // "svg,png" and "pdf" as wanted; NULL = svg and png
    const char *data; // TSV with a header, for a figure without SQL, which then draws itself alone
};

// Writes DIR/FILE.tsv, FILE.gp and a picture of each format. s may be NULL where data is given.
// Errors: gnuplot is missing or fails (its first line is quoted), a file that cannot be written.
KV_MUST_CHECK int kv_gnuplot_draw(const struct kv_gnuplot *g, struct kv_store *s,
                                  struct kv_error *e);

// The formats of a list that gnuplot draws here. Errors: KV_EUSAGE names them.
KV_MUST_CHECK int kv_gnuplot_formats(const char *list, struct kv_error *e);

// A copy of s that is safe inside a gnuplot string or data field: quotes, backslashes, control
// characters and invalid UTF-8 become harmless look-alikes. Caller frees.
char *kv_gnuplot_text(const char *s);

#endif
