// SPDX-License-Identifier: Apache-2.0
// Scored positions of text windows, packed: eight bytes each, so that a window of 32,768 tokens
// takes 256 KB a spec.
#include "sim/store/handle.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"

enum { HEAD = 8, GAP = 2, REAL = 4 };

static void put(uint8_t *to, uint32_t x, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) to[i] = (uint8_t)(x >> 8 * i);
}

static uint32_t get(const uint8_t *from, size_t bytes) {
    uint32_t x = 0;
    for (size_t i = 0; i < bytes; i++) x |= (uint32_t)from[i] << 8 * i;
    return x;
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

uint8_t *kv_tokens_pack(const struct kv_token_outcome *token, uint32_t n, size_t *n_bytes) {
    bool gaps = false;
    for (uint32_t i = 0; i < n; i++) gaps = gaps || token[i].row != i;
    *n_bytes = HEAD + (size_t)n * (2 * REAL + (gaps ? GAP : 0));
    uint8_t *bytes = kv_alloc(*n_bytes, 1), *at = bytes + HEAD;
    put(bytes, n, 4);
    put(bytes + 4, gaps, 4);
    for (uint32_t i = 0; i < n && gaps; i++, at += GAP)
        put(at, i ? token[i].row - token[i - 1].row : token[i].row + 1, GAP);
    for (uint32_t i = 0; i < n; i++, at += REAL)
        put(at, bits_of(fabsf(token[i].kl_nats)) | (uint32_t)token[i].other_top << 31, REAL);
    for (uint32_t i = 0; i < n; i++, at += REAL) put(at, bits_of(token[i].dp), REAL);
    return bytes;
}

struct kv_token_outcome *kv_tokens_unpack(const uint8_t *bytes, size_t n_bytes, uint32_t *n) {
    *n = n_bytes >= HEAD ? get(bytes, 4) : 0;
    bool gaps = *n && get(bytes + 4, 4);
    if (*n == 0 || n_bytes != HEAD + (size_t)*n * (2 * REAL + (gaps ? GAP : 0))) return NULL;
    struct kv_token_outcome *token = kv_alloc(*n, sizeof *token);
    const uint8_t *kl = bytes + HEAD + (gaps ? (size_t)*n * GAP : 0), *dp = kl + (size_t)*n * REAL;
    bool sound = true;
    for (uint32_t i = 0, row = UINT32_MAX; i < *n; i++) {
        uint32_t gap = gaps ? get(bytes + HEAD + (size_t)i * GAP, GAP) : 1,
                 kl_bits = get(kl + (size_t)i * REAL, REAL);
        row += gap;
        token[i] = (struct kv_token_outcome){.row = row,
                                             .kl_nats = float_of(kl_bits & 0x7FFFFFFFu),
                                             .dp = float_of(get(dp + (size_t)i * REAL, REAL)),
                                             .other_top = kl_bits >> 31};
        sound = sound && gap > 0 && isfinite(token[i].kl_nats) && isfinite(token[i].dp);
    }
    if (sound) return token;
    free(token);
    return NULL;
}

void kv_window_tokens_free(struct kv_window_tokens *rows, size_t n) {
    for (size_t i = 0; rows && i < n; i++) {
        free(rows[i].id);
        free(rows[i].token);
    }
    free(rows);
}

static int read_all(struct kv_store *s, sqlite3_stmt *st, struct kv_window_tokens **rows, size_t *n,
                    struct kv_error *e) {
    KV_GUARD(e);
    int code;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        *rows = kv_grow(*rows, *n + 1, sizeof **rows);
        struct kv_window_tokens *w = &(*rows)[(*n)++];
        const char *id = (const char *)sqlite3_column_text(st, 1);
        *w = (struct kv_window_tokens){.item = (uint32_t)sqlite3_column_int64(st, 0),
                                       .id = kv_strdup(id ? id : "")};
        w->token = kv_tokens_unpack(sqlite3_column_blob(st, 2), (size_t)sqlite3_column_bytes(st, 2),
                                    &w->n);
        if (!w->token)
            return kv_fail(e, KV_EFAIL, s->path, "the scored positions of item %u are damaged",
                           w->item);
    }
    return code == SQLITE_DONE ? 0 : kv_store_fail(s, "read the store", e);
}

int kv_store_tokens(struct kv_store *s, long long run_group, struct kv_window_tokens **rows,
                    size_t *n, struct kv_error *e) {
    static const char sql[] =
        "SELECT o.item, i.id, o.tokens FROM outcome_tokens AS o JOIN run AS r ON r.id = o.run "
        "JOIN item AS i ON i.trace = r.trace AND i.item = o.item WHERE o.run = ? ORDER BY o.item";
    sqlite3_stmt *st = NULL;
    *rows = NULL;
    *n = 0;
    pthread_mutex_lock(&s->lock);
    int code = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) == SQLITE_OK
                   ? sqlite3_bind_int64(st, 1, run_group)
                   : SQLITE_ERROR;
    code = code == SQLITE_OK ? read_all(s, st, rows, n, e) : kv_store_fail(s, "read the store", e);
    sqlite3_finalize(st);
    pthread_mutex_unlock(&s->lock);
    if (code) {
        kv_window_tokens_free(*rows, *n);
        *rows = NULL;
        *n = 0;
    }
    return code;
}
