// SPDX-License-Identifier: Apache-2.0
// Byte-level BPE: GPT-2's pattern through PCRE2, digits set apart first, merges by rank.
//
// Byte-level BPE: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners",
// section 2.2; merges in order of rank: Sennrich, Haddow and Birch 2016, section 3.2. Each piece of
// text that the pattern yields becomes a list of byte tokens; the adjacent pair of lowest rank
// (leftmost among equals) is merged until no pair has a rank.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

#include "sim/base/utf8.h"
#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/model/model.h"

#define NONE UINT32_MAX

// GPT-2's pattern with white space spelled out (Unicode's White_Space), because PCRE2's \s under
// UCP also takes U+180E, which the tokenizers that models were trained with do not.
#define SPACES                                                                                     \
    "\\t-\\r "                                                                                     \
    "\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define PATTERN                                                                                    \
    "'(?:s|t|re|ve|m|ll|d)| ?\\p{L}+| ?\\p{N}+| ?[^" SPACES "\\p{L}\\p{N}]+|[" SPACES              \
    "]+(?![^" SPACES "])|[" SPACES "]+"

struct merge {
    uint32_t left, right, result;
};

struct kv_tokenizer {
    size_t n_pieces, n_merges;
    char *bytes;           // all tokens' bytes, one after the other
    size_t *first;         // [n_pieces + 1] into bytes
    uint8_t *kinds;        // [n_pieces] enum kv_token_kind
    uint32_t of_byte[256]; // token of a single byte
    struct merge *merges;  // by rank
    uint32_t *ranks;       // hash table of (left, right): rank or NONE
    uint64_t mask;         // of ranks
    uint64_t digest;
    bool split_digits;
    pcre2_code *pattern, *digit;
    struct kv_added_token *added; // [n_added], longest text first
    size_t n_added;
    bool begins_added[256]; // whether a byte begins an added token's text
};

// ---- bytes and their spelling ---------------------------------------------------------

// GPT-2 spells a byte that is no printable Latin-1 character as U+0100 + its number among those
// (bytes_to_unicode in https://github.com/openai/gpt-2/blob/master/src/encoder.py).
static bool byte_is_plain(uint32_t b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xFF && b != 0xAD);
}

static void spell_bytes(uint32_t spelling[256]) {
    uint32_t n = 0;
    for (uint32_t b = 0; b < 256; b++) spelling[b] = byte_is_plain(b) ? b : 0x100 + n++;
}

// Fills byte_of[c], the byte that character c spells, or -1; the highest spelling is U+0143.
#define N_SPELLINGS 0x144
static void unspell_bytes(int byte_of[N_SPELLINGS]) {
    uint32_t spelling[256];
    spell_bytes(spelling);
    for (int c = 0; c < N_SPELLINGS; c++) byte_of[c] = -1;
    for (int b = 0; b < 256; b++) byte_of[spelling[b]] = b;
}

// ---- kinds ----------------------------------------------------------------------------

enum char_class { C_SPACE, C_LETTER, C_DIGIT, C_OTHER };

// Class of the character that begins at s. Letters beyond ASCII are not told from symbols: all that
// is not a space counts as a letter, as most of it is.
static enum char_class class_at(const char *s, size_t n) {
    unsigned char c = (unsigned char)s[0];
    if (c == ' ' || (c >= '\t' && c <= '\r')) return C_SPACE;
    if (c >= '0' && c <= '9') return C_DIGIT;
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return C_LETTER;
    if (c < 0x80) return C_OTHER;
    size_t i = 0;
    uint32_t wide = kv_utf8_next(s, n, &i);
    // General punctuation, Latin-1 signs; no-break and wide spaces.
    if (wide == 0xA0 || wide == 0x3000 || (wide >= 0x2000 && wide <= 0x200A)) return C_SPACE;
    if ((wide >= 0xA1 && wide <= 0xBF) || (wide >= 0x2010 && wide <= 0x206F)) return C_OTHER;
    return C_LETTER;
}

