// SPDX-License-Identifier: Apache-2.0
// Tables on stdout: aligned text that fits the terminal, TSV with a header, or a JSON array.
#include "sim/cli/table.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/cli/terminal.h"

#include <stdlib.h>

enum { GAP = 2, MIN_SHRUNK = 12, MIN_FIRST = 24 };

struct cell {
    char *text; // as text and TSV show it; NULL = empty
    enum { CELL_TEXT, CELL_REAL, CELL_COUNT } kind;
    double x;
    long long n;
};

struct kv_table {
    size_t n_columns;
    struct kv_column *columns;
    size_t n_cells, room;
    struct cell *cells;
    bool colour;
    size_t n_marked;
    size_t *marked; // rows, ascending
};

struct kv_table *kv_table_new(const struct kv_column *columns, size_t n) {
    struct kv_table *t = kv_alloc(1, sizeof *t);
    t->n_columns = n;
    t->columns = kv_alloc(n, sizeof *t->columns);
    for (size_t i = 0; i < n; i++)
        t->columns[i] = (struct kv_column){kv_strdup(columns[i].name), columns[i].align};
    return t;
}

static void add(struct kv_table *t, struct cell c) {
    if (t->n_cells == t->room) {
        t->room = t->room ? 2 * t->room : 64;
        t->cells = kv_grow(t->cells, t->room, sizeof *t->cells);
    }
    t->cells[t->n_cells++] = c;
}

void kv_table_text(struct kv_table *t, const char *s) {
    add(t, (struct cell){.kind = CELL_TEXT, .text = s ? kv_strdup(s) : NULL});
}

void kv_table_take(struct kv_table *t, char *s) {
    kv_table_text(t, s);
    free(s);
}

// The shortest of 15 to 17 digits that reads back as x.
static char *shortest(double x) {
    char s[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, x);
        if (strtod(s, NULL) == x) break;
    }
    return kv_strdup(s);
}

void kv_table_number(struct kv_table *t, double x, int decimals) {
    char *s = NULL;
    if (decimals < 0 && !isnan(x)) s = shortest(x);
    if (decimals >= 0 && !isnan(x)) s = kv_format_text("%.*f", decimals, x);
    // "-0.0" is a zero that rounding left a sign on.
    if (s && s[0] == '-' && strspn(s + 1, "0.") == strlen(s + 1)) memmove(s, s + 1, strlen(s));
    add(t, (struct cell){.kind = CELL_REAL, .text = s, .x = x});
}

