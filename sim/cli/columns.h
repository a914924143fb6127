// SPDX-License-Identifier: Apache-2.0
// The columns of show's table: when each is printed and what it says of a row.
#ifndef KV_CLI_COLUMNS_H
#define KV_CLI_COLUMNS_H

#include "analysis/results/rows.h"
#include "sim/cli/table.h"

// When a column is printed. KV_SHOW_WIDE: in text only on a wide terminal; KV_SHOW_PRICED: only
// with a device, once a context; KV_SHOW_NULLED: in text only where a row has its own shuffle
// beside it; KV_SHOW_LAYERS: when asked for; KV_SHOW_REDRAWN: only where a row was redrawn;
// KV_SHOW_PAIRED: in text only with --paired, which leaves out prices; KV_SHOW_TOKENS: only where a
// row holds scored positions of text windows.
enum kv_when {
    KV_SHOW_WIDE = 1,
    KV_SHOW_TEXT = 2,
    KV_SHOW_MACHINE = 4,
    KV_SHOW_PRICED = 8,
    KV_SHOW_NULLED = 16,
    KV_SHOW_LAYERS = 32,
    KV_SHOW_REDRAWN = 64,
    KV_SHOW_PAIRED = 128,
    KV_SHOW_TOKENS = 256
};

// What a cell is given.
struct kv_shown {
    const struct kv_row *of;
    const struct kv_rows *all;
    bool on_frontier;   // stands out in colour
    const char *layers; // sparkline, or NULL
};

struct kv_show_column {
    struct kv_table_column as; // "%g" in its name stands for the context; a cell adds all contexts
    unsigned when;
    // In text a column in which all rows agree is said above the table instead.
    bool (*same)(const struct kv_row *a, const struct kv_row *b);
};
extern const struct kv_show_column kv_show_columns[]; // ends with {0}
enum { KV_MAX_COLUMNS = 128 };

// Prints rows by depth, and the tokens of each row that diverge most, of the store db. model: whose
// tokenizer spells them, or NULL. (show_depths.c)
KV_MUST_CHECK int kv_depths_print(const struct kv_rows *rows, const char *db, enum kv_output how,
                                  struct kv_error *e);
KV_MUST_CHECK int kv_worst_print(const struct kv_rows *rows, struct kv_store *s, size_t most,
                                 const char *traces, const char *model, const char *db,
                                 enum kv_output how, struct kv_error *e);

// Prints the rows of needle and recall by length and depth, and where each first differs from 16
// bit. (show_places.c)
KV_MUST_CHECK int kv_places_print(const struct kv_rows *rows, const char *db, enum kv_output how,
                                  struct kv_error *e);

// Prints rows[n] of one trace with their places by each scorer, and in text how far rankings agree.
// (show_scorers.c)
KV_MUST_CHECK int kv_scorers_print(const struct kv_row *rows, size_t n, enum kv_output how,
                                   struct kv_error *e);

#endif
