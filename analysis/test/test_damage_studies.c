// SPDX-License-Identifier: Apache-2.0
// Fidelity, atlas and additivity asked for by their options, on a recording of a small random
// model.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "analysis/studies/additivity.h"
#include "analysis/studies/atlas.h"
#include "analysis/studies/fidelity.h"
#include "analysis/studies/sweep.h"
#include "analysis/test/tiny_study.h"

enum { ITEMS = 3 };
static struct tiny_study tiny;
static struct kv_trace *trace;
static struct kv_model *model;

static void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

static int set_up(void **state) {
    (void)state;
    struct kv_error e = {0};
    uint32_t keep = KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_Q | KV_KEEP_SENS | KV_KEEP_GRAD;
    return tiny_study_open(&tiny, keep, ITEMS) || kv_trace_open(&trace, tiny.trace, &e) ||
           kv_model_open(&model, tiny.model, KV_WEIGHTS_F32, &e);
}

static int tear_down(void **state) {
    (void)state;
    kv_model_close(model);
    kv_trace_close(trace);
    tiny_study_close(&tiny);
    return 0;
}

// ---- fidelity -------------------------------------------------------------------------

// A store with the exact rows of specs; the file is the caller's to free.
static char *store_of(const char *const *specs, size_t n) {
    struct kv_error e = {0};
    struct kv_sweep_options o = kv_sweep_defaults();
    struct kv_sweep *s;
    char *db = file_in(tiny.dir, "exact.db");
    o.trace = tiny.trace;
    o.model = tiny.model;
    o.specs = specs;
    o.n_specs = n;
    o.db = db;
    must(kv_sweep_open(&s, &o, &e), &e);
    must(kv_sweep_run(s, &e), &e);
    kv_sweep_close(s);
    return db;
}

static void exact_rows_stand_beside_their_predictions_in_order_of_divergence(void **state) {
    (void)state;
    const char *run[] = {"static:bits={3,4,8}@sym", "static:k=8,v=4@sym"},
               *unrun[] = {"random:by=layer,bits=4/8,seed={1,2}@sym", "static:bits=4@sym"};
    struct kv_fidelity_options o = {.specs = unrun, .n_specs = 2, .jobs = 2, .seed = 1};
    struct kv_fidelity_study s;
    struct kv_error e = {0};
    char *db = store_of(run, 2);
    o.db = db;
    must(kv_fidelity_open(&s, trace, &o, &e), &e);
    assert_int_equal(s.n_exact, 4);
    assert_int_equal(s.n, 6); // four bits were run
    assert_int_equal(s.n_draws, tiny_adjoint.draws);
    for (size_t i = 0; i < s.n; i++) {
        const struct kv_fidelity_policy *x = &s.at[i];
        assert_int_equal(x->exact, i < s.n_exact);
        assert_int_equal(x->n_items, ITEMS);
        for (size_t p = 0; p < KV_N_PREDICTORS; p++) assert_true(x->by[p] > 0);
        assert_true(x->bits > 3 && x->bits < 9);
        if (i && x->exact) assert_true(x->kl > x[-1].kl);
        if (i && x->exact) assert_true(x->by[KV_BY_ELEMENT] > x[-1].by[KV_BY_ELEMENT]);
        // The first 32 of 32 draws are all of them.
        assert_true(fabs(x->draws[KV_BY_VECTOR][5] / x->by[KV_BY_VECTOR] - 1) < 1e-9);
    }
    assert_string_equal(s.families[s.at[0].family], "uniform");
    assert_string_equal(s.families[s.at[4].family], "random by layer");
    kv_fidelity_close(&s);
    free(db);
}

static void fidelity_says_what_it_lacks(void **state) {
    (void)state;
    const char *run[] = {"none"};
    struct kv_fidelity_options o = {.jobs = 1, .seed = 1, .items = {2, 2}};
    struct kv_fidelity_study s;
    struct kv_error e = {0};
    char *db = store_of(run, 1);
    o.db = db;
    assert_int_equal(kv_fidelity_open(&s, trace, &o, &e), KV_EUSAGE);
    assert_string_equal(e.where, "items");
    free(db);
}

static void families_are_named_by_policy_axis_and_rotation(void **state) {
    (void)state;
    static const struct {
        const char *spec, *family;
    } of[] = {{"static:bits=4@sym", "uniform"},
              {"static:k=4,v=3@hadamard(sym)", "rotated K/V mix"},
              {"static:bits=16@bf16", "runtime type"},
              {"layerwise:by=head,k=4,v=4@sym", "layerwise by head"},
              {"shuffle(random:by=cell,bits=4/8)@sym", "shuffle by cell"},
              {"none", "none"}};
    struct tiny_trace t = {.setting = {tiny_shape, KV_ORDER_GGML}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        struct kv_replay_spec spec = tiny_spec(&t, of[i].spec);
        char *family = kv_policy_family(&spec);
        assert_string_equal(family, of[i].family);
        free(family);
        kv_replay_spec_close(&spec);
    }
}

// ---- atlas ----------------------------------------------------------------------------

static struct kv_atlas atlas_of(uint32_t bits) {
    struct kv_error e = {0};
    struct kv_atlas a;
    must(kv_atlas_open(&a, trace, &(struct kv_atlas_options){"sym", bits, 2}, &e), &e);
    return a;
}

