// SPDX-License-Identifier: Apache-2.0
// The latency formula against figures worked out by hand on a device of round numbers.
#include "sim/cost/cost.h"
#include "sim/cost/runs.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "sim/cost/test/own_file.h"

// 2 layers x 3 heads x 10 = 60 values of K a token, and as many of V.
static struct kv_device *round_device(void) {
    struct kv_device *d = kv_device_new();
    d->shape = (struct kv_shape){.n_layers = 2, .n_heads = 9, .n_kv_heads = 3, .head_dim = 10};
    d->base_ns = 1000;
    d->attend_ns = 2;
    d->append_ns = 100;
    d->c_ns[KV_KEY][4] = 0.5;
    d->c_ns[KV_KEY][16] = 1;
    d->c_ns[KV_VALUE][4] = 0.25;
    d->c_ns[KV_VALUE][16] = 2;
    d->context_min = 10;
    d->context_max = 1000;
    return d;
}

static struct kv_ledger ledger_of(const char *mix, double allocated_bits) {
    struct kv_mix m;
    struct kv_error e;
    assert_int_equal(kv_mix_parse(&m, mix, &e), 0);
    struct kv_ledger l = {.allocated_bits = allocated_bits};
    kv_mix_shares(&m, &l);
    return l;
}

static void a_step_is_the_sum_of_its_terms(void **state) {
    (void)state;
    struct kv_device *d = round_device();
    struct kv_ledger l = ledger_of("4=0.5/16=0.5", 10.5);
    // keys: 60 (0.5 x 0.5 + 0.5 x 1) = 45; values: 60 (0.5 x 0.25 + 0.5 x 2) = 67.5; heads: 2
    struct kv_latency t = kv_device_step(d, &l, 100, 7);
    assert_float_equal(t.cache_ns, 100 * (2 + 45 + 67.5), 1e-9);
    assert_float_equal(t.step_ns, 1000 + 100 + 7 + 11450, 1e-9);
    assert_float_equal(t.ceiling_ns, 1000 + 100 + 200, 1e-9);
    assert_float_equal(t.cache_bytes, 10.5 * 120 / 8 * 100, 1e-9);
    assert_false(t.extrapolated);
    kv_device_free(d);
}

static void widths_by_cell_cost_what_was_measured_of_them_or_are_marked(void **state) {
    (void)state;
    struct kv_device *d = round_device();
    d->class_ns = 30;
    struct kv_ledger by_token = ledger_of("4=0.5/16=0.5", 10.5),
                     by_cell = ledger_of("cells:4=0.5/16=0.5", 10.5);
    double tokens = kv_device_step(d, &by_token, 100, 0).step_ns;
    assert_true(kv_device_step(d, &by_cell, 100, 0).step_ns == tokens);
    assert_true(kv_device_step(d, &by_cell, 100, 0).extrapolated);
    // 120 values a token: either mix takes as much more
    d->mixed_ns = 0.125;
    tokens += 100 * 120 * 0.125;
    assert_true(fabs(kv_device_step(d, &by_token, 100, 0).step_ns - tokens) < 1e-6);
    assert_true(fabs(kv_device_step(d, &by_cell, 100, 0).step_ns - tokens) < 1e-6);
    // one width beyond the first, and the controller
    d->cell_class_ns = 70;
    d->controller_ns = 500;
    struct kv_latency t = kv_device_step(d, &by_cell, 100, 0);
    assert_true(fabs(t.step_ns - (tokens + 40 + 500)) < 1e-6);
    assert_true(fabs(t.cache_ns - (100 * (2 + 45 + 67.5 + 15) + 70)) < 1e-6);
    assert_false(t.extrapolated);
    assert_true(fabs(kv_device_step(d, &by_token, 100, 0).step_ns - tokens) < 1e-6);
    d->cell_class_ns = NAN; // where no run tells: as by token
    assert_true(fabs(kv_device_step(d, &by_cell, 100, 0).step_ns - (t.step_ns - 40)) < 1e-6);
    d->cell_class_ns = 70;
    by_cell.controlled = false; // a plan by cell decides nothing in the step
    assert_true(fabs(kv_device_step(d, &by_cell, 100, 0).step_ns - (tokens + 40)) < 1e-6);
    // One width a place costs no pass beyond its own, but for what a format keeps at 16 bits.
    struct kv_ledger plan = ledger_of("4=0.5/8=0.5", 6);
    d->c_ns[KV_KEY][8] = d->c_ns[KV_VALUE][8] = 1;
    double mixed = kv_device_step(d, &plan, 100, 0).step_ns;
    plan.by_place = true;
    assert_true(fabs(kv_device_step(d, &plan, 100, 0).step_ns - (mixed - 1500 - 30)) < 1e-6);
    by_token.by_place = true;
    assert_true(fabs(kv_device_step(d, &by_token, 100, 0).step_ns - (tokens - 1500)) < 1e-6);
    char text[64];
    struct kv_mix m;
    struct kv_error e;
    assert_int_equal(kv_mix_parse(&m, "cells:4=0.5/16", &e), 0);
    kv_mix_text(&m, text, sizeof text);
    assert_string_equal(text, "cells:4=0.5/16=0.5");
    assert_int_equal(kv_mix_parse(&m, "cells:k4v16", &e), KV_EUSAGE);
    assert_int_equal(kv_mix_parse(&m, "cells:q4_0", &e), KV_EUSAGE);
    kv_device_free(d);
}

