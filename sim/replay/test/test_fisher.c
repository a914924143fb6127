// SPDX-License-Identifier: Apache-2.0
// Judges fisher replay: its sums against plain ones, its prediction against exact replay, and what
// it refuses. The model that recorded the traces is gone unless a test says otherwise.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "sim/replay/damage.h"
#include "sim/replay/draws.h"
#include "sim/replay/sums.h"
#include "sim/replay/test/tiny_trace.h"

enum { ITEMS = 3 };
static struct tiny_trace whole, squares; // with and without whole gradients
static struct kv_model *model;           // of `whole`, for exact replay

static int set_up(void **state) {
    (void)state;
    return tiny_trace_open(&whole, KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_SENS | KV_KEEP_GRAD, ITEMS,
                           &model) ||
           tiny_trace_open(&squares, KV_KEEP_KV | KV_KEEP_SENS, 1, NULL);
}

static int tear_down(void **state) {
    (void)state;
    kv_model_close(model);
    tiny_trace_close(&whole);
    tiny_trace_close(&squares);
    return 0;
}

struct seen {
    double kl[8][ITEMS];
    int32_t pick;
    bool choices;
};

static int keep(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    struct seen *s = self;
    (void)e;
    s->kl[spec][item] = o->kl_nats;
    s->pick = o->pick[KV_ACC];
    s->choices = o->choice != NULL;
    return 0;
}

static struct kv_replay job(const struct tiny_trace *t, const struct kv_replay_spec *specs,
                            size_t n, struct seen *seen) {
    return (struct kv_replay){.trace = t->trace,
                              .specs = specs,
                              .n_specs = n,
                              .n_items = kv_trace_info(t->trace)->n_items,
                              .take = keep,
                              .self = seen};
}

// ---- sums -----------------------------------------------------------------------------

static void a_sum_takes_each_cells_entry_and_skips_float32_and_evicted_cells(void **state) {
    (void)state;
    enum { T = 7, W = 5, C = 45 };
    float table[T * W * C];
    uint8_t cells[T * C];
    double plain = 0;
    for (size_t i = 0; i < T * W * C; i++) table[i] = (float)(1 + kv_draw(5, 0, i));
    for (size_t i = 0; i < T * C; i++) { // tokens of one width, of mixed widths, and of neither
        size_t t = i / C, c = i % C;
        cells[i] = t < 2 ? 3 : (uint8_t)(kv_draw(6, 0, i) * W);
        if (t == 4 && c % 3 == 0) cells[i] = KV_FLOAT32;
        if (t == 5 && c % 4 < 2) cells[i] = KV_EVICT;
        if (t == 6) cells[i] = KV_EVICT;
        if (cells[i] < W) plain += (double)table[(t * W + cells[i]) * C + c];
    }
    assert_true(fabs(kv_table_sum(table, cells, T, W, C) - plain) < 1e-4);
}

static void
predicted_kl_is_half_the_sum_of_squared_gradient_times_mean_squared_error(void **state) {
    (void)state;
    struct kv_error e;
    struct seen seen;
    struct kv_replay_spec spec = tiny_spec(&squares, "static:k=4,v=3@asym:group=16");
    struct kv_replay r = job(&squares, &spec, 1, &seen);
    const struct kv_trace_item *it = kv_trace_item(squares.trace, 0);
    size_t d = tiny_shape.head_dim, n = it->n_tokens * kv_cells(&tiny_shape);
    uint8_t *cells = kv_alloc(n, 1);
    float *error = kv_alloc(n * d, sizeof *error);
    struct kv_cell_table_scratch *s = kv_cell_table_scratch_new(spec.format);
    assert_int_equal(kv_decide(&r, 0, 0, cells, &e), 0);
    assert_int_equal(
        kv_coding_error(kv_trace_info(squares.trace), it, spec.format, cells, s, error, &e), 0);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < d; k++)
            sum += 0.5 * (double)it->sens[i] * pow((double)error[i * d + k], 2) / (double)d;
    assert_int_equal(kv_replay_fisher(&r, KV_TABLE_ISO, 1, &e), 0);
    // Scored positions: each choice's tokens, the first of them at the branch point.
    double expected = sum / (it->n_tokens - it->n_context);
    assert_true(expected > 0);
    assert_true(fabs(seen.kl[0][0] - expected) < 1e-5 * expected);
    assert_true(seen.pick == -1 && !seen.choices);
    free(cells);
    free(error);
    kv_cell_table_scratch_free(s);
    kv_replay_spec_close(&spec);
}

