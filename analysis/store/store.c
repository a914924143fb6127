// SPDX-License-Identifier: Apache-2.0
// The results store over SQLite: opening and upgrading, batched writes, and plain SQL for readers.
#include "analysis/store/store.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/base/assets.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"

enum {
    APPLICATION_ID = 0x6B767331, // "kvs1": tells a store from other SQLite files
    BATCH_ITEMS = 64,
    BUSY_MS = 60000,
};
static const double BATCH_S = 2;

enum statement { BEGIN, COMMIT, ROLLBACK, PUT_ITEM, PUT_CHOICE, PUT_SHARE, N_STATEMENTS };
static const char *const statement_sql[N_STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [PUT_ITEM] = "INSERT OR REPLACE INTO outcome_item VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [PUT_CHOICE] = "INSERT OR REPLACE INTO outcome_choice VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [PUT_SHARE] = "INSERT OR REPLACE INTO outcome_share VALUES (?, ?, ?, ?, ?)",
};

struct pending {
    long long run;
    uint32_t item;
    struct kv_outcome outcome;
};

struct kv_store {
    sqlite3 *db;
    char *path;
    bool writable;
    pthread_mutex_t lock;
    sqlite3_stmt *statement[N_STATEMENTS];
    size_t n_pending;
    double first_pending_s;
    struct pending pending[BATCH_ITEMS];
};

// ---- errors ---------------------------------------------------------------------------

// One sentence for SQLite's last error. `what` completes "could not ...".
static int sql_fail(struct kv_store *s, const char *what, struct kv_error *e) {
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
    case SQLITE_NOTADB:
        return kv_fail(e, KV_EFAIL, s->path, "this is not a kvsim store (nor any SQLite file)");
    case SQLITE_CORRUPT:
        return kv_fail(e, KV_EFAIL, s->path, "could not %s: the file is damaged", what);
    default:
        return kv_fail(e, KV_EFAIL, s->path, "could not %s: %s", what, sqlite3_errmsg(s->db));
    }
}

static int exec(struct kv_store *s, const char *sql, const char *what, struct kv_error *e) {
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : sql_fail(s, what, e);
}

static int prepare(struct kv_store *s, enum statement which, sqlite3_stmt **st,
                   struct kv_error *e) {
    if (!s->statement[which] &&
        sqlite3_prepare_v3(s->db, statement_sql[which], -1, SQLITE_PREPARE_PERSISTENT,
                           &s->statement[which], NULL) != SQLITE_OK)
        return sql_fail(s, "prepare to write", e);
    *st = s->statement[which];
    return 0;
}

// Runs a prepared statement that returns no rows.
static int step(struct kv_store *s, sqlite3_stmt *st, const char *what, struct kv_error *e) {
    errno = 0; // SQLite keeps the cause of most failures, but not that of a failed log write
    int code = sqlite3_step(st);
    int result = code == SQLITE_DONE || code == SQLITE_ROW ? 0 : sql_fail(s, what, e);
    sqlite3_reset(st);
    return result;
}

static int run_statement(struct kv_store *s, enum statement which, const char *what,
                         struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    int code = prepare(s, which, &st, e);
    return code ? code : step(s, st, what, e);
}

static void rollback(struct kv_store *s) {
    struct kv_error ignored;
    if (!sqlite3_get_autocommit(s->db)) (void)!run_statement(s, ROLLBACK, "roll back", &ignored);
}

// First column of the first row as a number.
static int read_number(struct kv_store *s, const char *sql, long long *n, struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    int code = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);
    if (code == SQLITE_OK) code = sqlite3_step(st);
    *n = code == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
    int result = code == SQLITE_ROW || code == SQLITE_DONE ? 0 : sql_fail(s, "read the store", e);
    sqlite3_finalize(st);
    return result;
}

// ---- opening --------------------------------------------------------------------------

// The newest version of the schema, and through *section its text after "-- version N" (or NULL).
static int schema_version(int wanted, const char **section, size_t *n) {
    static const char mark[] = "\n-- version ";
    const struct kv_asset *schema = kv_asset_find("analysis/store/schema.sql");
    int newest = 0;
    const char *p = schema ? strstr((const char *)schema->data, mark) : NULL;
    while (p) {
        const char *body = p + sizeof mark - 1, *next = strstr(body, mark);
        newest = atoi(body);
        if (newest == wanted) {
            *section = body + strspn(body, "0123456789");
            *n = next ? (size_t)(next - *section) : strlen(*section);
        }
        p = next;
    }
    return newest;
}

