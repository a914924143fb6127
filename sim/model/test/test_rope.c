// SPDX-License-Identifier: Apache-2.0
// Frequencies of scaled RoPE against those of transformers 5.24.0 (ROPE_INIT_FUNCTIONS), and
// against what the formulas say at their ends.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "sim/model/rope.h"

enum { N_PAIRS = 8 };
static const struct {
    const char *name;
    struct kv_rope rope;
    uint32_t head_dim, pair[N_PAIRS];
    double frequency[N_PAIRS];
} cases[] = {
    {"llama3 of Llama 3.2 1B",
     {.base = 500000,
      .scaling = KV_ROPE_LLAMA3,
      .factor = 32,
      .low_factor = 1,
      .high_factor = 4,
      .original_tokens = 8192},
     64,
     {0, 4, 8, 12, 16, 20, 24, 31},
     {1, 0.193922758, 0.0376060307, 0.00729266508, 0.000429556705, 8.57025589e-06, 1.66196742e-06,
      9.41830649e-08}},
    {"llama3 of Llama 3.1 8B",
     {.base = 500000,
      .scaling = KV_ROPE_LLAMA3,
      .factor = 8,
      .low_factor = 1,
      .high_factor = 4,
      .original_tokens = 8192},
     128,
     {0, 8, 16, 24, 32, 40, 48, 63},
     {1, 0.193922758, 0.0376060307, 0.00729266508, 0.000524846022, 3.42810235e-05, 6.64786967e-06,
      3.06892588e-07}},
    {"yarn of Qwen2.5",
     {.base = 1000000,
      .scaling = KV_ROPE_YARN,
      .factor = 4,
      .low_factor = 1,
      .high_factor = 32,
      .original_tokens = 32768},
     128,
     {0, 8, 16, 24, 32, 40, 48, 63},
     {1, 0.177827939, 0.0316227786, 0.00537532149, 0.000602941145, 4.44569851e-05, 7.90569356e-06,
      3.10234441e-07}},
    {"yarn of other bounds",
     {.base = 10000,
      .scaling = KV_ROPE_YARN,
      .factor = 16,
      .low_factor = 2,
      .high_factor = 8,
      .original_tokens = 2048},
     80,
     {0, 5, 10, 15, 20, 25, 30, 39},
     {1, 0.316227764, 0.100000001, 0.0316227786, 0.00464285677, 0.000197642366, 6.2500003e-05,
      7.86828241e-06}},
    {"linear",
     {.base = 10000, .scaling = KV_ROPE_LINEAR, .factor = 2.5f},
     96,
     {0, 6, 12, 18, 24, 30, 36, 47},
     {0.400000006, 0.1264911, 0.0399999991, 0.0126491114, 0.00399999972, 0.00126491114,
      0.000400000019, 4.8461101e-05}},
};

static void frequencies_equal_those_of_transformers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t p = 0; p < N_PAIRS; p++) {
            double want = cases[i].frequency[p],
                   got = kv_rope_frequency(&cases[i].rope, cases[i].head_dim, cases[i].pair[p]);
            // They are float32 there.
            if (!(fabs(got - want) <= 3e-7 * want))
                fail_msg("%s, pair %u: %.9g, not %.9g", cases[i].name, cases[i].pair[p], got, want);
        }
}

static void yarn_grows_vectors_as_in_transformers(void **state) {
    (void)state;
    assert_true(fabsf(kv_rope_yarn_attention(4) - 1.1386294361f) < 1e-6f);
    assert_true(fabsf(kv_rope_yarn_attention(40) - 1.3688879454f) < 1e-6f);
    assert_true(kv_rope_yarn_attention(1) == 1);
}

// Short waves are kept, long ones divided by the factor, whatever lies between.
static void the_ends_of_both_ramps_are_kept_and_divided(void **state) {
    static const enum kv_rope_scaling kinds[] = {KV_ROPE_LLAMA3, KV_ROPE_YARN};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct kv_rope plain = kv_rope_plain(5e5f), r = plain;
        r.scaling = kinds[i];
        r.factor = 8;
        r.low_factor = 1;
        r.high_factor = 32;
        r.original_tokens = 4096;
        assert_true(kv_rope_frequency(&r, 128, 0) == 1);
        assert_true(fabs(kv_rope_frequency(&r, 128, 63) / kv_rope_frequency(&plain, 128, 63) -
                         0.125) < 1e-12);
        double middle = kv_rope_frequency(&r, 128, 26) / kv_rope_frequency(&plain, 128, 26);
        assert_true(middle > 0.15 && middle < 0.95);
    }
}

static void divisors_divide_and_linear_divides_all(void **state) {
    float divisors[] = {1, 2, 8, 32};
    struct kv_rope r = kv_rope_plain(10000), plain = r;
    (void)state;
    r.scaling = KV_ROPE_DIVISORS;
    r.divisors = divisors;
    for (uint32_t p = 0; p < 4; p++)
        assert_true(kv_rope_frequency(&r, 8, p) ==
                    kv_rope_frequency(&plain, 8, p) / (double)divisors[p]);
    r.scaling = KV_ROPE_LINEAR;
    r.factor = 4;
    for (uint32_t p = 0; p < 4; p++)
        assert_true(kv_rope_frequency(&r, 8, p) == kv_rope_frequency(&plain, 8, p) / 4);
}

static void numbers_that_scale_nothing_are_refused(void **state) {
    struct kv_rope r = kv_rope_plain(10000);
    struct kv_error e;
    (void)state;
    r.scaling = KV_ROPE_LINEAR;
    r.factor = 0.5f;
    assert_int_equal(KV_EFAIL, kv_rope_check(&r, "x", &e));
    assert_string_equal(e.msg, "RoPE's scaling factor is 0.5, not at least 1");
    r = (struct kv_rope){.base = 10000,
                         .scaling = KV_ROPE_LLAMA3,
                         .factor = 8,
                         .low_factor = 4,
                         .high_factor = 4,
                         .original_tokens = 8192};
    assert_int_equal(KV_EFAIL, kv_rope_check(&r, "x", &e));
    assert_string_equal(e.msg,
                        "RoPE is scaled from a context of 8192 tokens between 4 and 4 rounds; the "
                        "context should be positive, the rounds too and the second more");
    r.low_factor = 1;
    assert_int_equal(0, kv_rope_check(&r, "x", &e));
    r.scaling = KV_ROPE_YARN;
    r.base = 1;
    assert_int_equal(KV_EFAIL, kv_rope_check(&r, "x", &e));
    assert_string_equal(e.msg, "YaRN needs a RoPE base above 1, not 1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_equal_those_of_transformers),
        cmocka_unit_test(yarn_grows_vectors_as_in_transformers),
        cmocka_unit_test(the_ends_of_both_ramps_are_kept_and_divided),
        cmocka_unit_test(divisors_divide_and_linear_divides_all),
        cmocka_unit_test(numbers_that_scale_nothing_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
