// SPDX-License-Identifier: Apache-2.0
// Prints foreign text without the characters that steer a terminal.
#include "sim/base/print.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/base/utf8.h"

static bool steers(uint32_t c) {
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == KV_UTF8_BAD;
}

char *kv_printable(const char *s, size_t *width) {
    struct kv_text t = {0};
    size_t n = strlen(s);
    *width = 0;
    for (size_t i = 0, from = 0; i < n; from = i, ++*width) {
        uint32_t c = kv_utf8_next(s, n, &i);
        if (c == KV_UTF8_BAD) i++;
        if (steers(c))
            kv_text_add(&t, "?", 1);
        else
            kv_text_add(&t, s + from, i - from);
    }
    return kv_text_take(&t);
}

char *kv_json_quoted(const char *s) {
    static const char from_json[] = "\b\f\n\r\t", to_json[] = "bfnrt";
    struct kv_text t = {0};
    size_t n = strlen(s);
    kv_text_add(&t, "\"", 1);
    for (size_t i = 0, from = 0; i < n; from = i) {
        uint32_t c = kv_utf8_next(s, n, &i);
        if (c == KV_UTF8_BAD) i++;
        const char *brief = c && c < 0x20 ? strchr(from_json, (char)c) : NULL;
        if (brief)
            kv_text_addf(&t, "\\%c", to_json[brief - from_json]);
        else if (steers(c))
            kv_text_addf(&t, "\\u%04x", c == KV_UTF8_BAD ? 0xFFFD : (unsigned)c);
        else
            kv_text_addf(&t, "%s%.*s", c == '"' || c == '\\' ? "\\" : "", (int)(i - from),
                         s + from);
    }
    kv_text_add(&t, "\"", 1);
    return kv_text_take(&t);
}

// Allocates nothing where the text is short, so that "out of memory" can be said.
void kv_vprint_to(FILE *f, const char *format, va_list ap) {
    char few[1024], *text = few;
    va_list again;
    va_copy(again, ap);
    int length = vsnprintf(few, sizeof few, format, ap);
    if (length >= (int)sizeof few && (text = malloc((size_t)length + 1)))
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    if (!text) text = few;
    size_t n = length < 0 ? 0 : strlen(text);
    for (size_t i = 0, from = 0; i < n; from = i) {
        uint32_t c = kv_utf8_next(text, n, &i);
        if (c == KV_UTF8_BAD) i++;
        if (c != '\n' && steers(c))
            fputc('?', f);
        else
            fwrite(text + from, 1, i - from, f);
    }
    if (text != few) free(text);
}

void kv_print_to(FILE *f, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    kv_vprint_to(f, format, ap);
    va_end(ap);
}

void kv_print(const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    kv_vprint_to(stdout, format, ap);
    va_end(ap);
}
