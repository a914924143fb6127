// SPDX-License-Identifier: Apache-2.0
// From texts to token trees: rarities worked out by hand.
#include <setjmp.h>
#include <stdlib.h>

#include "traces/items.h"
#include "traces/test/tokenizer_alone.h"

// cmocka wants the headers above before its own
#include <cmocka.h>

static int open_model(void **state) {
    return tokenizer_alone(state, 64);
}

// Two questions, contexts "abab" and "ca", choices "x" and "b" each.
static char *choices[] = {"x", "b"};
static struct kv_task_item questions[] = {
    {.id = "0", .source = "", .context = "abab", .n_choices = 2, .choices = choices, .gold = 0},
    {.id = "1", .source = "", .context = "ca", .n_choices = 2, .choices = choices, .gold = 1}};
static const struct kv_tasks tasks = {.kind = KV_TASK_ARC,
                                      .name = "hand",
                                      .path = "hand",
                                      .prompt = "",
                                      .n_items = 2,
                                      .items = questions};

static struct kv_items *items_of(const struct kv_model *m, const struct kv_tasks *t,
                                 struct kv_record_options o) {
    struct kv_items *items;
    struct kv_error e = {0};
    if (kv_items_new(&items, m, t, &o, &e)) fail_msg("%s: %s", e.where, e.msg);
    return items;
}

// ratio[row] is (N + V + 1) / (c + 1), whose logarithm is the rarity.
static void rarities_are(const float *rarity, const double *ratio, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (fabs((double)rarity[i] - log(ratio[i])) > 1e-6)
            fail_msg("row %zu: exp(rarity) is %g, not %g", i, exp((double)rarity[i]), ratio[i]);
}

// arXiv 2604.04722, eq. 15, V the distinct tokens seen so far. "abab": a is new to an empty record
// (0 + 0 + 1 over 1), b to one token (1 + 1 + 1), a the second time: 2 + 2 + 1 over 2, b 3 + 2 + 1
// over 2. Choices stand at 4 tokens of 2 kinds: the blank and x are new, 7; b was seen twice, 7
// / 3. "ca" goes on there: c is new, 7; then a, seen twice, 5 + 3 + 1 over 3. Choices: 6 + 3 + 1 =
// 10 over 1, for b over 3.
static const double first[] = {1, 3, 5. / 2, 6. / 2, 7, 7, 7, 7. / 3},
                    second[] = {7, 9. / 3, 10, 10, 10, 10. / 3};

static void rarity_counts_the_distinct_tokens_seen_so_far(void **state) {
    struct kv_items *items = items_of(*state, &tasks, (struct kv_record_options){0});
    assert_int_equal(items->n, 2);
    assert_int_equal(items->items[0].n_tokens, 8);
    assert_int_equal(items->items[1].n_tokens, 6);
    rarities_are(items->rarity[0], first, 8);
    rarities_are(items->rarity[1], second, 6);
    kv_items_free(items);
}

static void behind_a_context_every_token_is_rated_as_a_choice_s_is(void **state) {
    const struct kv_model *m = *state;
    struct kv_items *items = items_of(m, &tasks, (struct kv_record_options){0});
    float *rarity = kv_alloc(m->shape.vocab, sizeof *rarity);
    for (size_t i = 0; i < items->n; i++) {
        const struct kv_trace_item *it = &items->items[i];
        kv_items_rarity(items, i, m->shape.vocab, rarity);
        for (uint32_t row = it->n_context; row < it->n_tokens; row++)
            assert_true(rarity[it->ids[row]] == items->rarity[i][row]);
    }
    free(rarity);
    kv_items_free(items);
}

