// SPDX-License-Identifier: Apache-2.0
// The messages of a shared sweep. They form a star: each rank speaks with rank 0 alone, in an order
// that both know, so that any message can only be the one that is waited for. Ranks are of one
// build (kv_party_agree), so structs travel as they lie in memory.
#include "analysis/studies/party.h"

#include <pthread.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"

// A rank asks for items while it computes, so a piece need not be large; the last ones are single
// items, so that all end together.
enum { PIECE_MAX = 32, PIECES_LEFT = 8 };

enum kind { M_STATE, M_VERDICT, M_ASK, M_PIECE, M_OUTCOME, M_END };

struct state {
    enum kind kind;
    int rc;
    struct kv_error e;
    char host[128], about[512];
    uint64_t n_counts; // kv_closed_count that follow
};
struct piece {
    enum kind kind;
    size_t from, to; // empty: there is nothing more
};
struct outcome {
    enum kind kind;
    size_t item, spec;
    struct kv_outcome o; // its choices follow
};

struct kv_party {
    const struct kv_ranks *by;
    pthread_mutex_t lock; // of what is below, and around send, receive and take
    bool *mine;           // [n_items] of the items below `known`
    size_t known;
    // Rank 0:
    size_t handed; // items that somebody was given
    pthread_t server;
    bool serving;
    int code; // the first error of any rank while they compute, and no more items from then on
    struct kv_error error;
    struct kv_closed_count *counts; // [n] of the others
    size_t n_counts;
    struct kv_party_work work;
};

