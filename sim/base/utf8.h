// SPDX-License-Identifier: Apache-2.0
// UTF-8 read character by character: validity, counts and boundaries, for texts that come from
// files.
#ifndef KV_BASE_UTF8_H
#define KV_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define KV_UTF8_BAD 0xFFFFFFFFu

// The character at s[*i] of a text of n bytes; moves *i past it. KV_UTF8_BAD where no well-formed
// character begins (overlong forms, surrogates and values past U+10FFFF included); *i then stays.
static inline uint32_t kv_utf8_next(const char *s, size_t n, size_t *i) {
    static const uint32_t least[4] = {0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)s + *i;
    size_t left = n - *i;
    if (left == 0) return KV_UTF8_BAD;
    if (p[0] < 0x80) return ++*i, p[0];
    size_t more = p[0] >= 0xF0 ? 3 : p[0] >= 0xE0 ? 2 : 1;
    if (p[0] < 0xC2 || p[0] > 0xF4 || left <= more) return KV_UTF8_BAD;
    uint32_t c = p[0] & (0x3Fu >> more);
    for (size_t k = 1; k <= more; k++) {
        if ((p[k] & 0xC0) != 0x80) return KV_UTF8_BAD;
        c = c << 6 | (p[k] & 0x3Fu);
    }
    if (c < least[more] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return KV_UTF8_BAD;
    *i += more + 1;
    return c;
}

// Writes a character; returns its bytes (1 to 4). `out` has room for 4.
static inline size_t kv_utf8_put(uint32_t c, char out[4]) {
    size_t more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[4] = {0, 0xC0, 0xE0, 0xF0};
    for (size_t k = more; k > 0; k--, c >>= 6) out[k] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(lead[more] | c);
    return more + 1;
}

// Bytes of the longest well-formed beginning: n when the whole text is UTF-8, else the first bad
// byte.
static inline size_t kv_utf8_valid(const char *s, size_t n) {
    size_t i = 0;
    while (i < n && kv_utf8_next(s, n, &i) != KV_UTF8_BAD) {
    }
    return i;
}

// Characters of a well-formed text.
static inline size_t kv_utf8_count(const char *s, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

#endif
