// SPDX-License-Identifier: Apache-2.0
// What show prints of facts at places: matches and margins by length and depth.
#include <stdlib.h>

#include "analysis/results/places.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/cli/columns.h"

struct line {
    const struct kv_row *of;
    const struct kv_place_result *at;
    bool told; // to a reader
};
#define DIGITS(n) (row->told ? (n) : -1)
#define SIZE(of) (row->at->place.of ? (double)row->at->place.of : NAN) // or the other is given
#define BY_PLACE(X, T)                                                                             \
    X(T, spec, KV_TEXT(row->told ? row->of->label : row->of->s.spec))                              \
    X(T, length, KV_NUMBER(SIZE(length), DIGITS(0)))                                               \
    X(T, pairs, KV_NUMBER(SIZE(pairs), DIGITS(0)))                                                 \
    X(T, depth, KV_NUMBER(row->at->place.depth, DIGITS(0)))                                        \
    X(T, n, KV_COUNT(row->at->n))                                                                  \
    X(T, match16, KV_NUMBER(row->at->match16, DIGITS(2)))                                          \
    X(T, match, KV_NUMBER(row->at->match, DIGITS(2)))                                              \
    X(T, match_p, KV_NUMBER(row->at->match_holm, DIGITS(4)))                                       \
    X(T, margin16, KV_NUMBER(row->at->margin16, DIGITS(2)))                                        \
    X(T, margin_to16, KV_NUMBER(row->at->margin_to16.mean, DIGITS(2)))                             \
    X(T, margin_low, KV_NUMBER(row->at->margin_to16.interval.low, DIGITS(2)))                      \
    X(T, margin_high, KV_NUMBER(row->at->margin_to16.interval.high, DIGITS(2)))                    \
    X(T, margin_p, KV_NUMBER(row->at->margin_holm, DIGITS(4)))
KV_TABLE_COLUMNS(columns, line, BY_PLACE)

int kv_places_print(const struct kv_rows *rows, const char *db, enum kv_output how,
                    struct kv_error *e) {
    bool told = kv_for_readers(how);
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++) n += rows->row[i].n_places;
    if (n == 0) return kv_fail(e, KV_EFAIL, db, "holds no exact replays of needle or recall tasks");
    struct kv_table *t = kv_table_begin(columns);
    for (size_t i = 0; i < rows->n; i++)
        for (size_t k = 0; k < rows->row[i].n_places; k++) {
            const struct line line = {&rows->row[i], &rows->row[i].place[k], told};
            kv_table_add_rows(t, columns, &line, 1, sizeof line);
        }
    int code = kv_table_print(t, how, e);
    for (size_t i = 0; !code && told && i < rows->n; i++) {
        char *text = kv_places_text(rows->row[i].place, rows->row[i].n_places);
        if (rows->row[i].n_places) kv_table_note(how, "%s: %s", rows->row[i].label, text);
        free(text);
    }
    if (!code && told) kv_table_note(how, KV_PLACES_LEGEND);
    return code ? code : kv_flush_stdout(e);
}
