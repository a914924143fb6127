// SPDX-License-Identifier: Apache-2.0
// Claim files are read with the line of what is wrong, and an interval answers in one of three
// ways.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "analysis/claims/claim.h"
#include "sim/base/assets.h"

static const char good[] = "# a comment\n"
                           "source: arXiv:1, table 3   # the rest is a comment\n"
                           "model: SmolLM-360M\n"
                           "first: mlp:*\n"
                           "tolerance: 1\n"
                           "\n"
                           "claim: better by 7.6 points\n"
                           "quantity: acc difference\n"
                           "second: static:bits=4@sym\n"
                           "value: 7.6\r\n"
                           "claim: no worse\n"
                           "  quantity : kl ratio\n"
                           "second: shuffle(first)\n"
                           "model: any\n"
                           "at most: 1.5";

static void a_file_holds_several_claims_and_what_they_share(void **state) {
    struct kv_claim *c;
    struct kv_error e = {0};
    size_t n;
    (void)state;
    if (kv_claims_parse("x.claim", good, &c, &n, &e)) fail_msg("%s: %s", e.where, e.msg);
    assert_int_equal(n, 2);
    assert_string_equal(c[0].claim, "better by 7.6 points");
    assert_string_equal(c[0].source, "arXiv:1, table 3");
    assert_string_equal(c[0].model, "SmolLM-360M");
    assert_string_equal(c[0].benchmark, "any");
    assert_int_equal(c[0].quantity->scorer, KV_ACC);
    assert_true(c[0].low == 6.6 && c[0].high == 8.6);
    assert_int_equal(c[0].line, 7);
    assert_string_equal(c[1].model, "any");
    assert_string_equal(c[1].first, "mlp:*");
    assert_string_equal(c[1].second, "shuffle(first)");
    assert_int_equal(c[1].quantity->quantity, KV_Q_KL_RATIO);
    assert_true(isinf(c[1].low) && c[1].high == 1.5);
    char *region = kv_claim_region_text(&c[0]);
    assert_string_equal(region, "6.6 to 8.6 points");
    free(region);
    kv_claims_free(c, n);
}

