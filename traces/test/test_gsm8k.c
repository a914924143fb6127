// SPDX-License-Identifier: Apache-2.0
// GSM8K: filters and exact match against what Python's `re` makes of the harness's patterns, draws
// against Python's `random`; with KVSIM_DATA set also the official files.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "traces/gsm8k.h"
#include "traces/python_random.h"

#define NONE KV_GSM8K_NONE

// A text, what the strict and the flexible filter find in it, and both as they are compared.
static const char *const cases[][5] = {
    {"The answer is 42.", NONE, "42.", NONE, "42"},
    {"#### 1,234.", "1,234.", "1,234.", "1234", "1234"},
    {"so #### -5 and #### 6", "-5", "6", "-5", "6"},
    {"costs $1,000.50 in all", NONE, "$1,000.50", NONE, "1000.50"},
    {"x = 7", NONE, "7", NONE, "7"},
    {"a-3", NONE, "-3", NONE, "-3"},
    {"10%", NONE, "10", NONE, "10"},
    {"...", NONE, "...", NONE, ".."},
    {"no number", NONE, NONE, NONE, NONE},
    {"#### none, 3", NONE, "3", NONE, "3"},
    {"12-5", NONE, "-5", NONE, "-5"},
    {"$5. Then -,", NONE, "$5.", NONE, "5"},
    {"#### 72\n\nQuestion: #### 9", "72", "9", "72", "9"},
    {"1 2 3", NONE, "3", NONE, "3"},
    {"#### 5#### 6", "5", "6", "5", "6"},
    {"#### .5", ".5", ".5", ".5", ".5"},
    {"- 4", NONE, "4", NONE, "4"},
    {"--7", NONE, "-7", NONE, "-7"},
};

static void is(char *text, const char *expected) {
    assert_string_equal(text, expected);
    free(text);
}

static void filters_find_what_the_harness_s_patterns_find(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        is(kv_gsm8k_strict(cases[i][0]), cases[i][1]);
        is(kv_gsm8k_flexible(cases[i][0]), cases[i][2]);
        is(kv_gsm8k_normal(cases[i][1]), cases[i][3]);
        is(kv_gsm8k_normal(cases[i][2]), cases[i][4]);
    }
}

static void answers_are_compared_without_what_the_harness_ignores(void **state) {
    (void)state;
    is(kv_gsm8k_normal("a\n#### $1,000.\n"), "1000\n");
    is(kv_gsm8k_normal("5."), "5");
    is(kv_gsm8k_normal("5.\n\n"), "5.\n\n");
    is(kv_gsm8k_normal("x #### y #### Z."), "z");
    is(kv_gsm8k_normal("."), "");
    is(kv_gsm8k_normal(""), "");
    assert_true(kv_gsm8k_right("1,000", "He has <<10*100=1000>>1000.\n#### 1000"));
    assert_true(kv_gsm8k_right("$1000.", "#### 1,000"));
    assert_false(kv_gsm8k_right("100", "#### 1000"));
    assert_false(kv_gsm8k_right("1000.0", "#### 1000"));
    assert_false(kv_gsm8k_right(NONE, "#### 1000"));
}

static void drawn(struct kv_python_random *r, size_t n, size_t k, const size_t *expected) {
    size_t out[8];
    kv_python_sample(r, n, k, out);
    for (size_t i = 0; i < k; i++) assert_int_equal(out[i], expected[i]);
}

// random.Random(1234): getrandbits(32) three times; then, begun anew, sample(range(n), k).
static void draws_are_python_s(void **state) {
    struct kv_python_random r;
    (void)state;
    kv_python_random_init(&r, 1234);
    assert_int_equal(kv_python_random_next(&r), 4150886329);
    assert_int_equal(kv_python_random_next(&r), 3342196574);
    assert_int_equal(kv_python_random_next(&r), 1892932127);
    kv_python_random_init(&r, 1234);
    drawn(&r, 10, 5, (const size_t[]){7, 1, 0, 9, 4});
    drawn(&r, 10, 5, (const size_t[]){0, 1, 8, 6, 2});
    drawn(&r, 100, 7, (const size_t[]){30, 2, 3, 44, 82, 79, 61});
    drawn(&r, 1000, 8, (const size_t[]){630, 474, 152, 93, 187, 730, 117, 865});
}

