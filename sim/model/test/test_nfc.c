// SPDX-License-Identifier: Apache-2.0
// Normalization form C of every character, alone and among marks, against Python's unicodedata
// (Unicode 14.0.0; 3.11's unicodedata.normalize), by CRC-32.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "sim/base/utf8.h"
#include "sim/model/nfc.h"

static void becomes(const char *text, const char *expected) {
    size_t n;
    char *s = kv_nfc(text, strlen(text), &n);
    assert_int_equal(n, strlen(expected));
    assert_memory_equal(s, expected, n);
    free(s);
}

static void forms_are_those_of_the_standard_s_examples(void **state) {
    (void)state;
    becomes("", "");
    becomes("plain", "plain");
    becomes("A\u030A", "\u00C5");            // composed
    becomes("\u212B", "\u00C5");             // the Angstrom sign is one of two spellings
    becomes("s\u0323\u0307", "\u1E69");      // UAX 15, figure 5
    becomes("s\u0307\u0323", "\u1E69");      // marks in the other order
    becomes("\u1E0B\u0323", "\u1E0D\u0307"); // taken apart and put together otherwise
    becomes("\u1112\u1161\u11AB", "\uD55C"); // Hangul
    becomes("\u0958", "\u0915\u093C");       // excluded from composition
    becomes("\u0301a", "\u0301a");           // a mark without a starter
    becomes("a\u0345\u0301\u0327", "\u00E1\u0327\u0345"); // classes 202, 230, 240
}

// NFC of before + c + after, line by line over all characters but U+0000 and surrogates.
static uLong crc_of_all(const char *before, const char *after) {
    uLong crc = 0;
    for (uint32_t c = 1; c < 0x110000; c++) {
        if (c >= 0xD800 && c < 0xE000) continue;
        char text[64], one[4];
        size_t n_one = kv_utf8_put(c, one), n;
        int n_text = snprintf(text, sizeof text, "%s%.*s%s", before, (int)n_one, one, after);
        char *s = kv_nfc(text, (size_t)n_text, &n);
        // The quick look may say no of a text that is in form C, and never yes of one that is not.
        if (kv_nfc_surely(text, (size_t)n_text)) {
            assert_int_equal(n, n_text);
            assert_memory_equal(s, text, n);
        }
        s[n] = '\n';
        crc = crc32(crc, (const Bytef *)s, (uInt)(n + 1));
        free(s);
    }
    return crc;
}

static void every_character_has_the_form_that_unicodedata_gives(void **state) {
    (void)state;
    assert_int_equal(crc_of_all("", ""), 144344387);
    assert_int_equal(crc_of_all("a\u0301", "\u0327\u0301\u1161\u11A8"), 678851883);
    assert_int_equal(crc_of_all("", "\u0338\u0308\u3099\u09BE"), 3497022931);
}

// 200,000 marks on one letter: sorted, not inserted one by one.
static void a_run_of_many_marks_takes_no_quadratic_time(void **state) {
    (void)state;
    const size_t pairs = 100000;
    char *text = malloc(4 * pairs + 1), *at = text;
    *at++ = 'q';
    for (size_t i = 0; i < pairs; i++, at += 4) memcpy(at, "\u0301\u0327", 4);
    size_t n;
    char *s = kv_nfc(text, 4 * pairs + 1, &n);
    assert_int_equal(n, 4 * pairs + 1);
    for (size_t i = 0; i < pairs; i++) {
        assert_memory_equal(s + 1 + 2 * i, "\u0327", 2);
        assert_memory_equal(s + 1 + 2 * (pairs + i), "\u0301", 2);
    }
    free(s);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_are_those_of_the_standard_s_examples),
        cmocka_unit_test(every_character_has_the_form_that_unicodedata_gives),
        cmocka_unit_test(a_run_of_many_marks_takes_no_quadratic_time),
    };
    return cmocka_run_group_tests_name("nfc", tests, NULL, NULL);
}