static void what_is_wrong_is_said_with_its_line(void **state) {
    static const struct {
        const char *text, *where, *message;
    } cases[] = {
        {"", "x.claim", "no claim stands in this file ('claim: ...' begins one)"},
        {"model: a\nnonsense\n", "x.claim:2", "'key: value' is expected, not 'nonsense'"},
        {"clam: x\n", "x.claim:1", "unknown key 'clam'; did you mean 'claim'?"},
        {"claim: x\nquantity: acc diference\n", "x.claim:2",
         "unknown quantity 'acc diference'; did you mean 'acc difference'?"},
        {"claim: x\nmode: prefil\n", "x.claim:2", "unknown mode 'prefil'; did you mean 'prefill'?"},
        {"claim: x\nself: other\n", "x.claim:2", "unknown own step 'other'"},
        {"claim: x\nvalue: seven\n", "x.claim:2",
         "a plain number in the quantity's unit is expected, not 'seven'"},
        {"claim: x\nvalue: 7.6 points\n", "x.claim:2",
         "a plain number in the quantity's unit is expected, not '7.6 points'"},
        {"claim: x\nmodel: a\nmodel: b\n", "x.claim:3", "this key was given before: 'model'"},
        {"claim: x\nmodel:\n", "x.claim:2", "nothing is said after 'model'"},
        {"claim: x\nmodel: a\n", "x.claim:1", "this claim lacks the key 'source'"},
        {"source: s\nmodel: a\nfirst: p\n\nclaim: x\nquantity: kl ratio\nat most: 1\n", "x.claim:5",
         "this claim lacks the key 'second'"},
        {"source: s\nmodel: a\nfirst: p\nclaim: x\nquantity: kl\nvalue: 1\n", "x.claim:4",
         "this claim lacks the key 'tolerance'"},
        {"source: s\nmodel: a\nfirst: p\nclaim: x\nquantity: kl\nvalue: 1\ntolerance: 1\n"
         "at most: 2\n",
         "x.claim:4", "this claim has a value and a bound; one is enough: 'x'"},
        {"source: s\nmodel: a\nfirst: p\nclaim: x\nquantity: kl\nat least: 3\nat most: 2\n",
         "x.claim:4", "nothing lies within the bounds of 'x'"},
        {"source: s\nmodel: a\nfirst: p\nsecond: q\nclaim: x\nquantity: latency saving\nat least: "
         "3\n",
         "x.claim:5", "this claim lacks the key 'context'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_claim *c;
        struct kv_error e = {0};
        size_t n;
        assert_int_equal(kv_claims_parse("x.claim", cases[i].text, &c, &n, &e), KV_EUSAGE);
        assert_string_equal(e.where, cases[i].where);
        assert_string_equal(e.msg, cases[i].message);
        assert_null(c);
    }
}

static void an_interval_answers_in_one_of_three_ways(void **state) {
    const struct kv_claim c = {.low = -1, .high = 2}, open = {.low = -1, .high = INFINITY};
    (void)state;
    assert_int_equal(kv_claim_answer(&c, -1, 2), KV_HOLDS);
    assert_int_equal(kv_claim_answer(&c, 0, 1), KV_HOLDS);
    assert_int_equal(kv_claim_answer(&c, -1.5, 1), KV_CANNOT_TELL);
    assert_int_equal(kv_claim_answer(&c, -5, 5), KV_CANNOT_TELL);
    assert_int_equal(kv_claim_answer(&c, 2.5, 3), KV_FAILS);
    assert_int_equal(kv_claim_answer(&c, -3, -1.5), KV_FAILS);
    assert_int_equal(kv_claim_answer(&c, NAN, NAN), KV_CANNOT_TELL);
    assert_int_equal(kv_claim_answer(&open, 0, 1e9), KV_HOLDS);
    assert_true(kv_claim_distance(&c, 1.5) == 0.5);
    assert_true(kv_claim_distance(&c, -3) == 2);
    assert_true(kv_claim_distance(&open, 5) == 6);
}

static void models_are_told_by_the_words_of_their_names(void **state) {
    (void)state;
    assert_true(kv_same_model("SmolLM2-135M", "Smollm2 135M 8k Lc100K Mix1 Ep2"));
    assert_true(kv_same_model("smollm-360M", "SmolLM-360M"));
    assert_true(kv_same_model("any", "whatever"));
    assert_false(kv_same_model("SmolLM-360M", "Smollm2 360M"));
    assert_false(kv_same_model("SmolLM2-360M", "Smollm2 135M"));
    assert_false(kv_same_model("SmolLM2-135M", "SmolLM2-135M-Instruct"));
    assert_true(kv_same_model("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct"));
}

static void every_shipped_claim_is_read(void **state) {
    const struct kv_asset *a;
    size_t files = 0;
    (void)state;
    for (size_t i = 0; (a = kv_asset_at(i)); i++) {
        struct kv_claim *c;
        struct kv_error e = {0};
        size_t n;
        if (strncmp(a->path, "reports/claims/", 15) != 0) continue;
        if (kv_claims_parse(a->path, (const char *)a->data, &c, &n, &e))
            fail_msg("%s: %s", e.where, e.msg);
        kv_claims_free(c, n);
        files++;
    }
    assert_true(files >= 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_holds_several_claims_and_what_they_share),
        cmocka_unit_test(what_is_wrong_is_said_with_its_line),
        cmocka_unit_test(an_interval_answers_in_one_of_three_ways),
        cmocka_unit_test(models_are_told_by_the_words_of_their_names),
        cmocka_unit_test(every_shipped_claim_is_read),
    };
    return cmocka_run_group_tests_name("claim", tests, NULL, NULL);
}