static int check_kind(struct kv_store *s, long long *version, struct kv_error *e) {
    long long application = 0, tables = 0;
    int code = read_number(s, "PRAGMA user_version", version, e);
    if (!code) code = read_number(s, "PRAGMA application_id", &application, e);
    if (!code) code = read_number(s, "SELECT COUNT(*) FROM sqlite_master", &tables, e);
    if (code) return code;
    if (application != APPLICATION_ID && (tables > 0 || *version != 0))
        return kv_fail(e, KV_EFAIL, s->path, "this SQLite file is not a kvsim store");
    if (*version > schema_version(0, NULL, NULL))
        return kv_fail(e, KV_EFAIL, s->path,
                       "the store was made by a newer kvsim (schema %lld; this one knows %d)",
                       *version, schema_version(0, NULL, NULL));
    return 0;
}

// Brings the schema up to date in one transaction; another process may be doing the same.
static int upgrade(struct kv_store *s, struct kv_error *e) {
    long long version;
    int newest = schema_version(0, NULL, NULL), code = check_kind(s, &version, e);
    if (code || version == newest) return code;
    code = run_statement(s, BEGIN, "lock the store", e);
    if (!code) code = check_kind(s, &version, e);
    for (int v = (int)version + 1; !code && v <= newest; v++) {
        const char *section = NULL;
        size_t n = 0;
        schema_version(v, &section, &n);
        char *sql = kv_format_text("%.*s; PRAGMA user_version = %d; PRAGMA application_id = %d;",
                                   (int)n, section ? section : "", v, APPLICATION_ID);
        code = exec(s, sql, "make its tables", e);
        free(sql);
    }
    if (!code) code = run_statement(s, COMMIT, "make its tables", e);
    if (code) rollback(s);
    return code;
}

// Write-ahead logging lets readers and one writer work at once. The switch itself does not wait for
// others, so it is tried until it is done.
static int use_wal(struct kv_store *s, struct kv_error *e) {
    int code = SQLITE_BUSY;
    for (int i = 0; i < 200 && code == SQLITE_BUSY; i++) {
        code = sqlite3_exec(s->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL);
        if (code == SQLITE_BUSY) sqlite3_sleep(25);
    }
    if (code != SQLITE_OK) return sql_fail(s, "open it for writing", e);
    return exec(s, "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON", "open it", e);
}

static int open_db(struct kv_store *s, const char *name, int flags, struct kv_error *e) {
    if (sqlite3_open_v2(name, &s->db, flags | SQLITE_OPEN_FULLMUTEX, NULL) != SQLITE_OK)
        return sql_fail(s, "open it", e);
    sqlite3_extended_result_codes(s->db, 1);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    return 0;
}

// A store in a folder that cannot be written has no room for the log's index; without a log to
// merge it can be read as it stands.
static int open_immutable(struct kv_store *s, struct kv_error *e) {
    struct kv_text uri = {0};
    struct stat st;
    char *wal = kv_format_text("%s-wal", s->path);
    bool logged = stat(wal, &st) == 0 && st.st_size > 0;
    free(wal);
    if (logged)
        return kv_fail(e, KV_EFAIL, s->path,
                       "a sweep has left a log beside the store and the folder cannot be written; "
                       "copy both files to a folder that can");
    kv_text_addf(&uri, "file:");
    for (const char *p = s->path; *p; p++)
        if (strchr("?#%", *p))
            kv_text_addf(&uri, "%%%02X", (unsigned char)*p);
        else
            kv_text_add(&uri, p, 1);
    kv_text_addf(&uri, "?immutable=1");
    char *name = kv_text_take(&uri);
    sqlite3_close_v2(s->db);
    s->db = NULL;
    int code = open_db(s, name, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, e);
    free(name);
    return code;
}

static int open_read(struct kv_store *s, struct kv_error *e) {
    long long version;
    int code = open_db(s, s->path, SQLITE_OPEN_READONLY, e);
    if (code) return code;
    int probe = sqlite3_exec(s->db, "SELECT 1 FROM sqlite_master", NULL, NULL, NULL) & 0xFF;
    if (probe == SQLITE_CANTOPEN || probe == SQLITE_READONLY) code = open_immutable(s, e);
    if (!code) code = check_kind(s, &version, e);
    if (code) return code;
    if (version == 0) return kv_fail(e, KV_EFAIL, s->path, "the store is empty");
    if (version < schema_version(0, NULL, NULL))
        return kv_fail(e, KV_EFAIL, s->path,
                       "the store was made by an older kvsim (schema %lld of %d); any sweep into "
                       "it brings it up to date",
                       version, schema_version(0, NULL, NULL));
    return exec(s, "PRAGMA temp_store = MEMORY; PRAGMA query_only = ON", "read it", e);
}

