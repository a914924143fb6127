// SPDX-License-Identifier: Apache-2.0
// Made tasks: where facts stand, how long contexts are, what a seed decides.
#include <setjmp.h>
#include <stdlib.h>

#include "sim/base/memory.h"
#include "traces/items.h"
#include "traces/test/tokenizer_alone.h"

// cmocka wants the headers above before its own
#include <cmocka.h>

static int open_model(void **state) {
    return tokenizer_alone(state, 4096);
}

static struct kv_tasks *loaded(const char *spec) {
    struct kv_tasks *t;
    struct kv_error e = {0};
    if (kv_tasks_load(&t, spec, &e)) fail_msg("%s: %s", e.where, e.msg);
    return t;
}

static struct kv_tasks *made(const struct kv_model *m, const char *spec) {
    struct kv_tasks *t = loaded(spec), *out;
    struct kv_error e = {0};
    size_t n = kv_tasks_count(t);
    if (kv_tasks_make(&out, t, m, &e)) fail_msg("%s: %s", e.where, e.msg);
    assert_int_equal(out->n_items, n);
    kv_tasks_free(t);
    return out;
}

static void refuses(const struct kv_model *m, const char *spec, const char *message) {
    struct kv_tasks *t = loaded(spec), *out;
    struct kv_error e = {0};
    assert_int_equal(kv_tasks_make(&out, t, m, &e), KV_EFAIL);
    assert_null(out);
    assert_string_equal(e.msg, message);
    kv_tasks_free(t);
}

static size_t times(const char *text, const char *what) {
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)); p++) n++;
    return n;
}

static size_t tokens(const struct kv_model *m, const char *text) {
    uint32_t *ids = NULL;
    size_t n;
    struct kv_error e;
    assert_int_equal(kv_tokenizer_encode(m->tokenizer, text, strlen(text), &ids, &n, &e), 0);
    free(ids);
    return n;
}

static size_t shared(const char *a, const char *b) {
    size_t n = 0;
    while (a[n] && a[n] == b[n]) n++;
    return n;
}

static bool same_items(const struct kv_tasks *a, const struct kv_tasks *b) {
    bool same = a->n_items == b->n_items;
    for (size_t i = 0; i < a->n_items && same; i++)
        same = strcmp(a->items[i].context, b->items[i].context) == 0 &&
               strcmp(a->items[i].answer, b->items[i].answer) == 0 &&
               strcmp(a->items[i].choices[3], b->items[i].choices[3]) == 0;
    return same;
}

static void the_seed_alone_decides(void **state) {
    static const char *const kinds[] = {
        "needle:samples-text,lengths=400,n=3,seed=", "recall,pairs=9,n=3,seed=",
        "recall:samples-text,n=2,seed="};
    for (size_t k = 0; k < 3; k++) {
        char *one = kv_format_text("%s1", kinds[k]), *two = kv_format_text("%s2", kinds[k]);
        struct kv_tasks *a = made(*state, one), *b = made(*state, one), *c = made(*state, two);
        assert_true(same_items(a, b));
        for (size_t i = 0; i < a->n_items; i++)
            assert_string_not_equal(a->items[i].context, c->items[i].context);
        kv_tasks_free(a);
        kv_tasks_free(b);
        kv_tasks_free(c);
        free(one);
        free(two);
    }
}

// The tiny tokenizer's words are their letters, so a context falls short of its length by less than
// the word that would follow.
static void a_needle_stands_once_at_its_depth_in_a_context_of_its_length(void **state) {
    static const uint32_t lengths[] = {300, 900};
    static const double depths[] = {0, 30, 50, 100};
    struct kv_tasks *t = made(*state, "needle:samples-text,lengths=300/900,depths=0/30/50/100,n=5");
    size_t at = 0;
    for (size_t l = 0; l < 2; l++)
        for (size_t d = 0; d < 4; d++)
            for (size_t i = 0; i < 5; i++, at++) {
                const struct kv_task_item *item = &t->items[at];
                char *place = kv_format_text("length=%u,depth=%g", lengths[l], depths[d]);
                assert_string_equal(item->source, place);
                assert_int_equal(item->gold, 0);
                assert_string_equal(item->choices[0], item->answer);
                assert_int_equal(times(item->context, item->answer), 1);
                size_t n = tokens(*state, item->context);
                assert_true(n <= lengths[l] && n + 20 > lengths[l]);
                for (size_t c = 1; c < item->n_choices; c++)
                    assert_int_equal(times(item->context, item->choices[c]), 0);
                const char *fact = strstr(item->context, "The secret number of ");
                const char *question = strstr(item->context, "\n\nQuestion: What is the secret");
                assert_non_null(fact);
                assert_non_null(question);
                size_t text = (size_t)(question - item->context) - strlen("The secret number of "
                                                                          "Xxxxxx is 12345. ");
                double depth = 100 * (double)(fact - item->context) / (double)text;
                double sentence = 100 * 130. / (double)text; // no sentence there is longer
                if (fabs(depth - depths[d]) > sentence)
                    fail_msg("%s: the fact stands at %.1f %%", item->id, depth);
                if (depths[d] == 0) assert_true(fact == item->context);
                if (fact > item->context) { // it breaks no sentence but the last, which is cut
                    char before = fact[-1];
                    assert_true(before == ' ' || before == '\n');
                    if (depths[d] < 100 && before == ' ') assert_non_null(strchr(".!?", fact[-2]));
                }
                free(place);
            }
    assert_int_equal(at, t->n_items);
    kv_tasks_free(t);
}

