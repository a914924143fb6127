// SPDX-License-Identifier: Apache-2.0
// Controllers trained on a recording of a small random model: what is written is the policy that
// replays it.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "analysis/studies/controller.h"
#include "analysis/test/tiny_study.h"

enum { ITEMS = 4 };
static const double bits[] = {2, 4, 16}, rising[] = {0.25, 0.5, 1};
static struct tiny_study tiny;
static struct kv_trace *trace;

static int set_up(void **state) {
    (void)state;
    struct kv_error e = {0};
    return tiny_study_open(&tiny, KV_KEEP_KV | KV_KEEP_SENS, ITEMS) ||
           kv_trace_open(&trace, tiny.trace, &e);
}

static int tear_down(void **state) {
    (void)state;
    kv_trace_close(trace);
    tiny_study_close(&tiny);
    return 0;
}

static struct kv_controller_options options(const char *out) {
    struct kv_controller_options o = {.format = "sym",
                                      .bits = bits,
                                      .n_bits = 3,
                                      .latency = rising,
                                      .bound = 1e-6,
                                      .context = 512,
                                      .out = out,
                                      .jobs = 1};
    kv_train_defaults(&o.train);
    o.train.hidden = 8;
    o.train.epochs = 3;
    o.train.holdout = 0.25;
    o.train.seed = 2;
    return o;
}

static void train(struct kv_controller *c, size_t n, const struct kv_controller_options *o) {
    struct kv_error e = {0};
    if (kv_controllers_train(c, n, trace, o, &e)) fail_msg("%s: %s", e.where, e.msg);
}

static char *bytes_of(const char *path, size_t *n) {
    struct kv_error e = {0};
    char *text;
    if (kv_read_file(path, &text, n, &e)) fail_msg("%s: %s", e.where, e.msg);
    return text;
}

static void the_spec_of_a_controller_asks_the_file_that_was_written(void **state) {
    (void)state;
    char *out = file_in(tiny.dir, "one.safetensors");
    struct kv_controller c = {
        .labels = KV_TRAIN_LABELS_QUARTILE, .alpha = 1, .beta = 0.1, .gamma = 0.1};
    struct kv_controller_options o = options(out);
    struct tiny_trace t = {.setting = kv_trace_setting(kv_trace_info(trace))};
    double shares = 0, mean = 0;
    train(&c, 1, &o);
    char *expected = kv_format_text("mlp:bits=2/4/16,weights=%s@sym", out);
    assert_string_equal(c.path, out);
    assert_string_equal(c.spec, expected);
    struct kv_replay_spec spec = tiny_spec(&t, c.spec); // which reads the weights
    for (size_t k = 0; k < 3; k++) {
        shares += c.share[k];
        mean += c.share[k] * bits[k];
    }
    assert_true(fabs(shares - 1) < 1e-9 && fabs(mean - c.mean_bits) < 1e-9);
    assert_true(c.result.n_epochs >= 1 && c.result.epochs[0].epoch == 1);
    kv_replay_spec_close(&spec);
    kv_controllers_fini(&c, 1);
    free(expected);
    free(out);
}

static void a_width_for_each_layer_is_learned_from_oracle_labels(void **state) {
    (void)state;
    char *out = file_in(tiny.dir, "layers.safetensors");
    struct kv_controller c = {.labels = KV_TRAIN_LABELS_ORACLE, .alpha = 1};
    struct kv_controller_options o = options(out);
    struct kv_format_setting setting = kv_trace_setting(kv_trace_info(trace));
    struct kv_replay_spec spec;
    struct kv_error e = {0};
    o.grain = KV_NET_LAYER;
    train(&c, 1, &o);
    assert_int_equal(c.result.n_units, setting.shape.n_layers);
    char *expected = kv_format_text("mlp:bits=2/4/16,grain=layer,weights=%s@sym", out);
    assert_string_equal(c.spec, expected);
    assert_int_equal(kv_replay_spec_open(&spec, c.spec, &setting, 1, &e), 0);
    kv_replay_spec_close(&spec);
    assert_string_equal(kv_controller_verdict(&c), "not told: a token has several widths");
    kv_controllers_fini(&c, 1);
    c = (struct kv_controller){.labels = KV_TRAIN_LABELS_QUARTILE, .alpha = 1};
    assert_int_equal(kv_controllers_train(&c, 1, trace, &o, &e), KV_EUSAGE);
    assert_string_equal(e.msg, "labels by quartile are a token's; grain layer needs oracle");
    kv_controllers_fini(&c, 1);
    free(expected);
    free(out);
}