static void rounds_classes_and_what_is_hidden_are_in_the_step(void **state) {
    (void)state;
    struct kv_device *d = round_device();
    d->class_ns = 30;
    d->switch_ns = 5;
    d->round_ns = 11;
    d->round_tokens = 40;
    // 100 tokens: 3 rounds, of which a processor meets both widths; one width beyond the first
    struct kv_ledger l = ledger_of("4=0.5/16=0.5", 10.5), one = ledger_of("4", 4.5);
    struct kv_latency t = kv_device_step(d, &l, 100, 0);
    assert_float_equal(t.cache_ns, 100 * (2 + 45 + 67.5) + 3 * 11 + 30 + 5, 1e-9);
    assert_float_equal(t.ceiling_ns, 1100 + 200 + 3 * 11, 1e-9);
    assert_float_equal(kv_device_step(d, &one, 40, 0).cache_ns, 40 * (2 + 60 * 0.75) + 11, 1e-9);
    // 4.5 x 120 / 8 = 67.5 bytes a token: of 99 tokens a third is hidden, of 20 all
    d->hidden_bytes = 2227.5;
    assert_float_equal(kv_device_step(d, &one, 99, 0).cache_ns,
                       99 * (2 + 60 * 0.75) * 2 / 3 + 3 * 11, 1e-9);
    assert_float_equal(kv_device_step(d, &one, 20, 0).cache_ns, 11, 1e-9);
    // Where all widths share a port, the cache holds one.
    d->n_ports = 1;
    d->ports[0] = 16;
    assert_float_equal(
        kv_device_step(d, &l, 40, 0).step_ns,
        kv_device_step(d,
                       &(struct kv_ledger){.allocated_bits = 10.5,
                                           .share = {[0] = {[16] = 1}, [1] = {[16] = 1}}},
                       40, 0)
            .step_ns,
        1e-9);
    kv_device_free(d);
}

static void the_default_is_a_cpu_and_none_of_its_kind_errs_less(void **state) {
    (void)state;
    const char *name = kv_device_default_name();
    if (!name) return;
    struct kv_device *chosen, *d;
    struct kv_error e;
    assert_int_equal(kv_device_open(&chosen, name, &e), 0);
    assert_true(chosen->threads > 0);
    for (size_t i = 0; (name = kv_device_name_at(i)); i++) {
        assert_int_equal(kv_device_open(&d, name, &e), 0);
        if (d->threads > 0 && d->shape.n_layers == chosen->shape.n_layers &&
            d->shape.n_kv_heads == chosen->shape.n_kv_heads)
            assert_false(d->share_error_median < chosen->share_error_median);
        kv_device_free(d);
    }
    kv_device_free(chosen);
}

static void contexts_outside_the_measured_range_are_marked(void **state) {
    (void)state;
    struct kv_device *d = round_device();
    struct kv_ledger l = ledger_of("4", 4.5);
    assert_true(kv_device_step(d, &l, 9, 0).extrapolated);
    assert_false(kv_device_step(d, &l, 10, 0).extrapolated);
    assert_false(kv_device_step(d, &l, 1000, 0).extrapolated);
    assert_true(kv_device_step(d, &l, 1001, 0).extrapolated);
    kv_device_free(d);
}