static void one_item_is_one_fact_in_one_passage_at_all_places(void **state) {
    struct kv_tasks *t = made(*state, "needle:samples-text,lengths=400/800,depths=50/100,n=2");
    const struct kv_task_item *half = &t->items[0], *whole = &t->items[2], *longer = &t->items[6];
    assert_string_equal(half->answer, whole->answer);
    assert_string_equal(half->answer, longer->answer);
    assert_true(shared(half->context, whole->context) >=
                (size_t)(strstr(half->context, "The secret") - half->context));
    assert_true(shared(whole->context, longer->context) > 200);
    kv_tasks_free(t);
}

static void recall_asks_the_pair_at_its_depth_and_offers_numbers_of_others(void **state) {
    struct kv_tasks *t = made(*state, "recall,pairs=5/20,depths=0/50/100,n=4");
    for (size_t at = 0; at < t->n_items; at++) {
        const struct kv_task_item *item = &t->items[at];
        uint32_t pairs, asked = 0;
        double depth;
        assert_int_equal(sscanf(item->source, "pairs=%u,depth=%lf", &pairs, &depth), 2);
        assert_int_equal(times(item->context, ": "), pairs);
        const char *line = strstr(item->context, "\n\n") + 2, *key = strrchr(item->context, '\n');
        size_t n_key = strlen(key + 1);
        char *pair = kv_format_text("%s %s\n", key + 1, item->answer);
        for (; strncmp(line, key + 1, n_key) != 0; asked++) line = strchr(line, '\n') + 1;
        assert_memory_equal(line, pair, strlen(pair));
        assert_int_equal(asked, (uint32_t)round(depth / 100 * (pairs - 1)));
        assert_int_equal(times(item->context, item->answer), 1);
        for (size_t c = 1; c < 4; c++) {
            assert_int_equal(times(item->context, item->choices[c]), 1);
            for (size_t k = 0; k < c; k++)
                assert_string_not_equal(item->choices[c], item->choices[k]);
        }
        free(pair);
    }
    assert_true(shared(t->items[0].context, t->items[4].context) >
                (size_t)(strstr(t->items[0].context, "One of") - t->items[0].context));
    kv_tasks_free(t);
}

static void recall_by_length_holds_as_many_pairs_as_fit(void **state) {
    struct kv_tasks *t = made(*state, "recall:samples-text,lengths=300/600,depths=0/100,n=3");
    struct kv_tasks *text = loaded("samples-text");
    for (size_t at = 0; at < t->n_items; at++) {
        uint32_t length;
        assert_int_equal(sscanf(t->items[at].source, "length=%u", &length), 1);
        size_t n = tokens(*state, t->items[at].context);
        assert_true(n <= length && n + 21 > length); // one pair's bytes at most
        char *key = kv_strdup(strrchr(t->items[at].context, '\n') + 1);
        key[strlen(key) - 1] = 0; // the colon
        assert_non_null(strcasestr(text->items[0].context, key));
        free(key);
    }
    kv_tasks_free(text);
    kv_tasks_free(t);
}

static void items_are_recorded_at_their_places(void **state) {
    struct kv_tasks *t = loaded("recall,pairs=4,depths=0/100,n=2");
    struct kv_items *items;
    struct kv_error e = {0};
    if (kv_items_new(&items, *state, t, &(struct kv_record_options){0}, &e)) fail_msg("%s", e.msg);
    assert_int_equal(items->n, 4);
    assert_string_equal(items->items[2].source, "pairs=4,depth=100");
    assert_string_equal(items->items[2].id, "4/100/0");
    assert_int_equal(items->items[2].gold, 0);
    assert_int_equal(items->items[2].n_choices, 4);
    kv_items_free(items);
    kv_tasks_free(t);
}

static void what_cannot_be_made_is_refused(void **state) {
    refuses(*state, "needle:samples-text,lengths=64",
            "length=64: the question and its fact alone have more tokens");
    struct kv_tasks *t = loaded("samples-text");
    size_t n = 0;
    for (const char *p = t->items[0].context; *p; p++)
        n += strchr(" \n", *p) == NULL && (!p[1] || strchr(" \n", p[1]));
    char *message = kv_format_text("has %zu words, too few for a context of length=900000", n);
    refuses(*state, "needle:samples-text,lengths=900000", message);
    free(message);
    kv_tasks_free(t);
    refuses(*state, "recall,lengths=20",
            "length=20: the question and its fact alone have more tokens");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_seed_alone_decides),
        cmocka_unit_test(a_needle_stands_once_at_its_depth_in_a_context_of_its_length),
        cmocka_unit_test(one_item_is_one_fact_in_one_passage_at_all_places),
        cmocka_unit_test(recall_asks_the_pair_at_its_depth_and_offers_numbers_of_others),
        cmocka_unit_test(recall_by_length_holds_as_many_pairs_as_fit),
        cmocka_unit_test(items_are_recorded_at_their_places),
        cmocka_unit_test(what_cannot_be_made_is_refused)};
    return cmocka_run_group_tests_name("made tasks", tests, open_model, tokenizer_gone);
}
