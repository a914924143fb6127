// SPDX-License-Identifier: Apache-2.0
// KVTuner (arXiv 2502.04420): pruning, clusters and search on tables worked out by hand, and
// against every plan there is.
#include "policies/test/fake_item.h"

// ---- a host that hands out given errors --------------------------------------------------

enum { LAYERS = 3, PAIRS = 9 }; // of widths 2, 4, 8: K2V2, K2V4, K2V8, K4V2, ..., K8V8

struct table {
    struct kv_fitting view;
    double error[PAIRS][LAYERS];
    double damage[LAYERS][2][3]; // of widths 2, 4, 8
    size_t asked_items;
};

static int hand_errors(const struct kv_fitting *f, size_t n, size_t n_pairs,
                       const uint8_t (*pair)[2], double *error, struct kv_error *e) {
    struct table *t = (struct table *)f;
    (void)pair, (void)e;
    assert_int_equal(n_pairs, PAIRS);
    t->asked_items = n;
    memcpy(error, t->error, sizeof t->error);
    return 0;
}

static int hand_damage(const struct kv_fitting *f, size_t n, double *damage, struct kv_error *e) {
    const struct table *t = (const struct table *)f;
    size_t n_widths = f->run->n_widths;
    (void)n, (void)e;
    for (size_t l = 0; l < LAYERS; l++)
        for (size_t side = 0; side < 2; side++)
            for (size_t i = 0; i < 3; i++)
                damage[(l * 2 + side) * n_widths + (size_t)kv_width_index(f->run, 2 << i)] =
                    t->damage[l][side][i];
    return 0;
}

// Opens and fits a spec; the widths it gives to each layer's keys and values.
static void plan(const char *text, struct table *t, unsigned bits[LAYERS][2]) {
    struct kv_replay_spec spec;
    struct kv_error e = {0};
    if (kv_replay_spec_open(&spec, text, &fake_setting, 1, &e)) fail_msg("%s: %s", text, e.msg);
    t->view = (struct kv_fitting){.struct_bytes = sizeof t->view,
                                  .run = &spec.run,
                                  .n_items = 100,
                                  .output_error = hand_errors,
                                  .damage = hand_damage};
    if (spec.policy->fit(spec.self, &t->view, &e)) fail_msg("%s: %s", text, e.msg);
    struct fake *f = fake_new(&spec.run, 3, 1, 2, 1);
    fake_ask(&spec, f);
    size_t cells = kv_cells(&spec.run.shape);
    for (size_t c = 0; c < cells; c++) {
        for (size_t row = 1; row < 5; row++)
            assert_int_equal(f->cells[row * cells + c], f->cells[c]);
        if (c % 4 < 2)
            bits[c / 4][c & 1] = fake_bits(&spec, f, 0, c);
        else
            assert_int_equal(fake_bits(&spec, f, 0, c), bits[c / 4][c & 1]);
    }
    fake_free(f);
    kv_replay_spec_close(&spec);
}

static void assert_plan(const char *text, struct table *t, const unsigned want[LAYERS][2]) {
    unsigned bits[LAYERS][2];
    plan(text, t, bits);
    for (size_t l = 0; l < LAYERS; l++)
        if (bits[l][0] != want[l][0] || bits[l][1] != want[l][1])
            fail_msg("%s: layer %zu has K%uV%u, not K%uV%u", text, l, bits[l][0], bits[l][1],
                     want[l][0], want[l][1]);
}

// Errors of a layer whose keys cost most: pairs K2V2 .. K8V8.
#define KEYS_MATTER                                                                                \
    { 80, 70, 69, 12, 8, 7.9, 9, 2, 0.1 }
// One whose values do.
#define VALUES_MATTER                                                                              \
    { 80, 12, 9, 70, 8, 2, 69, 7.9, 0.1 }

static void set_layer(struct table *t, size_t layer, const double error[PAIRS], double times) {
    for (size_t p = 0; p < PAIRS; p++) t->error[p][layer] = times * error[p];
}

// ---- by hand -----------------------------------------------------------------------------

