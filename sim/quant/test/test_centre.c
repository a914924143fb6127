// SPDX-License-Identifier: Apache-2.0
// Keys less their mean: what is taken off and added again, over which tokens, and what it takes.
#include "sim/base/memory.h"
#include "sim/quant/centre.h"

#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

enum { HEADS = 2, DIM = 64, ROW = HEADS * DIM, TOKENS = 70, PROMPT = 48 };

static double angles[2 * DIM / 2]; // two layers of one RoPE

static struct kv_format *open_format(const char *spec) {
    for (int i = 0; i < DIM; i++) angles[i] = pow(1e6, -(i % (DIM / 2)) / (DIM / 2.0));
    const struct kv_format_setting setting = {
        .shape = {.n_layers = 2, .n_heads = 4, .n_kv_heads = HEADS, .head_dim = DIM},
        .order = KV_ORDER_HF,
        .rope = angles};
    struct kv_format *f;
    struct kv_error e = {0};
    if (kv_format_open(&f, spec, &setting, &e)) fail_msg("%s: %s", spec, e.msg);
    return f;
}

enum { FAST = 3, SLOW = 60 }; // channels whose pairs turn by 0.27 and 6e-6 radians a position

// Keys as a biased projection makes them: seeded noise, and a constant in one channel before RoPE.
static void biased(float *x, size_t n, size_t channel, float constant) {
    for (size_t t = 0; t < n; t++)
        for (size_t h = 0; h < HEADS; h++) {
            float *k = x + t * ROW + h * DIM;
            for (size_t i = 0; i < DIM; i++) k[i] = (float)(2 * kv_draw(1, h, t * DIM + i) - 1);
            k[channel] += constant;
            kv_turn(k, DIM, KV_ORDER_HF, angles, (double)t);
        }
}

static struct kv_vectors rows_of(const float *x, float *y, const uint8_t *width, size_t n) {
    return (struct kv_vectors){
        .layer = 1, .n = n, .x = x, .x_stride = ROW, .y = y, .y_stride = ROW, .cells = width};
}

static void code(const struct kv_format *f, const struct kv_vectors *r) {
    struct kv_error e = {0};
    void *scratch = kv_alloc(kv_code_scratch_bytes(f), 1);
    if (kv_code_rows(f, r, scratch, NULL, &e)) fail_msg("%s: %s", e.where, e.msg);
    free(scratch);
}

static double rmse(const char *spec, const float *x) {
    static float y[TOKENS * ROW];
    struct kv_format *f = open_format(spec);
    const uint8_t four = 2; // of 2, 3, 4, ...
    struct kv_vectors r = rows_of(x, y, &four, TOKENS);
    double sum = 0;
    assert_int_equal(f->width_bits[four], 4);
    code(f, &r);
    for (size_t i = 0; i < TOKENS * ROW; i++) sum += pow((double)x[i] - (double)y[i], 2);
    kv_format_close(f);
    return sqrt(sum / (TOKENS * ROW));
}

static void test_constant(void **state) {
    (void)state;
    static float x[TOKENS * ROW];
    kv_format_close(open_format("sym")); // the angles
    biased(x, TOKENS, SLOW, 0);
    double alone = rmse("asym:group=32", x);
    for (int fast = 0; fast < 2; fast++) {
        biased(x, TOKENS, fast ? FAST : SLOW, 50);
        double with = rmse("asym:group=32", x), pre = rmse("center(asym:group=32):side=pre", x),
               post = rmse("center(asym:group=32)", x);
        assert_true(with > 5 * alone);
        assert_true(pre < 1.2 * alone); // fp16 of the mean, and what 16 tokens leave of the noise
        assert_true(fast ? post > 4 * pre : post < 1.2 * alone); // what turns fast has no mean
    }
}

static void test_choice(void **state) {
    (void)state;
    static float x[TOKENS * ROW], whole[TOKENS * ROW], parts[TOKENS * ROW];
    static const char *const specs[] = {"center(asym:group=32)", "center(sym):side=pre,tokens=7",
                                        "center(sym:group=layer):side=pre,sinks=3"};
    const uint32_t first[] = {PROMPT, TOKENS};
    static uint8_t cells[TOKENS * 2 * ROW];
    memset(cells, 1, sizeof cells);
    for (size_t k = 0; k < sizeof specs / sizeof *specs; k++) {
        struct kv_format *f = open_format(specs[k]);
        biased(x, TOKENS, FAST, 50);
        const uint8_t width = 1;
        struct kv_vectors r = rows_of(x, whole, &width, TOKENS);
        code(f, &r);
        for (uint32_t b = 0; b < 2; b++) {
            r = kv_branch_rows(&f->setting.shape, 1, KV_KEY, PROMPT, first, b, cells, x, parts);
            code(f, &r);
        }
        assert_memory_equal(whole, parts, sizeof whole);
        // and the prompt's later tokens have no say
        for (size_t i = 20 * ROW; i < PROMPT * ROW; i++) x[i] += 9;
        r = kv_branch_rows(&f->setting.shape, 1, KV_KEY, PROMPT, first, 1, cells, x, parts);
        code(f, &r);
        assert_memory_equal(whole, parts, sizeof whole);
        kv_format_close(f);
    }
}

