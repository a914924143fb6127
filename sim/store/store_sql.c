// SPDX-License-Identifier: Apache-2.0
// SQL for readers of a store.
#include "sim/store/handle.h"

#include <errno.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"

struct kv_sql_value kv_sql_text(const char *s) {
    return (struct kv_sql_value){.kind = KV_SQL_TEXT, .text = s ? s : ""};
}

struct kv_sql_value kv_sql_int(long long n) {
    return (struct kv_sql_value){.kind = KV_SQL_INT, .n = n};
}

struct kv_sql_value kv_sql_real(double x) {
    return (struct kv_sql_value){.kind = isnan(x) ? KV_SQL_NULL : KV_SQL_REAL, .x = x};
}

static void bind_value(sqlite3_stmt *st, int at, const struct kv_sql_value *v) {
    switch (v->kind) {
    case KV_SQL_INT:
        sqlite3_bind_int64(st, at, v->n);
        break;
    case KV_SQL_REAL:
        sqlite3_bind_double(st, at, v->x);
        break;
    case KV_SQL_TEXT:
        sqlite3_bind_text(st, at, v->text, -1, SQLITE_TRANSIENT);
        break;
    default:
        sqlite3_bind_null(st, at);
    }
}

static struct kv_sql_value column_value(sqlite3_stmt *st, int c) {
    switch (sqlite3_column_type(st, c)) {
    case SQLITE_INTEGER:
        return (struct kv_sql_value){.kind = KV_SQL_INT,
                                     .n = sqlite3_column_int64(st, c),
                                     .x = (double)sqlite3_column_int64(st, c)};
    case SQLITE_FLOAT:
        return (struct kv_sql_value){.kind = KV_SQL_REAL, .x = sqlite3_column_double(st, c)};
    case SQLITE_NULL:
        return (struct kv_sql_value){.kind = KV_SQL_NULL, .x = NAN};
    default:
        return (struct kv_sql_value){
            .kind = KV_SQL_TEXT, .x = NAN, .text = (const char *)sqlite3_column_text(st, c)};
    }
}

typedef int row_fn(void *self, size_t n, const char *const *names,
                   const struct kv_sql_value *values, struct kv_error *e);

// Guarded, so that the statement is finalized whatever a row's taker runs into.
static int query_one(struct kv_store *s, sqlite3_stmt *st, row_fn *row, void *self,
                     struct kv_error *e) {
    KV_GUARD(e);
    size_t n = (size_t)sqlite3_column_count(st);
    const char **names = kv_alloc(n + 1, sizeof *names);
    struct kv_sql_value *values = kv_alloc(n + 1, sizeof *values);
    int code, result = 0;
    for (size_t c = 0; c < n; c++) names[c] = sqlite3_column_name(st, (int)c);
    errno = 0;
    while ((code = sqlite3_step(st)) == SQLITE_ROW && row) {
        for (size_t c = 0; c < n; c++) values[c] = column_value(st, (int)c);
        result = row(self, n, names, values, e);
        if (result) break;
    }
    if (!result && code != SQLITE_DONE && code != SQLITE_ROW)
        result = kv_store_fail(s, s->writable ? "read or write the store" : "read the store", e);
    free(names);
    free(values);
    return result;
}

int kv_store_query(struct kv_store *s, const char *sql, const struct kv_sql_value *values,
                   size_t n_values, row_fn *row, void *self, struct kv_error *e) {
    int result = 0;
    KV_LOCK(&s->lock);
    while (!result && *sql) {
        sqlite3_stmt *st = NULL;
        if (sqlite3_prepare_v2(s->db, sql, -1, &st, &sql) != SQLITE_OK) {
            result = kv_store_fail(s, "read the store", e);
        } else if (st) {
            int n_parameters = sqlite3_bind_parameter_count(st);
            for (int i = 0; i < n_parameters && (size_t)i < n_values; i++)
                bind_value(st, i + 1, &values[i]);
            result = query_one(s, st, row, self, e);
        }
        sqlite3_finalize(st);
    }
    return result;
}

// A statement that was prepared, or KV_EUSAGE for one that users may not run.
static int prepare_select(struct kv_store *s, const char *sql, sqlite3_stmt **st,
                          struct kv_error *e) {
    static const char hint[] = "kvsim sql --views lists what a store holds";
    sqlite3_stmt *more = NULL;
    const char *rest = sql;
    if (sqlite3_prepare_v2(s->db, sql, -1, st, &rest) != SQLITE_OK)
        return (sqlite3_errcode(s->db) & 0xFF) == SQLITE_ERROR
                   ? kv_fail(e, KV_EUSAGE, "sql", "%s (%s)", sqlite3_errmsg(s->db), hint)
                   : kv_store_fail(s, "read the store", e);
    if (!*st) return kv_fail(e, KV_EUSAGE, "sql", "this is no statement (%s)", hint);
    if (!sqlite3_stmt_readonly(*st) || sqlite3_column_count(*st) == 0)
        return kv_fail(e, KV_EUSAGE, "sql", "the store is only read here; a SELECT is expected");
    // Comments and semicolons may follow.
    int code = sqlite3_prepare_v2(s->db, rest + strspn(rest, "; \t\r\n"), -1, &more, NULL);
    sqlite3_finalize(more);
    if (code != SQLITE_OK || more)
        return kv_fail(e, KV_EUSAGE, "sql", "one statement at a time is expected");
    return 0;
}

typedef int head_fn(void *self, size_t n, const char *const *names, struct kv_error *e);

static int tell_columns(sqlite3_stmt *st, head_fn *head, void *self, struct kv_error *e) {
    KV_GUARD(e);
    size_t n = (size_t)sqlite3_column_count(st);
    const char **names = kv_alloc(n + 1, sizeof *names);
    for (size_t c = 0; c < n; c++) names[c] = sqlite3_column_name(st, (int)c);
    int code = head(self, n, names, e);
    free(names);
    return code;
}

int kv_store_select(struct kv_store *s, const char *sql, head_fn *head, row_fn *row, void *self,
                    struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    KV_LOCK(&s->lock);
    int code = prepare_select(s, sql, &st, e);
    if (!code) code = tell_columns(st, head, self, e);
    if (!code) code = query_one(s, st, row, self, e);
    sqlite3_finalize(st);
    return code;
}
