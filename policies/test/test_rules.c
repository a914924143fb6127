// SPDX-License-Identifier: Apache-2.0
// Rules without learning, on items worked out by hand.
#include "policies/test/fake_item.h"

// ---- threshold ---------------------------------------------------------------------------

static void set_feature(struct fake *f, size_t token, size_t feature, float x) {
    ((struct kv_token *)f->item.tokens)[token].feature[feature] = x;
}

static void assert_token_bits(const struct kv_replay_spec *spec, const struct fake *f, size_t token,
                              unsigned bits) {
    for (size_t c = 0; c < kv_cells(&spec->run.shape); c++)
        assert_int_equal(fake_bits(spec, f, token, c), bits);
}

static void absolute_cuts_part_the_feature_and_a_value_on_a_cut_has_passed_it(void **state) {
    static const float x[] = {0.2f, 0.5f, 1.49f, 1.5f, 2.0f, 3.0f, 9.0f};
    static const unsigned bits[] = {2, 4, 4, 8, 8, 16, 16};
    (void)state;
    struct kv_replay_spec spec =
        fake_spec("threshold:feature=entropy,cuts=0.5/1.5/3,bits=2/4/8/16");
    struct fake *f = fake_new(&spec.run, 7, 0, 0, 1);
    for (size_t t = 0; t < 7; t++) set_feature(f, t, KV_ENTROPY_NATS, x[t]);
    f->item.quantiles = NULL; // not declared, not needed
    fake_ask(&spec, f);
    assert_int_equal(spec.needs, KV_NEED(KV_ENTROPY_NATS));
    for (size_t t = 0; t < 7; t++) assert_token_bits(&spec, f, t, bits[t]);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

static void the_mean_of_four_is_cut_at_the_quartiles_of_the_recording(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("threshold:bits=16/8/4/2");
    struct fake *f = fake_new(&spec.run, 2, 0, 0, 1);
    for (size_t i = 0; i <= KV_ATTN_VAR; i++) { // entropy runs from 0 to 10, the others to 1
        float top = i == KV_ENTROPY_NATS ? 10 : 1;
        for (size_t q = 0; q < KV_N_QUANTILES; q++)
            f->quantiles.quantile[i][q] = top * (float)q / (KV_N_QUANTILES - 1);
    }
    // (0.4 + 0.2 + 0.1 + 0.5) / 4 = 0.3: second quarter; (0.9 + 1 + 1 + 0.5) / 4 = 0.85: last.
    const float first[] = {4, 0.2f, 0.1f, 0.5f}, second[] = {9, 1, 1, 0.5f};
    for (size_t i = 0; i < 4; i++) {
        set_feature(f, 0, i, first[i]);
        set_feature(f, 1, i, second[i]);
    }
    fake_ask(&spec, f);
    assert_token_bits(&spec, f, 0, 8);
    assert_token_bits(&spec, f, 1, 2);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

static void cuts_that_do_not_fit_the_widths_are_refused(void **state) {
    static const struct {
        const char *spec, *says;
    } wrong[] = {{"threshold:cuts=1/2", "4 widths need 3 cuts, not 2"},
                 {"threshold:cuts=1/3/2", "they must rise"},
                 {"threshold:cuts=1/2/3,quantiles=0.1/0.2/0.3", "exclude each other"},
                 {"threshold:bits=2/5/8/16", "does not offer 5 bits"},
                 {"context:cuts=4/9", "2 widths (at most 12) need 1 cuts, not 2"}};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct kv_error e = {0};
        struct kv_replay_spec spec;
        const char *text = i == 3 ? "threshold:bits=2/5/8/16@ggml" : wrong[i].spec;
        assert_int_equal(kv_replay_spec_open(&spec, text, &fake_setting, 1, &e),
                         i == 3 ? KV_ENOTOFFERED : KV_EUSAGE);
        if (!strstr(e.msg, i == 3 ? "does not offer" : wrong[i].says)) fail_msg("%s", e.msg);
    }
}

// ---- position ----------------------------------------------------------------------------

// "Context-dependent precision" is future work of Don't Waste Bits (arXiv 2604.04722): a prompt of
// five, cuts at 2 and 6; the choices' tokens stand at positions 5, 6 and 7.
static void context_gives_widths_by_position_and_choices_go_on_counting(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("context:bits=16/8/4,cuts=2/6");
    struct fake *f = fake_new(&spec.run, 5, 2, 3, 1);
    fake_ask(&spec, f);
    const unsigned bits[] = {16, 16, 8, 8, 8, /* choices from position 5 on */ 8, 4, 4, 8, 4, 4};
    for (size_t t = 0; t < 11; t++) assert_token_bits(&spec, f, t, bits[t]);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// StreamingLLM (arXiv 2309.17453): of a prompt of nine, 2 sinks and the newest 3 stay: tokens 2 to
// 5 go.
static void sinks_keeps_the_first_and_the_newest_of_the_prompt_and_all_choices(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("sinks:keep=2,window=3,bits=8");
    struct fake *f = fake_new(&spec.run, 9, 1, 2, 1);
    size_t cells = kv_cells(&spec.run.shape);
    fake_ask(&spec, f);
    for (size_t t = 0; t < 11; t++)
        for (size_t c = 0; c < cells; c++)
            if (t >= 2 && t < 6)
                assert_int_equal(f->cells[t * cells + c], KV_EVICT);
            else
                assert_int_equal(fake_bits(&spec, f, t, c), 8);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// H2O (arXiv 2306.14048), worked by hand for KV head 0 of layer 0: every query is zero, so row t
// gives each of its t + 1 tokens 1 / (t + 1) and of the prompt's four tokens the first received
// 1 + 1/2 + 1/3 + 1/4, the second 1/2 + 1/3 + 1/4, ...: the earliest is the heaviest. In layer 1
// all queries point at the key of token 1 alone, which is then the heaviest.
static void h2o_keeps_the_heaviest_and_the_newest(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("h2o:heavy=0.25,recent=0.25,bits=16");
    const struct kv_shape *s = &spec.run.shape;
    struct fake *f = fake_new(&spec.run, 4, 1, 2, 1);
    size_t cells = kv_cells(s), d = s->head_dim, kv_row = s->n_layers * s->n_kv_heads * d,
           q_row = s->n_layers * s->n_heads * d;
    uint16_t *k = (uint16_t *)f->item.k, *q = (uint16_t *)f->item.q;
    memset(k, 0, f->item.n_tokens * kv_row * sizeof *k);
    memset(q, 0, f->item.n_tokens * q_row * sizeof *q);
    for (size_t h = 0; h < s->n_kv_heads; h++)
        k[1 * kv_row + (1 * s->n_kv_heads + h) * d] = kv_f32_to_f16(10);
    for (size_t t = 0; t < 4; t++)
        for (size_t h = 0; h < s->n_heads; h++)
            q[t * q_row + (1 * s->n_heads + h) * d] = kv_f32_to_f16(10);
    fake_ask(&spec, f);
    for (size_t h = 0; h < s->n_kv_heads; h++) {
        const bool kept[2][4] = {{true, false, false, true}, {false, true, false, true}};
        for (size_t l = 0; l < 2; l++)
            for (size_t t = 0; t < 4; t++)
                for (size_t side = 0; side < 2; side++)
                    assert_int_equal(f->cells[t * cells + (l * s->n_kv_heads + h) * 2 + side] !=
                                         KV_EVICT,
                                     kept[l][t]);
    }
    for (size_t t = 4; t < 6; t++) assert_token_bits(&spec, f, t, 16);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// By token: of six 0.35 x 6 = 2.1, so the newest two stay (int() of the authors' code,
// utils_hh/modify_llama.py; rounding up would keep three), and of the others the two that received
// most attention so far, 0.9 and 0.3: tokens 0 and 2.
static void h2o_by_token_goes_by_the_attention_received_so_far(void **state) {
    static const float received[] = {0.9f, 0.1f, 0.3f, 0.2f, 0.05f, 0.01f};
    static const bool kept[] = {true, false, true, false, true, true};
    (void)state;
    struct kv_replay_spec spec = fake_spec("h2o:heavy=0.35,recent=0.35,bits=8,by=token");
    struct fake *f = fake_new(&spec.run, 6, 1, 2, 1);
    size_t cells = kv_cells(&spec.run.shape);
    for (size_t t = 0; t < 6; t++) set_feature(f, t, KV_ATTN_SO_FAR, received[t]);
    fake_ask(&spec, f);
    for (size_t t = 0; t < 6; t++)
        for (size_t c = 0; c < cells; c++)
            assert_int_equal(f->cells[t * cells + c] != KV_EVICT, kept[t]);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// A prompt of three at a quarter each: int(0.75) = 0 tokens stay, K and V of each head.
static void h2o_of_a_prompt_shorter_than_its_share_keeps_nothing(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("h2o:heavy=0.25,recent=0.25");
    struct fake *f = fake_new(&spec.run, 3, 1, 2, 1);
    size_t cells = kv_cells(&spec.run.shape);
    fake_ask(&spec, f);
    for (size_t i = 0; i < 3 * cells; i++) assert_int_equal(f->cells[i], KV_EVICT);
    for (size_t t = 3; t < 5; t++) assert_token_bits(&spec, f, t, 16);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// ---- layers ------------------------------------------------------------------------------

// KVTuner's plans (arXiv 2502.04420): layer 0 K8V4, layer 1 K4V2, and layer 2 begins anew, since
// the lists are shorter than the model. By head, lists run over the KV heads of all layers: heads 0
// to 5 have 8, 4, 2, 8, 4, 2.
static void layerwise_gives_each_layer_or_head_its_widths_and_short_lists_repeat(void **state) {
    (void)state;
    struct kv_replay_spec layers = fake_spec("layerwise:k=8/4,v=4/2"),
                          heads = fake_spec("layerwise:k=8/4/2,by=head");
    static const unsigned by_layer[3][2] = {{8, 4}, {4, 2}, {8, 4}},
                          by_head[6] = {8, 4, 2, 8, 4, 2};
    struct fake *f = fake_new(&layers.run, 3, 1, 2, 1);
    fake_ask(&layers, f);
    for (size_t t = 0; t < 5; t++)
        for (size_t c = 0; c < 12; c++)
            assert_int_equal(fake_bits(&layers, f, t, c), by_layer[c / 4][c & 1]);
    fake_ask(&heads, f); // values as keys where they are not named
    for (size_t t = 0; t < 5; t++)
        for (size_t c = 0; c < 12; c++)
            assert_int_equal(fake_bits(&heads, f, t, c), by_head[c / 2]);
    assert_true(kv_tag_bits(&layers.run.shape, layers.varies, layers.options) == 0);
    fake_free(f);
    kv_replay_spec_close(&layers);
    kv_replay_spec_close(&heads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absolute_cuts_part_the_feature_and_a_value_on_a_cut_has_passed_it),
        cmocka_unit_test(the_mean_of_four_is_cut_at_the_quartiles_of_the_recording),
        cmocka_unit_test(cuts_that_do_not_fit_the_widths_are_refused),
        cmocka_unit_test(context_gives_widths_by_position_and_choices_go_on_counting),
        cmocka_unit_test(sinks_keeps_the_first_and_the_newest_of_the_prompt_and_all_choices),
        cmocka_unit_test(h2o_keeps_the_heaviest_and_the_newest),
        cmocka_unit_test(h2o_by_token_goes_by_the_attention_received_so_far),
        cmocka_unit_test(h2o_of_a_prompt_shorter_than_its_share_keeps_nothing),
        cmocka_unit_test(layerwise_gives_each_layer_or_head_its_widths_and_short_lists_repeat),
    };
    return cmocka_run_group_tests_name("rules", tests, NULL, NULL);
}