static void every_axis_of_the_atlas_adds_up_to_the_whole(void **state) {
    (void)state;
    struct kv_atlas a = atlas_of(4);
    double damage = a.all.damage[0] + a.all.damage[1];
    assert_true(a.all.tokens == (double)kv_trace_info(trace)->n_tokens && damage > 0);
    for (int axis = 0; axis < KV_N_ATLAS_AXES; axis++) {
        double sum = 0, tokens = 0;
        // A rare word start is a word start as well; choices have no distance.
        size_t n = axis == KV_ATLAS_CLASS ? KV_N_KINDS : a.n[axis];
        for (size_t i = 0; i < n; i++) {
            sum += a.bin[axis][i].damage[0] + a.bin[axis][i].damage[1];
            tokens += a.bin[axis][i].tokens;
        }
        if (axis == KV_ATLAS_HEAD) tokens /= (double)a.n[axis];
        if (axis == KV_ATLAS_DISTANCE) {
            assert_true(tokens == a.bin[KV_ATLAS_SEGMENT][0].tokens && sum < damage);
            continue;
        }
        assert_true(fabs(tokens / a.all.tokens - 1) < 1e-9 && fabs(sum / damage - 1) < 1e-9);
    }
    kv_atlas_close(&a);
}

static void atlas_rows_are_bins_with_tokens_and_shares_of_damage(void **state) {
    (void)state;
    struct kv_atlas a = atlas_of(4), finer = atlas_of(8);
    size_t n, all;
    struct kv_atlas_row *heads = kv_atlas_rows(&a, KV_ATLAS_HEAD, &n),
                        *rows = kv_atlas_rows(&a, KV_N_ATLAS_AXES, &all);
    double pct = 0, mean = 0;
    assert_int_equal(n, 4);
    assert_string_equal(heads[3].place, "layer 1 head 1");
    for (size_t i = 0; i < n; i++) {
        pct += heads[i].damage_pct;
        mean += heads[i].damage_a_token / (double)n;
    }
    assert_true(fabs(pct - 100) < 1e-9 && fabs(mean - 1) < 1e-9);
    for (size_t i = 0; i < all; i++) assert_true(rows[i].tokens > 0);
    assert_string_equal(rows[all - 1].place, "choices");
    assert_true(finer.all.damage[0] < a.all.damage[0] / 16);
    assert_true(finer.all.sensitivity[0] == a.all.sensitivity[0]);
    free(heads);
    free(rows);
    kv_atlas_close(&a);
    kv_atlas_close(&finer);
}

static void the_atlas_refuses_a_width_that_is_not_offered(void **state) {
    (void)state;
    struct kv_error e = {0};
    struct kv_atlas a;
    struct kv_atlas_options o = {"q4_0", 3, 1};
    assert_int_equal(kv_atlas_open(&a, trace, &o, &e), KV_EUSAGE);
    assert_string_equal(e.where, "bits");
    assert_non_null(strstr(e.msg, "q4_0 does not offer 3 bits"));
}

// ---- additivity -----------------------------------------------------------------------

static void a_single_part_is_its_own_sum_and_all_parts_are_flipped_last(void **state) {
    (void)state;
    const enum kv_flip_unit units[] = {KV_FLIP_LAYER, KV_FLIP_POSITION};
    const uint32_t bits[] = {3, 8};
    struct kv_additivity_options o = {.format = "sym",
                                      .units = units,
                                      .n_units = 2,
                                      .bits = bits,
                                      .n_bits = 2,
                                      .sets = 2,
                                      .items = {1, 2},
                                      .jobs = 2,
                                      .seed = 1};
    struct kv_additivity a;
    struct kv_error e = {0};
    size_t n;
    must(kv_additivity_run(&a, trace, model, &o, &e), &e);
    struct kv_flip_row *rows = kv_flip_rows(&a, &n);
    // Two layers: singles, and both. Six positions: singles, two sets of 2 and of 4, and all.
    assert_int_equal(a.n, 2 * (2 + 1) + 2 * (6 + 2 + 2 + 1));
    assert_int_equal(n, 2 * 2 + 2 * 4);
    assert_int_equal(a.n_items, 2);
    for (size_t i = 0; i < a.n; i++) {
        const struct kv_flip *f = &a.at[i];
        size_t flipped = 0;
        for (size_t p = 0; p < f->n_parts; p++) flipped += f->part[p];
        assert_int_equal(flipped, f->n_flipped);
        assert_true(f->exact >= 0 && f->predicted >= 0 && f->scored > 0);
        if (f->n_flipped == 1) assert_true(f->singles == f->exact);
    }
    for (size_t i = 0; i < n; i++) {
        const struct kv_flip_row *r = &rows[i];
        assert_int_equal(r->unit, i < 4 ? KV_FLIP_LAYER : KV_FLIP_POSITION);
        assert_true(r->ratio_low <= r->ratio_high);
        if (r->n_flipped == 1) assert_true(r->exact_to_sum == 1 && r->n_sets == r->n_parts);
        if (r->n_flipped == r->n_parts) assert_int_equal(r->n_sets, 1);
        if (r->n_flipped == r->n_parts && r->bits == 3) assert_true(r->exact > rows[i + 1].exact);
    }
    free(rows);
    kv_additivity_fini(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_rows_stand_beside_their_predictions_in_order_of_divergence),
        cmocka_unit_test(fidelity_says_what_it_lacks),
        cmocka_unit_test(families_are_named_by_policy_axis_and_rotation),
        cmocka_unit_test(every_axis_of_the_atlas_adds_up_to_the_whole),
        cmocka_unit_test(atlas_rows_are_bins_with_tokens_and_shares_of_damage),
        cmocka_unit_test(the_atlas_refuses_a_width_that_is_not_offered),
        cmocka_unit_test(a_single_part_is_its_own_sum_and_all_parts_are_flipped_last),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
