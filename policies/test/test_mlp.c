// SPDX-License-Identifier: Apache-2.0
// The controller: its file, its answer worked out by hand, and files that are not what they should
// be.
#include "policies/test/fake_net.h"
#include "policies/weights.h"

// Passes entropy (input 0) and confidence (input 3) through; class scores are 0, H - 1, 3 C and
// H + C - 2.
static float by_hand(size_t layer, bool bias, size_t r, size_t c) {
    static const float last[4][2] = {{0, 0}, {1, 0}, {0, 3}, {1, 1}}, last_bias[] = {0, -1, 0, -2};
    if (layer == 0) return !bias && ((r == 0 && c == 0) || (r == 1 && c == 3));
    if (layer == 1) return !bias && r == c;
    return bias ? last_bias[r] : last[r][c];
}

static void the_network_picks_the_class_that_the_sum_by_hand_picks(void **state) {
    // H, C -> scores, best: (0.5, 0.1): 0, -0.5, 0.3, -1.4 -> 2; (4, 0.2): 0, 3, 0.6, 2.2 -> 1;
    // (0.9, 0): 0, -0.1, 0, -1.1 -> 0, the first of the equal ones; (9, 1.5): 0, 8, 4.5, 8.5 -> 3.
    static const float h[] = {0.5f, 4, 0.9f, 9}, c[] = {0.1f, 0.2f, 0, 1.5f};
    static const unsigned bits[] = {8, 4, 2, 16};
    const size_t width[] = {4, 2, 2, 4};
    char path[64], text[128];
    (void)state;
    make_path(path, sizeof path);
    write_net(path, width, by_hand);
    snprintf(text, sizeof text, "mlp:weights=%s", path);
    struct kv_replay_spec spec = fake_spec(text);
    struct fake *f = fake_new(&spec.run, 4, 0, 0, 1);
    for (size_t t = 0; t < 4; t++) {
        ((struct kv_token *)f->item.tokens)[t].feature[KV_ENTROPY_NATS] = h[t];
        ((struct kv_token *)f->item.tokens)[t].feature[KV_CONFIDENCE] = c[t];
    }
    fake_ask(&spec, f);
    for (size_t t = 0; t < 4; t++)
        for (size_t k = 0; k < kv_cells(&spec.run.shape); k++)
            assert_int_equal(fake_bits(&spec, f, t, k), bits[t]);
    fake_free(f);
    kv_replay_spec_close(&spec);
    unlink(path);
}

// Units' classes stand one after the other: unit u prefers class u % 4, and a token's four features
// change nothing.
static float by_unit(size_t layer, bool bias, size_t r, size_t c) {
    (void)c;
    return layer == 2 && bias && r % 4 == r / 4 % 4;
}

static void each_grain_gives_a_unit_the_class_of_its_own_outputs(void **state) {
    static const struct {
        const char *name;
        size_t units, unit_of[12]; // of 3 layers of 2 heads, keys and values
        uint32_t varies;
    } grains[] = {
        {"layer", 3, {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}, KV_VARIES_TOKEN | KV_VARIES_LAYER},
        {"kv",
         6,
         {0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5},
         KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_KV},
        {"cell",
         12,
         {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11},
         KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_KV | KV_VARIES_HEAD}};
    static const unsigned bits[] = {2, 4, 8, 16};
    char path[64];
    (void)state;
    make_path(path, sizeof path);
    for (size_t g = 0; g < 3; g++) {
        const size_t width[] = {4, 2, 2, 4 * grains[g].units};
        write_net(path, width, by_unit);
        char *text = kv_format_text("mlp:grain=%s,weights=%s", grains[g].name, path), *whole;
        struct kv_replay_spec spec = fake_spec(text);
        struct fake *f = fake_new(&spec.run, 70, 0, 0, 1);
        struct kv_error e;
        fake_ask(&spec, f);
        assert_int_equal(spec.varies, grains[g].varies);
        for (size_t t = 0; t < 70; t++)
            for (size_t k = 0; k < 12; k++)
                assert_int_equal(fake_bits(&spec, f, t, k), bits[grains[g].unit_of[k] % 4]);
        fake_free(f);
        kv_replay_spec_close(&spec);
        assert_int_equal(kv_spec_canonical(text, &fake_setting, &whole, &e), 0);
        assert_non_null(strstr(whole, grains[g].name));
        free(whole);
        free(text);
        text = kv_format_text("mlp:weights=%s", path); // a token's
        assert_int_equal(kv_replay_spec_open(&spec, text, &fake_setting, 1, &e), KV_EUSAGE);
        assert_non_null(strstr(e.msg, "grain=token"));
        free(text);
    }
    unlink(path);
}

static void a_token_gets_the_same_width_alone_and_among_others(void **state) {
    const size_t width[] = {4, 128, 128, 4};
    char path[64], text[128];
    (void)state;
    make_path(path, sizeof path);
    write_net(path, width, noise);
    snprintf(text, sizeof text, "mlp:weights=%s", path);
    struct kv_replay_spec spec = fake_spec(text);
    struct fake *f = fake_new(&spec.run, 150, 0, 0, 4);
    size_t cells = kv_cells(&spec.run.shape);
    uint8_t *alone = kv_alloc(cells, 1);
    fake_ask(&spec, f);
    for (size_t t = 0; t < 150; t++) {
        assert_int_equal(spec.policy->decide(spec.self, &f->item, t, 1, alone, NULL), 0);
        assert_memory_equal(alone, f->cells + t * cells, cells);
    }
    free(alone);
    fake_free(f);
    kv_replay_spec_close(&spec);
    unlink(path);
}

