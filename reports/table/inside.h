// SPDX-License-Identifier: Apache-2.0
// What the modules of the tables share: the cells, and one writer a kind of output.
#ifndef KV_REPORTS_TABLE_INSIDE_H
#define KV_REPORTS_TABLE_INSIDE_H

#include "reports/table/table.h"
#include "sim/base/memory.h"

struct kv_table_cell {
    char *text; // as all but JSON show it; NULL = empty
    enum { KV_CELL_TEXT, KV_CELL_REAL, KV_CELL_COUNT } kind;
    double x;
    long long n;
};

struct kv_table {
    size_t n_columns;
    struct kv_column *columns;
    size_t n_cells, room;
    struct kv_table_cell *cells;
    bool colour;
    size_t n_marked;
    size_t *marked; // rows, ascending
};

// The shortest of 15 to 17 digits that reads back as x. Caller frees.
char *kv_table_digits(double x);

void kv_table_as_text(const struct kv_table *t, size_t width, struct kv_text *to);
void kv_table_as_markdown(const struct kv_table *t, struct kv_text *to);
void kv_table_as_latex(const struct kv_table *t, struct kv_text *to);
void kv_table_as_tsv(const struct kv_table *t, struct kv_text *to);
void kv_table_as_csv(const struct kv_table *t, struct kv_text *to);
void kv_table_as_json(const struct kv_table *t, struct kv_text *to);

#endif
