// SPDX-License-Identifier: Apache-2.0
// Judges how texts are cut before merges, for each pre-tokenizer by hand, and what else its row
// says.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sim/model/test/model_files.h"
#include "sim/model/tokenizer.h"

// The spans of a text under a row's steps, joined by "|".
static void cut(const struct kv_pretokenizer *row, size_t step, const char *s, size_t n,
                struct kv_text *out) {
    struct kv_error e;
    pcre2_code *code;
    if (step == KV_MAX_STEPS || !row->steps[step]) {
        kv_text_addf(out, "%s%.*s", out->n ? "|" : "", (int)n, s);
        return;
    }
    assert_int_equal(kv_step_compile(&code, row->steps[step], &e), 0);
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    while (n > 0) {
        size_t begin = n, end = n;
        if (pcre2_match(code, (PCRE2_SPTR)s, n, 0, 0, match, NULL) > 0) {
            begin = pcre2_get_ovector_pointer(match)[0];
            end = pcre2_get_ovector_pointer(match)[1];
        }
        if (begin) cut(row, step + 1, s, begin, out);
        if (end > begin) cut(row, step + 1, s + begin, end - begin, out);
        s += end;
        n -= end;
    }
    pcre2_match_data_free(match);
    pcre2_code_free(code);
}

static void texts_are_cut_as_the_published_patterns_say(void **state) {
    (void)state;
    static const struct {
        const char *name, *text, *spans;
    } cases[] = {
        {"gpt-2", "I'm 1234 x\n\n y", "I|'m| 1234| x|\n\n| y"},
        {"gpt-2", "I'M here", "I|'|M| here"},
        {"smollm", "in 12 \u00BD", "in| |1|2| |\u00BD"},
        {"qwen2", "I'M here'Ll", "I|'M| here|'Ll"},
        {"qwen2", "(abc) 1234", "(abc|)| |1|2|3|4"},
        {"qwen2", "x!\n\n  y", "x|!\n\n| | y"},
        {"qwen2", " \n \n  z", " \n \n| | z"},
        {"qwen2", "it'\u017F \u212Aelvin", "it|'\u017F| \u212Aelvin"}, // the long s is an s
        {"qwen2", "e\u0301t \u0661\u0662", "e|\u0301t| |\u0661|\u0662"},
        {"qwen2", "\u4F60\u597D\uFF0C\u4E16", "\u4F60\u597D|\uFF0C\u4E16"},
        {"qwen2", "a\u180Eb\u3000\xC2\x85\x63", "a|\u180Eb|\u3000|\xC2\x85\x63"},
        {"llama-bpe", "12345 a1", "123|45| a|1"},
        {"llama-bpe", "we'RE", "we|'RE"},
        {"smaug-bpe", "12345", "123|45"},
        {"deepseek-r1-qwen", "12", "1|2"},
        {"tekken", "HTTPServer camelCase 12//\n", "HTTPServer| camel|Case| |1|2|//\n"},
        {"deepseek-coder", "if x==12:\n\ty", "if| x|==|1|2|:|\n|\ty"},
        {"deepseek-coder", "a\u4F60\u597Db, c", "a|\u4F60\u597D|b|,| c"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct kv_pretokenizer *row;
        struct kv_error e;
        struct kv_text out = {0};
        assert_int_equal(kv_pretokenizer_find(&row, cases[i].name, "", &e), 0);
        cut(row, 0, cases[i].text, strlen(cases[i].text), &out);
        char *spans = kv_text_take(&out);
        if (strcmp(spans, cases[i].spans) != 0)
            fail_msg("%s cuts \"%s\" as \"%s\", not \"%s\"", cases[i].name, cases[i].text, spans,
                     cases[i].spans);
        free(spans);
    }
}

static void a_name_is_known_whole_or_not_at_all(void **state) {
    (void)state;
    const struct kv_pretokenizer *row;
    struct kv_error e;
    assert_int_equal(kv_pretokenizer_find(&row, "llama", "", &e), KV_EFAIL);
    assert_int_equal(kv_pretokenizer_find(&row, "", "", &e), KV_EFAIL);
    assert_int_equal(kv_pretokenizer_find(&row, "llama3", "", &e), 0);
    assert_true(row->ignore_merges && row->add_bos && !row->nfc);
    assert_null(kv_step_known("\\p{N}{1,2}"));
    assert_non_null(kv_step_known("\\p{N}"));
}

static struct kv_tokenizer *tiny(struct kv_tokenizer_parts rules) {
    struct tiny_pieces p;
    struct kv_tokenizer *t;
    struct kv_error e;
    make_tiny_pieces(&p);
    rules.pieces = p.text;
    rules.n_pieces = N_TINY_PIECES;
    rules.merges = tiny_merges;
    rules.n_merges = N_TINY_MERGES - 1; // without that of "12", which stays a piece
    assert_int_equal(kv_tokenizer_make(&t, &rules, &e), 0);
    return t;
}

static void has_ids(struct kv_tokenizer *t, const char *text, const uint32_t *expected, size_t n) {
    uint32_t *ids = NULL;
    size_t got;
    struct kv_error e;
    assert_int_equal(kv_tokenizer_encode(t, text, strlen(text), &ids, &got, &e), 0);
    assert_int_equal(got, n);
    for (size_t i = 0; i < n; i++) assert_int_equal(ids[i], expected[i]);
    free(ids);
}
#define HAS(t, text, ...)                                                                          \
    has_ids(t, text, (const uint32_t[]){__VA_ARGS__},                                              \
            sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void a_span_that_is_a_piece_needs_no_merges_where_the_model_says_so(void **state) {
    (void)state;
    struct kv_tokenizer_parts rules = {.steps = {kv_step_gpt2}};
    struct kv_tokenizer *by_merges = tiny(rules);
    rules.ignore_merges = true;
    struct kv_tokenizer *whole = tiny(rules);
    HAS(by_merges, "12", '1', '2');
    HAS(whole, "12", 260);
    HAS(whole, "123", '1', '2', '3');
    assert_int_not_equal(kv_tokenizer_digest(whole), kv_tokenizer_digest(by_merges));
    kv_tokenizer_free(whole);
    kv_tokenizer_free(by_merges);
}

// U+00E9 is C3 A9, decomposed 65 CC 81.
static void text_is_brought_to_nfc_where_the_model_s_tokenizer_does_so(void **state) {
    (void)state;
    struct kv_tokenizer_parts rules = {.steps = {kv_step_gpt2}};
    struct kv_tokenizer *as_is = tiny(rules);
    rules.nfc = true;
    struct kv_tokenizer *nfc = tiny(rules);
    HAS(as_is, "e\u0301", 0x65, 0xCC, 0x81);
    HAS(nfc, "e\u0301", 0xC3, 0xA9);
    HAS(nfc, "\u00E9", 0xC3, 0xA9);
    assert_int_not_equal(kv_tokenizer_digest(nfc), kv_tokenizer_digest(as_is));
    kv_tokenizer_free(nfc);
    kv_tokenizer_free(as_is);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_cut_as_the_published_patterns_say),
        cmocka_unit_test(a_name_is_known_whole_or_not_at_all),
        cmocka_unit_test(a_span_that_is_a_piece_needs_no_merges_where_the_model_says_so),
        cmocka_unit_test(text_is_brought_to_nfc_where_the_model_s_tokenizer_does_so),
    };
    return cmocka_run_group_tests_name("pretokenizers", tests, NULL, NULL);
}
