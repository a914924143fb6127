// SPDX-License-Identifier: Apache-2.0
// Tables as aligned text that fits a terminal: names are cut, prose wraps, and columns that still
// do not fit stand in a table of their own below.
#include "reports/table/inside.h"
#include "reports/table/names.h"

#include <stdlib.h>

#include "sim/base/print.h"
#include "sim/base/utf8.h"

// The least that a column is narrowed to; of column 0, which each block begins with, more stays.
enum { GAP = 2, LEAST_NAME = 12, LEAST_PROSE = 36, LEAST_FIRST = 24 };

struct sheet {
    const struct kv_table *t;
    char **text; // [rows][columns], heads first
    size_t *width, n_rows;
    size_t *room; // [columns] as it is printed
    struct kv_text *to;
};

static size_t least_room(const struct kv_table *t, size_t c) {
    size_t least = c == 0                            ? LEAST_FIRST
                   : t->columns[c].align == KV_PROSE ? LEAST_PROSE
                                                     : LEAST_NAME;
    size_t head = kv_utf8_count(t->columns[c].name, strlen(t->columns[c].name));
    return head > least ? head : least;
}

// Narrows the widest text columns of [0] and [from, to) until they fit; false when they cannot.
static bool shrink(const struct kv_table *t, size_t *room, size_t from, size_t to, size_t limit) {
    size_t total = room[0];
    for (size_t c = from; c < to; c++) total += GAP + room[c];
    while (limit && total > limit) {
        size_t widest = t->n_columns;
        for (size_t c = 0; c < to; c == 0 ? c = from : c++)
            if (t->columns[c].align != KV_RIGHT && room[c] > least_room(t, c) &&
                (widest == t->n_columns || room[c] > room[widest]))
                widest = c;
        if (widest == t->n_columns) return false;
        room[widest]--;
        total--;
    }
    return true;
}

// ---- a row ----------------------------------------------------------------------------

static void add_blanks(struct kv_text *to, size_t n) {
    while (n-- > 0) kv_text_add(to, " ", 1);
}

// Bytes of what of a text stands in one line of `room` characters: whole words, where they fit.
static size_t line_of(const char *s, size_t room) {
    const char *end = kv_skip_characters(s, room), *at = end;
    if (!*end) return (size_t)(end - s);
    while (at > s && *at != ' ') at--;
    return at > s ? (size_t)(at - s) : (size_t)(end - s);
}

// Adds what a cell has in one more line; *rest is then what is left of it.
static void add_cell(const struct sheet *x, size_t c, const char **rest, bool last) {
    enum kv_align align = x->t->columns[c].align;
    size_t n = align == KV_PROSE ? line_of(*rest, x->room[c]) : strlen(*rest);
    size_t width = kv_utf8_count(*rest, n);
    size_t pad = width < x->room[c] ? x->room[c] - width : 0;
    if (align == KV_RIGHT) add_blanks(x->to, pad);
    kv_text_add(x->to, *rest, n);
    if (align != KV_RIGHT && !last) add_blanks(x->to, pad);
    *rest += n;
    *rest += strspn(*rest, " ");
}

static bool is_marked(const struct kv_table *t, size_t row) {
    for (size_t i = 0; i < t->n_marked; i++)
        if (t->marked[i] + 1 == row) return true; // heads are row 0
    return false;
}

// Column 0 and columns [from, to) of a row, in as many lines as its prose has. `cells`: of the row,
// names cut.
static void add_row(const struct sheet *x, size_t row, const char **cells, size_t from, size_t to) {
    const char *look = row == 0 ? "\033[1m" : is_marked(x->t, row) ? "\033[33m" : NULL;
    for (bool more = true, first = true; more; first = false) {
        more = false;
        if (x->t->colour && look) kv_text_addf(x->to, "%s", look);
        for (size_t c = 0; c < to; c == 0 ? c = from : c++) {
            add_cell(x, c, &cells[c], c + 1 == to);
            if (c + 1 < to) add_blanks(x->to, GAP);
            more = more || *cells[c];
        }
        while (!first && x->to->s[x->to->n - 1] == ' ') x->to->s[--x->to->n] = '\0';
        if (x->t->colour && look) kv_text_addf(x->to, "\033[0m");
        kv_text_addf(x->to, "\n");
    }
}

