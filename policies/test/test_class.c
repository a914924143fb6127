// SPDX-License-Identifier: Apache-2.0
// Widths by a token's class, on an item worked out by hand.
#include "policies/test/fake_item.h"

static void each_class_gets_its_widths_keys_and_values_apart(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("class:first=8,word=5/3,digit=6/2");
    struct fake *f = fake_new(&spec.run, 4, 1, 2, 1);
    static const uint32_t kinds[] = {KV_FIRST, KV_WORD_START, KV_WORD_REST,
                                     KV_DIGIT, KV_SPACE,      KV_PUNCTUATION};
    static const unsigned bits[][2] = {{8, 8}, {5, 3}, {4, 4}, {6, 2}, {4, 4}, {4, 4}};
    for (size_t t = 0; t < 6; t++) ((struct kv_token *)f->item.tokens)[t].kind = kinds[t];
    fake_ask(&spec, f);
    for (size_t t = 0; t < 6; t++)
        for (size_t c = 0; c < kv_cells(&spec.run.shape); c++)
            assert_int_equal(fake_bits(&spec, f, t, c), bits[t][c & 1]);
    assert_int_equal(spec.needs, KV_NEED_CLASS);
    assert_true(kv_tag_bits(&spec.run.shape, spec.varies, spec.options) == 0); // ids tell the class
    fake_free(f);
    kv_replay_spec_close(&spec);
}

static void three_widths_for_a_class_are_refused(void **state) {
    (void)state;
    struct kv_replay_spec spec;
    struct kv_error e;
    assert_int_equal(kv_replay_spec_open(&spec, "class:word=4/3/2", &fake_setting, 1, &e),
                     KV_EUSAGE);
    assert_non_null(strstr(e.msg, "one width or two"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_class_gets_its_widths_keys_and_values_apart),
        cmocka_unit_test(three_widths_for_a_class_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