static int open_write(struct kv_store *s, bool create, struct kv_error *e) {
    int code = open_db(s, s->path, SQLITE_OPEN_READWRITE | (create ? SQLITE_OPEN_CREATE : 0), e);
    if (code) return code;
    if (sqlite3_db_readonly(s->db, "main"))
        return kv_fail(e, KV_EFAIL, s->path, "the store is read-only");
    code = use_wal(s, e);
    if (!code) code = upgrade(s, e);
    return code;
}

int kv_store_open(struct kv_store **out, const char *path, enum kv_store_access access,
                  struct kv_error *e) {
    struct stat st;
    bool there = stat(path, &st) == 0;
    *out = NULL;
    if (!there && (access != KV_STORE_CREATE || errno != ENOENT))
        return kv_fail(e, KV_EFAIL, path, errno == ENOENT ? "no such store" : "cannot be opened");
    if (there && S_ISDIR(st.st_mode))
        return kv_fail(e, KV_EFAIL, path, "a folder, where a store's file was expected");
    if (there && !S_ISREG(st.st_mode))
        return kv_fail(e, KV_EFAIL, path, "not a regular file; a store needs one");

    struct kv_store *s = kv_alloc(1, sizeof *s);
    s->path = kv_strdup(path);
    s->writable = access != KV_STORE_READ;
    pthread_mutex_init(&s->lock, NULL);
    int code = s->writable ? open_write(s, access == KV_STORE_CREATE, e) : open_read(s, e);
    if (code) {
        kv_store_abandon(s);
        return code;
    }
    *out = s;
    return 0;
}

const char *kv_store_path(const struct kv_store *s) {
    return s->path;
}

void kv_store_abandon(struct kv_store *s) {
    if (!s) return;
    for (size_t i = 0; i < s->n_pending; i++) free(s->pending[i].outcome.choice);
    for (size_t i = 0; i < N_STATEMENTS; i++) sqlite3_finalize(s->statement[i]);
    sqlite3_close_v2(s->db);
    pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s);
}

int kv_store_close(struct kv_store *s, struct kv_error *e) {
    int code = s ? kv_store_flush(s, e) : 0;
    kv_store_abandon(s);
    return code;
}

// ---- outcomes -------------------------------------------------------------------------

static void bind_pick(sqlite3_stmt *st, int at, int32_t pick) {
    if (pick < 0)
        sqlite3_bind_null(st, at);
    else
        sqlite3_bind_int(st, at, pick);
}

static int write_item(struct kv_store *s, const struct pending *p, struct kv_error *e) {
    const struct kv_outcome *o = &p->outcome;
    sqlite3_stmt *st = NULL;
    int code = prepare(s, PUT_ITEM, &st, e), at = 3;
    if (code) return code;
    const double reals[] = {o->ledger.nominal_bits, o->ledger.effective_bits,
                            o->ledger.allocated_bits, o->ledger.entropy_bits,
                            o->ledger.bytes_per_token};
    sqlite3_bind_int64(st, 1, p->run);
    sqlite3_bind_int64(st, 2, p->item);
    for (int i = 0; i < KV_N_SCORERS; i++) bind_pick(st, at++, o->pick[i]);
    for (int i = 0; i < KV_N_SCORERS; i++) bind_pick(st, at++, o->pick_ref[i]);
    sqlite3_bind_double(st, at++, o->margin); // a NAN is stored as NULL
    sqlite3_bind_double(st, at++, o->kl_nats);
    sqlite3_bind_int64(st, at++, o->n_scored);
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        sqlite3_bind_double(st, at++, reals[i]);
    return step(s, st, "store an outcome", e);
}

