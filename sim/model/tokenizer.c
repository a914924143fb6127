// SPDX-License-Identifier: Apache-2.0
// Builds a tokenizer: what bytes its tokens stand for, and which token a byte is.
#include "sim/model/tokenizer.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/utf8.h"

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

// SentencePiece's "<0x0A>": the byte, or -1.
static int byte_of_name(const char *s, size_t n) {
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>') return -1;
    int byte = 0;
    for (int i = 3; i < 5; i++) {
        const char *digits = "0123456789ABCDEF", *at = s[i] ? strchr(digits, s[i]) : NULL;
        if (!at) return -1;
        byte = 16 * byte + (int)(at - digits);
    }
    return byte;
}

#define SPACE_SIGN 0x2581 // SentencePiece's mark of a space

// The byte that a piece of characters stands for; -1 where it is a text.
static int byte_of_piece(const struct kv_tokenizer_parts *parts, size_t id) {
    if (parts->types && parts->types[id] != KV_PIECE_BYTE) return -1;
    return byte_of_name(parts->pieces[id], strlen(parts->pieces[id]));
}

// Appends the bytes of token id at t->bytes + at; characters that spell no byte stand for
// themselves (in the names of special tokens). Returns the byte where the piece is not UTF-8, or
// its length.
static size_t decode_piece(struct kv_tokenizer *t, const struct kv_tokenizer_parts *parts,
                           size_t id, const int *byte_of, size_t *at) {
    const char *s = parts->pieces[id];
    size_t n = strlen(s), i = 0;
    int byte = parts->characters ? byte_of_piece(parts, id) : -1;
    if (byte >= 0) {
        t->bytes[(*at)++] = (char)byte;
        return n;
    }
    while (i < n) {
        size_t begin = i;
        uint32_t c = kv_utf8_next(s, n, &i);
        if (c == KV_UTF8_BAD) return i;
        if (parts->characters ? c == SPACE_SIGN : c < N_SPELLINGS && byte_of[c] >= 0) {
            t->bytes[(*at)++] = parts->characters ? ' ' : (char)byte_of[c];
            continue;
        }
        memcpy(t->bytes + *at, s + begin, i - begin);
        *at += i - begin;
    }
    return n;
}

static int decode_pieces(struct kv_tokenizer *t, const struct kv_tokenizer_parts *parts,
                         struct kv_error *e) {
    int byte_of[N_SPELLINGS];
    unspell_bytes(byte_of);
    size_t total = 0, at = 0;
    for (size_t id = 0; id < t->n_pieces; id++) total += strlen(parts->pieces[id]);
    t->bytes = kv_grow(NULL, total + 1, 1);
    for (size_t id = 0; id < t->n_pieces; id++) {
        size_t begin = at, n = strlen(parts->pieces[id]),
               good = decode_piece(t, parts, id, byte_of, &at);
        if (good < n)
            return kv_fail(e, KV_EFAIL, "tokenizer", "piece %zu is not UTF-8 at its byte %zu", id,
                           good);
        t->text[id] = (struct kv_piece_text){t->bytes + begin, at - begin};
        t->kinds[id] = (uint8_t)kv_kind_of_bytes(t->bytes + begin, at - begin);
        t->digest = kv_hash(parts->pieces[id], n, t->digest);
    }
    return KV_OK;
}

// ---- from bytes to tokens -------------------------------------------------------------

// What a text may hold is found by its bytes: all but the tokens of single bytes, which stand for
// what is no character, and those that no text yields.
static void enter_pieces(struct kv_tokenizer *t, const struct kv_tokenizer_parts *parts) {
    if (!parts->characters && !parts->ignore_merges) return;
    kv_piece_table_init(&t->table, t->text, t->n_pieces);
    for (size_t id = 0; id < t->n_pieces; id++) {
        int32_t type = parts->types ? parts->types[id] : KV_PIECE_NORMAL;
        bool found = type == KV_PIECE_NORMAL || type == KV_PIECE_UNUSED ||
                     (type == KV_PIECE_USER_DEFINED && parts->characters);
        if (found && !(parts->characters && byte_of_piece(parts, id) >= 0))
            kv_piece_table_add(&t->table, (uint32_t)id);
    }
}

// With characters each byte needs its token: what is no piece becomes bytes.
static int find_byte_pieces(struct kv_tokenizer *t, const struct kv_tokenizer_parts *parts,
                            struct kv_error *e) {
    for (size_t id = 0; id < t->n_pieces; id++) {
        int byte = byte_of_piece(parts, id);
        if (byte >= 0 && t->of_byte[byte] == KV_NO_TOKEN) t->of_byte[byte] = (uint32_t)id;
    }
    for (int b = 0; b < 256; b++)
        if (t->of_byte[b] == KV_NO_TOKEN)
            return kv_fail(e, KV_EFAIL, "tokenizer", "no piece stands for the byte <0x%02X>", b);
    for (int b = 0; b < 128; b++) {
        uint32_t id = kv_piece_find(&t->table, &(char){(char)b}, 1);
        if (id != KV_NO_TOKEN) t->of_byte[b] = id;
    }
    return KV_OK;
}