static char *write_file(char path[64], const char *text) {
    struct kv_error e;
    strcpy(path, "/tmp/kvsim-gsm8k-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(kv_write_file(path, text, strlen(text), &e), 0);
    return path;
}

static void a_line_is_a_prompt_and_its_answer(void **state) {
    char path[64];
    struct kv_tasks *t;
    struct kv_error e = {0};
    (void)state;
    write_file(path, "{\"question\": \"Why?\", \"answer\": \"So.\\n#### 3\"}\n"
                     "{\"question\": \"Who?\", \"answer\": \"I.\\n#### 3\"}\n"
                     "{\"question\": \"When?\", \"answer\": \"#### 1,000\"}\n");
    if (kv_tasks_load(&t, path, &e)) fail_msg("%s: %s", e.where, e.msg); // recognized
    assert_int_equal(t->kind, KV_TASK_GSM8K);
    assert_string_equal(t->name, "gsm8k");
    assert_string_equal(t->items[0].context, "Question: Why?\nAnswer:");
    assert_string_equal(t->items[0].answer, "So.\n#### 3");
    assert_string_equal(t->items[0].choices[0], "So.\n#### 3");
    assert_int_equal(t->items[0].n_choices, 1);
    assert_int_equal(t->items[0].gold, -1);
    char *common;
    assert_true(fabs(kv_gsm8k_floor(t, &common) - 2. / 3) < 1e-12);
    is(common, "3");
    kv_tasks_free(t);
    char *spec = kv_format_text("gsm8k:%s,from=%s,shots=4", path, path);
    assert_int_equal(kv_tasks_load(&t, spec, &e), KV_EUSAGE);
    free(spec);
    unlink(path);
    write_file(path, "{\"question\": \"Why?\", \"answer\": \"three\"}\n");
    assert_int_equal(kv_tasks_load(&t, path, &e), KV_EFAIL);
    assert_string_equal(e.msg, "the answer ends in no \"#### \" and a number");
    unlink(path);
}

static void the_official_files_give_the_harness_s_prompts(void **state) {
    const char *data = getenv("KVSIM_DATA");
    struct kv_tasks *test, *train, *plain;
    struct kv_error e = {0};
    (void)state;
    if (!data) skip();
    char *spec = kv_format_text("gsm8k:%s/gsm8k_test.jsonl.gz,from=%s/gsm8k_train.jsonl.gz", data,
                                data),
         *bare = kv_format_text("%s/gsm8k_test.jsonl.gz", data),
         *from = kv_format_text("%s/gsm8k_train.jsonl.gz", data);
    if (kv_tasks_load(&test, spec, &e) || kv_tasks_load(&plain, bare, &e) ||
        kv_tasks_load(&train, from, &e))
        fail_msg("%s: %s", e.where, e.msg);
    assert_int_equal(test->n_items, 1319);
    assert_int_equal(train->n_items, 7473);
    // What random.Random(1234).sample(range(7473), 5) gives the first time and the 1,319th.
    static const size_t shots[2][5] = {{6374, 3610, 957, 61, 742}, {220, 4179, 6064, 5599, 5541}};
    for (size_t k = 0; k < 2; k++) {
        size_t item = k ? 1318 : 0;
        struct kv_text prompt = {0};
        for (size_t i = 0; i < 5; i++)
            kv_text_addf(&prompt, "%s %s\n\n", train->items[shots[k][i]].context,
                         train->items[shots[k][i]].answer);
        kv_text_addf(&prompt, "%s", plain->items[item].context);
        is(kv_text_take(&prompt), test->items[item].context);
    }
    // Each answer, taken for what was generated, is right by either filter.
    for (size_t i = 0; i < test->n_items; i++) {
        char *a = kv_gsm8k_strict(test->items[i].answer),
             *b = kv_gsm8k_flexible(test->items[i].answer);
        assert_true(kv_gsm8k_right(a, test->items[i].answer));
        assert_true(kv_gsm8k_right(b, test->items[i].answer));
        free(a);
        free(b);
    }
    char *common;
    assert_true(fabs(kv_gsm8k_floor(test, &common) - 40. / 1319) < 1e-12);
    is(common, "5");
    kv_tasks_free(test);
    kv_tasks_free(train);
    kv_tasks_free(plain);
    free(spec);
    free(bare);
    free(from);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_find_what_the_harness_s_patterns_find),
        cmocka_unit_test(answers_are_compared_without_what_the_harness_ignores),
        cmocka_unit_test(draws_are_python_s), cmocka_unit_test(a_line_is_a_prompt_and_its_answer),
        cmocka_unit_test(the_official_files_give_the_harness_s_prompts)};
    return cmocka_run_group_tests_name("GSM8K", tests, NULL, NULL);
}