// Bits of the pairs: 2, 3, 5, 3, 4, 6, 5, 6, 8. Where keys matter, K2V4 (3 bits, 70) falls to K4V2
// (3, 12); K2V8 (5, 69) and K8V2 (5, 9) to K4V4 (4, 8); K4V8 (6, 7.9) to K8V4 (6, 2). What is left
// is KVTuner's usual set, KV8, K8V4, KV4, K4V2, KV2; where values matter, its mirror image.
static void pairs_that_another_beats_are_never_chosen(void **state) {
    static const double keys[PAIRS] = KEYS_MATTER, values[PAIRS] = VALUES_MATTER;
    struct table t = {0};
    (void)state;
    set_layer(&t, 0, keys, 1);
    set_layer(&t, 1, keys, 1);
    set_layer(&t, 2, values, 1);
    // Mean of 3: one choice of 3 bits for the equal layers 0 and 1, one for layer 2.
    assert_plan("kvtuner:bits=3,count=nominal@asym", &t,
                (const unsigned[][2]){{4, 2}, {4, 2}, {2, 4}});
    assert_plan("kvtuner:bits=6,count=nominal@asym", &t,
                (const unsigned[][2]){{8, 4}, {8, 4}, {4, 8}});
    // 5 bits: no pair of 5 is left; 6 + 6 + 3 = 15, errors 2 + 2 + 12, is better than 4 + 4 + 6,
    // 8 + 8 + 2, and 6 + 6 + 4 is too much.
    assert_plan("kvtuner:bits=5,count=nominal@asym", &t,
                (const unsigned[][2]){{8, 4}, {8, 4}, {2, 4}});
    assert_int_equal(t.asked_items, 20);
}

// Layers 0 and 1 differ by a factor of 1.3 in their errors, ln(1.3) = 0.262; the table holds
// squares. 14 bits in all, and layer 2 errs by 0.3 of layer 0. Within a spread of 0.27 the first
// two choose together: 4 + 4 + 6 bits, 8 (1 + 1.69) + 2 x 0.3 = 22.1, is best (3 + 3 + 8: 32.3;
// 6 + 6 + 2: 5.4 + 24). Apart, layer 1, whose errors are largest, takes the 6: 8 + 2 x 1.69 + 8 x
// 0.3 = 13.8.
static void layers_within_the_spread_choose_together(void **state) {
    static const double keys[PAIRS] = KEYS_MATTER;
    struct table t = {0};
    (void)state;
    set_layer(&t, 0, keys, 1);
    set_layer(&t, 1, keys, 1.69);
    set_layer(&t, 2, keys, 0.3);
    assert_plan("kvtuner:bits=4.7,count=nominal,spread=0.27@asym", &t,
                (const unsigned[][2]){{4, 4}, {4, 4}, {8, 4}});
    assert_plan("kvtuner:bits=4.7,count=nominal,spread=0.25@asym", &t,
                (const unsigned[][2]){{4, 4}, {8, 4}, {4, 4}});
}

// By damage the search may prefer what the pruning only admits: layer 2's keys cost divergence,
// whatever its attention output says.
static void the_search_may_add_up_expected_divergence(void **state) {
    static const double keys[PAIRS] = KEYS_MATTER;
    static const double damage[2][3] = {{1, 0.1, 0}, {0.5, 0.01, 0}};
    struct table t = {0};
    (void)state;
    for (size_t l = 0; l < LAYERS; l++) {
        set_layer(&t, l, keys, l == 0 ? 10 : l == 1 ? 1.1 : 1); // equal layers choose together
        for (size_t k = 0; k < 6; k++)
            (&t.damage[l][0][0])[k] = (l == 2 ? 100 : 1) * (&damage[0][0])[k];
    }
    // 14 bits in all: 8 for the layer that weighs most, 3 for the others. Outputs: 0.1 x 10 + 1.1 x
    // 12 + 12 = 26 against 2 x 10 + 8.8 + 8 (6, 4, 4). Damage: 0 + 2 (0.1 + 0.5) = 1.2
    // against 100 x 0.01 + 2 (0.1 + 0.01) = 1.22.
    assert_plan("kvtuner:bits=4.7,count=nominal,spread=0@asym", &t,
                (const unsigned[][2]){{8, 8}, {4, 2}, {4, 2}});
    assert_plan("kvtuner:bits=4.7,count=nominal,spread=0,search=damage@asym", &t,
                (const unsigned[][2]){{4, 2}, {4, 2}, {8, 8}});
}