static void a_width_without_a_cost_is_priced_as_the_next_measured_one_and_marked(void **state) {
    (void)state;
    struct kv_device *d = round_device();
    struct kv_ledger two = ledger_of("2", 2.5), four = ledger_of("4", 4.5);
    struct kv_latency t = kv_device_step(d, &two, 100, 0);
    assert_float_equal(t.step_ns, kv_device_step(d, &four, 100, 0).step_ns, 1e-9);
    assert_true(t.extrapolated);
    // float32: twice the bits of the widest measured, 60 (2 x 1 + 2 x 2) = 360
    struct kv_ledger full = ledger_of("32", 32);
    t = kv_device_step(d, &full, 100, 0);
    assert_float_equal(t.cache_ns, 100 * (2 + 360), 1e-9);
    assert_true(t.extrapolated);
    kv_device_free(d);
}

static void widths_round_up_to_the_next_port(void **state) {
    (void)state;
    struct kv_device *d = round_device();
    d->c_ns[KV_KEY][2] = d->c_ns[KV_VALUE][2] = 0.01;
    struct kv_ledger two = ledger_of("2", 2.5), four = ledger_of("4", 4.5);
    double unported = kv_device_step(d, &two, 100, 0).step_ns;
    d->n_ports = 2;
    d->ports[0] = 4;
    d->ports[1] = 16;
    double ported = kv_device_step(d, &two, 100, 0).step_ns;
    assert_true(unported < ported);
    assert_float_equal(ported, kv_device_step(d, &four, 100, 0).step_ns, 1e-9);
    kv_device_free(d);
}

static void bytes_beyond_the_knee_cost_the_factor(void **state) {
    (void)state;
    struct kv_device *d = round_device();
    struct kv_ledger l = ledger_of("16", 16);
    d->knee_bytes = 240 * 50; // a token takes 16 x 120 / 8 = 240 bytes
    d->knee_factor = 3;
    // 50 tokens below the knee and 50 beyond: 182 ns a token, thrice that beyond it
    assert_float_equal(kv_device_step(d, &l, 100, 0).cache_ns, 50 * 182 + 50 * 546, 1e-9);
    assert_float_equal(kv_device_step(d, &l, 50, 0).cache_ns, 50 * 182, 1e-9);
    kv_device_free(d);
}

static void evicted_values_cost_nothing(void **state) {
    (void)state;
    struct kv_device *d = round_device();
    struct kv_ledger l = {.allocated_bits = 2.25};
    l.share[KV_KEY][4] = l.share[KV_VALUE][4] = 0.5;
    l.share[KV_KEY][0] = l.share[KV_VALUE][0] = 0.5;
    assert_float_equal(kv_device_step(d, &l, 100, 0).cache_ns, 100 * 0.5 * (2 + 30 + 15), 1e-9);
    kv_device_free(d);
}

static void a_policy_pays_from_its_break_even_context_on(void **state) {
    (void)state;
    struct kv_device *d = round_device();
    struct kv_ledger four = ledger_of("4", 4.5), sixteen = ledger_of("16", 16);
    // 45 against 180 ns a token: 135 saved, so 1350 ns of policy pay from 10 tokens on
    assert_float_equal(kv_device_break_even(d, &four, &sixteen, 1350), 10, 1e-6);
    assert_float_equal(kv_device_break_even(d, &four, &sixteen, 0), 0, 1e-6);
    assert_true(isinf(kv_device_break_even(d, &sixteen, &four, 1)));
    kv_device_free(d);
}

