// SPDX-License-Identifier: Apache-2.0
// Printed tables. A table of rows that are structs is a list of columns:
//
//     static const struct kv_table_column columns[] = {
//         {"spec", KV_LEFT, spec_cell}, {"kl_nats", KV_RIGHT, kl_cell}, {0}};
//     return kv_table_print_rows(columns, rows, n, sizeof *rows, c->output, e);
//
// where spec_cell is  static void spec_cell(struct kv_table *t, const void *row), or, of one line,
//
//     KV_CELL(spec_cell, struct kv_row, kv_table_text(t, row->spec))
#ifndef KV_CLI_TABLE_H
#define KV_CLI_TABLE_H

#include "reports/table/table.h"

// Writes a table to stdout, as wide as its terminal, and frees it.
KV_MUST_CHECK int kv_table_print(struct kv_table *t, enum kv_output how, struct kv_error *e);

// A line about a table, for readers: in text it wraps at the terminal's width, in Markdown it is a
// paragraph, in LaTeX a comment. What steers a terminal becomes '?'.
KV_PRINTF(2, 3) void kv_table_note(enum kv_output how, const char *format, ...);

// ---- tables of rows -------------------------------------------------------------------

struct kv_table_column {
    const char *name; // with its unit
    enum kv_align align;
    // Adds one cell, or those of the columns behind it too, which then have NULL here.
    void (*cell)(struct kv_table *t, const void *row);
};
// A cell of one statement, which finds the row of this type in `row`.
#define KV_CELL(name, type, add)                                                                   \
    static void name(struct kv_table *t, const void *its_row) {                                    \
        const type *row = its_row;                                                                 \
        add;                                                                                       \
    }

// Prints n rows of `stride` bytes; columns end with {0}. Where there is a column "label" beside the
// column "spec", readers find it in its place, and programs both.
KV_MUST_CHECK int kv_table_print_rows(const struct kv_table_column *columns, const void *rows,
                                      size_t n, size_t stride, enum kv_output how,
                                      struct kv_error *e);
// The same in steps, for a table in colour or of several lists: begin, add, kv_table_print.
struct kv_table *kv_table_begin(const struct kv_table_column *columns);
void kv_table_add_rows(struct kv_table *t, const struct kv_table_column *columns, const void *rows,
                       size_t n, size_t stride);

// Columns that are written down once, each with what its cell says of the row:
//
//     #define FLIPS(X, T)
//         X(T, unit, KV_TEXT(kv_flip_units[row->unit]))
//         X(T, kl_nats, KV_NUMBER(row->kl, 6))
//     KV_TABLE_COLUMNS(flips, kv_flip, FLIPS)                                of struct kv_flip
//     return kv_table_print_rows(flips, rows, n, sizeof *rows, c->output, e);
#define KV_TEXT(x) KV_LEFT, kv_table_text(t, x)
#define KV_WORDS(x) KV_PROSE, kv_table_text(t, x)
#define KV_COUNT(x) KV_RIGHT, kv_table_count(t, (long long)(x))
#define KV_NUMBER(x, decimals) KV_RIGHT, kv_table_number(t, x, decimals)
#define KV_TABLE_COLUMNS(name, type, LIST)                                                         \
    typedef struct type name##_row;                                                                \
    LIST(KV_TABLE_CELL, name)                                                                      \
    static const struct kv_table_column name[] = {LIST(KV_TABLE_COLUMN, name){0}};
#define KV_TABLE_CELL(table, column, ...) KV_TABLE_CELL_OF(table, column, __VA_ARGS__)
#define KV_TABLE_CELL_OF(table, column, align, add) KV_CELL(table##_##column, table##_row, add)
#define KV_TABLE_COLUMN(table, column, ...) KV_TABLE_COLUMN_OF(table, column, __VA_ARGS__)
#define KV_TABLE_COLUMN_OF(table, column, align, add) {#column, align, table##_##column},

#endif