static int write_choices(struct kv_store *s, const struct pending *p, struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    uint32_t n = p->outcome.n_choices ? p->outcome.n_choices : 1;
    int code = prepare(s, PUT_CHOICE, &st, e);
    for (uint32_t i = 0; !code && p->outcome.choice && i < n; i++) {
        const struct kv_choice_outcome *c = &p->outcome.choice[i];
        sqlite3_bind_int64(st, 1, p->run);
        sqlite3_bind_int64(st, 2, p->item);
        sqlite3_bind_int64(st, 3, i);
        sqlite3_bind_double(st, 4, c->logprob);
        sqlite3_bind_double(st, 5, c->logprob_ref);
        sqlite3_bind_double(st, 6, c->kl_nats);
        sqlite3_bind_int64(st, 7, c->tokens);
        sqlite3_bind_int64(st, 8, c->chars);
        sqlite3_bind_int64(st, 9, c->bytes);
        sqlite3_bind_double(st, 10, c->logprob_after_prefix);
        sqlite3_bind_int64(st, 11, c->tokens_after_prefix);
        code = step(s, st, "store an outcome", e);
    }
    return code;
}

static int write_shares(struct kv_store *s, const struct pending *p, struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    int code = prepare(s, PUT_SHARE, &st, e);
    for (int side = 0; side < 2; side++)
        for (int bits = 0; !code && bits < KV_WIDTH_BINS; bits++) {
            double share = p->outcome.ledger.share[side][bits];
            if (!(share > 0)) continue;
            sqlite3_bind_int64(st, 1, p->run);
            sqlite3_bind_int64(st, 2, p->item);
            sqlite3_bind_int(st, 3, side);
            sqlite3_bind_int(st, 4, bits);
            sqlite3_bind_double(st, 5, share);
            code = step(s, st, "store an outcome", e);
        }
    return code;
}

static int flush_locked(struct kv_store *s, struct kv_error *e) {
    if (s->n_pending == 0) return 0;
    int code = run_statement(s, BEGIN, "store outcomes", e);
    for (size_t i = 0; !code && i < s->n_pending; i++) {
        code = write_item(s, &s->pending[i], e);
        if (!code) code = write_choices(s, &s->pending[i], e);
        if (!code) code = write_shares(s, &s->pending[i], e);
    }
    if (!code) code = run_statement(s, COMMIT, "store outcomes", e);
    if (code) {
        rollback(s);
        return code;
    }
    for (size_t i = 0; i < s->n_pending; i++) free(s->pending[i].outcome.choice);
    s->n_pending = 0;
    return 0;
}

int kv_store_flush(struct kv_store *s, struct kv_error *e) {
    pthread_mutex_lock(&s->lock);
    int code = flush_locked(s, e);
    pthread_mutex_unlock(&s->lock);
    return code;
}

int kv_store_put(struct kv_store *s, long long run, uint32_t item, const struct kv_outcome *o,
                 struct kv_error *e) {
    size_t n_choices = o->n_choices ? o->n_choices : 1;
    int code = 0;
    pthread_mutex_lock(&s->lock);
    // A batch that could not be written stays; there is no room for more.
    if (s->n_pending == BATCH_ITEMS) code = flush_locked(s, e);
    if (!code) {
        struct pending *p = &s->pending[s->n_pending++];
        *p = (struct pending){run, item, *o};
        if (o->choice) {
            p->outcome.choice = kv_alloc(n_choices, sizeof *o->choice);
            memcpy(p->outcome.choice, o->choice, n_choices * sizeof *o->choice);
        }
        if (s->n_pending == 1) s->first_pending_s = kv_now_s();
        if (s->n_pending == BATCH_ITEMS || kv_now_s() - s->first_pending_s > BATCH_S)
            code = flush_locked(s, e);
    }
    pthread_mutex_unlock(&s->lock);
    return code;
}

int kv_store_done(struct kv_store *s, long long run, bool *done, size_t n_items, size_t *n_done,
                  struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    int code = SQLITE_ROW, result = 0;
    pthread_mutex_lock(&s->lock);
    if (sqlite3_prepare_v2(s->db, "SELECT item FROM outcome_item WHERE run = ?", -1, &st, NULL) !=
        SQLITE_OK)
        result = sql_fail(s, "read the store", e);
    sqlite3_bind_int64(st, 1, run);
    while (!result && (code = sqlite3_step(st)) == SQLITE_ROW) {
        sqlite3_int64 item = sqlite3_column_int64(st, 0);
        if (item >= 0 && (uint64_t)item < n_items) done[item] = true;
    }
    if (!result && code != SQLITE_DONE) result = sql_fail(s, "read the store", e);
    sqlite3_finalize(st);
    for (size_t i = 0; i < s->n_pending; i++)
        if (s->pending[i].run == run && s->pending[i].item < n_items)
            done[s->pending[i].item] = true;
    pthread_mutex_unlock(&s->lock);
    if (n_done) {
        *n_done = 0;
        for (size_t i = 0; i < n_items; i++) *n_done += done[i];
    }
    return result;
}