static void a_device_survives_its_own_file(void **state) {
    (void)state;
    struct kv_device *d = round_device(), *back;
    struct kv_error e;
    free(d->name);
    d->name = kv_strdup("round \"numbers\"");
    d->ports[d->n_ports++] = 4;
    d->ports[d->n_ports++] = 16;
    d->n_intervals = 1;
    d->intervals = kv_alloc(1, sizeof *d->intervals);
    d->intervals[0] = (struct kv_device_interval){"base_ns", 990, 1010};
    char *text = kv_device_text(d);
    assert_int_equal(kv_write_file(path, text, strlen(text), &e), 0);
    assert_int_equal(kv_device_open(&back, path, &e), 0);
    char *again = kv_device_text(back);
    assert_string_equal(text, again);
    assert_string_equal(back->name, "round \"numbers\"");
    assert_true(isinf(back->knee_bytes));
    assert_true(isnan(back->error_median));
    struct kv_ledger l = ledger_of("k16v4", 10.5);
    assert_float_equal(kv_device_step(d, &l, 64, 3).step_ns,
                       kv_device_step(back, &l, 64, 3).step_ns, 1e-9);
    free(text);
    free(again);
    kv_device_free(d);
    kv_device_free(back);
}

static void issue_13_A4_a_cache_type_has_its_own_cost_and_others_are_marked(void **state) {
    (void)state;
    static const char text[] =
        "{\"base_ns\": 1000, \"shape\": {\"layers\": 2, \"heads\": 6, \"kv_heads\": 2,"
        " \"head_dim\": 30}, \"context_tokens\": [1, 1000],"
        " \"key_ns\": {\"16\": 1, \"q8_0\": 0.5, \"q4_0\": 0.25, \"iq4_nl\": 0.75},"
        " \"value_ns\": {\"f16\": 1, \"q8_0\": 0.5, \"q4_0\": 0.25, \"iq4_nl\": 0.75}}";
    static const struct {
        const char *format, *mix;
        double cost; // a value
        bool marked;
    } cases[] = {{"q4_0", "4", 0.25, false},
                 {"iq4_nl:order=ggml", "4", 0.75, false},
                 {"ggml", "4", 0.25, false},
                 {"ggml:types=nl", "4", 0.75, false},
                 {"ggml:types=nl", "8", 0.5, false},
                 {"sym", "16", 1, false},
                 {"sym", "4", 0.75, true},             // the dearest of its width
                 {"q4_1", "4", 0.75, true},            // a type that was not measured
                 {"hadamard(q4_0)", "4", 0.25, false}, // as llama.cpp runs it
                 {"hadamard(ggml:types=nl):sides=k", "4", 0.75, false},
                 {"hadamard(sym)", "4", 0.75, true},
                 {"ggml", "5", 0.5, true}, // nothing of five bits: the next width
                 {"", "4", 0.75, true}};
    struct kv_device *d, *back;
    struct kv_error e;
    assert_int_equal(kv_write_file(path, text, strlen(text), &e), 0);
    assert_int_equal(kv_device_open(&d, path, &e), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_ledger l = ledger_of(cases[i].mix, 8);
        kv_ledger_name_types(&l, cases[i].format);
        struct kv_latency t = kv_device_step(d, &l, 100, 0);
        // 2 layers x 2 heads x 30 values, K and V, 100 tokens
        if (fabs(t.cache_ns - 100 * 240 * cases[i].cost) > 1e-6 || t.by_width != cases[i].marked ||
            t.extrapolated != cases[i].marked)
            fail_msg("%s at %s: %g, %d", cases[i].format, cases[i].mix, t.cache_ns, t.by_width);
    }
    struct kv_ledger apart = ledger_of("kq4_0viq4_nl", 4.5);
    assert_float_equal(kv_device_step(d, &apart, 100, 0).cache_ns, 100 * 120 * (0.25 + 0.75), 1e-6);
    // A device by widths prices llama.cpp's types by those, marked, and plain widths as ever.
    struct kv_device *plain = round_device();
    struct kv_ledger own = ledger_of("4", 4.5), typed = ledger_of("q4_0", 4.5);
    assert_false(kv_device_step(plain, &own, 100, 0).by_width);
    assert_true(kv_device_step(plain, &typed, 100, 0).by_width);
    assert_float_equal(kv_device_step(plain, &typed, 100, 0).step_ns,
                       kv_device_step(plain, &own, 100, 0).step_ns, 1e-9);
    kv_device_free(plain);
    char *written = kv_device_text(d);
    assert_non_null(strstr(written, "\"q4_0\": 0.25"));
    assert_int_equal(kv_write_file(path, written, strlen(written), &e), 0);
    assert_int_equal(kv_device_open(&back, path, &e), 0);
    assert_float_equal(*kv_device_cost(back, "value_ns iq4_nl"), 0.75, 0);
    free(written);
    kv_device_free(back);
    kv_device_free(d);
}

