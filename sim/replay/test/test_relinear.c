// SPDX-License-Identifier: Apache-2.0
// Judges sensitivities measured at a replayed policy's own point, and decisions in rounds on them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "sim/quant/code.h"
#include "sim/replay/fisher.h"
#include "sim/replay/pass.h"
#include "sim/replay/relinear.h"
#include "sim/replay/test/tiny_trace.h"
#include "sim/test/light.h"

enum { ITEMS = 3 };
static struct tiny_trace whole, squares; // with and without whole gradients
static struct kv_model *model;           // of both

static int set_up(void **state) {
    (void)state;
    return tiny_trace_open(&whole, KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_SENS | KV_KEEP_GRAD, ITEMS,
                           &model) ||
           tiny_trace_open(&squares, KV_KEEP_FINAL | KV_KEEP_SENS, 1, NULL);
}

static int tear_down(void **state) {
    (void)state;
    kv_model_close(model);
    tiny_trace_close(&whole);
    tiny_trace_close(&squares);
    return 0;
}

// ---- measuring ------------------------------------------------------------------------

static void where_everything_is_stored_in_16_bits_it_measures_what_was_recorded(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_sensitivity at;
    struct kv_replay_spec spec = tiny_spec(&whole, "static:bits=16@sym");
    const struct kv_trace_item *it = kv_trace_item(whole.trace, 1);
    size_t n = it->n_tokens * kv_cells(&tiny_shape);
    uint8_t *cells = kv_alloc(n, 1);
    struct kv_scratch *s = kv_scratch_new();
    memset(cells, kv_width_index(&spec.run, 16), n);
    assert_int_equal(kv_relinear_measure(model, it, &spec, cells, &tiny_adjoint, true, s, &at, &e),
                     0);
    assert_memory_equal(at.sens, it->sens, n * sizeof *at.sens);
    assert_memory_equal(at.spread, it->sens_spread, n * sizeof *at.sens);
    assert_memory_equal(at.v_grad, it->v_grad,
                        n / 2 * tiny_adjoint.draws * tiny_shape.head_dim * sizeof *at.v_grad);
    kv_sensitivity_fini(&at);
    kv_scratch_free(s);
    kv_replay_spec_close(&spec);
    free(cells);
}

// A pass whose last layer's values are moved by `delta` along u, as later queries read them.
struct nudged {
    struct kv_pass pass;
    const float *u; // [n_tokens][n_kv]
    float delta;
};

static int store_nudged(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                        struct kv_layer_view *view, struct kv_error *e) {
    struct nudged *n = self;
    int rc = kv_pass_store(&n->pass, layer, kv, view, e);
    size_t values = (size_t)n->pass.tree->n_tokens * tiny_shape.n_kv_heads * tiny_shape.head_dim;
    for (size_t i = 0; i < values && layer + 1 == tiny_shape.n_layers; i++)
        n->pass.coded[KV_VALUE][i] += n->delta * n->u[i];
    return rc;
}

// log p of the item's scored rows, [n_final][vocab].
static void nudged_logprobs(const struct kv_trace_item *it, const struct kv_replay_spec *spec,
                            const uint8_t *cells, const float *u, float delta, double *out) {
    struct kv_error e;
    size_t h = tiny_shape.hidden, vocab = tiny_shape.vocab;
    struct kv_tree tree = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    struct nudged n = {.u = u, .delta = delta};
    struct kv_scratch *s = kv_scratch_new();
    uint32_t *upto = kv_alloc(2 * (size_t)it->n_tokens, sizeof *upto);
    float *final = kv_alloc(it->n_tokens * h, sizeof *final);
    for (uint32_t row = 0; row < it->n_tokens; row++)
        upto[2 * row] = upto[2 * row + 1] = kv_tree_position(&tree, row) + 1;
    kv_pass_init(&n.pass, model, &tree);
    n.pass.spec = spec;
    n.pass.cells = cells;
    n.pass.code_scratch = kv_alloc(kv_code_scratch_bytes(spec->format), 1);
    assert_int_equal(kv_forward(model,
                                &(struct kv_forward){.tree = &tree,
                                                     .coded_upto = upto,
                                                     .store = store_nudged,
                                                     .self = &n,
                                                     .final = final},
                                s, &e),
                     0);
    for (uint32_t f = 0; f < it->n_final; f++) {
        struct kv_reference r;
        kv_head_reference(model, final + it->final_rows[f] * h, 1, s, &r);
        for (size_t v = 0; v < vocab; v++) out[f * vocab + v] = (double)r.logit[v] - r.log_z[0];
    }
    kv_pass_fini(&n.pass);
    kv_scratch_free(s);
    free(upto);
    free(final);
}