// In a model of random weights the value of a token in the first layer is the same wherever it
// stands, and so is its coding error: errors add up. The cross terms must say by how much.
static void forms_times_their_cross_terms_foretell_the_exact_divergence(void **state) {
    (void)state;
    static const enum kv_cell_table_kind forms[] = {KV_TABLE_ISO, KV_TABLE_ELEMENT,
                                                    KV_TABLE_VECTOR};
    struct kv_error e;
    struct seen exact, predicted;
    struct kv_replay_spec specs[] = {tiny_spec(&whole, "static:bits=5@asym:group=16"),
                                     tiny_spec(&whole, "static:k=6,v=4@asym:group=16"),
                                     tiny_spec(&whole, "random:bits=4/6@asym:group=16")};
    struct kv_replay r = job(&whole, specs, 3, &exact);
    r.model = model;
    if (kv_replay_exact(&r, 1, &e)) fail_msg("%s: %s", e.where, e.msg);
    r = job(&whole, specs, 3, &predicted);
    for (size_t f = 0; f < 3; f++) {
        assert_int_equal(kv_replay_fisher(&r, forms[f], 1, &e), 0);
        for (size_t j = 0; j < 3; j++) {
            double cross, ratio = (predicted.kl[j][0] + predicted.kl[j][1] + predicted.kl[j][2]) /
                                  (exact.kl[j][0] + exact.kl[j][1] + exact.kl[j][2]);
            assert_int_equal(kv_cross_terms(&r, j, &cross, NULL, &e), 0);
            if (ratio * cross < 0.7 || ratio * cross > 1.4)
                fail_msg("form %s, spec %zu: predicted/exact %.3f, cross terms %.3f",
                         kv_cell_table_kinds[forms[f]], j, ratio, cross);
        }
    }
    for (size_t j = 0; j < 3; j++) kv_replay_spec_close(&specs[j]);
}

static void eviction_counts_once_for_key_and_value(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_replay_spec spec = tiny_spec(&squares, "static:bits=16@sym");
    const struct kv_trace_item *it = kv_trace_item(squares.trace, 0);
    size_t cells = kv_cells(&tiny_shape);
    uint8_t *decided = kv_alloc(it->n_tokens * cells, 1);
    struct kv_cell_table *table;
    assert_int_equal(kv_cell_table_open(&table, squares.trace, spec.format, KV_TABLE_ISO, 1, &e),
                     0);
    memset(decided, (int)spec.run.n_widths - 1, it->n_tokens * cells);
    assert_true(kv_fisher_kl(squares.trace, 0, table, spec.run.n_widths, decided, NULL) == 0);
    decided[2 * cells + 2] = decided[2 * cells + 3] = KV_EVICT; // token 2, first layer, second head
    double kl = kv_fisher_kl(squares.trace, 0, table, spec.run.n_widths, decided, NULL),
           expected = 0.5 * (double)it->evict[2 * cells / 2 + 1] / (it->n_tokens - it->n_context);
    assert_true(expected > 0 && fabs(kl - expected) < 1e-6 * expected);
    kv_cell_table_close(table);
    free(decided);
    kv_replay_spec_close(&spec);
}

static void the_standard_error_is_of_the_size_of_the_prediction(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_replay_spec spec = tiny_spec(&whole, "static:bits=4@sym");
    const struct kv_trace_item *it = kv_trace_item(whole.trace, 0);
    uint8_t *decided = kv_alloc(it->n_tokens * kv_cells(&tiny_shape), 1);
    struct kv_cell_table *table;
    double error = NAN;
    struct kv_replay r = job(&whole, &spec, 1, NULL);
    assert_int_equal(kv_cell_table_open(&table, whole.trace, spec.format, KV_TABLE_ISO, 1, &e), 0);
    assert_int_equal(kv_decide(&r, 0, 0, decided, &e), 0);
    double kl = kv_fisher_kl(whole.trace, 0, table, spec.run.n_widths, decided, &error);
    assert_true(error > 0 && error < 2 * kl);
    kv_cell_table_close(table);
    free(decided);
    kv_replay_spec_close(&spec);
}

