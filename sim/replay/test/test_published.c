// SPDX-License-Identifier: Apache-2.0
// Which read modes fit a spec, and what is said of those that do not.
#include "sim/replay/published.h"

#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

static const struct kv_format_setting setting = {.shape = {.n_layers = 3,
                                                           .n_heads = 4,
                                                           .n_kv_heads = 2,
                                                           .head_dim = 32,
                                                           .hidden = 16,
                                                           .ffn = 32,
                                                           .vocab = 100,
                                                           .max_tokens = 512},
                                                 .order = KV_ORDER_GGML};

static struct kv_replay_spec open_spec(const char *text) {
    struct kv_replay_spec spec;
    struct kv_error e = {0};
    if (kv_replay_spec_open(&spec, text, &setting, 1, &e))
        fail_msg("%s: %s: %s", text, e.where, e.msg);
    return spec;
}

// In which modes a spec fits: QAQ scores the first new token from exact logits; KIVI, KVTuner and
// ZipCache attend exactly in the prompt; KV-AdaQuant's cache is Hugging Face's; RotateKV and
// llama.cpp read coded values inside the prompt.
static void each_spec_fits_the_modes_it_was_published_in(void **state) {
    enum { I = 1, P = 2, P1 = 4, R = 8, ALL = 15 };
    static const struct {
        const char *spec;
        int fits;
    } cases[] = {{"none", ALL},
                 {"static:bits=4@sym", ALL},
                 {"static:bits=4@hqq", ALL},
                 {"static:bits=2@kivi", P},
                 {"static:bits=4@qaq", P1},
                 {"static:bits=4@zipcache", P},
                 {"static:bits=4@q4_0", I},
                 {"static:bits=4@hadamard(q4_0)", I},
                 {"static:bits=4@hadamard(sym)", ALL},
                 {"threshold:feature=entropy@sym", ALL},
                 {"qaq@qaq", P1},
                 {"qaq@asym", P1},
                 {"qaq@kivi", 0},
                 {"kvtuner:bits=4@asym", P},
                 {"zipcache@zipcache", P},
                 {"zipcache@asym:group=32", P},
                 {"kvadaquant:bits=4@hqq", R},
                 {"rotatekv@rotatekv", I},
                 {"h2o@sym", P},
                 {"sinks@sym", P},
                 {"pmkvq:tokens=9@sym", P | P1 | R},
                 {"shuffle(static:bits=4)@sym", ALL},
                 {"shuffle(qaq)@sym", P1},
                 {"qkvshare(zipcache):hops=2@sym", P}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_replay_spec spec = open_spec(cases[i].spec);
        for (int mode = 0; mode < KV_N_MODES; mode++) {
            const char *why = kv_mode_mismatch(&spec, (enum kv_mode)mode);
            if ((why == NULL) != (cases[i].fits >> mode & 1))
                fail_msg("%s, mode %s: %s", cases[i].spec, kv_mode_names[mode],
                         why ? why : "nothing is said");
        }
        kv_replay_spec_close(&spec);
    }
}

static void the_sentence_names_who_and_in_which_mode(void **state) {
    struct kv_replay_spec qaq = open_spec("qaq@qaq"), kivi = open_spec("static:bits=2@kivi"),
                          halving = open_spec("pmkvq:tokens=9@sym");
    (void)state;
    assert_string_equal(
        kv_mode_mismatch(&qaq, KV_INLINE),
        "the policy decides at the prompt's end, and the prompt's own queries read its widths");
    assert_string_equal(kv_mode_mismatch(&qaq, KV_PREFILL),
                        "the policy was published in mode prefill1");
    assert_string_equal(kv_mode_mismatch(&kivi, KV_INLINE),
                        "the format was published in mode prefill");
    assert_non_null(strstr(kv_mode_mismatch(&halving, KV_INLINE), "prompt's end"));
    kv_replay_spec_close(&qaq);
    kv_replay_spec_close(&kivi);
    kv_replay_spec_close(&halving);
}

// A plug-in built before the field was there has a shorter struct: the host fills it with zero.
static void what_an_older_plug_in_lacks_means_any(void **state) {
    (void)state;
    assert_true(offsetof(struct kv_policy, published_mode) >=
                offsetof(struct kv_policy, rounds_as_opened) + sizeof(void (*)(void)));
    assert_int_equal(KV_PUBLISHED_ANY, 0);
    assert_string_equal(kv_published_name(KV_PUBLISHED_ANY), "");
    assert_string_equal(kv_published_name(KV_PUBLISHED_PREFILL1), "prefill1");
    assert_string_equal(kv_published_name(99), ""); // a newer one's
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_spec_fits_the_modes_it_was_published_in),
        cmocka_unit_test(the_sentence_names_who_and_in_which_mode),
        cmocka_unit_test(what_an_older_plug_in_lacks_means_any),
    };
    return cmocka_run_group_tests_name("published modes", tests, NULL, NULL);
}