// ---- a block --------------------------------------------------------------------------

// The cells of a column below its head as they are printed: [rows], for the caller to free.
static char **fitted(const struct sheet *x, size_t c) {
    size_t n = x->n_rows - 1, columns = x->t->n_columns, widest = 0;
    const char **texts = kv_alloc(n + 1, sizeof *texts);
    char **names = kv_alloc(n + 1, sizeof *names);
    for (size_t i = 0; i < n; i++) {
        texts[i] = x->text[(i + 1) * columns + c];
        if (x->width[(i + 1) * columns + c] > widest) widest = x->width[(i + 1) * columns + c];
    }
    if (x->t->columns[c].align == KV_LEFT && widest > x->room[c])
        kv_shorten_names(texts, n, x->room[c], names);
    else
        for (size_t i = 0; i < n; i++) names[i] = kv_strdup(texts[i]);
    free(texts);
    return names;
}

// Column 0 and columns [from, to), as wide as x->room.
static void add_block(const struct sheet *x, size_t from, size_t to) {
    size_t columns = x->t->n_columns;
    const char **cells = kv_alloc(columns, sizeof *cells);
    char ***names = kv_alloc(columns, sizeof *names);
    for (size_t c = 0; c < to; c == 0 ? c = from : c++) names[c] = fitted(x, c);
    for (size_t row = 0; row < x->n_rows; row++) {
        for (size_t c = 0; c < to; c == 0 ? c = from : c++)
            cells[c] = row ? names[c][row - 1] : x->text[c];
        add_row(x, row, cells, from, to);
    }
    for (size_t c = 0; c < to; c == 0 ? c = from : c++) {
        for (size_t i = 0; i + 1 < x->n_rows; i++) free(names[c][i]);
        free(names[c]);
    }
    free(names);
    free(cells);
}

// Where the columns that go beside each other end: text columns count as what they may shrink to.
static size_t block_end(const struct kv_table *t, const size_t *room, size_t from, size_t limit) {
    size_t end = from, total = room[0];
    for (; end < t->n_columns; end++) {
        size_t least = least_room(t, end),
               own = t->columns[end].align != KV_RIGHT && room[end] > least ? least : room[end];
        if (end > from && total + GAP + own > limit) break;
        total += GAP + own;
    }
    return end;
}

static void add_blocks(struct sheet *x, size_t limit) {
    const struct kv_table *t = x->t;
    size_t *natural = x->room, *narrow = kv_alloc(t->n_columns, sizeof *narrow);
    memcpy(narrow, natural, t->n_columns * sizeof *narrow);
    x->room = narrow;
    if (t->n_columns == 1 || shrink(t, narrow, 1, t->n_columns, limit)) {
        add_block(x, 1, t->n_columns);
    } else {
        size_t least = limit / 3 > LEAST_FIRST ? limit / 3 : LEAST_FIRST;
        if (natural[0] > least) natural[0] = least;
        for (size_t from = 1, to; from < t->n_columns; from = to) {
            to = block_end(t, natural, from, limit);
            memcpy(narrow, natural, t->n_columns * sizeof *narrow);
            (void)shrink(t, narrow, from, to, limit);
            if (from > 1) kv_text_addf(x->to, "\n");
            add_block(x, from, to);
        }
    }
    free(narrow);
    x->room = natural;
}

void kv_table_as_text(const struct kv_table *t, size_t width, struct kv_text *to) {
    struct sheet x = {.t = t, .n_rows = t->n_cells / t->n_columns + 1, .to = to};
    size_t n = x.n_rows * t->n_columns;
    x.room = kv_alloc(t->n_columns, sizeof *x.room);
    x.width = kv_alloc(n, sizeof *x.width);
    x.text = kv_alloc(n, sizeof *x.text);
    for (size_t i = 0; i < n; i++) {
        size_t c = i % t->n_columns;
        const char *s = i < t->n_columns ? t->columns[c].name : t->cells[i - t->n_columns].text;
        x.text[i] = kv_printable(s ? s : "", &x.width[i]);
        if (x.width[i] > x.room[c]) x.room[c] = x.width[i];
    }
    add_blocks(&x, width);
    for (size_t i = 0; i < n; i++) free(x.text[i]);
    free(x.text);
    free(x.width);
    free(x.room);
}