static void cross_terms_are_given_in_all_and_by_layer(void **state) {
    (void)state;
    struct kv_error e;
    double ratio, by_layer[2];
    struct kv_replay_spec specs[] = {tiny_spec(&whole, "static:bits=4@asym:group=16")};
    struct kv_replay r = job(&whole, specs, 1, NULL);
    assert_int_equal(kv_cross_terms(&r, 0, &ratio, by_layer, &e), 0);
    assert_true(ratio > 0.1 && ratio < 10 && by_layer[0] > 0 && by_layer[1] > 0);
    kv_replay_spec_close(&specs[0]);
}

struct drawn {
    double form[KV_DRAW_FORMS], scored, layers;
    size_t n_draws;
};

static int keep_draws(void *self, size_t item, size_t spec, const struct kv_draws *x,
                      struct kv_error *e) {
    struct drawn *d = (struct drawn *)self + spec;
    (void)e;
    if (item) return 0;
    d->n_draws = x->n_draws;
    d->scored = x->scored;
    for (size_t r = 0; r < x->n_draws; r++) {
        for (size_t f = 0; f < KV_DRAW_FORMS; f++)
            d->form[f] += x->draw[r].form[f] / (double)x->n_draws;
        d->layers +=
            0.5 * (x->layer_square[2 * r] + x->layer_square[2 * r + 1]) / (double)x->n_draws;
    }
    return 0;
}

static void the_mean_over_draws_is_what_the_tables_hold(void **state) {
    (void)state;
    static const enum kv_cell_table_kind forms[] = {KV_TABLE_ISO, KV_TABLE_ELEMENT,
                                                    KV_TABLE_VECTOR};
    struct kv_error e;
    struct seen seen;
    struct drawn drawn[2];
    memset(drawn, 0, sizeof drawn);
    struct kv_replay_spec specs[] = {tiny_spec(&whole, "random:bits=2/5,by=cell@asym:group=16"),
                                     tiny_spec(&whole, "static:bits=4@sym")};
    struct kv_replay r = job(&whole, specs, 2, &seen);
    assert_int_equal(kv_replay_draws(&r, 2, keep_draws, drawn, &e), 0);
    for (size_t f = 0; f < 3; f++) {
        assert_int_equal(kv_replay_fisher(&r, forms[f], 1, &e), 0);
        for (size_t j = 0; j < 2; j++) {
            double kl = drawn[j].form[f] / drawn[j].scored; // whole gradients are kept in bf16
            assert_true(fabs(kl - seen.kl[j][0]) < 1e-2 * seen.kl[j][0]);
        }
    }
    for (size_t j = 0; j < 2; j++) {
        assert_int_equal(drawn[j].n_draws, 32);
        assert_true(fabs(drawn[j].layers - drawn[j].form[2]) < 1e-9 * drawn[j].layers);
        kv_replay_spec_close(&specs[j]);
    }
}

static void sums_made_in_advance_give_the_same_damage(void **state) {
    (void)state;
    static const char *const texts[] = {
        "static:k=4,v=3@sym",  "layerwise:k=2/4,v=3@sym",     "class:word=4/2,first=8@sym",
        "random:bits=2/4@sym", "random:bits=2/4,by=cell@sym", "sinks:keep=4,window=8,bits=4@sym"};
    struct kv_error e;
    struct kv_cell_table *table;
    struct kv_replay_spec first = tiny_spec(&whole, texts[0]);
    assert_int_equal(kv_cell_table_open(&table, whole.trace, first.format, KV_TABLE_ISO, 1, &e), 0);
    struct kv_cell_table_sums *s = kv_cell_table_sums_new(whole.trace, table, first.run.n_widths);
    kv_replay_spec_close(&first);
    for (size_t j = 0; j < sizeof texts / sizeof *texts; j++) {
        struct kv_replay_spec spec = tiny_spec(&whole, texts[j]);
        struct kv_replay r = job(&whole, &spec, 1, NULL);
        for (size_t i = 0; i < ITEMS; i++) {
            const struct kv_trace_item *it = kv_trace_item(whole.trace, i);
            uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&tiny_shape), 1);
            assert_int_equal(kv_decide(&r, 0, i, cells, &e), 0);
            double fast = kv_sums_damage(s, i, spec.varies, cells),
                   slow = kv_fisher_kl(whole.trace, i, table, spec.run.n_widths, cells, NULL) *
                          kv_fisher_scored(kv_trace_info(whole.trace), it);
            assert_true(slow > 0 && fabs(fast - slow) < 1e-5 * slow);
            free(cells);
        }
        kv_replay_spec_close(&spec);
    }
    kv_cell_table_sums_free(s);
    kv_cell_table_close(table);
}

