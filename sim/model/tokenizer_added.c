// SPDX-License-Identifier: Apache-2.0
// Added tokens: texts that are one id wherever they stand.
//
// As AddedVocabulary of https://github.com/huggingface/tokenizers: of those that begin leftmost the
// longest is taken; those that are not normalized are looked for in the text, the others in what
// lies between; the matches of single_word that touch a word are passed over.
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/utf8.h"
#include "sim/model/tokenizer.h"

static unsigned char first_byte(const struct kv_added_token *a) {
    return (unsigned char)a->text[0];
}

static int longest_first(const void *a, const void *b) {
    const struct kv_added_token *x = a, *y = b;
    size_t n = strlen(x->text), k = strlen(y->text);
    if (first_byte(x) != first_byte(y)) return first_byte(x) - first_byte(y);
    return n != k ? (n < k) - (n > k) : (x->id > y->id) - (x->id < y->id);
}

// A copy of the text that is looked for: among characters, what is looked for in normalized text
// has spaces for SentencePiece's sign of one.
static char *text_of(const struct kv_tokenizer *t, const struct kv_added_token *added) {
    size_t n = strlen(added->text);
    if (!t->characters || !added->normalized) return kv_strdup(added->text);
    char *text = kv_grow(NULL, n + 1, 1);
    text[kv_put_spaces(text, added->text, n)] = 0;
    return text;
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
        t->added[t->n_added].text = text_of(t, &added[t->n_added]);
    }
    qsort(t->added, n, sizeof *t->added, longest_first);
    for (size_t b = 0, i = 0; b < 256; b++) {
        t->first_added[b] = (uint32_t)i;
        while (i < n && first_byte(&t->added[i]) == b) i++;
        t->first_added[b + 1] = (uint32_t)i;
    }
    return KV_OK;
}

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

const struct kv_added_token *kv_added_next(const struct kv_tokenizer *t, bool normalized,
                                           const char *s, size_t n, size_t from, size_t *begin,
                                           size_t *end) {
    for (size_t i = from; i < n; i++) {
        const uint32_t *range = &t->first_added[(unsigned char)s[i]];
        for (size_t k = range[0]; k < range[1]; k++) {
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