static void bad_device_files_are_refused_in_one_sentence(void **state) {
    (void)state;
    static const struct {
        const char *text, *said;
    } cases[] = {
        {"{", "line 1"},
        {"{\"base_ns\": -1}", "'base_ns' must be a number of 0 or more"},
        {"{\"base_ns\": 0}", "'base_ns' is 0"},
        {"{\"base_ns\": 1, \"sign_right\": 7}", "'sign_right' must be a share"},
        {"{\"base_ns\": 1, \"round_tokens\": 1e-9}", "'round_tokens' must be 0 or at least"},
        {"{\"base_ns\": 1e19}", "'base_ns' must be a number of 0 or more, up to 1e18"},
        {"{\"base_ns\": 1, \"key_ns\": {\"q9_0\": 1}}", "'q9_0' must be a width"},
        {"{\"base_ns\": 1, \"key_ns\": {\"4\": -1}}", "'4' must be a width"},
        {"{\"base_ns\": 1, \"key_ns\": {\"16\": 1, \"f16\": 2}}", "'f16' is given twice"},
        {"{\"base_ns\": 1, \"key_ns\": {\"4\": 1}, \"value_ns\": {\"4\": 1}, \"shape\": "
         "{\"layers\": 1, \"heads\": 1, \"kv_heads\": 1, \"head_dim\": 1}, "
         "\"context_tokens\": [1, \"9\"]}",
         "context_tokens must be"},
        {"{\"name\": 4}", "'name' must be a text"},
        {"{\"name\": \"x\"}", "'base_ns' is missing"},
        {"{\"base_ns\": 1, \"key_ns\": {\"99\": 1}}", "'99' must be a width"},
        {"{\"base_ns\": 1, \"key_ns\": {\"4\": 1}, \"value_ns\": {}}", "value_ns holds no width"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_error e;
        struct kv_device *d;
        assert_int_equal(kv_write_file(path, cases[i].text, strlen(cases[i].text), &e), 0);
        assert_int_equal(kv_device_open(&d, path, &e), KV_EFAIL);
        assert_non_null(strstr(e.msg, cases[i].said));
        assert_string_equal(e.where, path);
    }
    struct kv_error e;
    struct kv_device *d;
    assert_int_equal(kv_device_open(&d, "no-such-device", &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "no-such-device"));
}

static void shipped_devices_open_and_carry_their_runs_and_provenance(void **state) {
    (void)state;
    const char *name;
    for (size_t i = 0; (name = kv_device_name_at(i)); i++) {
        struct kv_device *d;
        struct kv_error e;
        assert_int_equal(kv_device_open(&d, name, &e), 0);
        assert_string_equal(d->name, kv_device_name_at(i));
        assert_true(d->n_runs > 0);
        // A device whose own runs it cannot predict would mislead: a loaded machine makes such
        // files.
        assert_true(isnan(d->error_median) || d->error_median < 0.05);
        assert_true(*d->machine && *d->date && *d->engine && *d->provenance);
        kv_device_free(d);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_is_the_sum_of_its_terms),
        cmocka_unit_test(widths_by_cell_cost_what_was_measured_of_them_or_are_marked),
        cmocka_unit_test(rounds_classes_and_what_is_hidden_are_in_the_step),
        cmocka_unit_test(the_default_is_a_cpu_and_none_of_its_kind_errs_less),
        cmocka_unit_test(contexts_outside_the_measured_range_are_marked),
        cmocka_unit_test(a_width_without_a_cost_is_priced_as_the_next_measured_one_and_marked),
        cmocka_unit_test(widths_round_up_to_the_next_port),
        cmocka_unit_test(bytes_beyond_the_knee_cost_the_factor),
        cmocka_unit_test(evicted_values_cost_nothing),
        cmocka_unit_test(a_policy_pays_from_its_break_even_context_on),
        cmocka_unit_test(a_device_survives_its_own_file),
        cmocka_unit_test(issue_13_A4_a_cache_type_has_its_own_cost_and_others_are_marked),
        cmocka_unit_test(bad_device_files_are_refused_in_one_sentence),
        cmocka_unit_test(shipped_devices_open_and_carry_their_runs_and_provenance),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
