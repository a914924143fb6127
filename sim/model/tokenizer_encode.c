// SPDX-License-Identifier: Apache-2.0
// From a text to ids: added tokens, then what its family does with the text between them, then
// merges.
//
// Byte-level BPE: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners",
// section 2.2. Merging: Sennrich, Haddow and Birch 2016, section 3.2: the adjacent pair of lowest
// rank (leftmost among equals) is merged until no pair has a rank.
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/utf8.h"
#include "sim/model/nfc.h"
#include "sim/model/tokenizer.h"

#define NONE KV_NO_TOKEN

// A token of the span being merged, in a list by position.
struct node {
    uint32_t id; // NONE once merged into its left neighbour
    uint32_t prev, next;
};

// One call's memory: the ids found, the span's nodes, and a heap of pairs to merge, as
// rank << 32 | position of the left node, so that the lowest is the leftmost of the lowest rank.
struct work {
    const struct kv_tokenizer *t;
    pcre2_match_data *match;
    uint32_t *ids, **caller_ids; // the same: the caller has them whatever happens
    size_t n_ids, room_ids;
    struct node *nodes;
    uint64_t *heap;
    size_t n_heap, room_nodes;
};

// ---- merging --------------------------------------------------------------------------

static void heap_push(struct work *w, uint64_t x) {
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2] > x; i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = x;
}

static uint64_t heap_pop(struct work *w) {
    uint64_t top = w->heap[0], x = w->heap[--w->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->n_heap) break;
        if (child + 1 < w->n_heap && w->heap[child + 1] < w->heap[child]) child++;
        if (w->heap[child] >= x) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = x;
    return top;
}

// The merge of a node and its right neighbour; NULL where there is none.
static const struct kv_merge *merge_at(const struct work *w, uint32_t left) {
    uint32_t right = left == NONE ? NONE : w->nodes[left].next;
    if (right == NONE) return NULL;
    uint32_t i = *kv_pair_slot(w->t, w->nodes[left].id, w->nodes[right].id);
    return i == NONE ? NULL : &w->t->merges[i];
}

static void push_pair(struct work *w, uint32_t left) {
    const struct kv_merge *m = merge_at(w, left);
    if (m) heap_push(w, (uint64_t)m->rank << 32 | left);
}

static void merge_nodes(struct work *w) {
    while (w->n_heap > 0) {
        uint64_t top = heap_pop(w);
        uint32_t at = (uint32_t)top;
        struct node *left = &w->nodes[at];
        // Either of the two may have been merged with another since the pair was pushed.
        const struct kv_merge *m = left->id == NONE ? NULL : merge_at(w, at);
        if (!m || m->rank != top >> 32) continue;
        struct node *right = &w->nodes[left->next];
        left->id = m->result;
        right->id = NONE;
        left->next = right->next;
        if (left->next != NONE) w->nodes[left->next].prev = at;
        push_pair(w, left->prev);
        push_pair(w, at);
    }
}

static void append_ids(struct work *w, size_t n) {
    if (w->n_ids + n <= w->room_ids) return;
    w->room_ids = 2 * (w->n_ids + n) + 16;
    *w->caller_ids = w->ids = kv_grow(w->ids, w->room_ids, sizeof *w->ids);
}

static void add_id(struct work *w, uint32_t id) {
    append_ids(w, 1);
    w->ids[w->n_ids++] = id;
}

static void make_room(struct work *w, size_t n) {
    append_ids(w, n);
    if (n <= w->room_nodes) return;
    w->room_nodes = 2 * n;
    w->nodes = kv_grow(w->nodes, w->room_nodes, sizeof *w->nodes);
    // Each merge takes one pair away and adds at most two, and there are at most n - 1 of each.
    w->heap = kv_grow(w->heap, 3 * w->room_nodes, sizeof *w->heap);
}

static void add_node(struct work *w, uint32_t *count, uint32_t id) {
    w->nodes[*count] = (struct node){id, *count - 1, *count + 1}; // before the first: NONE
    ++*count;
}

// The tokens of single bytes; one without a token is left out, and its neighbours become adjacent.
static uint32_t nodes_of_bytes(struct work *w, const char *s, size_t n) {
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = w->t->of_byte[(unsigned char)s[i]];
        if (id != NONE) add_node(w, &count, id);
    }
    return count;
}

// The tokens of characters, or of the bytes of one that is no piece.
static uint32_t nodes_of_characters(struct work *w, const char *s, size_t n) {
    uint32_t count = 0;
    for (size_t i = 0, begin = 0; i < n; begin = i) {
        kv_utf8_next(s, n, &i);
        uint32_t id = i - begin > 1 ? kv_piece_find(&w->t->table, s + begin, i - begin) : NONE;
        if (id != NONE)
            add_node(w, &count, id);
        else
            while (begin < i) add_node(w, &count, w->t->of_byte[(unsigned char)s[begin++]]);
    }
    return count;
}

