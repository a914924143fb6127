// SPDX-License-Identifier: Apache-2.0
// The connection of a store to SQLite: errors in one sentence, prepared statements.
#include "sim/store/handle.h"

#include <errno.h>

#include "sim/base/work.h"

enum { BUSY_MS = 60000 };

static const char *const statement_sql[KV_N_STATEMENTS] = {
    [KV_DO_BEGIN] = "BEGIN IMMEDIATE",
    [KV_DO_COMMIT] = "COMMIT",
    [KV_DO_ROLLBACK] = "ROLLBACK",
    [KV_DO_PUT_ITEM] =
        "INSERT OR REPLACE INTO outcome_item VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [KV_DO_PUT_CHOICE] =
        "INSERT OR REPLACE INTO outcome_choice VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [KV_DO_PUT_TOKENS] = "INSERT OR REPLACE INTO outcome_tokens VALUES (?, ?, ?)",
    [KV_DO_PUT_SHARE] = "INSERT OR REPLACE INTO outcome_share VALUES (?, ?, ?, ?, ?)",
};

int kv_store_fail(struct kv_store *s, const char *what, struct kv_error *e) {
    int os = sqlite3_system_errno(s->db) ? sqlite3_system_errno(s->db) : errno;
    int code = sqlite3_extended_errcode(s->db);
    switch (code & 0xFF) {
    case SQLITE_FULL:
        return kv_fail(e, KV_EFAIL, s->path,
                       "could not %s: the disk is full; what was stored before is safe", what);
    case SQLITE_IOERR:
        return kv_fail(e, KV_EFAIL, s->path, "could not %s: %s; what was stored before is safe",
                       what,
                       os == ENOSPC || os == EDQUOT ? "the disk is full"
                       : os == EFBIG ? "the file size limit of this process was reached"
                                     : "reading or writing the disk failed");
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return kv_fail(e, KV_EFAIL, s->path, "could not %s: the file or its folder is read-only",
                       what);
    case SQLITE_CANTOPEN:
        return kv_fail(e, KV_EFAIL, s->path, "could not %s: the file or its folder cannot be %s",
                       what, s->writable ? "written" : "read");
    case SQLITE_BUSY:
        return kv_fail(e, KV_EFAIL, s->path,
                       "could not %s: another program has held the store locked for %d seconds",
                       what, BUSY_MS / 1000);
    case SQLITE_INTERRUPT:
        return kv_fail(e, KV_EINTR, s->path, "interrupted");
    case SQLITE_NOTADB:
        return kv_fail(e, KV_EFAIL, s->path, "this is not a kvsim store (nor any SQLite file)");
    case SQLITE_CORRUPT:
        return kv_fail(e, KV_EFAIL, s->path, "could not %s: the file is damaged", what);
    default:
        return kv_fail(e, KV_EFAIL, s->path, "could not %s: %s", what, sqlite3_errmsg(s->db));
    }
}

int kv_store_exec(struct kv_store *s, const char *sql, const char *what, struct kv_error *e) {
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : kv_store_fail(s, what, e);
}

int kv_store_prepare(struct kv_store *s, enum kv_statement which, sqlite3_stmt **st,
                     struct kv_error *e) {
    if (!s->statement[which] &&
        sqlite3_prepare_v3(s->db, statement_sql[which], -1, SQLITE_PREPARE_PERSISTENT,
                           &s->statement[which], NULL) != SQLITE_OK)
        return kv_store_fail(s, "prepare to write", e);
    *st = s->statement[which];
    return 0;
}

int kv_store_step(struct kv_store *s, sqlite3_stmt *st, const char *what, struct kv_error *e) {
    errno = 0; // SQLite keeps the cause of most failures, but not that of a failed log write
    int code = sqlite3_step(st);
    int result = code == SQLITE_DONE || code == SQLITE_ROW ? 0 : kv_store_fail(s, what, e);
    sqlite3_reset(st);
    return result;
}

int kv_store_statement(struct kv_store *s, enum kv_statement which, const char *what,
                       struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    int code = kv_store_prepare(s, which, &st, e);
    return code ? code : kv_store_step(s, st, what, e);
}

void kv_store_rollback(struct kv_store *s) {
    struct kv_error ignored;
    if (!sqlite3_get_autocommit(s->db))
        (void)!kv_store_statement(s, KV_DO_ROLLBACK, "roll back", &ignored);
}

int kv_store_number(struct kv_store *s, const char *sql, long long *n, struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    int code = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);
    if (code == SQLITE_OK) code = sqlite3_step(st);
    *n = code == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
    int result =
        code == SQLITE_ROW || code == SQLITE_DONE ? 0 : kv_store_fail(s, "read the store", e);
    sqlite3_finalize(st);
    return result;
}

// Asked every so often while a statement runs. What is being stored is not cut off.
static int stop(void *self) {
    const struct kv_store *s = self;
    return !s->writable && kv_interrupted();
}

int kv_store_connect(struct kv_store *s, const char *name, int flags, struct kv_error *e) {
    if (sqlite3_open_v2(name, &s->db, flags | SQLITE_OPEN_FULLMUTEX, NULL) != SQLITE_OK)
        return kv_store_fail(s, "open it", e);
    sqlite3_extended_result_codes(s->db, 1);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    sqlite3_progress_handler(s->db, 10000, stop, s);
    return 0;
}

const char *kv_store_path(const struct kv_store *s) {
    return s->path;
}
