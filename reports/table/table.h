// SPDX-License-Identifier: Apache-2.0
// Tables as text: aligned for a terminal, Markdown and LaTeX for readers; TSV, CSV and JSON for
// programs.
//
//     const struct kv_column heads[] = {{"spec", KV_LEFT}, {"kl_nats", KV_RIGHT}};
//     struct kv_table *t = kv_table_new(heads, 2);
//     kv_table_text(t, "static:bits=4@sym"), kv_table_number(t, 0.1729, 4);     a row, cell by cell
//     char *text = kv_table_written(t, KV_OUT_CSV, 0);
//     kv_table_free(t);
#ifndef KV_REPORTS_TABLE_TABLE_H
#define KV_REPORTS_TABLE_TABLE_H

#include "policies/policy.h"

enum kv_output {
    KV_OUT_TEXT,
    KV_OUT_MARKDOWN, // a pipe table, as GitHub and most renderers read it
    KV_OUT_LATEX,    // a tabular with the rules of package booktabs
    KV_OUT_TSV,
    KV_OUT_CSV, // RFC 4180, but for lines that end in a newline alone
    KV_OUT_JSON // an array of objects
};
// Whether people read it: then numbers are rounded and columns few.
bool kv_for_readers(enum kv_output how);

struct kv_table;
enum kv_align {
    KV_LEFT,  // where there is no room, names lose what others like them share
    KV_PROSE, // where there is no room, words go on in further lines
    KV_RIGHT
};
struct kv_column {
    const char *name; // with its unit: "kl_nats"
    enum kv_align align;
};
struct kv_table *kv_table_new(const struct kv_column *columns, size_t n);
void kv_table_free(struct kv_table *t); // NULL is fine

// Cells fill row after row.
void kv_table_text(struct kv_table *t, const char *s); // NULL = empty (JSON null)
void kv_table_take(struct kv_table *t, char *s);       // the same, and frees s
// NAN = empty; JSON keeps all digits. Negative decimals: as many digits as x needs to be read back.
void kv_table_number(struct kv_table *t, double x, int decimals);
void kv_table_count(struct kv_table *t, long long n);
// The row begun last (or to begin) stands out when written as text in colour.
void kv_table_mark(struct kv_table *t);
void kv_table_colour(struct kv_table *t, bool on);

// The whole table; caller frees. width: columns of the terminal that text must fit in (0 = no
// bound): names are cut, prose wraps, and columns that still do not fit stand in further tables
// below, each with the first column. TSV writes tab, newline, return and backslash inside a text as
// \t, \n, \r and \\. In all but JSON what steers a terminal becomes '?'.
char *kv_table_written(const struct kv_table *t, enum kv_output how, size_t width);

#endif