// A word starts with a space and a letter; what has letters and no space continues one (also at the
// very start of a text, where an id does not tell). "'s" and its like continue a word.
static enum kv_token_kind kind_of(const char *s, size_t n) {
    size_t i = 0;
    while (i < n && class_at(s + i, n - i) == C_SPACE) kv_utf8_next(s, n, &i);
    if (i >= n) return KV_SPACE;
    bool spaced = i > 0;
    switch (class_at(s + i, n - i)) {
    case C_DIGIT:
        return KV_DIGIT;
    case C_LETTER:
        return spaced ? KV_WORD_START : KV_WORD_REST;
    default:
        break;
    }
    if (s[i] == '\'' && i + 1 < n && class_at(s + i + 1, n - i - 1) == C_LETTER)
        return KV_WORD_REST;
    return KV_PUNCTUATION;
}

// ---- building -------------------------------------------------------------------------

// A hash table from a piece's text to its id, needed only while merges are read.
struct pieces {
    const char *const *text;
    uint32_t *slots;
    uint64_t mask;
};

static uint64_t table_size(size_t n) {
    uint64_t size = 16;
    while (size < 2 * (uint64_t)n + 2) size *= 2;
    return size;
}

static uint32_t *piece_slot(const struct pieces *p, const char *s, size_t n) {
    uint64_t i = kv_hash(s, n, 0) & p->mask;
    for (; p->slots[i] != NONE; i = (i + 1) & p->mask) {
        const char *other = p->text[p->slots[i]];
        if (strncmp(other, s, n) == 0 && other[n] == 0) break;
    }
    return &p->slots[i];
}

static uint32_t *empty_table(size_t n, uint64_t *mask) {
    uint64_t size = table_size(n);
    uint32_t *table = kv_grow(NULL, size, sizeof *table);
    memset(table, 0xFF, size * sizeof *table);
    *mask = size - 1;
    return table;
}

static uint64_t mix(uint32_t left, uint32_t right) {
    uint64_t z = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return z ^ z >> 29;
}

// The rank of a pair, or the empty slot where it would go.
static uint32_t *rank_slot(const struct kv_tokenizer *t, uint32_t left, uint32_t right) {
    uint64_t i = mix(left, right) & t->mask;
    for (; t->ranks[i] != NONE; i = (i + 1) & t->mask) {
        const struct merge *m = &t->merges[t->ranks[i]];
        if (m->left == left && m->right == right) break;
    }
    return &t->ranks[i];
}

static int read_merge(struct kv_tokenizer *t, const struct pieces *p, const char *text, size_t rank,
                      struct kv_error *e) {
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
    struct merge m = {*piece_slot(p, text, n_left), *piece_slot(p, space + 1, n_right),
                      *piece_slot(p, joined, n - 1)};
    free(joined);
    if (m.left == NONE || m.right == NONE || m.result == NONE)
        return kv_fail(e, KV_EFAIL, "tokenizer",
                       "merge %zu, \"%.60s\", names a piece that is not in the vocabulary", rank,
                       text);
    t->merges[rank] = m;
    uint32_t *slot = rank_slot(t, m.left, m.right);
    if (*slot == NONE) *slot = (uint32_t)rank;
    return KV_OK;
}

// Decodes every piece into its bytes; characters that spell no byte stand for themselves (in the
// names of special tokens).
static void decode_pieces(struct kv_tokenizer *t, const char *const *pieces) {
    int byte_of[N_SPELLINGS];
    unspell_bytes(byte_of);
    size_t total = 0;
    for (size_t id = 0; id < t->n_pieces; id++) total += strlen(pieces[id]);
    t->bytes = kv_grow(NULL, total + 1, 1);
    size_t at = 0;
    for (size_t id = 0; id < t->n_pieces; id++) {
        const char *s = pieces[id];
        size_t n = strlen(s);
        t->first[id] = at;
        for (size_t i = 0; i < n;) {
            size_t begin = i;
            uint32_t c = kv_utf8_next(s, n, &i);
            if (c < N_SPELLINGS && byte_of[c] >= 0) {
                t->bytes[at++] = (char)byte_of[c];
                continue;
            }
            if (c == KV_UTF8_BAD) i++;
            memcpy(t->bytes + at, s + begin, i - begin);
            at += i - begin;
        }
        t->kinds[id] = (uint8_t)kind_of(t->bytes + t->first[id], at - t->first[id]);
    }
    t->first[t->n_pieces] = at;
}

