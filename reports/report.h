// SPDX-License-Identifier: Apache-2.0
// A report of a store: figures, one page, and result files, all in one folder.
#ifndef KV_REPORTS_REPORT_H
#define KV_REPORTS_REPORT_H

#include "analysis/results/rows.h"
#include "reports/draw/frontier.h"

struct kv_report {
    const char *dir;              // made when missing
    const char *db;               // the store's path, for the commands that the page shows
    const char *formats;          // of the figures: "svg,png,pdf"; svg is drawn in any case
    const struct kv_paper *paper; // a panel to draw besides, for a paper; NULL = none
    const char *claims; // files to judge, separated by commas: NULL = those shipped, "" = none
    const char *traces; // recordings to ask for decisions; NULL = where the store says they were
    const char *model;  // whose tokenizer spells tokens; NULL, or one that cannot be read = none
    uint64_t seed;
    unsigned jobs;
};

// Draws and writes what the store says: DIR/frontier_*.{tsv,gp,svg,...}, the paper's panel,
// results.{json,tsv} and index.html; of a store that holds
// generated texts alone index.html with their figures. Labels of rows that read alike are made to
// say how they differ. Errors: KV_EUSAGE for formats and claims, a folder that cannot be written,
// gnuplot, nothing to draw.
KV_MUST_CHECK int kv_report_write(const struct kv_report *r, struct kv_rows *rows,
                                  struct kv_store *s, struct kv_error *e);

#endif