struct kv_party *kv_party_new(const struct kv_ranks *ranks) {
    struct kv_party *p = kv_alloc(1, sizeof *p);
    p->by = ranks;
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

void kv_party_free(struct kv_party *p) {
    if (!p) return;
    free(p->mine);
    free(p->counts);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

bool kv_party_leads(const struct kv_party *p) {
    return p->by->rank == 0;
}

// ---- messages -------------------------------------------------------------------------

static int post(const struct kv_party *p, unsigned to, const void *data, size_t n,
                struct kv_error *e) {
    char why[256] = "";
    if (p->by->send(p->by, to, data, n, why, sizeof why) == 0) return 0;
    return kv_fail(e, KV_EFAIL, "ranks", "a message to rank %u was lost: %s", to, why);
}

static int fetch(const struct kv_party *p, unsigned *from, void **data, size_t *n,
                 struct kv_error *e) {
    char why[256] = "";
    if (p->by->receive(p->by, from, data, n, why, sizeof why) == 0) return 0;
    free(*data);
    *data = NULL;
    return kv_fail(e, KV_EFAIL, "ranks", "no message comes any more: %s", why);
}

// The next message, which is of this kind and n bytes long. Caller frees.
static int expect(const struct kv_party *p, enum kind kind, unsigned *from, void **data, size_t n,
                  struct kv_error *e) {
    size_t bytes;
    int rc = fetch(p, from, data, &bytes, e);
    if (rc) return rc;
    if (bytes == n && *(const enum kind *)*data == kind) return 0;
    free(*data);
    *data = NULL;
    return kv_fail(e, KV_EFAIL, "ranks", "rank %u is out of step", *from);
}

// An error as everybody gets it: with the rank that it is of.
static void name_rank(const struct kv_party *p, unsigned rank, const char *host,
                      struct kv_error *e) {
    struct kv_error why = *e;
    if (p->by->size > 1) kv_fail(e, why.code, why.where, "%s (rank %u on %s)", why.msg, rank, host);
}

// ---- all together ---------------------------------------------------------------------

static int gather(const struct kv_party *p, struct state *all, struct kv_error *e) {
    for (unsigned k = 1; k < p->by->size; k++) {
        unsigned from;
        void *data;
        int rc = expect(p, M_STATE, &from, &data, sizeof *all, e);
        if (rc) return rc;
        memcpy(&all[from], data, sizeof *all);
        free(data);
    }
    return 0;
}

static int judge(const struct kv_party *p, struct state *all, struct kv_error *e) {
    for (unsigned k = 0; k < p->by->size; k++) {
        if (all[k].rc) {
            *e = all[k].e;
            name_rank(p, k, all[k].host, e);
            return all[k].rc;
        }
        if (strcmp(all[k].about, all[0].about) != 0)
            return kv_fail(e, KV_EFAIL, "ranks",
                           "rank %u on %s would not give the rows of rank 0 on %s: it is %s, and "
                           "rank 0 %s",
                           k, all[k].host, all[0].host, all[k].about, all[0].about);
    }
    return 0;
}

static void fill_state(const struct kv_party *p, struct state *s, enum kind kind, int rc,
                       const char *about, const struct kv_error *e) {
    memset(s, 0, sizeof *s);
    s->kind = kind;
    s->rc = rc;
    if (rc && e) s->e = *e;
    snprintf(s->host, sizeof s->host, "%s", p->by->host);
    snprintf(s->about, sizeof s->about, "%s", about ? about : "");
}

// Rank 0's word to everybody.
static int announce(const struct kv_party *p, int rc, struct kv_error *e) {
    struct state verdict;
    fill_state(p, &verdict, M_VERDICT, rc, NULL, e);
    for (unsigned k = 1; k < p->by->size; k++) {
        struct kv_error lost;
        int code = post(p, k, &verdict, sizeof verdict, &lost);
        if (code && rc == 0) {
            *e = lost;
            rc = code;
        }
    }
    return rc;
}

static int hear(const struct kv_party *p, struct kv_error *e) {
    unsigned from;
    void *data;
    int rc = expect(p, M_VERDICT, &from, &data, sizeof(struct state), e);
    if (rc) return rc;
    const struct state *verdict = data;
    rc = verdict->rc;
    if (rc) *e = verdict->e;
    free(data);
    return rc;
}

int kv_party_agree(struct kv_party *p, int rc, const char *about, struct kv_error *e) {
    if (p->by->rank) {
        struct state s;
        fill_state(p, &s, M_STATE, rc, about, e);
        int lost = post(p, 0, &s, sizeof s, e);
        return lost ? lost : hear(p, e);
    }
    struct state *all = kv_alloc(p->by->size, sizeof *all);
    fill_state(p, &all[0], M_STATE, rc, about, e);
    int lost = gather(p, all, e);
    rc = lost ? lost : announce(p, judge(p, all, e), e);
    free(all);
    return rc;
}

int kv_party_share(struct kv_party *p, void *data, size_t n, int rc, struct kv_error *e) {
    unsigned from;
    size_t bytes;
    void *got;
    if (p->by->rank == 0) {
        rc = announce(p, rc, e);
        for (unsigned k = 1; k < p->by->size && rc == 0; k++) rc = post(p, k, data, n, e);
        return rc;
    }
    if ((rc = hear(p, e)) || (rc = fetch(p, &from, &got, &bytes, e))) return rc;
    if (bytes == n)
        memcpy(data, got, n);
    else
        rc = kv_fail(e, KV_EFAIL, "ranks", "rank %u is out of step", from);
    free(got);
    return rc;
}

// ---- while they compute ---------------------------------------------------------------

// The first error; after it no items are handed out.
static void fail_with(struct kv_party *p, int rc, const struct kv_error *e) {
    if (p->code) return;
    p->code = rc;
    p->error = *e;
}

// The next items that nobody has: fewer at a time as they become fewer.
static struct piece next_piece(struct kv_party *p) {
    size_t left = p->code ? 0 : p->work.n_items - p->handed, n = left / (PIECES_LEFT * p->by->size);
    n = n < 1 ? 1 : n > PIECE_MAX ? PIECE_MAX : n;
    struct piece piece = {M_PIECE, p->handed, p->handed + (left < n ? left : n)};
    p->handed = piece.to;
    return piece;
}

static void add_counts(struct kv_party *p, const struct kv_closed_count *c, size_t n) {
    if (n > p->n_counts) {
        p->counts = kv_grow(p->counts, n, sizeof *p->counts);
        memset(p->counts + p->n_counts, 0, (n - p->n_counts) * sizeof *p->counts);
        p->n_counts = n;
    }
    for (size_t i = 0; i < n; i++) {
        p->counts[i].items += c[i].items;
        p->counts[i].tokens += c[i].tokens;
        p->counts[i].changed += c[i].changed;
        p->counts[i].passes += c[i].passes;
    }
}

static void take_outcome(struct kv_party *p, struct outcome *m, size_t n) {
    struct kv_error e;
    size_t choices = m->o.n_choices ? m->o.n_choices : 1;
    if (p->code || n < sizeof *m + (m->o.choice ? choices : 0) * sizeof *m->o.choice) return;
    if (m->o.choice) m->o.choice = (struct kv_choice_outcome *)(void *)(m + 1);
    int rc = p->work.take(p->work.self, m->item, m->spec, &m->o, &e);
    if (rc) fail_with(p, rc, &e);
}

// One message of a rank; true where it was its last.
static bool serve_one(struct kv_party *p, unsigned from, void *data, size_t n) {
    struct kv_error e;
    KV_LOCK(&p->lock);
    switch (*(const enum kind *)data) {
    case M_ASK: {
        struct piece piece = next_piece(p);
        int rc = post(p, from, &piece, sizeof piece, &e);
        if (rc) fail_with(p, rc, &e);
        return false;
    }
    case M_OUTCOME:
        take_outcome(p, data, n);
        return false;
    default: {
        struct state *s = data;
        if (s->rc) {
            name_rank(p, from, s->host, &s->e);
            fail_with(p, s->rc, &s->e);
        }
        add_counts(p, (const struct kv_closed_count *)(void *)(s + 1), s->n_counts);
        return true;
    }
    }
}

// Guarded: memory that runs out here is everybody's error.
static int serve_guarded(struct kv_party *p, struct kv_error *e) {
    KV_GUARD(e);
    for (unsigned ended = 0; ended + 1 < p->by->size;) {
        unsigned from;
        size_t n;
        void *data;
        int rc = fetch(p, &from, &data, &n, e);
        if (rc) return rc;
        ended += serve_one(p, from, data, n);
        free(data);
    }
    return 0;
}

static void *serve(void *self) {
    struct kv_party *p = self;
    struct kv_error e;
    int rc = serve_guarded(p, &e);
    if (rc) {
        KV_LOCK(&p->lock);
        fail_with(p, rc, &e);
    }
    return NULL;
}

int kv_party_begin(struct kv_party *p, const struct kv_party_work *work, struct kv_error *e) {
    free(p->mine);
    p->mine = NULL;
    p->mine = kv_alloc(work->n_items, sizeof *p->mine);
    p->work = *work;
    p->known = p->handed = 0;
    p->n_counts = 0;
    p->code = 0;
    if (p->by->rank || p->by->size == 1) return 0;
    if (pthread_create(&p->server, NULL, serve, p))
        return kv_fail(e, KV_EFAIL, "ranks", "no thread could be had to serve them");
    p->serving = true;
    return 0;
}

static int ask(struct kv_party *p, struct piece *piece, struct kv_error *e) {
    enum kind kind = M_ASK;
    unsigned from;
    void *data;
    int rc = post(p, 0, &kind, sizeof kind, e);
    if (rc == 0) rc = expect(p, M_PIECE, &from, &data, sizeof *piece, e);
    if (rc) return rc;
    memcpy(piece, data, sizeof *piece);
    free(data);
    return 0;
}

bool kv_party_claim(struct kv_party *p, size_t item) {
    size_t at = item - p->work.first_item;
    KV_LOCK(&p->lock);
    while (p->known <= at && p->known < p->work.n_items) {
        struct piece piece = {M_PIECE, 0, 0};
        struct kv_error e;
        int rc = p->by->rank ? ask(p, &piece, &e) : 0;
        if (p->by->rank == 0) piece = next_piece(p);
        if (rc) fail_with(p, rc, &e);
        if (rc || piece.from == piece.to) {
            p->known = p->work.n_items;
            break;
        }
        for (size_t i = piece.from; i < piece.to; i++) p->mine[i] = true;
        p->known = piece.to;
    }
    return p->mine[at];
}

int kv_party_take(struct kv_party *p, size_t item, size_t spec, const struct kv_outcome *o,
                  struct kv_error *e) {
    KV_LOCK(&p->lock);
    if (p->by->rank == 0) return p->work.take(p->work.self, item, spec, o, e);
    size_t n = (o->choice ? o->n_choices ? o->n_choices : 1 : 0) * sizeof *o->choice;
    struct outcome *m = kv_alloc(sizeof *m + n, 1);
    *m = (struct outcome){M_OUTCOME, item, spec, *o};
    if (n) memcpy(m + 1, o->choice, n);
    int rc = post(p, 0, m, sizeof *m + n, e);
    free(m);
    return rc;
}

// What a rank has to say at its end: an error of its own, or one of asking for items.
static int say_end(struct kv_party *p, int rc, const struct kv_closed_count *counts, size_t n,
                   struct kv_error *e) {
    struct state *s = kv_alloc(sizeof *s + n * sizeof *counts, 1);
    fill_state(p, s, M_END, rc, NULL, e);
    s->n_counts = n;
    memcpy(s + 1, counts, n * sizeof *counts);
    int lost = post(p, 0, s, sizeof *s + n * sizeof *counts, e);
    free(s);
    return lost;
}

int kv_party_end(struct kv_party *p, int rc, struct kv_closed_count *counts, size_t n,
                 struct kv_error *e) {
    if (p->by->rank) {
        if (rc == 0 && p->code) {
            *e = p->error;
            rc = p->code;
        }
        int lost = say_end(p, rc, counts, n, e);
        return lost ? lost : hear(p, e);
    }
    if (rc) {
        KV_LOCK(&p->lock);
        fail_with(p, rc, e);
    }
    if (p->serving) pthread_join(p->server, NULL);
    p->serving = false;
    for (size_t i = 0; i < n && i < p->n_counts; i++) {
        counts[i].items += p->counts[i].items;
        counts[i].tokens += p->counts[i].tokens;
        counts[i].changed += p->counts[i].changed;
        counts[i].passes += p->counts[i].passes;
    }
    if (p->code) *e = p->error;
    return announce(p, p->code, e);
}
