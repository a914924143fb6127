// SPDX-License-Identifier: Apache-2.0
// The results store over SQLite: opening, upgrading and closing.
#include "sim/store/handle.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/base/assets.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/store/label.h"

enum { APPLICATION_ID = 0x6B767331 }; // "kvs1": tells a store from other SQLite files

// The newest version of the schema, and through *section its text after "-- version N" (or NULL).
static int schema_version(int wanted, const char **section, size_t *n) {
    static const char mark[] = "\n-- version ";
    const struct kv_asset *schema = kv_asset_find("sim/store/schema.sql");
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
    int code = kv_store_number(s, "PRAGMA user_version", version, e);
    if (!code) code = kv_store_number(s, "PRAGMA application_id", &application, e);
    if (!code) code = kv_store_number(s, "SELECT COUNT(*) FROM sqlite_master", &tables, e);
    if (code) return code;
    if (application != APPLICATION_ID && (tables > 0 || *version != 0))
        return kv_fail(e, KV_EFAIL, s->path, "this SQLite file is not a kvsim store");
    if (*version > schema_version(0, NULL, NULL))
        return kv_fail(e, KV_EFAIL, s->path,
                       "the store was made by a newer kvsim (schema %lld; this one knows %d)",
                       *version, schema_version(0, NULL, NULL));
    return 0;
}

// Copies a store of schema `version` beside itself before it is changed: FILE.bak-v1, or with a
// number behind where there is one already.
static int back_up(struct kv_store *s, long long version, struct kv_error *e) {
    char *copy = kv_format_text("%s.bak-v%lld", s->path, version);
    for (int i = 2; access(copy, F_OK) == 0; i++) {
        free(copy);
        copy = kv_format_text("%s.bak-v%lld.%d", s->path, version, i);
    }
    char *partial = kv_format_text("%s.partial", copy);
    unlink(partial);
    const struct kv_sql_value to = kv_sql_text(partial);
    int code = kv_store_query(s, "VACUUM INTO ?", &to, 1, NULL, NULL, e);
    if (!code) code = kv_rename_file(partial, copy, e);
    if (code)
        unlink(partial);
    else
        kv_say("%s is of an older kvsim (schema %lld of %d): brought up to date; as it was it is "
               "in %s",
               s->path, version, schema_version(0, NULL, NULL), copy);
    free(partial);
    free(copy);
    return code;
}

// Brings the schema up to date in one transaction; another process may be doing the same.
static int upgrade(struct kv_store *s, struct kv_error *e) {
    long long version;
    int newest = schema_version(0, NULL, NULL), code = check_kind(s, &version, e);
    if (code || version == newest) return code;
    if (version > 0 && s->writable) code = back_up(s, version, e);
    if (!code) code = kv_store_statement(s, KV_DO_BEGIN, "lock the store", e);
    if (!code) code = check_kind(s, &version, e);
    for (int v = (int)version + 1; !code && v <= newest; v++) {
        const char *section = NULL;
        size_t n = 0;
        schema_version(v, &section, &n);
        char *sql = kv_format_text("%.*s; PRAGMA user_version = %d; PRAGMA application_id = %d;",
                                   (int)n, section ? section : "", v, APPLICATION_ID);
        code = kv_store_exec(s, sql, "make its tables", e);
        free(sql);
    }
    if (!code) code = kv_store_label_runs(s, e);
    if (!code) code = kv_store_statement(s, KV_DO_COMMIT, "make its tables", e);
    if (code) kv_store_rollback(s);
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
    if (code != SQLITE_OK) return kv_store_fail(s, "open it for writing", e);
    return kv_store_exec(s, "PRAGMA synchronous = NORMAL", "open it", e);
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
    int code = kv_store_connect(s, name, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, e);
    free(name);
    return code;
}