// SmolLM's vocabulary lacks some control characters and bytes that no UTF-8 text holds.
static int find_spelled_bytes(struct kv_tokenizer *t, const struct kv_tokenizer_parts *parts,
                              struct kv_error *e) {
    int byte_of[N_SPELLINGS];
    bool any = false;
    unspell_bytes(byte_of);
    for (size_t id = 0; id < t->n_pieces; id++) {
        const char *s = parts->pieces[id];
        size_t n = strlen(s), i = 0;
        uint32_t c = kv_utf8_next(s, n, &i);
        if (n == 0 || i != n || c >= N_SPELLINGS || byte_of[c] < 0) continue;
        if (t->of_byte[byte_of[c]] == KV_NO_TOKEN) t->of_byte[byte_of[c]] = (uint32_t)id;
        any = true;
    }
    return any ? KV_OK
               : kv_fail(e, KV_EFAIL, "tokenizer", "no piece of the vocabulary is a single byte");
}

// ---- the tokenizer --------------------------------------------------------------------

static int compile_steps(struct kv_tokenizer *t, const struct kv_tokenizer_parts *parts,
                         struct kv_error *e) {
    int rc = KV_OK;
    for (; t->n_steps < KV_MAX_STEPS && parts->steps[t->n_steps] && !rc; t->n_steps++)
        rc = kv_step_compile(&t->steps[t->n_steps], parts->steps[t->n_steps], e);
    return rc;
}

// What else than pieces and merges tells two tokenizers apart. GPT-2's pattern counts as 0, digits
// set apart before it as 1: traces were recorded under those digests.
static uint64_t digest_of_rules(const struct kv_tokenizer_parts *p) {
    const char *const *steps = p->steps;
    bool digit = steps[0] && strcmp(steps[0], kv_step_digit) == 0;
    const char *last = steps[digit];
    const uint8_t flags[] = {p->characters, (uint8_t)p->space_prefix, p->nfc, p->ignore_merges};
    if (last && strcmp(last, kv_step_gpt2) == 0 && !steps[digit + 1] && !p->characters && !p->nfc &&
        !p->ignore_merges)
        return digit;
    uint64_t digest = kv_hash(flags, sizeof flags, 2);
    for (size_t i = 0; i < KV_MAX_STEPS && steps[i]; i++)
        digest = kv_hash(steps[i], strlen(steps[i]), digest);
    return digest;
}

int kv_tokenizer_make(struct kv_tokenizer **out, const struct kv_tokenizer_parts *parts,
                      struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    if (parts->n_pieces >= KV_NO_TOKEN || parts->n_merges >= KV_NO_TOKEN)
        return kv_fail(e, KV_EFAIL, "tokenizer", "the vocabulary has %zu pieces, too many",
                       parts->n_pieces);
    struct kv_tokenizer *t = kv_alloc(1, sizeof *t);
    *t = (struct kv_tokenizer){.n_pieces = parts->n_pieces,
                               .characters = parts->characters,
                               .space_prefix = parts->space_prefix,
                               .nfc = parts->nfc,
                               .ignore_merges = parts->ignore_merges,
                               .digest = digest_of_rules(parts)};
    memset(t->of_byte, 0xFF, sizeof t->of_byte);
    t->text = kv_alloc(t->n_pieces + 1, sizeof *t->text);
    t->kinds = kv_alloc(t->n_pieces + 1, sizeof *t->kinds);
    int rc = decode_pieces(t, parts, e);
    if (!rc) enter_pieces(t, parts);
    if (!rc)
        rc = parts->characters ? find_byte_pieces(t, parts, e) : find_spelled_bytes(t, parts, e);
    if (!rc) rc = kv_tokenizer_merges(t, parts, e);
    if (!rc) rc = compile_steps(t, parts, e);
    if (rc)
        kv_tokenizer_free(t);
    else
        *out = t;
    return rc;
}

int kv_tokenizer_new(struct kv_tokenizer **out, const char *const *pieces, size_t n_pieces,
                     const char *const *merges, size_t n_merges, bool split_digits,
                     struct kv_error *e) {
    struct kv_tokenizer_parts parts = {
        .pieces = pieces, .n_pieces = n_pieces, .merges = merges, .n_merges = n_merges};
    parts.steps[0] = kv_step_digit;
    parts.steps[split_digits] = kv_step_gpt2;
    return kv_tokenizer_make(out, &parts, e);
}

void kv_tokenizer_free(struct kv_tokenizer *t) {
    if (!t) return;
    for (size_t i = 0; i < KV_MAX_STEPS; i++) pcre2_code_free(t->steps[i]);
    free(t->bytes);
    free(t->text);
    free(t->kinds);
    free(t->table.slots);
    free(t->merges);
    free(t->pairs);
    for (size_t i = 0; i < t->n_added; i++) free((char *)(uintptr_t)t->added[i].text);
    free(t->added);
    free(t);
}

const char *kv_tokenizer_bytes(const struct kv_tokenizer *t, uint32_t id, size_t *n_bytes) {
    *n_bytes = id < t->n_pieces ? t->text[id].n : 0;
    return id < t->n_pieces ? t->text[id].s : "";
}

uint64_t kv_tokenizer_digest(const struct kv_tokenizer *t) {
    return t->digest;
}

enum kv_token_kind kv_tokenizer_kind(const struct kv_tokenizer *t, uint32_t id) {
    return id < t->n_pieces ? (enum kv_token_kind)t->kinds[id] : KV_WORD_REST;
}
