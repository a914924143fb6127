// SPDX-License-Identifier: Apache-2.0
// Tables for programs: TSV and CSV with a header, a JSON array of objects.
#include "reports/table/inside.h"

#include <stdlib.h>

#include "sim/base/print.h"

static void add_printable(struct kv_text *to, const char *s) {
    size_t width;
    char *clean = kv_printable(s, &width);
    kv_text_add(to, clean, strlen(clean));
    free(clean);
}

static void tsv_cell(struct kv_text *to, const char *s) {
    static const char from[] = "\t\n\r\\", into[] = "tnr\\";
    for (size_t n; s && *s; s += n) {
        const char *p = strchr(from, *s);
        n = p ? 1 : strcspn(s, from);
        char *piece =
            p ? kv_format_text("\\%c", into[p - from]) : kv_format_text("%.*s", (int)n, s);
        add_printable(to, piece);
        free(piece);
    }
}

// A newline inside a text stays: quotes hold it.
static void csv_cell(struct kv_text *to, const char *s) {
    if (!s) return;
    if (!s[strcspn(s, ",\"\r\n")]) {
        add_printable(to, s);
        return;
    }
    kv_text_addf(to, "\"");
    for (size_t n; *s; s += n) {
        n = strcspn(s, "\"\n");
        char *piece = kv_format_text("%.*s", (int)n, s);
        add_printable(to, piece);
        free(piece);
        if (s[n]) kv_text_addf(to, s[n] == '"' ? "\"\"" : "\n"), n++;
    }
    kv_text_addf(to, "\"");
}

static void separated(const struct kv_table *t, char separator,
                      void (*cell)(struct kv_text *, const char *), struct kv_text *to) {
    for (size_t i = 0; i < t->n_columns + t->n_cells; i++) {
        cell(to, i < t->n_columns ? t->columns[i].name : t->cells[i - t->n_columns].text);
        kv_text_addf(to, "%c", (i + 1) % t->n_columns ? separator : '\n');
    }
}

void kv_table_as_tsv(const struct kv_table *t, struct kv_text *to) {
    separated(t, '\t', tsv_cell, to);
}

void kv_table_as_csv(const struct kv_table *t, struct kv_text *to) {
    separated(t, ',', csv_cell, to);
}

char *kv_table_digits(double x) {
    char s[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, x);
        if (strtod(s, NULL) == x) break;
    }
    return kv_strdup(s);
}

static char *json_value(const struct kv_table_cell *c) {
    if (!c->text || (c->kind == KV_CELL_REAL && !isfinite(c->x))) return kv_strdup("null");
    if (c->kind == KV_CELL_REAL) return kv_table_digits(c->x);
    if (c->kind == KV_CELL_COUNT) return kv_format_text("%lld", c->n);
    return kv_json_quoted(c->text);
}

void kv_table_as_json(const struct kv_table *t, struct kv_text *to) {
    kv_text_addf(to, "[");
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t column = i % t->n_columns;
        char *key = kv_json_quoted(t->columns[column].name), *value = json_value(&t->cells[i]);
        kv_text_addf(to, "%s%s: ", column ? ", " : i ? ",\n {" : "\n {", key);
        kv_text_add(to, value, strlen(value));
        if (column + 1 == t->n_columns) kv_text_addf(to, "}");
        free(key);
        free(value);
    }
    kv_text_addf(to, t->n_cells ? "\n]\n" : "]\n");
}
