// SPDX-License-Identifier: Apache-2.0
// Errors of formats on Gaussian and on recorded vectors.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "analysis/studies/coding_error.h"
#include "sim/replay/test/tiny_trace.h"

static struct kv_quant_row *compare(const struct kv_quant_source *source, const char *const *specs,
                                    size_t n_specs, const uint32_t *widths, size_t n_widths,
                                    unsigned jobs, size_t *n) {
    struct kv_quant_options o = {specs, n_specs, widths, n_widths, jobs};
    struct kv_quant_row *rows;
    struct kv_error e = {0};
    if (kv_quant_compare(&rows, n, source, &o, &e)) fail_msg("%s: %s", e.where, e.msg);
    return rows;
}

static void error_falls_with_bits_and_expansions_are_rows_of_their_own(void **state) {
    (void)state;
    const char *specs[] = {"asym:group={32,64}"};
    struct kv_quant_source source = kv_quant_gaussian(1);
    size_t n;
    struct kv_quant_row *rows = compare(&source, specs, 1, NULL, 0, 2, &n);
    assert_int_equal(n, 2 * 6 * 2); // two formats, all widths below 16, K and V
    for (size_t i = 0; i < n; i++) {
        const struct kv_quant_row *r = &rows[i];
        assert_string_equal(r->spec, i < n / 2 ? "asym:group=32" : "asym:group=64");
        assert_int_equal(r->side, i % 2);
        assert_true(r->bits < 16 && r->effective_bits > r->bits);
        assert_true(r->relative <= r->worst_relative &&
                    r->layers[r->worst_layer] == r->worst_relative);
        if (i % (n / 2) >= 2) assert_true(r->relative < r[-2].relative);
    }
    assert_true(rows[0].relative < rows[n / 2].relative); // smaller groups err less
    kv_quant_rows_free(rows, n);
}

static void widths_asked_for_are_those_that_a_format_has(void **state) {
    (void)state;
    const char *specs[] = {"sym", "q4_0", "bf16"};
    const uint32_t widths[] = {4, 8};
    struct kv_quant_source source = kv_quant_gaussian(1);
    size_t n;
    kv_set_verbosity(-1); // bf16 has neither, which is said
    struct kv_quant_row *rows = compare(&source, specs, 3, widths, 2, 1, &n);
    assert_int_equal(n, 2 * (2 + 1));
    kv_quant_rows_free(rows, n);
    rows = compare(&source, specs + 2, 1, NULL, 0, 1, &n);
    assert_int_equal(n, 2); // its only width is 16
    kv_quant_rows_free(rows, n);
}

static void rows_do_not_depend_on_the_number_of_threads(void **state) {
    (void)state;
    const char *specs[] = {"sym"};
    const uint32_t widths[] = {3};
    struct tiny_trace t;
    struct kv_quant_source source;
    struct kv_error e = {0};
    size_t n, m;
    assert_int_equal(tiny_trace_open(&t, KV_KEEP_KV, 2, NULL), 0);
    assert_int_equal(kv_quant_recorded(&source, t.trace, 1, &e), 0);
    struct kv_quant_row *one = compare(&source, specs, 1, widths, 1, 1, &n),
                        *two = compare(&source, specs, 1, widths, 1, 2, &m);
    assert_int_equal(n, 2);
    assert_int_equal(m, 2);
    for (size_t i = 0; i < n; i++) {
        assert_true(one[i].relative > 0 && one[i].relative == two[i].relative);
        assert_true(one[i].values == (double)kv_trace_info(t.trace)->n_tokens * 2 * 64);
    }
    kv_quant_rows_free(one, n);
    kv_quant_rows_free(two, m);
    tiny_trace_close(&t);
}

static void a_recording_without_keys_and_values_is_refused(void **state) {
    (void)state;
    struct tiny_trace t;
    struct kv_quant_source source;
    struct kv_error e = {0};
    assert_int_equal(tiny_trace_open(&t, KV_KEEP_FINAL, 1, NULL), 0);
    assert_int_equal(kv_quant_recorded(&source, t.trace, 1, &e), KV_EFAIL);
    assert_string_equal(e.where, t.dir);
    tiny_trace_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_falls_with_bits_and_expansions_are_rows_of_their_own),
        cmocka_unit_test(widths_asked_for_are_those_that_a_format_has),
        cmocka_unit_test(rows_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(a_recording_without_keys_and_values_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