static void the_same_seed_writes_the_same_bytes(void **state) {
    (void)state;
    char *path[2] = {file_in(tiny.dir, "a"), file_in(tiny.dir, "b")}, *text[2];
    size_t n[2];
    for (int i = 0; i < 2; i++) {
        struct kv_controller c = {.labels = KV_TRAIN_LABELS_ORACLE, .alpha = 1, .gamma = 0.5};
        struct kv_controller_options o = options(path[i]);
        train(&c, 1, &o);
        kv_controllers_fini(&c, 1);
        text[i] = bytes_of(path[i], &n[i]);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(text[0], text[1], n[0]);
    assert_non_null(strstr(text[0] + 8, "labels oracle, bits 2/4/16, format sym:"));
    for (int i = 0; i < 2; i++) {
        free(path[i]);
        free(text[i]);
    }
}

static void several_stand_in_a_folder_with_a_sweep_of_their_specs(void **state) {
    (void)state;
    char *out = file_in(tiny.dir, "several"), *sweep = file_in(out, "mlp.sweep");
    struct kv_controller c[2] = {{.labels = KV_TRAIN_LABELS_QUARTILE, .alpha = 1, .beta = 0.5},
                                 {.labels = KV_TRAIN_LABELS_QUARTILE, .alpha = 1, .beta = 1000}};
    struct kv_controller_options o = options(out);
    size_t n;
    o.quality = rising;
    train(c, 2, &o);
    char *text = bytes_of(sweep, &n), *expected = kv_format_text("%s\n%s\n", c[0].spec, c[1].spec);
    assert_string_equal(text, expected);
    assert_non_null(strstr(c[1].path, "/quartile-a1-b1000-g0.safetensors"));
    assert_true(c[1].mean_bits <= c[0].mean_bits); // latency is all that counts
    kv_controllers_fini(c, 2);
    free(text);
    free(expected);
    free(sweep);
    free(out);
}

// Picks of one width have no other order; the rule's own picks are worth as much as the rule; the
// widest are worth most.
static void picks_are_worth_what_the_sensitivities_say_of_them(void **state) {
    (void)state;
    const struct kv_trace_info *in = kv_trace_info(trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_error e = {0};
    struct kv_format *format;
    struct kv_cell_table *table;
    if (kv_format_open(&format, "sym", &setting, &e) ||
        kv_cell_table_open(&table, trace, format, KV_TABLE_ISO, 1, &e))
        fail_msg("%s: %s", e.where, e.msg);
    size_t width[2] = {0};
    const double two[] = {2, 16};
    for (size_t k = 0; k < 2; k++)
        while (format->width_bits[width[k]] != two[k]) width[k]++;
    uint8_t part[ITEMS] = {1, 0, 1, 1}, *picked = kv_alloc(in->n_tokens, 1);
    double *rank = kv_alloc(in->n_tokens, sizeof *rank);
    for (size_t t = 0; t < in->n_tokens; t++) rank[t] = kv_draw(6, 0, t);
    struct kv_worth_items items = {.trace = trace,
                                   .table = table,
                                   .n_widths = format->n_widths,
                                   .n_classes = 2,
                                   .width = width,
                                   .bits = two,
                                   .part = part,
                                   .counted = 1,
                                   .rank = rank};
    struct kv_worth narrow, wide, ruled;
    kv_worth_measure(&narrow, &items, picked, 3);
    assert_int_equal(narrow.n, 3);
    // The same sum in other orders.
    assert_true(narrow.bits == 2 && fabs(narrow.kl - narrow.shuffle_kl) <= 1e-12 * narrow.kl &&
                fabs(narrow.kl - narrow.rule_kl) <= 1e-12 * narrow.kl);
    assert_false(kv_worth_better(&narrow));
    memset(picked, 1, in->n_tokens);
    kv_worth_measure(&wide, &items, picked, 3);
    assert_true(wide.bits == 16 && wide.kl < narrow.kl);
    for (size_t t = 0; t < in->n_tokens; t++) picked[t] = rank[t] > 0.5;
    kv_worth_measure(&ruled, &items, picked, 3);
    assert_true(ruled.bits > 2 && ruled.bits < 16 && fabs(ruled.gain) <= 1e-12 &&
                fabs(ruled.kl - ruled.rule_kl) <= 1e-12 * ruled.kl);
    assert_true(ruled.kl < narrow.kl && ruled.kl > wide.kl && ruled.shuffle_kl != ruled.kl);
    free(rank);
    free(picked);
    kv_cell_table_close(table);
    kv_format_close(format);
}

static void a_controller_says_what_it_is_worth_on_the_reported_items(void **state) {
    (void)state;
    char *out = file_in(tiny.dir, "worth.safetensors");
    struct kv_controller c = {.labels = KV_TRAIN_LABELS_QUARTILE, .alpha = 1};
    struct kv_controller_options o = options(out);
    train(&c, 1, &o);
    assert_int_equal(c.worth.n, 1); // one item of four
    assert_true(isfinite(c.worth.kl) && isfinite(c.worth.shuffle_kl) && isfinite(c.worth.rule_kl));
    assert_true(c.worth.bits >= 2 && c.worth.bits <= 16);
    // Of one item no difference is known to be more than chance.
    assert_string_equal(kv_controller_verdict(&c), "no better than the threshold rule");
    c.worth.n = 0;
    assert_string_equal(kv_controller_verdict(&c), "not told: no sensitivities");
    kv_controllers_fini(&c, 1);
    free(out);
}

static void widths_must_rise_and_be_offered(void **state) {
    (void)state;
    static const double falling[] = {4, 2}, odd[] = {4, 7};
    struct kv_controller c = {.alpha = 1};
    struct kv_controller_options o = options("nowhere");
    struct kv_error e = {0};
    o.bits = falling;
    o.n_bits = 2;
    assert_int_equal(kv_controllers_train(&c, 1, trace, &o, &e), KV_EUSAGE);
    assert_string_equal(e.where, "bits");
    assert_string_equal(e.msg, "4/2: widths must rise");
    kv_controllers_fini(&c, 1);
    o.bits = odd;
    assert_int_equal(kv_controllers_train(&c, 1, trace, &o, &e), KV_EUSAGE);
    assert_string_equal(e.msg, "format sym does not offer 7 bits");
    kv_controllers_fini(&c, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_spec_of_a_controller_asks_the_file_that_was_written),
        cmocka_unit_test(a_width_for_each_layer_is_learned_from_oracle_labels),
        cmocka_unit_test(the_same_seed_writes_the_same_bytes),
        cmocka_unit_test(several_stand_in_a_folder_with_a_sweep_of_their_specs),
        cmocka_unit_test(picks_are_worth_what_the_sensitivities_say_of_them),
        cmocka_unit_test(a_controller_says_what_it_is_worth_on_the_reported_items),
        cmocka_unit_test(widths_must_rise_and_be_offered),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
