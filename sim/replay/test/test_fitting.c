// SPDX-License-Identifier: Apache-2.0
// What the host measures for a policy that is fitted, on a small random model.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "sim/replay/attention.h"
#include "sim/replay/damage.h"
#include "sim/replay/fisher.h"
#include "sim/replay/ledger.h"
#include "sim/replay/test/tiny_trace.h"

enum { ITEMS = 4, CALIBRATION = 2, PAIRS = 3, LAYERS = 2 };
static struct tiny_trace tiny;

static int set_up(void **state) {
    (void)state;
    return tiny_trace_open(&tiny, KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_Q | KV_KEEP_SENS, ITEMS,
                           NULL);
}

static int tear_down(void **state) {
    (void)state;
    tiny_trace_close(&tiny);
    return 0;
}

// Fits in another policy's place and keeps what the host said.
static struct {
    double error[PAIRS][LAYERS], damage[LAYERS * 2 * KV_MAX_WIDTHS];
    size_t n_items, n_widths;
    bool asks_damage;
} seen;
static const double bits[PAIRS][2] = {{2, 4}, {4, 2}, {8, 8}};

static int look(void *self, const struct kv_fitting *f, struct kv_error *e) {
    uint8_t pair[PAIRS][2];
    (void)self;
    for (size_t p = 0; p < PAIRS; p++)
        for (int side = 0; side < 2; side++)
            pair[p][side] = (uint8_t)kv_width_index(f->run, bits[p][side]);
    seen.n_items = f->n_items;
    seen.n_widths = f->run->n_widths;
    int rc =
        f->output_error(f, CALIBRATION, PAIRS, (const uint8_t(*)[2])pair, &seen.error[0][0], e);
    if (rc || !seen.asks_damage) return rc;
    return f->damage(f, CALIBRATION, seen.damage, e);
}

static void fit(const char *text, unsigned jobs) {
    struct kv_replay_spec spec = tiny_spec(&tiny, text);
    struct kv_policy looking = *spec.policy;
    const struct kv_policy *own = spec.policy;
    struct kv_error e = {0};
    struct kv_replay job = {.trace = tiny.trace, .specs = &spec, .n_specs = 1, .seed = 1};
    looking.fit = look;
    spec.policy = &looking;
    if (kv_replay_open_tables(&job, KV_TABLE_ISO, jobs, &e)) fail_msg("%s: %s", text, e.msg);
    kv_replay_close_tables(&job);
    spec.policy = own;
    kv_replay_spec_close(&spec);
}

// ---- errors ---------------------------------------------------------------------------

static int take(void *self, size_t item, size_t spec, const struct kv_attention_error *x,
                struct kv_error *e) {
    double(*error)[LAYERS] = self;
    (void)item, (void)e;
    for (size_t l = 0; l < LAYERS; l++) error[spec][l] += x->layer[l].output / CALIBRATION;
    return 0;
}

static void output_errors_are_attention_replay_s_over_the_first_items(void **state) {
    double want[PAIRS][LAYERS] = {{0}};
    struct kv_replay_spec specs[PAIRS];
    struct kv_error e = {0};
    (void)state;
    for (size_t p = 0; p < PAIRS; p++) {
        char text[64];
        snprintf(text, sizeof text, "static:k=%g,v=%g@asym:group=32", bits[p][0], bits[p][1]);
        specs[p] = tiny_spec(&tiny, text);
    }
    struct kv_replay job = {
        .trace = tiny.trace, .specs = specs, .n_specs = PAIRS, .n_items = CALIBRATION};
    assert_int_equal(kv_replay_attention(&job, 1, take, want, &e), 0);
    fit("static:bits=4@asym:group=32", 1);
    assert_int_equal(seen.n_items, ITEMS);
    for (size_t p = 0; p < PAIRS; p++)
        for (size_t l = 0; l < LAYERS; l++) {
            assert_true(want[p][l] > 0);
            assert_true(fabs(seen.error[p][l] - want[p][l]) <= 1e-12 * want[p][l]);
        }
    double one[PAIRS][LAYERS];
    memcpy(one, seen.error, sizeof one);
    fit("static:bits=4@asym:group=32", 2);
    assert_memory_equal(one, seen.error, sizeof one); // whatever the order of work
    for (size_t p = 0; p < PAIRS; p++) kv_replay_spec_close(&specs[p]);
}