// ---- SQL ------------------------------------------------------------------------------

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

static int query_one(struct kv_store *s, sqlite3_stmt *st, row_fn *row, void *self,
                     struct kv_error *e) {
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
        result = sql_fail(s, s->writable ? "read or write the store" : "read the store", e);
    free(names);
    free(values);
    return result;
}

int kv_store_query(struct kv_store *s, const char *sql, const struct kv_sql_value *values,
                   size_t n_values, row_fn *row, void *self, struct kv_error *e) {
    int result = 0;
    pthread_mutex_lock(&s->lock);
    while (!result && *sql) {
        sqlite3_stmt *st = NULL;
        if (sqlite3_prepare_v2(s->db, sql, -1, &st, &sql) != SQLITE_OK) {
            result = sql_fail(s, "read the store", e);
        } else if (st) {
            int n_parameters = sqlite3_bind_parameter_count(st);
            for (int i = 0; i < n_parameters && (size_t)i < n_values; i++)
                bind_value(st, i + 1, &values[i]);
            result = query_one(s, st, row, self, e);
        }
        sqlite3_finalize(st);
    }
    pthread_mutex_unlock(&s->lock);
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
                   : sql_fail(s, "read the store", e);
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

int kv_store_select(struct kv_store *s, const char *sql,
                    int (*head)(void *self, size_t n, const char *const *names, struct kv_error *e),
                    row_fn *row, void *self, struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    pthread_mutex_lock(&s->lock);
    int code = prepare_select(s, sql, &st, e);
    if (!code) {
        size_t n = (size_t)sqlite3_column_count(st);
        const char **names = kv_alloc(n + 1, sizeof *names);
        for (size_t c = 0; c < n; c++) names[c] = sqlite3_column_name(st, (int)c);
        code = head(self, n, names, e);
        free(names);
    }
    if (!code) code = query_one(s, st, row, self, e);
    sqlite3_finalize(st);
    pthread_mutex_unlock(&s->lock);
    return code;
}

// ---- what there is --------------------------------------------------------------------

// The comment above "CREATE KIND NAME" in the schema as one line; the last definition counts.
// Caller frees.
static char *about_of(const char *kind, const char *name) {
    const struct kv_asset *schema = kv_asset_find("analysis/store/schema.sql");
    struct kv_text t = {0};
    char *create = kv_format_text("\nCREATE %s %s ", kind, name);
    const char *from = (const char *)schema->data, *at = NULL, *line;
    for (const char *p = from; (p = strstr(p, create)); p++) at = p;
    free(create);
    for (line = at; line && line > from;) { // back to the first line of the comment
        const char *before = line - 1;
        while (before > from && *before != '\n') before--;
        if (strncmp(before, "\n-- ", 4) != 0 || strncmp(before, "\n-- version", 11) == 0) break;
        line = before;
    }
    for (; line && line < at; line += strcspn(line + 1, "\n") + 1)
        kv_text_addf(&t, "%s%.*s", t.n ? " " : "", (int)strcspn(line + 4, "\n"), line + 4);
    return kv_text_take(&t);
}

struct describing {
    int (*take)(void *self, const struct kv_store_part *part, struct kv_error *e);
    void *self;
};

static int take_part(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                     struct kv_error *e) {
    const struct describing *d = self;
    bool view = strcmp(v[0].text, "view") == 0;
    (void)n, (void)names;
    char *about = about_of(view ? "VIEW" : "TABLE", v[1].text);
    int code = d->take(d->self, &(struct kv_store_part){v[0].text, v[1].text, v[2].text, about}, e);
    free(about);
    return code;
}

int kv_store_describe(int (*take)(void *self, const struct kv_store_part *part, struct kv_error *e),
                      void *self, struct kv_error *e) {
    struct describing d = {take, self};
    struct kv_store *s = kv_alloc(1, sizeof *s);
    s->path = kv_strdup("schema.sql");
    s->writable = true;
    pthread_mutex_init(&s->lock, NULL);
    int code = open_db(s, ":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, e);
    if (!code) code = upgrade(s, e);
    if (!code)
        code = kv_store_query(s,
                              "SELECT type, name, (SELECT group_concat(name, ', ') FROM "
                              "pragma_table_info(m.name)) FROM sqlite_master AS m WHERE type IN "
                              "('view', 'table') ORDER BY type = 'table', rowid",
                              NULL, 0, take_part, &d, e);
    kv_store_abandon(s);
    return code;
}
