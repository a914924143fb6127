// SPDX-License-Identifier: Apache-2.0
// Published rules on items worked out by hand.
#include "policies/test/fake_item.h"

// An item whose queries are all zero: prompt row t gives each of its t + 1 tokens 1 / (t + 1).
static struct fake *even_attention(const struct kv_run *run, uint32_t n_context,
                                   uint32_t n_choices) {
    struct fake *f = fake_new(run, n_context, n_choices, 2, 1);
    memset((uint16_t *)f->item.q, 0,
           (size_t)f->item.n_tokens * run->shape.n_layers * run->shape.n_heads *
               run->shape.head_dim * sizeof(uint16_t));
    return f;
}

// Makes a token's key and value in every head run from 0 to `range`, but for one value below and
// one above, which are outliers: of 32 values the ceil(0.005 x 32) = 1st smallest, and what lies
// above the floor(0.995 x 32) = 31st.
static void set_range(struct fake *f, size_t token, float range) {
    const struct kv_shape *s = &f->item.run->shape;
    size_t heads = kv_cells(s) / 2, d = s->head_dim;
    for (size_t h = 0; h < heads; h++) {
        uint16_t *k = (uint16_t *)f->item.k + (token * heads + h) * d,
                 *v = (uint16_t *)f->item.v + (token * heads + h) * d;
        memset(k, 0, d * sizeof *k);
        memset(v, 0, d * sizeof *v);
        k[3] = v[5] = kv_f32_to_f16(range);
        k[8] = v[1] = kv_f32_to_f16(-99);
        k[9] = v[2] = kv_f32_to_f16(999);
    }
}

// ---- QAQ, arXiv 2403.04643 ---------------------------------------------------------------

// Formulas: the authors' src/quantizer.py (commit f8d47e09), _calc_quantization_bits and
// _calc_outlier_mask. Prompt of T = 4, window 2: rows 2 and 3 count, so tokens 0 to 2 got at most S
// = 1/3. Values: sigma = value-error / (sqrt(4) S) = 1.5 value-error = 0.15, and 2 sqrt(3) sigma =
// 0.5196. Keys: sigma^2 = ln(4^3 / 3 + 1) / 300 = 3.1060 / 300, sigma = 0.10175, 2 sqrt(3) sigma =
// 0.35247.
static void qaq_gives_the_bits_of_its_formulas(void **state) {
    static const float range[3] = {1, 5, 16};
    // Paper, log2(r / (2 sqrt(3) sigma)). Values: 1.92 -> 0.94 -> 1, below min; 9.62 -> 3.27 -> 4;
    // 30.8 -> 4.94 -> 5. Keys: 2.84 -> 1.50 -> 2; 14.2 -> 3.83 -> 4; 45.4 -> 5.50 -> 6.
    static const unsigned paper[3][2] = {{2, 2}, {4, 4}, {6, 5}};
    // Code, log2(r / (2 sqrt(12) sigma) + 1). Values: 0.96 + 1 -> 0.97 -> 1; 4.81 + 1 -> 2.54 -> 3;
    // 15.4 + 1 -> 4.04 -> 5. Keys: 1.42 + 1 -> 1.27 -> 2; 7.09 + 1 -> 3.02 -> 4;
    // 22.7 + 1 -> 4.57 -> 5.
    static const unsigned code[3][2] = {{2, 2}, {4, 3}, {5, 5}};
    static const char *const specs[] = {
        "qaq:rule=paper,q2=300,value-error=0.1,window=2,min=2,max=6@asym:group=32",
        "qaq:rule=code,value-error=0.1,window=2,min=2,max=6@asym:group=32"};
    (void)state;
    for (size_t rule = 0; rule < 2; rule++) {
        struct kv_replay_spec spec = fake_spec(specs[rule]);
        struct fake *f = even_attention(&spec.run, 4, 1);
        for (size_t t = 0; t < 3; t++) set_range(f, t, range[t]);
        fake_ask(&spec, f);
        for (size_t t = 0; t < 3; t++)
            for (size_t c = 0; c < kv_cells(&spec.run.shape); c++)
                assert_int_equal(fake_bits(&spec, f, t, c), (rule ? code : paper)[t][c & 1]);
        for (size_t t = 3; t < 6; t++) // the window's last token and the choice
            for (size_t c = 0; c < kv_cells(&spec.run.shape); c++)
                assert_int_equal(fake_bits(&spec, f, t, c), 6);
        fake_free(f);
        kv_replay_spec_close(&spec);
    }
}