// A static plan's predicted divergence is the sum of its layers' damage.
static void damage_of_layers_adds_up_to_fisher_replay_of_the_plan(void **state) {
    (void)state;
    seen.asks_damage = true;
    fit("static:bits=4@asym:group=32", 1);
    struct kv_replay_spec spec = tiny_spec(&tiny, "static:k=4,v=2@asym:group=32");
    struct kv_replay job = {.trace = tiny.trace, .specs = &spec, .n_specs = 1, .seed = 1};
    struct kv_cell_table *table;
    struct kv_error e = {0};
    double want = 0, scored = 0, sum = 0;
    assert_int_equal(kv_cell_table_open(&table, tiny.trace, spec.format, KV_TABLE_ISO, 1, &e), 0);
    for (size_t i = 0; i < CALIBRATION; i++) {
        const struct kv_trace_item *it = kv_trace_item(tiny.trace, i);
        uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&tiny_shape), 1);
        assert_int_equal(kv_decide(&job, 0, i, cells, &e), 0);
        double n = kv_fisher_scored(kv_trace_info(tiny.trace), it);
        want += n * kv_fisher_kl(tiny.trace, i, table, spec.run.n_widths, cells, NULL);
        scored += n;
        free(cells);
    }
    for (size_t l = 0; l < LAYERS; l++)
        sum += seen.damage[2 * l * seen.n_widths + (size_t)kv_width_index(&spec.run, 4)] +
               seen.damage[(2 * l + 1) * seen.n_widths + (size_t)kv_width_index(&spec.run, 2)];
    want /= scored;
    assert_true(want > 0);
    if (fabs(sum - want) > 1e-6 * want) fail_msg("%.9g is not %.9g", sum, want);
    kv_cell_table_close(table);
    kv_replay_spec_close(&spec);
}

// ---- the policy that asks -------------------------------------------------------------

static void kvtuner_is_fitted_through_a_wrapper_and_needs_what_it_measures(void **state) {
    (void)state;
    struct kv_replay_spec specs[2] = {
        tiny_spec(&tiny, "kvtuner:bits=5,items=2@asym:group=32"),
        tiny_spec(&tiny, "qkvshare(kvtuner:bits=5,items=2)@asym:group=32")};
    struct kv_replay job = {.trace = tiny.trace, .specs = specs, .n_specs = 2, .seed = 1};
    struct kv_error e = {0};
    size_t n = kv_trace_item(tiny.trace, 3)->n_tokens * kv_cells(&tiny_shape);
    uint8_t *cells = kv_alloc(2 * n, 1);
    assert_int_equal(kv_replay_open_tables(&job, KV_TABLE_ISO, 1, &e), 0);
    for (size_t j = 0; j < 2; j++) assert_int_equal(kv_decide(&job, j, 3, cells + j * n, &e), 0);
    assert_memory_equal(cells, cells + n, n);
    struct kv_ledger ledger;
    kv_ledger_count(&specs[0], kv_trace_item(tiny.trace, 3), cells, &ledger);
    assert_true(ledger.allocated_bits <= 5 + 1e-9 && ledger.allocated_bits > 4);
    kv_replay_close_tables(&job);
    for (size_t j = 0; j < 2; j++) kv_replay_spec_close(&specs[j]);
    free(cells);

    struct tiny_trace bare;
    assert_int_equal(tiny_trace_open(&bare, KV_KEEP_FINAL, 1, NULL), 0);
    struct kv_replay_spec spec = tiny_spec(&bare, "kvtuner:bits=5@asym:group=32");
    job = (struct kv_replay){.trace = bare.trace, .specs = &spec, .n_specs = 1};
    assert_int_equal(kv_replay_open_tables(&job, KV_TABLE_ISO, 1, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "record with --keep q,kv"));
    kv_replay_close_tables(&job);
    kv_replay_spec_close(&spec);
    tiny_trace_close(&bare);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_errors_are_attention_replay_s_over_the_first_items),
        cmocka_unit_test(damage_of_layers_adds_up_to_fisher_replay_of_the_plan),
        cmocka_unit_test(kvtuner_is_fitted_through_a_wrapper_and_needs_what_it_measures),
    };
    return cmocka_run_group_tests_name("fit", tests, set_up, tear_down);
}
