// SPDX-License-Identifier: Apache-2.0
// Text as lm-evaluation-harness's Python handles it: white space, capitals, HellaSwag's
// preprocess().
#include "traces/harness_text.h"

#include <stdlib.h>

#include "sim/base/utf8.h"

// What str.strip() takes off: str.isspace() of a character.
static bool is_python_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

// Ranges of capital letters: every `step`-th is one, and its small letter is `to_small` further.
struct capitals {
    uint32_t first, last;
    int step, to_small;
};

static const struct capitals capitals[] = {
    {'A', 'Z', 1, 32},     {0xC0, 0xD6, 1, 32},   {0xD8, 0xDE, 1, 32},    {0x100, 0x12F, 2, 1},
    {0x132, 0x137, 2, 1},  {0x139, 0x148, 2, 1},  {0x14A, 0x177, 2, 1},   {0x178, 0x178, 1, -121},
    {0x179, 0x17E, 2, 1},  {0x386, 0x386, 1, 38}, {0x388, 0x38A, 1, 37},  {0x38C, 0x38C, 1, 64},
    {0x38E, 0x38F, 1, 63}, {0x391, 0x3A1, 1, 32}, {0x3A3, 0x3AB, 1, 32},  {0x400, 0x40F, 1, 80},
    {0x410, 0x42F, 1, 32}, {0x460, 0x481, 2, 1},  {0x48A, 0x4BF, 2, 1},   {0x4C0, 0x4C0, 1, 15},
    {0x4C1, 0x4CE, 2, 1},  {0x4D0, 0x52F, 2, 1},  {0x1E00, 0x1E95, 2, 1}, {0x1EA0, 0x1EFF, 2, 1},
};

static uint32_t change_case(uint32_t c, bool to_capital) {
    for (size_t i = 0; i < sizeof capitals / sizeof *capitals; i++) {
        const struct capitals *r = &capitals[i];
        uint32_t capital = to_capital ? c - (uint32_t)r->to_small : c;
        if (capital < r->first || capital > r->last || (capital - r->first) % (uint32_t)r->step)
            continue;
        return to_capital ? capital : c + (uint32_t)r->to_small;
    }
    return c;
}

// str.capitalize(): the first character becomes a capital, the others small.
void kv_add_capitalized(struct kv_text *out, const char *s) {
    size_t n = strlen(s);
    for (size_t i = 0; i < n;) {
        char c[4];
        bool first = i == 0;
        kv_text_add(out, c, kv_utf8_put(change_case(kv_utf8_next(s, n, &i), first), c));
    }
}

// The harness's preprocess(): strip, " [title]" becomes ". ", "[...]" goes (on one line, as short
// as possible), then each double space becomes one, in one pass.
char *kv_harness_text(const char *s) {
    size_t begin = 0, end = strlen(s), n = end, i = 0;
    while (begin < n && is_python_space(kv_utf8_next(s, n, &i))) begin = i;
    for (size_t k = begin; k < n;) {
        if (!is_python_space(kv_utf8_next(s, n, &k))) end = k;
    }
    struct kv_text titled = {0}, bare = {0}, out = {0};
    static const char title[] = " [title]";
    const size_t n_title = sizeof title - 1;
    for (i = begin; i < end;) {
        bool is_title = end - i >= n_title && memcmp(s + i, title, n_title) == 0;
        kv_text_add(&titled, is_title ? ". " : s + i, is_title ? 2 : 1);
        i += is_title ? n_title : 1;
    }
    char *text = kv_text_take(&titled);
    for (const char *p = text; *p;) {
        const char *close = *p == '[' ? p + strcspn(p, "]\n") : p;
        if (*close == ']' && *p == '[') {
            p = close + 1;
            continue;
        }
        kv_text_add(&bare, p++, 1);
    }
    free(text);
    text = kv_text_take(&bare);
    for (const char *p = text; *p; p++) {
        kv_text_add(&out, p, 1);
        if (p[0] == ' ' && p[1] == ' ') p++;
    }
    free(text);
    return kv_text_take(&out);
}

bool kv_is_blank(const char *s) {
    size_t n = strlen(s), i = 0;
    while (i < n)
        if (!is_python_space(kv_utf8_next(s, n, &i))) return false;
    return true;
}