// Puts a copy in memory, brought up to date, in the place of an older store that is only read.
static int read_copy(struct kv_store *s, struct kv_error *e) {
    sqlite3 *file = s->db;
    s->db = NULL;
    int code = kv_store_connect(s, ":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, e);
    sqlite3_backup *b = code ? NULL : sqlite3_backup_init(s->db, "main", file, "main");
    if (b) sqlite3_backup_step(b, -1);
    if (!code && (!b || sqlite3_backup_finish(b) != SQLITE_OK))
        code = kv_store_fail(s, "copy it into memory", e);
    sqlite3_close_v2(file);
    return code ? code : upgrade(s, e);
}

static int open_read(struct kv_store *s, struct kv_error *e) {
    long long version;
    int code = kv_store_connect(s, s->path, SQLITE_OPEN_READONLY, e);
    if (code) return code;
    int probe = sqlite3_exec(s->db, "SELECT 1 FROM sqlite_master", NULL, NULL, NULL) & 0xFF;
    if (probe == SQLITE_CANTOPEN || probe == SQLITE_READONLY) code = open_immutable(s, e);
    if (!code) code = check_kind(s, &version, e);
    if (code) return code;
    if (version == 0) return kv_fail(e, KV_EFAIL, s->path, "the store is empty");
    if (version < schema_version(0, NULL, NULL) && (code = read_copy(s, e))) return code;
    return kv_store_exec(s, "PRAGMA temp_store = MEMORY; PRAGMA query_only = ON", "read it", e);
}

static int open_write(struct kv_store *s, bool create, struct kv_error *e) {
    int code =
        kv_store_connect(s, s->path, SQLITE_OPEN_READWRITE | (create ? SQLITE_OPEN_CREATE : 0), e);
    if (code) return code;
    if (sqlite3_db_readonly(s->db, "main"))
        return kv_fail(e, KV_EFAIL, s->path, "the store is read-only");
    code = use_wal(s, e);
    if (!code) code = upgrade(s, e); // replaces tables that others refer to
    return code ? code : kv_store_exec(s, "PRAGMA foreign_keys = ON", "open it", e);
}

static struct kv_store *new_store(const char *path, bool writable) {
    struct kv_store *s = kv_alloc(1, sizeof *s);
    s->path = kv_strdup(path);
    s->writable = writable;
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

// Guarded, so that the file is closed, and unlocked, whatever happens in it.
static int open_as(struct kv_store *s, enum kv_store_access access, struct kv_error *e) {
    KV_GUARD(e);
    return s->writable ? open_write(s, access == KV_STORE_CREATE, e) : open_read(s, e);
}

int kv_store_open(struct kv_store **out, const char *path, enum kv_store_access access,
                  struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    struct stat st;
    if (!*path || strcmp(path, ":memory:") == 0) // SQLite's names of what is gone when it is closed
        return kv_fail(e, KV_EUSAGE, "store", "'%s' names no file; results would be lost", path);
    bool there = stat(path, &st) == 0;
    if (!there && (access != KV_STORE_CREATE || errno != ENOENT))
        return kv_fail(e, KV_EFAIL, path, errno == ENOENT ? "no such store" : "cannot be opened");
    if (there && S_ISDIR(st.st_mode))
        return kv_fail(e, KV_EFAIL, path, "a folder, where a store's file was expected");
    if (there && !S_ISREG(st.st_mode))
        return kv_fail(e, KV_EFAIL, path, "not a regular file; a store needs one");

    struct kv_store *s = new_store(path, access != KV_STORE_READ);
    int code = open_as(s, access, e);
    if (code) {
        kv_store_abandon(s);
        return code;
    }
    *out = s;
    return 0;
}

int kv_store_open_memory(struct kv_store **out, struct kv_error *e) {
    struct kv_store *s = new_store("schema.sql", true);
    int code = kv_store_connect(s, ":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, e);
    if (!code) code = upgrade(s, e);
    if (code) {
        kv_store_abandon(s);
        s = NULL;
    }
    *out = s;
    return code;
}

void kv_store_abandon(struct kv_store *s) {
    if (!s) return;
    for (size_t i = 0; i < s->n_pending; i++) kv_outcome_fini(&s->pending[i].outcome);
    for (size_t i = 0; i < KV_N_STATEMENTS; i++) sqlite3_finalize(s->statement[i]);
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