static void workers_change_no_bit(void **state) {
    (void)state;
    struct kv_error e;
    struct seen one = {0}, three = {0};
    struct kv_replay_spec specs[] = {tiny_spec(&whole, "random:bits=2/4,by=cell@sym"),
                                     tiny_spec(&whole, "static:bits=3@asym:group=16")};
    struct kv_replay r = job(&whole, specs, 2, &one);
    assert_int_equal(kv_replay_fisher(&r, KV_TABLE_ELEMENT, 1, &e), 0);
    r.self = &three;
    assert_int_equal(kv_replay_fisher(&r, KV_TABLE_ELEMENT, 3, &e), 0);
    assert_memory_equal(one.kl, three.kl, sizeof one.kl);
    for (size_t j = 0; j < 2; j++) kv_replay_spec_close(&specs[j]);
}

// ---- refusals -------------------------------------------------------------------------

static void refuse(const char *text, enum kv_mode mode, bool self_exact, const char *says) {
    struct kv_error e = {0};
    struct kv_replay_spec spec = tiny_spec(&squares, text);
    struct kv_replay r = job(&squares, &spec, 1, NULL);
    r.mode = mode;
    r.self_exact = self_exact;
    assert_int_equal(kv_replay_fisher(&r, KV_TABLE_ISO, 1, &e), KV_EFAIL);
    if (!strstr(e.msg, says)) fail_msg("'%s' does not say '%s'", e.msg, says);
    kv_replay_spec_close(&spec);
}

static void what_the_recorded_adjoint_does_not_answer_for_is_refused(void **state) {
    (void)state;
    refuse("static:bits=4@sym", KV_PREFILL, false, "do not answer for prefill");
    refuse("static:bits=4@sym", KV_PREFILL1, false, "do not answer for prefill1");
    refuse("static:bits=4@sym", KV_INLINE, true, "own step read coded");
    refuse("static:bits=4@sym:window=32", KV_INLINE, false, "use --fidelity exact");
}

static void forms_and_cross_terms_that_need_whole_gradients_are_refused_without(void **state) {
    (void)state;
    struct kv_error e = {0};
    double ratio;
    struct kv_replay_spec spec = tiny_spec(&squares, "static:bits=4@sym");
    struct kv_replay r = job(&squares, &spec, 1, NULL);
    assert_int_equal(kv_replay_fisher(&r, KV_TABLE_VECTOR, 1, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "record with --keep kv,grad"));
    assert_int_equal(kv_replay_fisher(&r, KV_TABLE_ELEMENT, 1, &e), KV_EFAIL);
    assert_int_equal(kv_cross_terms(&r, 0, &ratio, NULL, &e), KV_EFAIL);
    kv_replay_spec_close(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sum_takes_each_cells_entry_and_skips_float32_and_evicted_cells),
        cmocka_unit_test(predicted_kl_is_half_the_sum_of_squared_gradient_times_mean_squared_error),
        cmocka_unit_test(forms_times_their_cross_terms_foretell_the_exact_divergence),
        cmocka_unit_test(eviction_counts_once_for_key_and_value),
        cmocka_unit_test(the_standard_error_is_of_the_size_of_the_prediction),
        cmocka_unit_test(cross_terms_are_given_in_all_and_by_layer),
        cmocka_unit_test(the_mean_over_draws_is_what_the_tables_hold),
        cmocka_unit_test(sums_made_in_advance_give_the_same_damage),
        cmocka_unit_test(workers_change_no_bit),
        cmocka_unit_test(what_the_recorded_adjoint_does_not_answer_for_is_refused),
        cmocka_unit_test(forms_and_cross_terms_that_need_whole_gradients_are_refused_without),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
