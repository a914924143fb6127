// SPDX-License-Identifier: Apache-2.0
// Judges that foreign text reaches no terminal with characters that steer it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "sim/base/print.h"

static void issue_13_d6_control_characters_are_replaced(void **state) {
    (void)state;
    char *text = NULL;
    size_t n = 0, width;
    FILE *f = open_memstream(&text, &n);
    kv_print_to(f, "%s: %s\n", "a\033[2Jb\a",
                "\xC2\x9B"
                "1m\r\x7F\xFF \u00e9");
    fclose(f);
    assert_string_equal(text, "a?[2Jb?: ?1m??? \u00e9\n");
    free(text);
    text = kv_printable("x\ny\tz", &width);
    assert_string_equal(text, "x?y?z");
    assert_int_equal(width, 5);
    free(text);
}

static void issue_13_d6_long_lines_are_whole(void **state) {
    (void)state;
    char *text = NULL, *from = malloc(5001);
    size_t n = 0;
    memset(from, 'x', 5000);
    from[5000] = 0;
    from[4000] = '\033';
    FILE *f = open_memstream(&text, &n);
    kv_print_to(f, "%s", from);
    fclose(f);
    from[4000] = '?';
    assert_string_equal(text, from);
    free(text);
    free(from);
}

static void issue_13_d6_json_escapes_what_steers_a_terminal(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "\"\""},
        {"a\"b\\c/", "\"a\\\"b\\\\c/\""},
        {"x\n\t\033[2J", "\"x\\n\\t\\u001b[2J\""},
        {"\x7F\xC2\x80\xC2\x9B"
         "1m\xC2\x9F\xC2\xA0",
         "\"\\u007f\\u0080\\u009b1m\\u009f\xC2\xA0\""},
        {"\xED\xA0\x80|\xFF|\u00e9\U0001F600",
         "\"\\ufffd\\ufffd\\ufffd|\\ufffd|\u00e9\U0001F600\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = kv_json_quoted(cases[i][0]);
        assert_string_equal(text, cases[i][1]);
        free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(issue_13_d6_control_characters_are_replaced),
        cmocka_unit_test(issue_13_d6_long_lines_are_whole),
        cmocka_unit_test(issue_13_d6_json_escapes_what_steers_a_terminal),
    };
    return cmocka_run_group_tests_name("print", tests, NULL, NULL);
}