// E[(g . u)^2] over labels of the replayed run is sum q (d log q / du)^2, here by differences in
// the last layer, behind which no quantizer lies.
static void it_measures_the_fisher_information_of_the_replayed_distribution(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_sensitivity at;
    struct kv_replay_spec spec = tiny_spec(&whole, "static:bits=2@asym:group=16");
    struct kv_adjoint_info how = tiny_adjoint;
    const struct kv_trace_item *it = kv_trace_item(whole.trace, 0);
    size_t heads = tiny_shape.n_kv_heads, width = heads * tiny_shape.head_dim,
           vocab = tiny_shape.vocab, n = it->n_tokens * width, m = it->n_final * vocab;
    uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&tiny_shape), 1);
    float *u = kv_alloc(n, sizeof *u);
    double *low = kv_alloc(3 * m, sizeof *low), *high = low + m, *here = high + m, expected = 0,
           found = 0;
    struct kv_scratch *s = kv_scratch_new();
    memset(cells, kv_width_index(&spec.run, 2), it->n_tokens * kv_cells(&tiny_shape));
    for (size_t i = 0; i < n; i++) u[i] = (float)kv_draw(1, 2, i) - 0.5f;
    nudged_logprobs(it, &spec, cells, u, -0.01f, low);
    nudged_logprobs(it, &spec, cells, u, 0.01f, high);
    nudged_logprobs(it, &spec, cells, u, 0, here);
    for (uint32_t f = 0; f < it->n_final; f++)
        for (size_t v = 0; v < vocab; v++) {
            size_t i = f * vocab + v;
            double count = it->final_rows[f] + 1 == it->n_context ? it->n_choices : 1;
            expected += count * exp(here[i]) * pow((high[i] - low[i]) / 0.02, 2);
        }
    how.draws = light_testing() ? 128 : 1024;
    assert_int_equal(kv_relinear_measure(model, it, &spec, cells, &how, true, s, &at, &e), 0);
    for (size_t r = 0; r < how.draws; r++) {
        double dot = 0;
        for (size_t row = 0; row < it->n_tokens; row++) {
            const uint16_t *g =
                at.v_grad +
                ((row * how.draws + r) * tiny_shape.n_layers + tiny_shape.n_layers - 1) * width;
            for (size_t i = 0; i < width; i++)
                dot += (double)kv_bf16_to_f32(g[i]) * (double)u[row * width + i];
        }
        found += dot * dot / how.draws;
    }
    // Squares of a nearly normal sum have a standard error of sqrt(2 / draws), 4.4 % of 1,024.
    if (!(expected > 0 && fabs(found / expected - 1) < 0.15 * sqrt(1024.0 / how.draws)))
        fail_msg("%g found, %g expected", found, expected);
    kv_sensitivity_fini(&at);
    kv_scratch_free(s);
    kv_replay_spec_close(&spec);
    free(cells);
    free(u);
    free(low);
}

static void evicted_cells_have_no_gradient_to_measure(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_sensitivity at;
    struct kv_replay_spec spec = tiny_spec(&whole, "static:bits=4@sym");
    const struct kv_trace_item *it = kv_trace_item(whole.trace, 0);
    uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&tiny_shape), 1);
    struct kv_scratch *s = kv_scratch_new();
    cells[6] = cells[7] = KV_EVICT;
    assert_int_equal(kv_relinear_measure(model, it, &spec, cells, &tiny_adjoint, false, s, &at, &e),
                     KV_EFAIL);
    assert_non_null(strstr(e.msg, "evicted"));
    kv_scratch_free(s);
    kv_replay_spec_close(&spec);
    free(cells);
}

// ---- rounds ---------------------------------------------------------------------------