static void test_sixteen(void **state) {
    (void)state;
    static float x[TOKENS * ROW], y[TOKENS * ROW], want[TOKENS * ROW];
    struct kv_format *f = open_format("center(asym):side=pre,sides=both"), *g = open_format("fp16");
    biased(x, TOKENS, FAST, 50);
    const uint8_t last = (uint8_t)(f->n_widths - 1), only = 0;
    for (int side = 0; side < 2; side++) {
        struct kv_vectors r = rows_of(x, y, &last, TOKENS);
        r.side = (enum kv_side)side;
        code(f, &r);
        r = rows_of(x, want, &only, TOKENS);
        code(g, &r);
        assert_memory_equal(y, want, sizeof y);
    }
    kv_format_close(f);
    kv_format_close(g);
}

// 20 tokens of 2 heads of 64 at 4 bits: 2 x 20 x (64 x 4 + 32) bits, and 2 x 64 x 16 once.
static void test_ledger(void **state) {
    (void)state;
    struct kv_format *f = open_format("center(asym):sides=k");
    const uint8_t four = 2;
    struct kv_vectors r = rows_of(NULL, NULL, &four, 20);
    struct kv_bits keys = {0}, values = {0}, held = {0};
    kv_count_rows(f, &r, 30, &keys);
    r.start = r.first = 20;
    r.n = 10;
    kv_count_rows(f, &r, 30, &keys); // of a choice: the prompt's means serve it
    assert_int_equal(keys.code_bits, 2 * 30 * 64 * 4);
    assert_int_equal(keys.meta_bits, 2 * 30 * 32 + 2 * 64 * 16);
    assert_int_equal(keys.bytes, 2 * 30 * (32 + 4) + 2 * 64 * 2);
    r = rows_of(NULL, NULL, &four, 20);
    kv_count_rows(f, &r, 0, &held); // nothing is coded yet
    assert_int_equal(held.meta_bits, 0);
    assert_int_equal(held.code_bits, 2 * 20 * 64 * 16);
    r.side = KV_VALUE;
    kv_count_rows(f, &r, 20, &values);
    assert_int_equal(values.meta_bits, 2 * 20 * 32);
    kv_format_close(f);
}

static void test_known(void **state) {
    (void)state;
    struct kv_format *f = open_format("center(asym):tokens=16,sinks=2");
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 16, false), 0); // 17 are there, 18 are asked for
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 17, false), 18);
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 17, true), 0); // its own is read exact
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 40, true), 40);
    assert_int_equal(kv_coded_upto(f, KV_VALUE, 0, 5, false), 6); // not centred
    assert_int_equal(kv_coded_upto(f, KV_KEY, 9, 9, false), 10);  // the prompt was shorter
    kv_format_close(f);
}

static void refuses(const char *spec, const struct kv_vectors *r, bool angles_known,
                    const char *why) {
    struct kv_format *f = open_format(spec);
    struct kv_error e = {0};
    if (!angles_known) f->setting.rope = NULL;
    void *scratch = kv_alloc(kv_code_scratch_bytes(f), 1);
    assert_int_equal(kv_code_rows(f, r, scratch, NULL, &e), KV_EFAIL);
    if (!strstr(e.msg, why)) fail_msg("%s: %s", spec, e.msg);
    free(scratch);
    kv_format_close(f);
}

static void test_refusals(void **state) {
    (void)state;
    static float x[TOKENS * ROW];
    const uint8_t four = 2;
    struct kv_vectors r = rows_of(x, x, &four, 10);
    refuses("center(asym):side=pre", &r, false, "whose angles are not known here");
    r.start = r.first = 30;
    refuses("center(asym)", &r, true, "the tokens from position 30 on came without them");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"a constant before RoPE costs keys that are centred there next to nothing", test_constant,
         0, 0, 0},
        {"a choice is centred about its prompt's first tokens", test_choice, 0, 0, 0},
        {"16 bits are fp16 of the vector itself", test_sixteen, 0, 0, 0},
        {"a sequence's means are counted once, 16 bits a channel", test_ledger, 0, 0, 0},
        {"keys are read exact until the tokens of the mean have come", test_known, 0, 0, 0},
        {"rows without what a centre is made of are refused", test_refusals, 0, 0, 0},
    };
    return cmocka_run_group_tests_name("centre", tests, NULL, NULL);
}