static void rarity_is_the_file_s_whatever_is_recorded_of_it(void **state) {
    struct kv_tasks more = tasks;
    struct kv_task_item three[] = {questions[0], questions[0], questions[1]};
    more.n_items = 3;
    more.items = three;
    three[1].context = "q"; // not chosen, counted all the same
    struct kv_items *items = items_of(*state, &more, (struct kv_record_options){.stride = 2});
    assert_int_equal(items->n, 2);
    rarities_are(items->rarity[0], first, 8);
    const double after_q[] = {9, 11. / 3, 12, 12, 12, 12. / 3};
    rarities_are(items->rarity[1], after_q, 6);
    kv_items_free(items);
}

static void windows_of_text_are_rated_as_the_text_runs(void **state) {
    struct kv_task_item text = {.id = "0", .source = "", .context = "abca", .gold = -1};
    const struct kv_tasks windows = {.kind = KV_TASK_TEXT,
                                     .name = "text",
                                     .path = "hand",
                                     .prompt = "",
                                     .window_tokens = 2,
                                     .n_items = 1,
                                     .items = &text};
    struct kv_items *items = items_of(*state, &windows, (struct kv_record_options){0});
    assert_int_equal(items->n, 2);
    rarities_are(items->rarity[0], (const double[]){1, 3}, 2);
    rarities_are(items->rarity[1], (const double[]){5, 7. / 2}, 2);
    kv_items_free(items);
}

static void ids_are(const struct kv_trace_item *it, const char *ids) {
    assert_int_equal(it->n_tokens, strlen(ids));
    for (size_t i = 0; i < it->n_tokens; i++) assert_int_equal(it->ids[i], (unsigned char)ids[i]);
}

// The tiny tokenizer's ids are bytes; '^' plays BOS. The branch point's row is the context's last.
static void bos_is_a_token_of_the_context_and_of_no_choice(void **state) {
    struct kv_model *m = *state;
    m->add_bos = true;
    m->bos = '^';
    struct kv_items *items = items_of(m, &tasks, (struct kv_record_options){0});
    ids_are(&items->items[0], "^abab x b");
    assert_int_equal(items->items[0].n_context, 5);
    assert_int_equal(items->items[0].first[0], 5);
    assert_int_equal(items->items[0].first[2], 9);
    assert_int_equal(items->items[0].chars[0], 1);
    assert_int_equal(items->items[0].bytes[0], 1);
    assert_int_equal(items->items[0].kinds[0], KV_FIRST);
    assert_int_equal(items->items[0].kinds[1], KV_WORD_REST);
    assert_int_equal(items->items[0].final_rows[0], 4);
    // Counted as a token is: 1 over 1; a is then new to one token of one kind.
    rarities_are(items->rarity[0], (const double[]){1, 3}, 2);
    kv_items_free(items);

    struct kv_task_item text = {.id = "0", .source = "", .context = "abca", .gold = -1};
    struct kv_tasks windows = tasks;
    windows.kind = KV_TASK_TEXT;
    windows.window_tokens = 2;
    windows.n_items = 1;
    windows.items = &text;
    items = items_of(m, &windows, (struct kv_record_options){0});
    assert_int_equal(items->n, 2);
    ids_are(&items->items[0], "^ab");
    ids_are(&items->items[1], "^ca");
    assert_int_equal(items->items[1].n_final, 2); // BOS predicts the window's first token
    kv_items_free(items);

    struct kv_error e;
    windows.window_tokens = m->shape.max_tokens;
    assert_int_equal(kv_items_new(&items, m, &windows, &(struct kv_record_options){0}, &e),
                     KV_EUSAGE);
    assert_string_equal(e.msg, "window=64: the model reads 64 tokens, BOS among them");
    m->add_bos = false;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rarity_counts_the_distinct_tokens_seen_so_far),
        cmocka_unit_test(behind_a_context_every_token_is_rated_as_a_choice_s_is),
        cmocka_unit_test(rarity_is_the_file_s_whatever_is_recorded_of_it),
        cmocka_unit_test(windows_of_text_are_rated_as_the_text_runs),
        cmocka_unit_test(bos_is_a_token_of_the_context_and_of_no_choice),
    };
    return cmocka_run_group_tests_name("items", tests, open_model, tokenizer_gone);
}