// SmolLM's vocabulary lacks some control characters and bytes that no UTF-8 text holds.
static int find_byte_tokens(struct kv_tokenizer *t, const struct pieces *p, struct kv_error *e) {
    uint32_t spelling[256];
    bool any = false;
    spell_bytes(spelling);
    for (int b = 0; b < 256; b++) {
        char text[4];
        t->of_byte[b] = *piece_slot(p, text, kv_utf8_put(spelling[b], text));
        any |= t->of_byte[b] != NONE;
    }
    return any ? KV_OK
               : kv_fail(e, KV_EFAIL, "tokenizer", "no piece of the vocabulary is a single byte");
}

static int compile(pcre2_code **code, const char *pattern, struct kv_error *e) {
    int error;
    size_t at;
    *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error,
                          &at, NULL);
    if (!*code)
        return kv_fail(e, KV_EFAIL, "tokenizer", "this PCRE2 does not know the pattern (byte %zu)",
                       at);
    // Where there is no JIT, matching is slower and else the same.
    (void)!pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE);
    return KV_OK;
}

int kv_tokenizer_new(struct kv_tokenizer **out, const char *const *pieces, size_t n_pieces,
                     const char *const *merges, size_t n_merges, bool split_digits,
                     struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    if (n_pieces >= NONE || n_merges >= NONE)
        return kv_fail(e, KV_EFAIL, "tokenizer", "the vocabulary has %zu pieces, too many",
                       n_pieces);
    struct kv_tokenizer *t = kv_alloc(1, sizeof *t);
    t->n_pieces = n_pieces;
    t->n_merges = n_merges;
    t->split_digits = split_digits;
    t->first = kv_alloc(n_pieces + 1, sizeof *t->first);
    t->kinds = kv_alloc(n_pieces + 1, sizeof *t->kinds);
    t->merges = kv_alloc(n_merges + 1, sizeof *t->merges);
    t->ranks = empty_table(n_merges, &t->mask);
    decode_pieces(t, pieces);

    struct pieces p = {.text = pieces};
    p.slots = empty_table(n_pieces, &p.mask);
    t->digest = split_digits;
    for (size_t i = 0; i < n_pieces; i++) {
        size_t n = strlen(pieces[i]);
        t->digest = kv_hash(pieces[i], n, t->digest);
        uint32_t *slot = piece_slot(&p, pieces[i], n);
        if (n > 0 && *slot == NONE) *slot = (uint32_t)i;
    }
    int rc = find_byte_tokens(t, &p, e);
    for (size_t i = 0; i < n_merges && !rc; i++) {
        t->digest = kv_hash(merges[i], strlen(merges[i]), t->digest);
        rc = read_merge(t, &p, merges[i], i, e);
    }
    free(p.slots);
    if (!rc) rc = compile(&t->pattern, PATTERN, e);
    if (!rc) rc = compile(&t->digit, "\\p{N}", e);
    if (rc) {
        kv_tokenizer_free(t);
        return rc;
    }
    *out = t;
    return KV_OK;
}

static int longest_first(const void *a, const void *b) {
    const struct kv_added_token *x = a, *y = b;
    size_t n = strlen(x->text), k = strlen(y->text);
    return n != k ? (n < k) - (n > k) : (x->id > y->id) - (x->id < y->id);
}

int kv_tokenizer_add(struct kv_tokenizer *t, const struct kv_added_token *added, size_t n,
                     struct kv_error *e) {
    KV_GUARD(e);
    for (size_t i = 0; i < n; i++)
        if (!added[i].text || !*added[i].text || added[i].id >= t->n_pieces)
            return kv_fail(e, KV_EFAIL, "tokenizer", "added token %zu has no text or no piece", i);
    t->added = kv_alloc(n + 1, sizeof *t->added);
    for (; t->n_added < n; t->n_added++) {
        t->added[t->n_added] = added[t->n_added];
        t->added[t->n_added].text = kv_strdup(added[t->n_added].text);
        t->begins_added[(unsigned char)added[t->n_added].text[0]] = true;
    }
    qsort(t->added, n, sizeof *t->added, longest_first);
    return KV_OK;
}

void kv_tokenizer_free(struct kv_tokenizer *t) {
    if (!t) return;
    pcre2_code_free(t->pattern);
    pcre2_code_free(t->digit);
    free(t->bytes);
    free(t->first);
    free(t->kinds);
    free(t->merges);
    free(t->ranks);
    for (size_t i = 0; i < t->n_added; i++) free((char *)(uintptr_t)t->added[i].text);
    free(t->added);
    free(t);
}