// A scale and a minimum of 16 bits in 32 values: a bit more than nominal.
static void the_budget_counts_what_is_stored_unless_told_otherwise(void **state) {
    static const double keys[PAIRS] = KEYS_MATTER;
    struct table t = {0};
    (void)state;
    for (size_t l = 0; l < LAYERS; l++) set_layer(&t, l, keys, 1);
    assert_plan("kvtuner:bits=4@asym:group=32", &t, (const unsigned[][2]){{4, 2}, {4, 2}, {4, 2}});
    assert_plan("kvtuner:bits=4,count=nominal@asym:group=32", &t,
                (const unsigned[][2]){{4, 4}, {4, 4}, {4, 4}});
}

// ---- against every plan ------------------------------------------------------------------

static void the_search_finds_the_best_of_all_plans_within_the_budget(void **state) {
    static const double width[3] = {2, 4, 8};
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct table t = {0};
        unsigned bits[LAYERS][2];
        char text[96];
        double budget = 2.2 + 5 * kv_draw(seed, 1, 0), best = INFINITY, found = 0, used = 0;
        for (size_t p = 0; p < PAIRS; p++)
            for (size_t l = 0; l < LAYERS; l++)
                t.error[p][l] = exp(4 * kv_draw(seed, 2, p * LAYERS + l)) *
                                (pow(4, -width[p / 3]) + pow(4, -width[p % 3]));
        for (size_t code = 0; code < PAIRS * PAIRS * PAIRS; code++) {
            size_t pair[LAYERS] = {code % PAIRS, code / PAIRS % PAIRS, code / PAIRS / PAIRS};
            double cost = 0, error = 0;
            for (size_t l = 0; l < LAYERS; l++) {
                cost += (width[pair[l] / 3] + width[pair[l] % 3]) / 2 / LAYERS;
                error += t.error[pair[l]][l];
            }
            if (cost <= budget) best = fmin(best, error);
        }
        snprintf(text, sizeof text, "kvtuner:bits=%.6f,count=nominal,spread=0@asym", budget);
        plan(text, &t, bits);
        for (size_t l = 0; l < LAYERS; l++) {
            size_t k = bits[l][0] / 4, v = bits[l][1] / 4; // 2, 4, 8 -> 0, 1, 2
            found += t.error[3 * k + v][l];
            used += (bits[l][0] + bits[l][1]) / 2.0 / LAYERS;
        }
        assert_true(used <= budget);
        if (fabs(found - best) > 1e-12 * best)
            fail_msg("seed %u: %.9g, not %.9g", (unsigned)seed, found, best);
    }
}

// ---- refusals ----------------------------------------------------------------------------

static void what_cannot_be_is_refused(void **state) {
    static const double keys[PAIRS] = KEYS_MATTER;
    struct kv_replay_spec spec;
    struct kv_error e = {0};
    struct table t = {0};
    (void)state;
    for (size_t l = 0; l < LAYERS; l++) set_layer(&t, l, keys, 1);
    assert_int_equal(kv_replay_spec_open(&spec, "kvtuner:bits=4,widths=4/2", &fake_setting, 1, &e),
                     KV_EUSAGE);
    assert_non_null(strstr(e.msg, "they must rise"));
    spec = fake_unfitted("kvtuner:bits=2@asym");
    t.view = (struct kv_fitting){
        .struct_bytes = sizeof t.view, .run = &spec.run, .n_items = 5, .output_error = hand_errors};
    assert_int_equal(spec.policy->fit(spec.self, &t.view, &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "the narrowest pairs take"));
    struct fake *f = fake_new(&spec.run, 2, 0, 0, 1);
    assert_int_equal(kv_ask(spec.policy, spec.self, &f->item, f->cells, &e), KV_EFAIL);
    assert_string_equal(e.msg, "was not fitted to any item");
    fake_free(f);
    kv_replay_spec_close(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_that_another_beats_are_never_chosen),
        cmocka_unit_test(layers_within_the_spread_choose_together),
        cmocka_unit_test(the_search_may_add_up_expected_divergence),
        cmocka_unit_test(the_budget_counts_what_is_stored_unless_told_otherwise),
        cmocka_unit_test(the_search_finds_the_best_of_all_plans_within_the_budget),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests_name("kvtuner", tests, NULL, NULL);
}