struct seen {
    double kl[4][ITEMS];
    struct kv_ledger ledger[4][ITEMS];
};

static int keep(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    struct seen *s = self;
    (void)e;
    s->kl[spec][item] = o->kl_nats;
    s->ledger[spec][item] = o->ledger;
    return 0;
}

static struct kv_replay job(const struct tiny_trace *t, const struct kv_replay_spec *specs,
                            size_t n, struct seen *seen) {
    return (struct kv_replay){.trace = t->trace,
                              .model = model,
                              .specs = specs,
                              .n_specs = n,
                              .n_items = kv_trace_info(t->trace)->n_items,
                              .take = keep,
                              .self = seen};
}

static void the_second_round_decides_on_the_mean_of_the_recorded_and_the_measured(void **state) {
    (void)state;
    static const enum kv_cell_table_kind forms[] = {KV_TABLE_ISO, KV_TABLE_ELEMENT,
                                                    KV_TABLE_CHANNEL};
    for (size_t f = 0; f < 3; f++) {
        enum kv_cell_table_kind form = forms[f];
        struct kv_error e;
        struct kv_replay_spec specs[] = {
            tiny_spec(&whole, "oracle:bits=4.5,widths=2/3/4/8,rounds=1@asym:group=16"),
            tiny_spec(&whole, "oracle:bits=4.5,widths=2/3/4/8,rounds=2@asym:group=16")};
        struct kv_replay r = job(&whole, specs, 2, NULL);
        const struct kv_trace_item *it = kv_trace_item(whole.trace, 2);
        size_t n = it->n_tokens * kv_cells(&tiny_shape), widths = specs[0].run.n_widths;
        uint8_t *once = kv_alloc(3 * n, 1), *twice = once + n, *by_hand = twice + n;
        float *mean = kv_alloc(n * widths, sizeof *mean);
        assert_int_equal(kv_replay_open_tables(&r, form, 1, &e), 0);
        assert_int_equal(kv_decide(&r, 0, 2, once, &e), 0);
        assert_int_equal(kv_decide(&r, 1, 2, twice, &e), 0);
        struct kv_adjoint_info how = tiny_adjoint;
        struct kv_sensitivity at;
        struct kv_scratch *s = kv_scratch_new();
        how.seed += (uint64_t)1 << 32;
        assert_int_equal(kv_relinear_measure(model, it, &specs[0], once, &how, true, s, &at, &e),
                         0);
        struct kv_trace_item moved = *it;
        struct kv_cell_table_scratch *coding = kv_cell_table_scratch_new(specs[0].format);
        moved.sens = at.sens;
        moved.k_grad = at.k_grad;
        moved.v_grad = at.v_grad;
        assert_int_equal(kv_cell_table_fill(kv_trace_info(whole.trace), &moved, specs[0].format,
                                            form, kv_trace_channels(whole.trace), coding, mean, &e),
                         0);
        const float *recorded = kv_cell_table_item(r.damage[0], 2);
        for (size_t i = 0; i < n * widths; i++) mean[i] = recorded[i] + (mean[i] - recorded[i]) / 2;
        struct kv_token *tokens = kv_alloc(it->n_tokens, sizeof *tokens);
        for (uint32_t row = 0, c = 0; row < it->n_tokens; row++) {
            while (c < it->n_choices && row >= it->first[c]) c++;
            tokens[row].segment = c;
        }
        struct kv_item view = {.run = &specs[0].run,
                               .n_tokens = it->n_tokens,
                               .n_context = it->n_context,
                               .n_choices = it->n_choices,
                               .tokens = tokens,
                               .damage = mean};
        assert_int_equal(kv_ask(specs[0].policy, specs[0].self, &view, by_hand, &e), 0);
        assert_memory_equal(twice, by_hand, n);
        assert_memory_not_equal(once, twice, n);
        kv_replay_close_tables(&r);
        kv_cell_table_scratch_free(coding);
        kv_sensitivity_fini(&at);
        kv_scratch_free(s);
        for (size_t j = 0; j < 2; j++) kv_replay_spec_close(&specs[j]);
        free(tokens);
        free(mean);
        free(once);
    }
}

