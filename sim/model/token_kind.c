// SPDX-License-Identifier: Apache-2.0
// What kind of text a token's bytes are.
#include "sim/base/utf8.h"
#include "sim/model/tokenizer.h"

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
enum kv_token_kind kv_kind_of_bytes(const char *s, size_t n) {
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
