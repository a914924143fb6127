// SPDX-License-Identifier: Apache-2.0
// Tables as text: what each output writes, how names are cut and prose wraps.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "reports/table/names.h"
#include "reports/table/table.h"
#include "sim/base/memory.h"
#include "sim/base/utf8.h"

enum { ROOM = 24 };

static void free_all(char **names, size_t n) {
    for (size_t i = 0; i < n; i++) free(names[i]);
}

static void names_that_differ_keep_what_differs(void **state) {
    static const char *const texts[] = {"./mine.so#18f1:cut=4,narrow=4,wide=16@sym",
                                        "./mine.so#18f1:cut=16,narrow=4,wide=16@sym",
                                        "static:bits=4@asym:group=32",
                                        "layerwise:by=head,k~4.61,v~2.97#3fc9@asym:group=32",
                                        "layerwise:by=head,k~3.97,v~2.86#d0df@asym:group=32",
                                        "static:bits=4@sym"};
    enum { N = sizeof texts / sizeof *texts };
    char *names[N];
    (void)state;
    kv_shorten_names(texts, N, ROOM, names);
    assert_string_equal(names[0], "mine.so#18f1:cut=4…");
    assert_string_equal(names[1], "mine.so#18f1:cut=16…");
    assert_string_equal(names[2], "static:bits=4@asym…");
    assert_string_equal(names[3], "layerwise:by=head,k~4.6…");
    assert_string_equal(names[4], "layerwise:by=head,k~3.9…");
    assert_string_equal(names[5], texts[5]);
    free_all(names, N);
}

// Random texts over few parts, so that most share most: however little room there is, none is wider
// and none is named as another is while its difference has room.
static void no_two_names_are_alike_where_their_texts_differ(void **state) {
    enum { N = 40, ROUNDS = 50 };
    static const char *const keys[] = {"alpha", "bits", "cut", "group", "wide"};
    (void)state;
    srand(1);
    for (int round = 0; round < ROUNDS; round++) {
        char *texts[N], *names[N];
        size_t room = 12 + (size_t)(rand() % 30);
        for (size_t i = 0; i < N; i++) {
            struct kv_text t = {0};
            kv_text_addf(&t, rand() % 2 ? "policy" : "folder/é.so");
            for (int k = 0; k < 5; k++)
                if (rand() % 2) kv_text_addf(&t, "%c%s=%d", k ? ',' : ':', keys[k], rand() % 9);
            kv_text_addf(&t, rand() % 2 ? "@sym" : "@asym:group=32");
            texts[i] = kv_text_take(&t);
        }
        kv_shorten_names((const char *const *)texts, N, room, names);
        for (size_t i = 0; i < N; i++) {
            assert_true(kv_utf8_valid(names[i], strlen(names[i])) == strlen(names[i]));
            assert_true(kv_utf8_count(names[i], strlen(names[i])) <= room);
            for (size_t j = 0; j < i; j++)
                if (room >= 30 && strcmp(texts[i], texts[j]) != 0 &&
                    strcmp(names[i], names[j]) == 0)
                    fail_msg("'%s' and '%s' are both '%s' in %zu", texts[i], texts[j], names[i],
                             room);
        }
        free_all(names, N);
        free_all(texts, N);
    }
}

static struct kv_table *made(void) {
    const struct kv_column heads[] = {{"spec", KV_LEFT}, {"d_kl", KV_RIGHT}, {"note", KV_PROSE}};
    struct kv_table *t = kv_table_new(heads, 3);
    kv_table_text(t, "a|b~c, \"d\"");
    kv_table_number(t, -0.25, 2);
    kv_table_text(t, "50 % & more\nof it");
    kv_table_text(t, NULL);
    kv_table_number(t, NAN, 2);
    kv_table_text(t, "\\x\x1b");
    return t;
}

static void each_output_is_written_so_that_its_readers_read_it_back(void **state) {
    static const struct {
        enum kv_output how;
        const char *text;
    } cases[] = {
        {KV_OUT_TEXT, "spec         d_kl  note\na|b~c, \"d\"  -0.25  50 % & more?of it\n"
                      "                   \\x?\n"},
        {KV_OUT_TSV, "spec\td_kl\tnote\na|b~c, \"d\"\t-0.25\t50 % & more\\nof it\n\t\t\\\\x?\n"},
        {KV_OUT_CSV, "spec,d_kl,note\n\"a|b~c, \"\"d\"\"\",-0.25,\"50 % & more\nof it\"\n,,\\x?\n"},
        {KV_OUT_JSON, "[\n {\"spec\": \"a|b~c, \\\"d\\\"\", \"d_kl\": -0.25, \"note\": "
                      "\"50 % & more\\nof it\"},\n {\"spec\": null, \"d_kl\": null, \"note\": "
                      "\"\\\\x\\u001b\"}\n]\n"},
        {KV_OUT_MARKDOWN, "| spec | d\\_kl | note |\n|---|---:|---|\n"
                          "| a\\|b\\~c, \"d\" | -0.25 | 50 % & more?of it |\n|  |  | \\\\x? |\n"},
        {KV_OUT_LATEX,
         "% \\usepackage{booktabs}\n\\begin{tabular}{lrl}\n\\toprule\nspec & d\\_kl & note \\\\\n"
         "\\midrule\na\\textbar{}b\\textasciitilde{}c, \"d\" & $-$0.25 & 50 \\% \\& more?of it "
         "\\\\\n &  & \\textbackslash{}x? \\\\\n\\bottomrule\n\\end{tabular}\n"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_table *t = made();
        char *text = kv_table_written(t, cases[i].how, 0);
        assert_string_equal(text, cases[i].text);
        free(text);
        kv_table_free(t);
    }
}

static void minus_signs_inside_an_interval_are_latex_minus_signs(void **state) {
    const struct kv_column heads[] = {{"to 16 bit [95 %]  ", KV_RIGHT}};
    struct kv_table *t = kv_table_new(heads, 1);
    (void)state;
    kv_table_text(t, "-0.125 [-0.471 +0.240]");
    char *text = kv_table_written(t, KV_OUT_LATEX, 0);
    assert_non_null(strstr(text, "\nto 16 bit [95 \\%] \\\\\n"));
    assert_non_null(strstr(text, "\n$-$0.125 [$-$0.471 +0.240] \\\\\n"));
    free(text);
    kv_table_free(t);
}

static void prose_wraps_between_words_and_numbers_are_never_cut(void **state) {
    const struct kv_column heads[] = {{"name", KV_LEFT}, {"summary", KV_PROSE}, {"n", KV_RIGHT}};
    struct kv_table *t = kv_table_new(heads, 3);
    (void)state;
    kv_table_text(t, "sym");
    kv_table_text(t, "a symmetric grid of widths about zero, one scale");
    kv_table_count(t, 123456);
    char *text = kv_table_written(t, KV_OUT_TEXT, 50);
    assert_string_equal(text, "name  summary                                    n\n"
                              "sym   a symmetric grid of widths about      123456\n"
                              "      zero, one scale\n");
    free(text);
    kv_table_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_that_differ_keep_what_differs),
        cmocka_unit_test(no_two_names_are_alike_where_their_texts_differ),
        cmocka_unit_test(each_output_is_written_so_that_its_readers_read_it_back),
        cmocka_unit_test(minus_signs_inside_an_interval_are_latex_minus_signs),
        cmocka_unit_test(prose_wraps_between_words_and_numbers_are_never_cut)};
    return cmocka_run_group_tests_name("tables", tests, NULL, NULL);
}
