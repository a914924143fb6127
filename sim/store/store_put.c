// SPDX-License-Identifier: Apache-2.0
// Outcomes on their way into a store: buffered, written in batches, and which are there already.
#include "sim/store/handle.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"

static const double BATCH_S = 2;

static void bind_pick(sqlite3_stmt *st, int at, int32_t pick) {
    if (pick < 0)
        sqlite3_bind_null(st, at);
    else
        sqlite3_bind_int(st, at, pick);
}

static void bind_greedy(sqlite3_stmt *st, int at, enum kv_exact_match greedy) {
    if (greedy == KV_MATCH_UNKNOWN)
        sqlite3_bind_null(st, at);
    else
        sqlite3_bind_int(st, at, greedy == KV_MATCH_YES);
}

static int write_item(struct kv_store *s, const struct kv_pending *p, struct kv_error *e) {
    const struct kv_outcome *o = &p->outcome;
    sqlite3_stmt *st = NULL;
    int code = kv_store_prepare(s, KV_DO_PUT_ITEM, &st, e), at = 3;
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
    return kv_store_step(s, st, "store an outcome", e);
}

static int write_choices(struct kv_store *s, const struct kv_pending *p, struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    uint32_t n = p->outcome.n_choices ? p->outcome.n_choices : 1;
    int code = kv_store_prepare(s, KV_DO_PUT_CHOICE, &st, e);
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
        bind_greedy(st, 12, c->match);
        bind_greedy(st, 13, c->match_ref);
        code = kv_store_step(s, st, "store an outcome", e);
    }
    return code;
}

static int write_shares(struct kv_store *s, const struct kv_pending *p, struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    int code = kv_store_prepare(s, KV_DO_PUT_SHARE, &st, e);
    for (int side = 0; side < 2; side++)
        for (int bits = 0; !code && bits < KV_WIDTH_BINS; bits++) {
            double share = p->outcome.ledger.share[side][bits];
            if (!(share > 0)) continue;
            sqlite3_bind_int64(st, 1, p->run);
            sqlite3_bind_int64(st, 2, p->item);
            sqlite3_bind_int(st, 3, side);
            sqlite3_bind_int(st, 4, bits);
            sqlite3_bind_double(st, 5, share);
            code = kv_store_step(s, st, "store an outcome", e);
        }
    return code;
}

static int write_tokens(struct kv_store *s, const struct kv_pending *p, struct kv_error *e) {
    if (p->outcome.n_tokens == 0) return 0;
    sqlite3_stmt *st = NULL;
    size_t n;
    int code = kv_store_prepare(s, KV_DO_PUT_TOKENS, &st, e);
    if (code) return code;
    uint8_t *packed = kv_tokens_pack(p->outcome.token, p->outcome.n_tokens, &n);
    sqlite3_bind_int64(st, 1, p->run);
    sqlite3_bind_int64(st, 2, p->item);
    sqlite3_bind_blob64(st, 3, packed, n, SQLITE_TRANSIENT);
    free(packed);
    return kv_store_step(s, st, "store an outcome", e);
}

static int flush_locked(struct kv_store *s, struct kv_error *e) {
    if (s->n_pending == 0) return 0;
    int code = kv_store_statement(s, KV_DO_BEGIN, "store outcomes", e);
    for (size_t i = 0; !code && i < s->n_pending; i++) {
        code = write_item(s, &s->pending[i], e);
        if (!code) code = write_choices(s, &s->pending[i], e);
        if (!code) code = write_shares(s, &s->pending[i], e);
        if (!code) code = write_tokens(s, &s->pending[i], e);
    }
    if (!code) code = kv_store_statement(s, KV_DO_COMMIT, "store outcomes", e);
    if (code) {
        kv_store_rollback(s);
        return code;
    }
    for (size_t i = 0; i < s->n_pending; i++) kv_outcome_fini(&s->pending[i].outcome);
    s->n_pending = 0;
    return 0;
}

int kv_store_flush(struct kv_store *s, struct kv_error *e) {
    KV_GUARD(e);
    KV_LOCK(&s->lock);
    return flush_locked(s, e);
}

int kv_store_put(struct kv_store *s, long long run, uint32_t item, const struct kv_outcome *o,
                 struct kv_error *e) {
    KV_GUARD(e);
    struct kv_outcome kept = *o;
    size_t bytes = (o->n_choices ? o->n_choices : 1) * sizeof *o->choice;
    if (o->choice) kept.choice = memcpy(kv_alloc(bytes, 1), o->choice, bytes);
    bytes = o->n_tokens * sizeof *o->token;
    if (o->token) kept.token = memcpy(kv_alloc(bytes + 1, 1), o->token, bytes);
    (void)kv_outcome_judged(&kept); // whoever made it, a store holds no infinity
    KV_LOCK(&s->lock);
    // A batch that could not be written stays; there is no room for more.
    int code = s->n_pending == KV_BATCH_ITEMS ? flush_locked(s, e) : 0;
    if (code) {
        kv_outcome_fini(&kept);
        return code;
    }
    s->pending[s->n_pending++] = (struct kv_pending){run, item, kept};
    if (s->n_pending == 1) s->first_pending_s = kv_now_s();
    if (s->n_pending == KV_BATCH_ITEMS || kv_now_s() - s->first_pending_s > BATCH_S)
        code = flush_locked(s, e);
    return code;
}

int kv_store_done(struct kv_store *s, long long run, bool *done, size_t n_items, size_t *n_done,
                  struct kv_error *e) {
    sqlite3_stmt *st = NULL;
    int code = SQLITE_ROW, result = 0;
    pthread_mutex_lock(&s->lock);
    if (sqlite3_prepare_v2(s->db, "SELECT item FROM outcome_item WHERE run = ?", -1, &st, NULL) !=
        SQLITE_OK)
        result = kv_store_fail(s, "read the store", e);
    sqlite3_bind_int64(st, 1, run);
    while (!result && (code = sqlite3_step(st)) == SQLITE_ROW) {
        sqlite3_int64 item = sqlite3_column_int64(st, 0);
        if (item >= 0 && (uint64_t)item < n_items) done[item] = true;
    }
    if (!result && code != SQLITE_DONE) result = kv_store_fail(s, "read the store", e);
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
