// SPDX-License-Identifier: Apache-2.0
// How much room a text takes in DejaVu Sans, the font that figures ask for.
#include "reports/draw/font.h"
#include "sim/base/memory.h"
#include "sim/base/utf8.h"

#include <stdlib.h>

// Advance widths of DejaVu Sans 2.37 (table hmtx), in parts of 2048 of the font's size: U+0020 to
// U+007E, and U+00A0 to U+00FF. Anything else is taken to be as wide as the font is high.
static const uint16_t ascii_widths[] = {
    651,  821,  942,  1716, 1303, 1946, 1597, 563,  799,  799,  1024, 1716, 651,  739,  651,  690,
    1303, 1303, 1303, 1303, 1303, 1303, 1303, 1303, 1303, 1303, 690,  690,  1716, 1716, 1716, 1087,
    2048, 1401, 1405, 1430, 1577, 1294, 1178, 1587, 1540, 604,  604,  1343, 1141, 1767, 1532, 1612,
    1235, 1612, 1423, 1300, 1251, 1499, 1401, 2025, 1403, 1251, 1403, 799,  690,  799,  1716, 1024,
    1024, 1255, 1300, 1126, 1300, 1260, 721,  1300, 1298, 569,  569,  1186, 569,  1995, 1298, 1253,
    1300, 1300, 842,  1067, 803,  1298, 1212, 1675, 1212, 1212, 1075, 1303, 690,  1303, 1716};
static const uint16_t latin_widths[] = {
    651,  821,  1303, 1303, 1303, 1303, 690,  1024, 1024, 2048, 965,  1253, 1716, 739,  2048, 1024,
    1024, 1716, 821,  821,  1024, 1303, 1303, 651,  1024, 821,  965,  1253, 1985, 1985, 1985, 1087,
    1401, 1401, 1401, 1401, 1401, 1401, 1995, 1430, 1294, 1294, 1294, 1294, 604,  604,  604,  604,
    1587, 1532, 1612, 1612, 1612, 1612, 1612, 1716, 1612, 1499, 1499, 1499, 1499, 1251, 1239, 1290,
    1255, 1255, 1255, 1255, 1255, 1255, 2011, 1126, 1260, 1260, 1260, 1260, 569,  569,  569,  569,
    1253, 1298, 1253, 1253, 1253, 1253, 1253, 1716, 1253, 1298, 1298, 1298, 1298, 1212, 1300, 1212};
enum { EM = 2048, ASCII = 0x20, LATIN = 0xA0 };

static double advance(uint32_t c) {
    if (c >= ASCII && c - ASCII < sizeof ascii_widths / sizeof *ascii_widths)
        return ascii_widths[c - ASCII];
    if (c >= LATIN && c - LATIN < sizeof latin_widths / sizeof *latin_widths)
        return latin_widths[c - LATIN];
    return EM;
}

double kv_text_width(const char *s, double size) {
    double width = 0;
    for (size_t i = 0, n = strlen(s); i < n;) {
        size_t from = i;
        width += advance(kv_utf8_next(s, n, &i));
        if (i == from) i++; // no character
    }
    return width * size / EM;
}

char *kv_text_fit(const char *s, double size, double room) {
    size_t n = strlen(s);
    char *fit = kv_strdup(s);
    while (n > 0 && kv_text_width(fit, size) > room) {
        for (n--; n > 0 && ((unsigned char)s[n] & 0xC0) == 0x80;) n--;
        free(fit);
        fit = kv_format_text("%.*s\u2026", (int)n, s);
    }
    return fit;
}
