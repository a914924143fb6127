// SPDX-License-Identifier: Apache-2.0
// Collects the cells of a table and hands them to the writer of the output that is asked for.
#include "reports/table/inside.h"

#include <stdlib.h>

bool kv_for_readers(enum kv_output how) {
    return how == KV_OUT_TEXT || how == KV_OUT_MARKDOWN || how == KV_OUT_LATEX;
}

struct kv_table *kv_table_new(const struct kv_column *columns, size_t n) {
    struct kv_table *t = kv_alloc(1, sizeof *t);
    t->n_columns = n;
    t->columns = kv_alloc(n, sizeof *t->columns);
    for (size_t i = 0; i < n; i++)
        t->columns[i] = (struct kv_column){kv_strdup(columns[i].name), columns[i].align};
    return t;
}

static void add(struct kv_table *t, struct kv_table_cell c) {
    if (t->n_cells == t->room) {
        t->room = t->room ? 2 * t->room : 64;
        t->cells = kv_grow(t->cells, t->room, sizeof *t->cells);
    }
    t->cells[t->n_cells++] = c;
}

void kv_table_text(struct kv_table *t, const char *s) {
    add(t, (struct kv_table_cell){.kind = KV_CELL_TEXT, .text = s ? kv_strdup(s) : NULL});
}

void kv_table_take(struct kv_table *t, char *s) {
    kv_table_text(t, s);
    free(s);
}

void kv_table_number(struct kv_table *t, double x, int decimals) {
    char *s = NULL;
    if (decimals < 0 && !isnan(x)) s = kv_table_digits(x);
    if (decimals >= 0 && !isnan(x)) s = kv_format_text("%.*f", decimals, x);
    // "-0.0" is a zero that rounding left a sign on.
    if (s && s[0] == '-' && strspn(s + 1, "0.") == strlen(s + 1)) memmove(s, s + 1, strlen(s));
    add(t, (struct kv_table_cell){.kind = KV_CELL_REAL, .text = s, .x = x});
}

void kv_table_count(struct kv_table *t, long long n) {
    add(t,
        (struct kv_table_cell){.kind = KV_CELL_COUNT, .text = kv_format_text("%lld", n), .n = n});
}

void kv_table_mark(struct kv_table *t) {
    size_t row = t->n_cells ? (t->n_cells - 1) / t->n_columns : 0;
    if (t->n_cells % t->n_columns == 0) row = t->n_cells / t->n_columns;
    t->marked = kv_grow(t->marked, t->n_marked + 1, sizeof *t->marked);
    t->marked[t->n_marked++] = row;
}

void kv_table_colour(struct kv_table *t, bool on) {
    t->colour = on;
}

void kv_table_free(struct kv_table *t) {
    if (!t) return;
    for (size_t i = 0; i < t->n_cells; i++) free(t->cells[i].text);
    for (size_t i = 0; i < t->n_columns; i++) free((char *)(uintptr_t)t->columns[i].name);
    free(t->cells);
    free(t->columns);
    free(t->marked);
    free(t);
}

char *kv_table_written(const struct kv_table *t, enum kv_output how, size_t width) {
    static void (*const write[])(const struct kv_table *,
                                 struct kv_text *) = {[KV_OUT_MARKDOWN] = kv_table_as_markdown,
                                                      [KV_OUT_LATEX] = kv_table_as_latex,
                                                      [KV_OUT_TSV] = kv_table_as_tsv,
                                                      [KV_OUT_CSV] = kv_table_as_csv,
                                                      [KV_OUT_JSON] = kv_table_as_json};
    struct kv_text s = {0};
    if (how == KV_OUT_TEXT)
        kv_table_as_text(t, width, &s);
    else
        write[how](t, &s);
    return kv_text_take(&s);
}