void kv_table_count(struct kv_table *t, long long n) {
    add(t, (struct cell){.kind = CELL_COUNT, .text = kv_format_text("%lld", n), .n = n});
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

// Prints s in `room` columns; what does not fit loses its middle, since both ends of a spec speak.
static void print_fitted(const char *s, size_t width, size_t room, enum kv_align align, bool last) {
    size_t pad = width < room ? room - width : 0;
    if (align == KV_RIGHT) printf("%*s", (int)pad, "");
    if (width > room) {
        size_t head = (room - 1) * 2 / 3, tail = room - 1 - head;
        printf("%.*s…%s", (int)(kv_skip_characters(s, head) - s), s,
               kv_skip_characters(s, width - tail));
    } else {
        fputs(s, stdout);
    }
    if (align == KV_LEFT && !last) printf("%*s", (int)pad, "");
}

// Narrows the widest text columns of [0] and [from, to) until they fit; false when they cannot.
static bool shrink(const struct kv_table *t, size_t *room, size_t from, size_t to, size_t limit) {
    size_t total = room[0];
    for (size_t c = from; c < to; c++) total += GAP + room[c];
    while (limit && total > limit) {
        size_t widest = t->n_columns;
        for (size_t c = 0; c < to; c == 0 ? c = from : c++)
            if (t->columns[c].align == KV_LEFT && room[c] > (c ? MIN_SHRUNK : MIN_FIRST) &&
                (widest == t->n_columns || room[c] > room[widest]))
                widest = c;
        if (widest == t->n_columns) return false;
        room[widest]--;
        total--;
    }
    return true;
}

struct text_table {
    char **text; // [rows][columns], heads first
    size_t *width, n_rows;
};

static bool is_marked(const struct kv_table *t, size_t row) {
    for (size_t i = 0; i < t->n_marked; i++)
        if (t->marked[i] + 1 == row) return true; // heads are row 0
    return false;
}

// Prints column 0 and columns [from, to).
static void print_block(const struct kv_table *t, const struct text_table *x, const size_t *room,
                        size_t from, size_t to) {
    for (size_t row = 0; row < x->n_rows; row++) {
        const char *look = row == 0 ? "\033[1m" : is_marked(t, row) ? "\033[33m" : NULL;
        if (t->colour && look) fputs(look, stdout);
        for (size_t c = 0; c < to; c == 0 ? c = from : c++) {
            size_t i = row * t->n_columns + c;
            bool last = c + 1 == to;
            print_fitted(x->text[i], x->width[i], room[c], t->columns[c].align, last);
            if (!last) printf("%*s", GAP, "");
        }
        if (t->colour && look) fputs("\033[0m", stdout);
        putchar('\n');
    }
}

// Where the columns that go beside each other end.
static size_t block_end(const struct kv_table *t, const size_t *room, size_t from, size_t limit) {
    size_t end = from, total = room[0];
    while (end < t->n_columns && (end == from || total + GAP + room[end] <= limit))
        total += GAP + room[end++];
    return end;
}

static void print_text(const struct kv_table *t) {
    struct text_table x = {.n_rows = t->n_cells / t->n_columns + 1};
    size_t limit = kv_terminal_width(), n = x.n_rows * t->n_columns;
    size_t *room = kv_alloc(t->n_columns, sizeof *room);
    size_t *narrow = kv_alloc(t->n_columns, sizeof *narrow);
    x.width = kv_alloc(n, sizeof *x.width);
    x.text = kv_alloc(n, sizeof *x.text);
    for (size_t i = 0; i < n; i++) {
        size_t c = i % t->n_columns;
        const char *s = i < t->n_columns ? t->columns[c].name : t->cells[i - t->n_columns].text;
        x.text[i] = kv_printable(s ? s : "", &x.width[i]);
        if (x.width[i] > room[c]) room[c] = x.width[i];
    }
    memcpy(narrow, room, t->n_columns * sizeof *room);
    if (shrink(t, narrow, 1, t->n_columns, limit)) {
        print_block(t, &x, narrow, 1, t->n_columns);
    } else {
        size_t least = limit / 3 > MIN_FIRST ? limit / 3 : MIN_FIRST;
        if (room[0] > least) room[0] = least;
        for (size_t from = 1, to; from < t->n_columns; from = to) {
            to = block_end(t, room, from, limit);
            memcpy(narrow, room, t->n_columns * sizeof *room);
            shrink(t, narrow, from, to, limit);
            if (from > 1) putchar('\n');
            print_block(t, &x, narrow, from, to);
        }
    }
    for (size_t i = 0; i < n; i++) free(x.text[i]);
    free(x.text);
    free(x.width);
    free(room);
    free(narrow);
}

static void print_tsv_cell(const char *s) {
    static const char from[] = "\t\n\r\\", to[] = "tnr\\";
    for (size_t n; s && *s; s += n) {
        const char *p = strchr(from, *s);
        n = p ? 1 : strcspn(s, from);
        if (p)
            printf("\\%c", to[p - from]);
        else
            kv_print("%.*s", (int)n, s);
    }
}

static void print_tsv(const struct kv_table *t) {
    for (size_t c = 0; c < t->n_columns; c++) {
        print_tsv_cell(t->columns[c].name);
        putchar(c + 1 < t->n_columns ? '\t' : '\n');
    }
    for (size_t i = 0; i < t->n_cells; i++) {
        print_tsv_cell(t->cells[i].text);
        putchar((i + 1) % t->n_columns ? '\t' : '\n');
    }
}

static void print_json_string(const char *s) {
    char *text = kv_json_quoted(s);
    fputs(text, stdout);
    free(text);
}

static void print_json(const struct kv_table *t) {
    putchar('[');
    for (size_t i = 0; i < t->n_cells; i++) {
        const struct cell *c = &t->cells[i];
        size_t column = i % t->n_columns;
        fputs(column ? ", " : i ? ",\n {" : "\n {", stdout);
        print_json_string(t->columns[column].name);
        fputs(": ", stdout);
        if (!c->text || (c->kind == CELL_REAL && !isfinite(c->x))) {
            fputs("null", stdout);
        } else if (c->kind == CELL_REAL) {
            char *s = shortest(c->x);
            fputs(s, stdout);
            free(s);
        } else if (c->kind == CELL_COUNT) {
            printf("%lld", c->n);
        } else {
            print_json_string(c->text);
        }
        if (column + 1 == t->n_columns) putchar('}');
    }
    fputs(t->n_cells ? "\n]\n" : "]\n", stdout);
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

int kv_table_print(struct kv_table *t, enum kv_output how, struct kv_error *e) {
    static void (*const print[])(const struct kv_table *) = {
        [KV_OUT_TEXT] = print_text, [KV_OUT_TSV] = print_tsv, [KV_OUT_JSON] = print_json};
    print[how](t);
    kv_table_free(t);
    return kv_flush_stdout(e);
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

int kv_table_print_rows(const struct kv_table_column *columns, const void *rows, size_t n,
                        size_t stride, enum kv_output how, struct kv_error *e) {
    struct kv_table *t = kv_table_begin(columns);
    kv_table_add_rows(t, columns, rows, n, stride);
    return kv_table_print(t, how, e);
}
