// SPDX-License-Identifier: Apache-2.0
// Whether generated tokens answer: texts made by hand through a tokenizer of bytes.
#include <setjmp.h>
#include <stdlib.h>

#include "analysis/studies/answers.h"
#include "sim/model/test/model_files.h"

// cmocka wants the headers above before its own
#include <cmocka.h>

static const struct kv_shape shape = {1, 1, 1, 8, 8, 8, N_TINY_PIECES, 4096};

static int open_model(void **state) {
    struct tiny_pieces pieces;
    struct kv_error e;
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_HF, true, 1);
    make_tiny_pieces(&pieces);
    *state = m;
    return kv_tokenizer_new(&m->tokenizer, pieces.text, N_TINY_PIECES, tiny_merges, N_TINY_MERGES,
                            true, &e);
}

static int close_model(void **state) {
    kv_model_close(*state);
    return 0;
}

// Tokens of a text: its bytes.
static uint32_t *bytes_of(const char *text, uint32_t *n) {
    *n = (uint32_t)strlen(text);
    uint32_t *ids = kv_alloc(*n + 1, sizeof *ids);
    for (uint32_t i = 0; i < *n; i++) ids[i] = (unsigned char)text[i];
    return ids;
}

struct said {
    char *id;
    const char *own, *reference;
    bool broken;
};

static struct kv_answers judged(void **state, enum kv_task_kind kind, struct kv_task_item *items,
                                size_t n_items, const struct said *said, size_t n) {
    const struct kv_model *m = *state;
    const struct kv_tasks tasks = {.kind = kind, .n_items = n_items, .items = items};
    struct kv_generated_row *rows = kv_alloc(n, sizeof *rows);
    for (size_t i = 0; i < n; i++) {
        rows[i] = (struct kv_generated_row){.id = said[i].id, .broken = said[i].broken};
        rows[i].own = bytes_of(said[i].own, &rows[i].n_own);
        rows[i].reference = bytes_of(said[i].reference, &rows[i].n_reference);
    }
    const struct kv_generation g = {.n = n, .item = rows};
    struct kv_answers a = kv_answers_of(&g, &tasks, m->tokenizer);
    for (size_t i = 0; i < n; i++) {
        free(rows[i].own);
        free(rows[i].reference);
    }
    free(rows);
    return a;
}

static void problems_are_judged_by_both_filters_up_to_the_harness_s_stops(void **state) {
    struct kv_task_item items[] = {
        {.id = "a", .answer = "So.\n#### 1,200"}, {.id = "b", .answer = "#### 7"}, {.id = "c"}};
    static const struct said said[] = {
        {"a", " It is 1200.\n#### 1200\n\nQuestion: #### 9", " It is $1,200.", false},
        {"b", " Seven, or 8", " 8\n#### 7", false},
        {"b", " #### 7", " #### 7", true},         // what is broken answers nothing
        {"c", "#### 7", "#### 7", false},          // has no answer
        {"elsewhere", "#### 7", "#### 7", false}}; // is none of the tasks
    struct kv_answers a = judged(state, KV_TASK_GSM8K, items, 3, said, 5);
    assert_int_equal(a.n, 3);
    assert_true(fabs(a.strict - 1. / 3) < 1e-12);   // a
    assert_true(fabs(a.flexible - 1. / 3) < 1e-12); // a, whose last number stands before the stop
    assert_true(fabs(a.strict16 - 2. / 3) < 1e-12); // both b
    assert_true(fabs(a.flexible16 - 1) < 1e-12);    // all: $1,200. is 1200
    assert_true(a.strict_to16.won == 1 && a.strict_to16.lost == 2);
    assert_true(fabs(a.strict_to16.exact_p - 1) < 1e-12);
}

static void a_fact_is_the_number_that_the_sequence_begins_with(void **state) {
    struct kv_task_item items[] = {{.id = "512/0/0", .answer = "48213"},
                                   {.id = "512/0/1", .answer = "10001"}};
    static const struct said said[] = {{"512/0/0", " 48213. The", " 48213", false},
                                       {"512/0/1", " not 10001", " 10001", false}};
    struct kv_answers a = judged(state, KV_TASK_NEEDLE, items, 2, said, 2);
    assert_int_equal(a.n, 2);
    assert_true(a.strict >= 0.5 && a.strict <= 0.5);
    assert_true(a.flexible >= 1 && a.strict16 >= 1 && a.flexible16 >= 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(problems_are_judged_by_both_filters_up_to_the_harness_s_stops),
        cmocka_unit_test(a_fact_is_the_number_that_the_sequence_begins_with)};
    return cmocka_run_group_tests_name("generated answers", tests, open_model, close_model);
}
