// SPDX-License-Identifier: Apache-2.0
// Tables of rows that are structs, on stdout.
#include "sim/cli/table.h"

#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/cli/terminal.h"

int kv_table_print(struct kv_table *t, enum kv_output how, struct kv_error *e) {
    char *text = kv_table_written(t, how, kv_terminal_width());
    fputs(text, stdout);
    if (how == KV_OUT_MARKDOWN) putchar('\n'); // what comes next is no row of it
    free(text);
    kv_table_free(t);
    return kv_flush_stdout(e);
}

void kv_table_note(enum kv_output how, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    char *text = NULL;
    size_t width;
    if (vasprintf(&text, format, ap) < 0) text = NULL;
    va_end(ap);
    char *clean = kv_printable(text ? text : "", &width);
    free(text);
    if (how == KV_OUT_LATEX) printf("%% ");
    if (how == KV_OUT_MARKDOWN && *clean == '*') putchar('\\'); // else a list begins
    kv_print_wrapped(clean, 0, how == KV_OUT_TEXT ? kv_terminal_width() : 0);
    if (how == KV_OUT_MARKDOWN) putchar('\n');
    free(clean);
}

struct kv_table *kv_table_begin(const struct kv_table_column *columns) {
    size_t n = 0;
    while (columns[n].name) n++;
    struct kv_column *heads = kv_alloc(n, sizeof *heads);
    for (size_t i = 0; i < n; i++) heads[i] = (struct kv_column){columns[i].name, columns[i].align};
    struct kv_table *t = kv_table_new(heads, n);
    free(heads);
    return t;
}

void kv_table_add_rows(struct kv_table *t, const struct kv_table_column *columns, const void *rows,
                       size_t n, size_t stride) {
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; columns[k].name; k++)
            if (columns[k].cell) columns[k].cell(t, (const char *)rows + i * stride);
}

static const struct kv_table_column *column(const struct kv_table_column *c, const char *name) {
    while (c->name && strcmp(c->name, name) != 0) c++;
    return c->name ? c : NULL;
}

// The same columns, but labels where specs would stand. Caller frees.
static struct kv_table_column *for_readers(const struct kv_table_column *columns) {
    const struct kv_table_column *label = column(columns, "label");
    size_t n = 0, kept = 0;
    while (columns[n].name) n++;
    struct kv_table_column *some = kv_alloc(n + 1, sizeof *some);
    for (size_t i = 0; i < n; i++) {
        if (&columns[i] == label) continue;
        some[kept] = columns[i];
        if (strcmp(columns[i].name, "spec") == 0) some[kept].cell = label->cell;
        kept++;
    }
    return some;
}

int kv_table_print_rows(const struct kv_table_column *columns, const void *rows, size_t n,
                        size_t stride, enum kv_output how, struct kv_error *e) {
    bool labelled = kv_for_readers(how) && column(columns, "spec") && column(columns, "label");
    struct kv_table_column *some = labelled ? for_readers(columns) : NULL;
    if (some) columns = some;
    struct kv_table *t = kv_table_begin(columns);
    kv_table_add_rows(t, columns, rows, n, stride);
    free(some);
    return kv_table_print(t, how, e);
}
