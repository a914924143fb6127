// SPDX-License-Identifier: Apache-2.0
// The columns of show's table: when each is printed and what it says of a row.
#ifndef KV_CLI_COLUMNS_H
#define KV_CLI_COLUMNS_H

#include "analysis/results/rows.h"

// When a column is printed. KV_SHOW_WIDE: in text only on a wide terminal; KV_SHOW_PRICED: only
// with a device, once a context; KV_SHOW_NULLED: in text only where a row has its own shuffle
// beside it; KV_SHOW_LAYERS: when asked for; KV_SHOW_REDRAWN: only where a row was redrawn;
// KV_SHOW_PAIRED: in text only with --paired, which leaves out prices.
enum kv_when {
    KV_SHOW_WIDE = 1,
    KV_SHOW_TEXT = 2,
    KV_SHOW_MACHINE = 4,
    KV_SHOW_PRICED = 8,
    KV_SHOW_NULLED = 16,
    KV_SHOW_LAYERS = 32,
    KV_SHOW_REDRAWN = 64,
    KV_SHOW_PAIRED = 128
};

struct kv_shown {
    const struct kv_row *row;
    const struct kv_rows *rows;
    size_t context;
    bool on_frontier;
    const char *layers; // sparkline, or NULL
};

struct kv_show_column {
    const char *name; // "%g" stands for the context
    enum kv_align align;
    unsigned when;
    void (*cell)(struct kv_table *t, const struct kv_shown *c);
    // In text a column in which all rows agree is said above the table instead.
    bool (*same)(const struct kv_row *a, const struct kv_row *b);
};
extern const struct kv_show_column kv_show_columns[]; // ends with {0}
enum { KV_MAX_COLUMNS = 96 };

#endif