// ---- encoding -------------------------------------------------------------------------

// A token of the piece being merged, in a list by position.
struct node {
    uint32_t id; // NONE once merged into its left neighbour
    uint32_t prev, next;
};

// One call's memory: the ids found, the piece's nodes, and a heap of pairs to merge, as
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

static void push_pair(struct work *w, uint32_t left) {
    uint32_t right = left == NONE ? NONE : w->nodes[left].next;
    if (right == NONE) return;
    uint32_t rank = *rank_slot(w->t, w->nodes[left].id, w->nodes[right].id);
    if (rank != NONE) heap_push(w, (uint64_t)rank << 32 | left);
}

static void merge_nodes(struct work *w) {
    while (w->n_heap > 0) {
        uint64_t top = heap_pop(w);
        const struct merge *m = &w->t->merges[top >> 32];
        uint32_t at = (uint32_t)top;
        struct node *left = &w->nodes[at];
        // A neighbour may have been merged away since the pair was pushed.
        if (left->id != m->left || left->next == NONE || w->nodes[left->next].id != m->right)
            continue;
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

// Appends the tokens of one piece of the pattern.
static void encode_piece(struct work *w, const char *s, size_t n) {
    append_ids(w, n);
    if (n > w->room_nodes) {
        w->room_nodes = 2 * n;
        w->nodes = kv_grow(w->nodes, w->room_nodes, sizeof *w->nodes);
        // Each merge takes one pair away and adds at most two, and there are at most n - 1 of each.
        w->heap = kv_grow(w->heap, 3 * w->room_nodes, sizeof *w->heap);
    }
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = w->t->of_byte[(unsigned char)s[i]];
        if (id == NONE) continue; // left out, and its neighbours become adjacent
        w->nodes[count] = (struct node){id, count - 1, count + 1}; // before the first: NONE
        count++;
    }
    if (count == 0) return;
    w->nodes[count - 1].next = NONE;
    w->n_heap = 0;
    for (uint32_t i = 0; i + 1 < count; i++) push_pair(w, i);
    merge_nodes(w);
    for (uint32_t i = 0; i != NONE; i = w->nodes[i].next) w->ids[w->n_ids++] = w->nodes[i].id;
}

// Length of the match of a pattern at or after s, and where it begins; false when there is none.
static bool match(const struct work *w, const pcre2_code *code, const char *s, size_t n,
                  size_t *begin, size_t *end) {
    int rc = pcre2_match(code, (PCRE2_SPTR)s, n, 0, PCRE2_NO_UTF_CHECK, w->match, NULL);
    if (rc < 1) return false;
    const size_t *at = pcre2_get_ovector_pointer(w->match);
    *begin = at[0];
    *end = at[1];
    return true;
}

// Every character falls under one alternative of the pattern, so pieces follow without gaps; should
// the matcher give up on one (its limits), the rest is taken as one piece.
static void encode_span(struct work *w, const char *s, size_t n) {
    while (n > 0) {
        size_t begin, end;
        if (!match(w, w->t->pattern, s, n, &begin, &end) || begin > 0) end = n;
        encode_piece(w, s, end);
        s += end;
        n -= end;
    }
}

// Spans between digits, and each digit alone where they are set apart.
static void encode_text(struct work *w, const char *s, size_t n) {
    while (n > 0) {
        size_t begin = n, end = n;
        if (w->t->split_digits && !match(w, w->t->digit, s, n, &begin, &end)) begin = end = n;
        encode_span(w, s, begin);
        if (end > begin) encode_span(w, s + begin, end - begin);
        s += end;
        n -= end;
    }
}

// ---- added tokens ---------------------------------------------------------------------
//
// As AddedVocabulary of https://github.com/huggingface/tokenizers: of those that begin leftmost the
// longest is taken; those that are not normalized are looked for in the text, the others in what
// lies between; the matches of single_word that touch a word are passed over.

static bool is_word(uint32_t c) {
    return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= 0xC0 && c != KV_UTF8_BAD && c != 0xD7 && c != 0xF7 && (c < 0x2000 || c > 0x206F) &&
            c != 0x3000);
}

