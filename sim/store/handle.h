// SPDX-License-Identifier: Apache-2.0
// What the modules of the store share and nobody else sees: the handle over SQLite.
#ifndef KV_STORE_HANDLE_H
#define KV_STORE_HANDLE_H

#include <pthread.h>
#include <sqlite3.h>

#include "sim/store/store.h"

enum { KV_BATCH_ITEMS = 64 };

enum kv_statement {
    KV_DO_BEGIN,
    KV_DO_COMMIT,
    KV_DO_ROLLBACK,
    KV_DO_PUT_ITEM,
    KV_DO_PUT_CHOICE,
    KV_DO_PUT_SHARE,
    KV_DO_PUT_TOKENS,
    KV_N_STATEMENTS
};

struct kv_pending {
    long long run;
    uint32_t item;
    struct kv_outcome outcome; // owned
};

struct kv_store {
    sqlite3 *db;
    char *path;
    bool writable;
    pthread_mutex_t lock;
    sqlite3_stmt *statement[KV_N_STATEMENTS]; // prepared when first used
    size_t n_pending;
    double first_pending_s;
    struct kv_pending pending[KV_BATCH_ITEMS];
};

// Opens the database `name` with SQLite's flags.
KV_MUST_CHECK int kv_store_connect(struct kv_store *s, const char *name, int flags,
                                   struct kv_error *e);
// An empty store in memory, for what its schema says of itself.
KV_MUST_CHECK int kv_store_open_memory(struct kv_store **s, struct kv_error *e);

// One sentence for SQLite's last error. `what` completes "could not ...".
KV_MUST_CHECK int kv_store_fail(struct kv_store *s, const char *what, struct kv_error *e);
// Runs any SQL.
KV_MUST_CHECK int kv_store_exec(struct kv_store *s, const char *sql, const char *what,
                                struct kv_error *e);
// First column of the first row as a number; 0 without a row.
KV_MUST_CHECK int kv_store_number(struct kv_store *s, const char *sql, long long *n,
                                  struct kv_error *e);
// A prepared statement, to bind and step; step runs one that returns no rows, statement both.
KV_MUST_CHECK int kv_store_prepare(struct kv_store *s, enum kv_statement which, sqlite3_stmt **st,
                                   struct kv_error *e);
KV_MUST_CHECK int kv_store_step(struct kv_store *s, sqlite3_stmt *st, const char *what,
                                struct kv_error *e);
KV_MUST_CHECK int kv_store_statement(struct kv_store *s, enum kv_statement which, const char *what,
                                     struct kv_error *e);
// Tokens as outcome_tokens holds them, and back (store_tokens.c). Callers free. Unpacking gives
// NULL for bytes that are none.
uint8_t *kv_tokens_pack(const struct kv_token_outcome *token, uint32_t n, size_t *n_bytes);
struct kv_token_outcome *kv_tokens_unpack(const uint8_t *bytes, size_t n_bytes, uint32_t *n);
// Ends a transaction that has begun without keeping it.
void kv_store_rollback(struct kv_store *s);

#endif
