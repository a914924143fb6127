// SPDX-License-Identifier: Apache-2.0
// What policy cells is trained on: targets and weights of tokens, from a recording.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "analysis/studies/cells_ground.h"
#include "analysis/test/tiny_study.h"
#include "sim/base/memory.h"
#include "traces/sensitivity.h"

enum { ITEMS = 12 };

static void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

// The gradient of a tree's sum is told as its item's mean divergence is, and as its paths hold
// tokens: what targets and weights say of a cell comes to its numerator over the scored positions.
static void sensitivities_are_counted_by_path(void **state) {
    (void)state;
    struct kv_error e;
    struct tiny_study t;
    struct kv_trace *trace;
    struct kv_cells_training o;
    assert_int_equal(tiny_study_open(&t, KV_KEEP_KV | KV_KEEP_CELLS, ITEMS), 0);
    must(kv_trace_open(&trace, t.trace, &e), &e);
    kv_cells_training_defaults(&o);
    o.holdout = 0.25;
    const struct kv_trace *const traces[] = {trace};
    struct kv_cells_ground g = {.o = &o, .traces = traces, .n_traces = 1};
    must(kv_cells_ground_open(&g, &e), &e);
    size_t places = kv_cells(&tiny_shape), told = 0;
    double learned = 0;
    for (size_t i = 0; i < g.n_learns; i++) learned += (double)g.weight[g.learns[i]];
    assert_true(fabs(learned / (double)g.n_learns - 1) < 1e-5);
    for (size_t i = 0; i < g.n_items; i++) {
        const struct kv_trace_item *it = g.items[i].item;
        double held = 0, scored = it->n_tokens - it->n_context,
               choice = kv_cells_row_weight(it, it->n_tokens - 1) / kv_cells_row_weight(it, 0);
        float *error = kv_alloc(it->n_tokens * places, sizeof *error),
              *weight = g.weight + g.items[i].first;
        must(kv_cells_errors(&g, it, NULL, it->n_tokens, g.width_4, error, &e), &e);
        assert_int_equal(it->n_choices, 4);
        assert_int_equal(kv_scored_count(it, "choices"), (size_t)scored);
        assert_int_equal(kv_scored_count(it, "all"), (size_t)scored + it->n_context - 1);
        assert_true(choice > 0.2 &&
                    choice < 0.3); // a fourth of the paths, a bit more where it is short
        assert_true(fabs((double)(weight[it->n_tokens - 1] / weight[0]) - choice) < 1e-5);
        for (uint32_t row = 0; row < it->n_tokens; row++) {
            double w = kv_cells_row_weight(it, row);
            held += w;
            for (size_t p = 0; p < places; p++) {
                size_t c = row * places + p;
                double share = (double)g.target[(g.items[i].first) * places + c];
                if (share < 0 || share >= 200) continue;
                double s = share * exp((double)g.bias[p]), want = (double)it->cells_numerator[c];
                assert_true(fabs(s * (double)error[c] * w * scored - want) <= 1e-4 * want + 1e-30);
                told += want > 0;
            }
        }
        assert_true(fabs(held - 1) < 1e-9);
        free(error);
    }
    assert_true(told > 1000);
    kv_cells_ground_fini(&g);
    kv_trace_close(trace);
    tiny_study_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sensitivities_are_counted_by_path),
    };
    return cmocka_run_group_tests_name("cells ground", tests, NULL, NULL);
}