static bool is_white(uint32_t c) {
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static uint32_t char_before(const char *s, size_t at, size_t *begin) {
    size_t i = at;
    while (i > 0 && ((unsigned char)s[--i] & 0xC0) == 0x80) {
    }
    *begin = i;
    return at ? kv_utf8_next(s, at, &(size_t){i}) : KV_UTF8_BAD;
}

// Where a match at [*begin, *end) ends up: false when it must stand alone and does not.
static bool settle(const struct kv_added_token *a, const char *s, size_t n, size_t least,
                   size_t *begin, size_t *end) {
    size_t before, after = *end;
    uint32_t left = char_before(s, *begin, &before), right = kv_utf8_next(s, n, &after);
    if (a->single_word && (is_word(left) || is_word(right))) return false;
    while (a->lstrip && *begin > least && is_white(char_before(s, *begin, &before)))
        *begin = before;
    for (after = *end; a->rstrip && is_white(kv_utf8_next(s, n, &after));) *end = after;
    return true;
}

// The first added token of the pass at or after `from`; NULL when there is none.
static const struct kv_added_token *next_added(const struct kv_tokenizer *t, bool normalized,
                                               const char *s, size_t n, size_t from, size_t *begin,
                                               size_t *end) {
    for (size_t i = from; i < n; i++) {
        if (!t->begins_added[(unsigned char)s[i]]) continue;
        for (size_t k = 0; k < t->n_added; k++) {
            const struct kv_added_token *a = &t->added[k];
            size_t length = strlen(a->text);
            if (a->normalized != normalized || length > n - i || memcmp(a->text, s + i, length))
                continue;
            *begin = i;
            *end = i + length;
            if (settle(a, s, n, from, begin, end)) return a;
            i += length - 1; // passed over as a whole
            break;
        }
    }
    return NULL;
}

static void add_id(struct work *w, uint32_t id) {
    append_ids(w, 1);
    w->ids[w->n_ids++] = id;
}

static void encode_between(struct work *w, const char *s, size_t n, bool normalized) {
    size_t at = 0, begin, end;
    const struct kv_added_token *a;
    while (at < n && (a = next_added(w->t, normalized, s, n, at, &begin, &end))) {
        if (normalized)
            encode_text(w, s + at, begin - at);
        else
            encode_between(w, s + at, begin - at, true);
        add_id(w, a->id);
        at = end;
    }
    if (normalized)
        encode_text(w, s + at, n - at);
    else
        encode_between(w, s + at, n - at, true);
}

int kv_tokenizer_encode(const struct kv_tokenizer *t, const char *text, size_t n_bytes,
                        uint32_t **ids, size_t *n_ids, struct kv_error *e) {
    KV_GUARD(e);
    size_t valid = kv_utf8_valid(text, n_bytes);
    if (valid < n_bytes)
        return kv_fail(e, KV_EFAIL, "text", "byte %zu (0x%02x) is not UTF-8", valid,
                       (unsigned char)text[valid]);
    if (n_bytes >= NONE)
        return kv_fail(e, KV_EFAIL, "text", "%zu bytes are more than are encoded at once", n_bytes);
    struct work w = {
        .t = t, .match = pcre2_match_data_create(1, NULL), .caller_ids = ids, .ids = *ids};
    if (!w.match) return kv_fail(e, KV_ENOMEM, "tokenizer", "there is no memory for a match");
    encode_between(&w, text, n_bytes, false);
    pcre2_match_data_free(w.match);
    free(w.nodes);
    free(w.heap);
    *n_ids = w.n_ids;
    return KV_OK;
}

const char *kv_tokenizer_bytes(const struct kv_tokenizer *t, uint32_t id, size_t *n_bytes) {
    if (id >= t->n_pieces) {
        *n_bytes = 0;
        return "";
    }
    *n_bytes = t->first[id + 1] - t->first[id];
    return t->bytes + t->first[id];
}

uint64_t kv_tokenizer_digest(const struct kv_tokenizer *t) {
    return t->digest;
}

enum kv_token_kind kv_tokenizer_kind(const struct kv_tokenizer *t, uint32_t id) {
    return id < t->n_pieces ? (enum kv_token_kind)t->kinds[id] : KV_WORD_REST;
}