// By token, 6 heads of 32 are one group: of 192 values the ceil(0.96) = 1st smallest is an outlier
// and what lies above the floor(191.04) = 191st. Token 0: all -99 are equal to the smallest and go;
// of six times 999 the largest is equal to the 191st and stays: the range is 999, 6 bits as the
// most. Token 1, zeros but for one -3 and 16, 17: -3 and 17 go, 16 stays: values 30.8 -> 5 bits,
// keys 45.4 -> 6. Token 2 has a single value of its own, which is an outlier, and of the zeros,
// which equal the smallest, nothing stays: no range, 2 bits.
static void qaq_by_token_takes_the_range_over_all_heads(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("qaq:rule=paper,level=token,q2=300,value-error=0.1,"
                                           "window=2,min=2,max=6@asym:group=32");
    struct fake *f = even_attention(&spec.run, 4, 0);
    size_t heads = kv_cells(&spec.run.shape) / 2, d = spec.run.shape.head_dim;
    static const float own[3][3] = {{0}, {-3, 16, 17}, {0, 0, 40}};
    set_range(f, 0, 1);
    for (size_t t = 1; t < 3; t++)
        for (int side = 0; side < 2; side++) {
            uint16_t *x = (uint16_t *)(side ? f->item.v : f->item.k) + t * heads * d;
            memset(x, 0, heads * d * sizeof *x);
            for (size_t i = 0; i < 3; i++) x[(2 * i) * d + 5] = kv_f32_to_f16(own[t][i]);
        }
    fake_ask(&spec, f);
    for (size_t c = 0; c < 2 * heads; c++) {
        assert_int_equal(fake_bits(&spec, f, 0, c), 6);
        assert_int_equal(fake_bits(&spec, f, 1, c), c & 1 ? 5 : 6);
        assert_int_equal(fake_bits(&spec, f, 2, c), 2);
    }
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// With outliers=0 the range is the whole one: -99 to 999.
static void qaq_without_outliers_takes_the_whole_range(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec(
        "qaq:rule=paper,q2=300,value-error=100,key-error=1,window=1,min=2,max=8,outliers=0@"
        "asym:group=32");
    struct fake *f = even_attention(&spec.run, 4, 0);
    set_range(f, 1, 1);
    fake_ask(&spec, f);
    // Window 1: row 3 gave token 1 a quarter; sigma = 100 / (2 / 4) = 200, 1098 / (2 sqrt(3) 200) =
    // 1.58 -> 0.66 -> 1, below min; keys 1098 / 0.35247 = 3115 -> 11.6, above max.
    for (size_t c = 0; c < kv_cells(&spec.run.shape); c++)
        assert_int_equal(fake_bits(&spec, f, 1, c), c & 1 ? 2 : 8);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// ---- ZipCache, arXiv 2405.14256 ----------------------------------------------------------

// Makes prompt row `row` give token `token` in every head twice what it gives each other.
static void attend_twice(struct fake *f, size_t row, size_t token) {
    const struct kv_shape *s = &f->item.run->shape;
    size_t d = s->head_dim, heads = kv_cells(s) / 2, q_heads = (size_t)s->n_layers * s->n_heads;
    for (size_t h = 0; h < heads; h++) // exp(20 x 0.196 / sqrt(32)) = 2
        ((uint16_t *)f->item.k)[(token * heads + h) * d] = kv_f32_to_f16(0.196f);
    for (size_t h = 0; h < q_heads; h++)
        ((uint16_t *)f->item.q)[(row * q_heads + h) * d] = kv_f32_to_f16(20);
}

static void clear_keys(struct fake *f) {
    size_t heads = kv_cells(&f->item.run->shape) / 2, d = f->item.run->shape.head_dim;
    memset((uint16_t *)f->item.k, 0, f->item.n_tokens * heads * d * sizeof(uint16_t));
}

static void zip_bits_are(const struct kv_replay_spec *spec, const struct fake *f,
                         const unsigned *bits) {
    for (size_t t = 0; t < f->item.n_tokens; t++)
        for (size_t c = 0; c < kv_cells(&spec->run.shape); c++)
            assert_int_equal(fake_bits(spec, f, t, c), bits[t]);
}

// All four rows probe: token 0 got (1 + 1/2 + 1/3 + 1/4) / 4 = 0.52, token 1 (1/2 + 1/3 + 1/4) / 3
// = 0.36, token 2 (1/3 + 1/4) / 2 = 0.29, token 3 1/4: the last two of four are the least. In the
// second item row 3 gives token 3 twice what it gives each other, 0.4 and 0.2: 0.51, 0.34, 0.27 and
// 0.4, the middle ones are the least; plain sums, 2.03, 1.03, 0.53 and 0.4, would say the last two.
static void zipcache_divides_attention_by_the_rows_that_could_see_a_token(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("zipcache:low=0.5,recent=1,random=0");
    struct fake *f = even_attention(&spec.run, 4, 1);
    fake_ask(&spec, f);
    zip_bits_are(&spec, f, (const unsigned[]){4, 4, 2, 2, 4, 4});
    clear_keys(f);
    attend_twice(f, 3, 3);
    fake_ask(&spec, f);
    zip_bits_are(&spec, f, (const unsigned[]){4, 2, 2, 4, 4, 4});
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// modeling_llama.py (commit b6932b99): token_attn_sum / flip(arange(1, T + 1)). Of four rows int(4
// - 1) = 3 are old, and only row 3 probes: it gives each token 1/4, by the 4, 3, 2 and 1 rows that
// see it 0.0625, 0.083, 0.125 and 0.25: the first two are the least. By the one probe that sees
// each they would all be alike.
static void zipcache_counts_the_rows_that_see_a_token_not_the_probes(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("zipcache:low=0.5,recent=0.25,random=0");
    struct fake *f = even_attention(&spec.run, 4, 1);
    fake_ask(&spec, f);
    zip_bits_are(&spec, f, (const unsigned[]){2, 2, 4, 4, 4, 4});
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// Of two rows int(2 - 0.5 x 2) = 1 is old, and int(1 x 2) = 2 draws can only be row 0, twice: token
// 0 got 2 and 1/5 of row 1, which gives token 1 four times what it gives token 0, 4/5: token 0 (2 +
// 1/5) / 2 = 1.1, token 1 0.8. Counted once, token 0 would have 0.6 and be the least.
static void zipcache_counts_a_row_that_is_drawn_twice_twice(void **state) {
    (void)state;
    struct kv_replay_spec twice = fake_spec("zipcache:low=0.5,recent=0.5,random=1"),
                          once = fake_spec("zipcache:low=0.5,recent=0.5,random=0.5");
    struct fake *f = even_attention(&twice.run, 2, 0);
    size_t heads = kv_cells(&twice.run.shape) / 2, d = twice.run.shape.head_dim;
    clear_keys(f);
    attend_twice(f, 1, 1);
    for (size_t h = 0; h < heads; h++) // exp(20 x 0.392 / sqrt(32)) = 4
        ((uint16_t *)f->item.k)[(1 * heads + h) * d] = kv_f32_to_f16(0.392f);
    fake_ask(&twice, f);
    zip_bits_are(&twice, f, (const unsigned[]){4, 2});
    fake_ask(&once, f);
    zip_bits_are(&once, f, (const unsigned[]){2, 4});
    fake_free(f);
    kv_replay_spec_close(&twice);
    kv_replay_spec_close(&once);
}

// int(0.4 x 27) = 10 of each head.
static void zipcache_stores_its_share_of_the_prompt_narrow_in_every_head(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("zipcache");
    struct fake *f = fake_new(&spec.run, 27, 2, 3, 8);
    fake_ask(&spec, f);
    for (size_t c = 0; c < kv_cells(&spec.run.shape); c++) {
        size_t narrow = 0;
        for (size_t t = 0; t < 27; t++) narrow += fake_bits(&spec, f, t, c) == 2;
        assert_int_equal(narrow, 10);
    }
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// ---- RotateKV, arXiv 2501.16383 ----------------------------------------------------------

// Two pivots a layer. Layer 0: both largest entries are token 4's, so that one token stays wide;
// layer 1: tokens 0 and 2; a choice's token never does, however large.
static void rotatekv_keeps_the_tokens_that_own_the_largest_activations(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("rotatekv:pivots=2");
    const struct kv_shape *s = &spec.run.shape;
    struct fake *f = fake_new(&spec.run, 6, 1, 2, 3);
    uint16_t *h = (uint16_t *)f->item.hidden;
    size_t row = (size_t)s->n_layers * s->hidden;
    h[4 * row + 3] = kv_f32_to_f16(-50);
    h[4 * row + 9] = kv_f32_to_f16(40);
    h[0 * row + s->hidden + 1] = kv_f32_to_f16(30);
    h[2 * row + s->hidden + 1] = kv_f32_to_f16(-20);
    h[6 * row] = h[6 * row + s->hidden] = kv_f32_to_f16(900);
    fake_ask(&spec, f);
    for (size_t t = 0; t < 8; t++)
        for (size_t c = 0; c < 4; c++) { // a layer has 2 KV heads, K and V
            assert_int_equal(fake_bits(&spec, f, t, c), t == 4 ? 16 : 2);
            assert_int_equal(fake_bits(&spec, f, t, 4 + c), t == 0 || t == 2 ? 16 : 2);
        }
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// ---- PM-KVQ, arXiv 2505.18610 ------------------------------------------------------------

// Budgets of 4, 6 and 40 tokens at 16 bits; a prompt of 9. 9 x 16 > 64, 9 x 8 > 64, 9 x 4 = 36: 4
// bits; 9 x 16 > 96, 9 x 8 = 72: 8 bits; 16 bits. The choice's 4th token is the 13th: 13 x 4 = 52,
// 13 x 8 = 104 > 96: 4 bits.
static void pmkvq_halves_a_layer_until_its_budget_holds_the_prompt(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("pmkvq:tokens=4/6/40");
    struct fake *f = fake_new(&spec.run, 9, 1, 4, 3);
    const unsigned prompt[] = {4, 8, 16}, last[] = {4, 4, 16};
    fake_ask(&spec, f);
    for (size_t l = 0; l < 3; l++)
        for (size_t c = 0; c < 4; c++) {
            for (size_t t = 0; t < 9; t++)
                assert_int_equal(fake_bits(&spec, f, t, 4 * l + c), prompt[l]);
            assert_int_equal(fake_bits(&spec, f, 12, 4 * l + c), last[l]);
        }
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// ---- KV-AdaQuant, arXiv 2502.15075 -------------------------------------------------------

// Three layers, norms K 4, 2, 1 and V 1, 1, 1; widths 2, 4, 8, mean 4: six tensors share 24 bits,
// 12 are spent at the start. Gain a bit of 2 -> 4: c (1/16 - 1/256) / 2 = 0.0293 c, of 4 -> 8: c
// (1/256
// - 1/65536) / 4 = 0.00097 c, c = 16, 4, 1; 1, 1, 1. So K0 (0.469), K1 (0.117), then of the equal
// ones (0.0293) V0, V1, K2 in the order K0 V0 K1 V1 K2 V2, which leaves 2 bits: V2. The 4 -> 8 of
// K0 (0.0155) comes too late.
static void kvadaquant_spends_bits_where_the_norms_say(void **state) {
    (void)state;
    struct kv_replay_spec even = fake_spec("kvadaquant:bits=4,widths=2/4/8"),
                          keys = fake_spec("kvadaquant:bits=3.5,widths=2/4/8");
    struct fake *f = fake_new(&even.run, 3, 0, 0, 1);
    const float mild[] = {4, 1, 2, 1, 1, 1}, steep[] = {16, 1, 2, 1, 1, 1};
    memcpy((float *)f->item.norms, mild, sizeof mild);
    fake_ask(&even, f);
    for (size_t c = 0; c < 12; c++) assert_int_equal(fake_bits(&even, f, 1, c), 4);
    // K0 at 16: c = 256, its 4 -> 8 gains 0.249 a bit, more than K1's first step (0.117): 21 bits,
    // 12 spent, K0 takes 6, 3 remain: K1 takes 2, 1 is left over.
    memcpy((float *)f->item.norms, steep, sizeof steep);
    fake_ask(&keys, f);
    const unsigned expected[3][2] = {{8, 2}, {4, 2}, {2, 2}};
    for (size_t t = 0; t < 3; t++)
        for (size_t c = 0; c < 12; c++)
            assert_int_equal(fake_bits(&keys, f, t, c), expected[c / 4][c & 1]);
    fake_free(f);
    kv_replay_spec_close(&even);
    kv_replay_spec_close(&keys);
}

// ---- QKVShare, arXiv 2605.03884 ----------------------------------------------------------

static void qkvshare_takes_its_widths_from_the_policy_inside_and_counts_hops(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("qkvshare(context:cuts=2,bits=8/4):hops=3"),
                          plain = fake_spec("context:cuts=2,bits=8/4"),
                          null = fake_spec("shuffle(qkvshare(static:bits=4):hops=5)");
    struct fake *f = fake_new(&spec.run, 5, 1, 2, 3);
    fake_ask(&spec, f);
    for (size_t t = 0; t < 7; t++)
        for (size_t c = 0; c < kv_cells(&spec.run.shape); c++)
            assert_int_equal(fake_bits(&spec, f, t, c), t < 2 ? 8 : 4);
    assert_int_equal(spec.hops, 3);
    assert_int_equal(plain.hops, 1);
    assert_int_equal(null.hops, 5); // a null is handed on as often
    assert_string_equal(spec.policy->tag, "not published");
    fake_free(f);
    kv_replay_spec_close(&spec);
    kv_replay_spec_close(&plain);
    kv_replay_spec_close(&null);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qaq_gives_the_bits_of_its_formulas),
        cmocka_unit_test(qaq_by_token_takes_the_range_over_all_heads),
        cmocka_unit_test(qaq_without_outliers_takes_the_whole_range),
        cmocka_unit_test(zipcache_divides_attention_by_the_rows_that_could_see_a_token),
        cmocka_unit_test(zipcache_counts_the_rows_that_see_a_token_not_the_probes),
        cmocka_unit_test(zipcache_counts_a_row_that_is_drawn_twice_twice),
        cmocka_unit_test(zipcache_stores_its_share_of_the_prompt_narrow_in_every_head),
        cmocka_unit_test(rotatekv_keeps_the_tokens_that_own_the_largest_activations),
        cmocka_unit_test(pmkvq_halves_a_layer_until_its_budget_holds_the_prompt),
        cmocka_unit_test(kvadaquant_spends_bits_where_the_norms_say),
        cmocka_unit_test(qkvshare_takes_its_widths_from_the_policy_inside_and_counts_hops),
    };
    return cmocka_run_group_tests_name("rivals", tests, NULL, NULL);
}