static void a_feature_that_is_no_number_is_refused_and_named(void **state) {
    const size_t width[] = {4, 8, 8, 4};
    char path[64], text[128];
    (void)state;
    make_path(path, sizeof path);
    write_net(path, width, noise);
    snprintf(text, sizeof text, "mlp:weights=%s", path);
    struct kv_replay_spec spec = fake_spec(text);
    struct fake *f = fake_new(&spec.run, 9, 0, 0, 4);
    struct kv_error e = {0};
    ((struct kv_token *)f->item.tokens)[7].feature[KV_RARITY_NATS] = NAN;
    assert_int_equal(kv_ask(spec.policy, spec.self, &f->item, f->cells, &e), KV_EFAIL);
    assert_string_equal(e.msg, "a feature of token 7 is no number");
    fake_free(f);
    kv_replay_spec_close(&spec);
    unlink(path);
}

static void the_canonical_form_names_the_file_by_its_contents(void **state) {
    const size_t width[] = {4, 8, 8, 4};
    char path[64], text[128], *one, *two;
    struct kv_error e = {0};
    (void)state;
    make_path(path, sizeof path);
    snprintf(text, sizeof text, "mlp:weights=%s", path);
    write_net(path, width, noise);
    assert_int_equal(kv_spec_canonical(text, &fake_setting, &one, &e), 0);
    assert_int_equal(kv_spec_canonical(one, &fake_setting, &two, &e), 0);
    assert_string_equal(one, two);
    free(two);
    const size_t narrow[] = {4, 2, 2, 4};
    write_net(path, narrow, by_hand);
    assert_int_equal(kv_spec_canonical(one, &fake_setting, &two, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "as the spec says"));
    free(one);
    unlink(path);
}

static void files_that_are_no_network_are_refused_in_a_sentence(void **state) {
    const size_t good[] = {4, 8, 8, 4}, three[] = {4, 8, 8, 3}, five[] = {5, 8, 8, 4};
    char path[64], text[128];
    struct kv_replay_spec spec;
    struct kv_error e = {0};
    (void)state;
    make_path(path, sizeof path);
    snprintf(text, sizeof text, "mlp:weights=%s", path);
    write_net(path, three, noise);
    assert_int_equal(kv_replay_spec_open(&spec, text, &fake_setting, 1, &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "3 classes"));
    write_net(path, five, noise);
    assert_int_equal(kv_replay_spec_open(&spec, text, &fake_setting, 1, &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "5 inputs"));
    assert_int_equal(kv_replay_spec_open(&spec, "mlp", &fake_setting, 1, &e), KV_EUSAGE);
    assert_int_equal(kv_replay_spec_open(&spec, "mlp:weights=/nowhere", &fake_setting, 1, &e),
                     KV_EFAIL);
    // Every shortened copy of a good file, and copies with one byte changed, are read or refused.
    char *whole;
    size_t n;
    write_net(path, good, noise);
    assert_int_equal(kv_read_file(path, &whole, &n, &e), 0);
    for (size_t cut = 0; cut < n; cut += cut < 600 ? 1 : 37) {
        struct kv_net net;
        assert_int_equal(kv_write_file(path, whole, cut, &e), 0);
        assert_int_equal(kv_net_open(&net, path, &e), KV_EFAIL);
    }
    for (size_t at = 0; at < 640; at++) {
        struct kv_net net;
        char was = whole[at];
        whole[at] = (char)(was ^ 0x15);
        assert_int_equal(kv_write_file(path, whole, n, &e), 0);
        if (kv_net_open(&net, path, &e) == 0) kv_net_close(&net);
        whole[at] = was;
    }
    free(whole);
    unlink(path);
}

// A network that kvsim trained on the older rarity says rarity_nats and no more.
static void a_network_trained_on_another_rarity_is_refused(void **state) {
    const size_t width[] = {4, 8, 8, 4};
    char path[64], text[128];
    struct kv_replay_spec spec;
    struct kv_error e = {0};
    (void)state;
    make_path(path, sizeof path);
    snprintf(text, sizeof text, "mlp:weights=%s", path);
    write_net_for(path, width, noise, "entropy_nats/rarity_nats/attn_var/confidence");
    assert_int_equal(kv_replay_spec_open(&spec, text, &fake_setting, 1, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "trained on other inputs"));
    write_net_for(path, width, noise, KV_NET_INPUTS);
    spec = fake_spec(text);
    kv_replay_spec_close(&spec);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_network_picks_the_class_that_the_sum_by_hand_picks),
        cmocka_unit_test(each_grain_gives_a_unit_the_class_of_its_own_outputs),
        cmocka_unit_test(a_token_gets_the_same_width_alone_and_among_others),
        cmocka_unit_test(a_feature_that_is_no_number_is_refused_and_named),
        cmocka_unit_test(the_canonical_form_names_the_file_by_its_contents),
        cmocka_unit_test(a_network_trained_on_another_rarity_is_refused),
        cmocka_unit_test(files_that_are_no_network_are_refused_in_a_sentence),
    };
    return cmocka_run_group_tests_name("mlp", tests, NULL, NULL);
}