static void rounds_keep_to_the_budget_and_do_not_depend_on_workers(void **state) {
    (void)state;
    static const char *const texts[] = {
        "oracle:bits=4.5,rounds=3@asym:group=16", "oracle:bits=4.5,grain=token,rounds=2@sym",
        "shuffle(oracle:bits=4.5,grain=token,rounds=2)@sym", "oracle:bits=4.5,grain=token@sym"};
    struct kv_error e;
    struct seen one = {0}, three = {0};
    struct kv_replay_spec specs[4];
    for (size_t j = 0; j < 4; j++) specs[j] = tiny_spec(&whole, texts[j]);
    struct kv_replay r = job(&whole, specs, 4, &one);
    assert_int_equal(specs[2].rounds, 2);
    assert_int_equal(specs[3].rounds, 1);
    assert_int_equal(kv_replay_open_tables(&r, KV_TABLE_ISO, 1, &e), 0);
    assert_int_equal(kv_replay_exact(&r, 1, &e), 0);
    r.self = &three;
    assert_int_equal(kv_replay_exact(&r, 3, &e), 0);
    assert_memory_equal(one.kl, three.kl, sizeof one.kl);
    for (size_t j = 0; j < 4; j++)
        for (size_t i = 0; i < ITEMS; i++) {
            assert_true(one.kl[j][i] > 0);
            // A shuffle moves widths between tokens that do not weigh alike.
            if (j != 2) assert_true(one.ledger[j][i].allocated_bits < 4.5 + 1e-6);
        }
    kv_replay_close_tables(&r);
    for (size_t j = 0; j < 4; j++) kv_replay_spec_close(&specs[j]);
}

// ---- refusals -------------------------------------------------------------------------

static void refuse(struct kv_replay r, const struct tiny_trace *t, const char *text,
                   const char *says) {
    struct kv_error e = {0};
    struct kv_replay_spec spec = tiny_spec(t, text);
    r.specs = &spec;
    r.trace = t->trace;
    int rc = kv_replay_open_tables(&r, r.form, 1, &e);
    kv_replay_close_tables(&r);
    assert_int_equal(rc, KV_EFAIL);
    if (!strstr(e.msg, says)) fail_msg("'%s' does not say '%s'", e.msg, says);
    kv_replay_spec_close(&spec);
}

static void rounds_that_cannot_be_measured_are_refused_before_the_first_item(void **state) {
    (void)state;
    struct kv_replay r = job(&whole, NULL, 1, NULL);
    r.model = NULL;
    refuse(r, &whole, "oracle:bits=4.5,rounds=2@sym", "only exact replay");
    r.model = model;
    r.mode = KV_PREFILL;
    refuse(r, &whole, "oracle:bits=4.5,rounds=2@sym", "in mode inline");
    r.mode = KV_INLINE;
    r.self_exact = true;
    refuse(r, &whole, "oracle:bits=4.5,rounds=2@sym", "own step coded");
    r.self_exact = false;
    refuse(r, &whole, "oracle:bits=4.5,rounds=2@sym:window=8", "windows");
    refuse(r, &squares, "oracle:bits=4.5,rounds=2@sym", "record with --keep final,kv,sens");
}

static void prediction_refuses_rounds_and_names_what_answers(void **state) {
    (void)state;
    struct kv_error e = {0};
    struct kv_replay_spec spec = tiny_spec(&whole, "oracle:bits=4.5,rounds=2@sym");
    struct kv_replay r = job(&whole, &spec, 1, NULL);
    assert_int_equal(kv_replay_fisher(&r, KV_TABLE_ISO, 1, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "use --fidelity exact"));
    kv_replay_spec_close(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(where_everything_is_stored_in_16_bits_it_measures_what_was_recorded),
        cmocka_unit_test(it_measures_the_fisher_information_of_the_replayed_distribution),
        cmocka_unit_test(evicted_cells_have_no_gradient_to_measure),
        cmocka_unit_test(the_second_round_decides_on_the_mean_of_the_recorded_and_the_measured),
        cmocka_unit_test(rounds_keep_to_the_budget_and_do_not_depend_on_workers),
        cmocka_unit_test(rounds_that_cannot_be_measured_are_refused_before_the_first_item),
        cmocka_unit_test(prediction_refuses_rounds_and_names_what_answers),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
