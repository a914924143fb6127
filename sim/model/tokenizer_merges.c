// SPDX-License-Identifier: Apache-2.0
// The pairs of tokens that merge: as a file lists them, or those that its pieces and scores imply.
#include <math.h>
#include <stdlib.h>

#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/utf8.h"
#include "sim/model/tokenizer.h"

// Of a longer piece not each way to part it is looked up: a file could make that take for ever.
#define MAX_SCORED_BYTES 1024

// ---- from a list ----------------------------------------------------------------------

static int read_merge(struct kv_tokenizer *t, const struct kv_piece_table *spelled,
                      const char *text, size_t rank, struct kv_error *e) {
    // A piece is never empty and spells no space, so the first space parts the two.
    const char *space = strchr(text, ' ');
    size_t n = strlen(text);
    if (!space || space == text || space[1] == 0)
        return kv_fail(e, KV_EFAIL, "tokenizer", "merge %zu, \"%.60s\", is not two pieces", rank,
                       text);
    size_t n_left = (size_t)(space - text), n_right = n - n_left - 1;
    char *joined = kv_grow(NULL, n, 1);
    memcpy(joined, text, n_left);
    memcpy(joined + n_left, space + 1, n_right);
    struct kv_merge m = {kv_piece_find(spelled, text, n_left),
                         kv_piece_find(spelled, space + 1, n_right),
                         kv_piece_find(spelled, joined, n - 1), (uint32_t)rank};
    free(joined);
    if (m.left == KV_NO_TOKEN || m.right == KV_NO_TOKEN || m.result == KV_NO_TOKEN)
        return kv_fail(e, KV_EFAIL, "tokenizer",
                       "merge %zu, \"%.60s\", names a piece that is not in the vocabulary", rank,
                       text);
    t->merges[rank] = m;
    uint32_t *slot = kv_pair_slot(t, m.left, m.right);
    if (*slot == KV_NO_TOKEN) *slot = (uint32_t)rank;
    return KV_OK;
}

static int read_merges(struct kv_tokenizer *t, const struct kv_tokenizer_parts *parts,
                       struct kv_error *e) {
    struct kv_piece_text *text = kv_alloc(parts->n_pieces + 1, sizeof *text);
    struct kv_piece_table spelled;
    int rc = KV_OK;
    kv_piece_table_init(&spelled, text, parts->n_pieces);
    for (size_t i = 0; i < parts->n_pieces; i++) {
        text[i] = (struct kv_piece_text){parts->pieces[i], strlen(parts->pieces[i])};
        kv_piece_table_add(&spelled, (uint32_t)i);
    }
    t->n_merges = parts->n_merges;
    t->merges = kv_alloc(t->n_merges + 1, sizeof *t->merges);
    t->pairs = kv_empty_slots(t->n_merges, &t->mask);
    for (size_t i = 0; i < t->n_merges && !rc; i++) {
        t->digest = kv_hash(parts->merges[i], strlen(parts->merges[i]), t->digest);
        rc = read_merge(t, &spelled, parts->merges[i], i, e);
    }
    free(spelled.slots);
    free(text);
    return rc;
}

// ---- from scores ----------------------------------------------------------------------
//
// SentencePiece merges any two neighbours whose text is a piece, the highest score first and equal
// ones from the left (src/bpe_model.cc of https://github.com/google/sentencepiece). So each way to
// part a piece into two pieces is a merge, ranked by the piece's score. Left out is what no trained
// model has: a piece with a character that is itself none.

struct scored {
    float score;
    uint32_t id;
};

static int highest_first(const void *a, const void *b) {
    const struct scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score)
                                : (x->id > y->id) - (x->id < y->id);
}

// Ranks of the pieces that merging may use or make: those of other types are never found in a text.
static int rank_pieces(const struct kv_tokenizer *t, const struct kv_tokenizer_parts *parts,
                       uint32_t *rank, struct kv_error *e) {
    struct scored *order = kv_alloc(t->n_pieces + 1, sizeof *order);
    size_t n = 0;
    uint32_t next = 0;
    int rc = KV_OK;
    for (size_t i = 0; i < t->n_pieces && !rc; i++) {
        int32_t type = parts->types ? parts->types[i] : KV_PIECE_NORMAL;
        rank[i] = KV_NO_TOKEN;
        if (!isfinite(parts->scores[i]))
            rc = kv_fail(e, KV_EFAIL, "tokenizer", "the score of piece %zu is no finite number", i);
        if (type != KV_PIECE_NORMAL && type != KV_PIECE_USER_DEFINED && type != KV_PIECE_UNUSED)
            continue;
        if (t->text[i].n > MAX_SCORED_BYTES)
            rc = kv_fail(e, KV_EFAIL, "tokenizer", "piece %zu has %zu bytes; at most %d are merged",
                         i, t->text[i].n, MAX_SCORED_BYTES);
        order[n++] = (struct scored){parts->scores[i], (uint32_t)i};
    }
    qsort(order, n, sizeof *order, highest_first);
    for (size_t i = 0; i < n; i++) {
        next += i > 0 && order[i].score != order[i - 1].score;
        rank[order[i].id] = next;
    }
    free(order);
    return rc;
}

static void part_piece(struct kv_tokenizer *t, uint32_t id, const uint32_t *rank, size_t *room) {
    const struct kv_piece_text *p = &t->text[id];
    for (size_t at = 0; kv_utf8_next(p->s, p->n, &at) != KV_UTF8_BAD && at < p->n;) {
        uint32_t left = kv_piece_find(&t->table, p->s, at);
        if (left == KV_NO_TOKEN || rank[left] == KV_NO_TOKEN) continue;
        uint32_t right = kv_piece_find(&t->table, p->s + at, p->n - at);
        if (right == KV_NO_TOKEN || rank[right] == KV_NO_TOKEN) continue;
        if (t->n_merges == *room) {
            *room = 2 * *room + 1024;
            t->merges = kv_grow(t->merges, *room, sizeof *t->merges);
        }
        t->merges[t->n_merges++] = (struct kv_merge){left, right, id, rank[id]};
    }
}

static int derive_merges(struct kv_tokenizer *t, const struct kv_tokenizer_parts *parts,
                         struct kv_error *e) {
    uint32_t *rank = kv_alloc(t->n_pieces + 1, sizeof *rank);
    size_t room = 0;
    int rc = rank_pieces(t, parts, rank, e);
    // Of pieces with equal texts the first is the one that texts yield.
    for (uint32_t i = 0; i < t->n_pieces && !rc; i++)
        if (rank[i] != KV_NO_TOKEN && kv_piece_find(&t->table, t->text[i].s, t->text[i].n) == i)
            part_piece(t, i, rank, &room);
    free(rank);
    t->pairs = kv_empty_slots(t->n_merges, &t->mask);
    for (size_t i = 0; i < t->n_merges; i++)
        *kv_pair_slot(t, t->merges[i].left, t->merges[i].right) = (uint32_t)i;
    t->digest = kv_hash(parts->scores, t->n_pieces * sizeof *parts->scores, t->digest);
    return rc;
}

int kv_tokenizer_merges(struct kv_tokenizer *t, const struct kv_tokenizer_parts *parts,
                        struct kv_error *e) {
    return parts->scores ? derive_merges(t, parts, e) : read_merges(t, parts, e);
}