// Appends the tokens of one span.
static void encode_span(struct work *w, const char *s, size_t n) {
    uint32_t whole = w->t->ignore_merges ? kv_piece_find(&w->t->table, s, n) : NONE;
    if (whole != NONE) {
        add_id(w, whole);
        return;
    }
    make_room(w, n);
    uint32_t count = w->t->characters ? nodes_of_characters(w, s, n) : nodes_of_bytes(w, s, n);
    if (count == 0) return;
    w->nodes[count - 1].next = NONE;
    w->n_heap = 0;
    for (uint32_t i = 0; i + 1 < count; i++) push_pair(w, i);
    merge_nodes(w);
    for (uint32_t i = 0; i != NONE; i = w->nodes[i].next) w->ids[w->n_ids++] = w->nodes[i].id;
}

// ---- spans ----------------------------------------------------------------------------

// Length of the match of a pattern at or after s, and where it begins; false when there is none.
static bool match(const struct work *w, const pcre2_code *code, const char *s, size_t n,
                  size_t *begin, size_t *end) {
    int rc = pcre2_match(code, (PCRE2_SPTR)s, n, 0, PCRE2_NO_UTF_CHECK, w->match, NULL);
    if (rc < 1) return false;
    const size_t *at = pcre2_get_ovector_pointer(w->match);
    *begin = at[0];
    *end = at[1];
    return *end > *begin;
}

// Cuts by step `step` and those after it. Between matches lies what the step leaves as one; should
// the matcher give up (its limits), that is all the rest.
static void encode_steps(struct work *w, const char *s, size_t n, size_t step) {
    if (step == w->t->n_steps) {
        encode_span(w, s, n);
        return;
    }
    while (n > 0) {
        size_t begin, end;
        if (!match(w, w->t->steps[step], s, n, &begin, &end)) begin = end = n;
        if (begin > 0) encode_steps(w, s, begin, step + 1);
        if (end > begin) encode_steps(w, s + begin, end - begin, step + 1);
        s += end;
        n -= end;
    }
}

// ---- added tokens and what lies between -----------------------------------------------

static void encode_normal(struct work *w, const char *s, size_t n) {
    size_t at = 0, begin, end;
    const struct kv_added_token *a;
    while (at < n && (a = kv_added_next(w->t, true, s, n, at, &begin, &end))) {
        if (begin > at) encode_steps(w, s + at, begin - at, 0);
        add_id(w, a->id);
        at = end;
    }
    if (at < n) encode_steps(w, s + at, n - at, 0);
}

static bool wants_space(const struct kv_tokenizer *t, const char *s, size_t n, bool first) {
    bool bare = s[0] != ' ' && !(n >= 3 && memcmp(s, "\u2581", 3) == 0);
    return t->space_prefix == KV_PREFIX_EACH || (t->space_prefix == KV_PREFIX_EACH_BARE && bare) ||
           (t->space_prefix == KV_PREFIX_FIRST_BARE && bare && first);
}

// A space in front where the model wants one, and spaces as its pieces are held.
static char *with_spaces(const struct kv_tokenizer *t, const char *s, size_t n, bool first,
                         size_t *n_out) {
    char *out = kv_grow(NULL, n + 1, 1);
    bool prefix = wants_space(t, s, n, first);
    if (prefix) out[0] = ' ';
    *n_out = prefix + kv_put_spaces(out + prefix, s, n);
    return out;
}

// Text between added tokens, brought into the form that the model was trained on; `first` where no
// token stands before it.
static void encode_between(struct work *w, const char *s, size_t n, bool first) {
    const struct kv_tokenizer *t = w->t;
    size_t n_normal = n;
    char *normal = NULL;
    if (n == 0) return;
    if (t->characters)
        normal = with_spaces(t, s, n, first, &n_normal);
    else if (t->nfc && !kv_nfc_surely(s, n))
        normal = kv_nfc(s, n, &n_normal);
    encode_normal(w, normal ? normal : s, n_normal);
    free(normal);
}

int kv_tokenizer_encode(const struct kv_tokenizer *t, const char *text, size_t n_bytes,
                        uint32_t **ids, size_t *n_ids, struct kv_error *e) {
    KV_GUARD(e);
    size_t valid = kv_utf8_valid(text, n_bytes), at = 0, begin, end;
    const struct kv_added_token *a;
    if (valid < n_bytes)
        return kv_fail(e, KV_EFAIL, "text", "byte %zu (0x%02x) is not UTF-8", valid,
                       (unsigned char)text[valid]);
    if (n_bytes >= NONE / 4) // form C may be three times as long, and nodes are counted in 32 bits
        return kv_fail(e, KV_EFAIL, "text", "%zu bytes are more than are encoded at once", n_bytes);
    struct work w = {
        .t = t, .match = pcre2_match_data_create(1, NULL), .caller_ids = ids, .ids = *ids};
    if (!w.match) return kv_fail(e, KV_ENOMEM, "tokenizer", "there is no memory for a match");
    while ((a = kv_added_next(t, false, text, n_bytes, at, &begin, &end))) {
        encode_between(&w, text + at, begin - at, at == 0);
        add_id(&w, a->id);
        at = end;
    }
    encode_between(&w, text + at, n_bytes - at, at == 0);
    pcre2_match_data_free(w.match);
    free(w.nodes);
    free(w.heap);
    *n_ids = w.n_ids;
    return KV_OK;
}
