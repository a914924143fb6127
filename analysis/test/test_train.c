// SPDX-License-Identifier: Apache-2.0
// Training the controller: it learns what can be learned, weighs its three losses, and never tests
// on what it trained on.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#include "analysis/search/train.h"
#include "sim/base/memory.h"

enum { ITEMS = 60, PER_ITEM = 25, TOKENS = ITEMS * PER_ITEM };

struct set {
    float x[TOKENS * KV_TRAIN_INPUTS];
    uint8_t label[TOKENS];
    uint32_t item[TOKENS];
    struct kv_train_data d;
};

// The label is told by feature 0 alone, in raw units far from 0..1; feature 2 never changes.
static void make_set(struct set *s) {
    for (size_t t = 0; t < TOKENS; t++) {
        double u = kv_draw(3, 0, t);
        s->item[t] = (uint32_t)(t / PER_ITEM);
        s->label[t] = (uint8_t)(4 * u);
        s->x[t * 4] = (float)(1000 + 5 * u);
        s->x[t * 4 + 1] = (float)(1e-4 * kv_draw(3, 1, t));
        s->x[t * 4 + 2] = 7;
        s->x[t * 4 + 3] = (float)kv_draw(3, 2, t);
    }
    s->d = (struct kv_train_data){.n_tokens = TOKENS,
                                  .n_items = ITEMS,
                                  .n_classes = 4,
                                  .x = s->x,
                                  .label = s->label,
                                  .item = s->item,
                                  .latency = {0.1, 0.25, 0.5, 1},
                                  .quality = {0, 0.7, 0.99, 1}};
}

static struct kv_train_result run(const struct set *s, double alpha, double beta, double gamma) {
    struct kv_train_options o;
    struct kv_train_result r;
    struct kv_error e = {0};
    kv_train_defaults(&o);
    o.alpha = alpha;
    o.beta = beta;
    o.gamma = gamma;
    o.hidden = 32;
    o.batch = 64;
    o.epochs = 40;
    o.seed = 5;
    if (kv_train(&s->d, &o, &r, &e)) fail_msg("%s", e.msg);
    return r;
}

static double agreement(const struct set *s, const struct kv_train_result *r) {
    uint8_t *picked = kv_alloc(TOKENS, 1);
    double right = 0;
    kv_train_pick(r, s->x, TOKENS, picked);
    for (size_t t = 0; t < TOKENS; t++) right += picked[t] == s->label[t];
    free(picked);
    return right / TOKENS;
}

static double share_of_class(const struct set *s, const struct kv_train_result *r, uint8_t class) {
    uint8_t *picked = kv_alloc(TOKENS, 1);
    double n = 0;
    kv_train_pick(r, s->x, TOKENS, picked);
    for (size_t t = 0; t < TOKENS; t++) n += picked[t] == class;
    free(picked);
    return n / TOKENS;
}

static void a_label_that_one_feature_tells_is_learned_over_raw_features(void **state) {
    (void)state;
    static struct set s;
    make_set(&s);
    struct kv_train_result r = run(&s, 1, 0, 0);
    assert_true(agreement(&s, &r) > 0.93);
    assert_true(r.epochs[r.best_epoch].valid_loss < 0.5 * r.epochs[0].valid_loss);
    assert_int_equal(r.n[KV_TRAIN_LEARNS] + r.n[KV_TRAIN_VALIDATES] + r.n[KV_TRAIN_REPORTED],
                     TOKENS);
    assert_int_equal(r.n[KV_TRAIN_VALIDATES], TOKENS / 5); // whole items, one in five
    assert_int_equal(r.n[KV_TRAIN_REPORTED], TOKENS / 5);
    size_t counted = 0;
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 4; k++) counted += r.confusion[i][k];
    assert_int_equal(counted, r.n[KV_TRAIN_REPORTED]);
    kv_train_result_free(&r);
}

// Two units a token: the first has the label that feature 0 tells, the second the opposite.
static void units_of_a_token_learn_a_class_each(void **state) {
    (void)state;
    static struct set s;
    static uint8_t both[2 * TOKENS], picked[2 * TOKENS];
    make_set(&s);
    for (size_t t = 0; t < TOKENS; t++) {
        both[2 * t] = s.label[t];
        both[2 * t + 1] = (uint8_t)(3 - s.label[t]);
    }
    s.d.label = both;
    s.d.n_units = 2;
    struct kv_train_result r = run(&s, 1, 0, 0);
    kv_train_pick(&r, s.x, TOKENS, picked);
    size_t right[2] = {0}, counted = 0;
    for (size_t i = 0; i < 2 * TOKENS; i++) right[i % 2] += picked[i] == both[i];
    assert_true(right[0] > 0.9 * TOKENS && right[1] > 0.9 * TOKENS);
    assert_true(r.accuracy > 0.9 && r.n_units == 2);
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 4; k++) counted += r.confusion[i][k];
    assert_int_equal(counted, 2 * r.n[KV_TRAIN_REPORTED]);
    kv_train_result_free(&r);
}

static void only_the_feature_that_tells_is_worth_something(void **state) {
    (void)state;
    static struct set s;
    make_set(&s);
    struct kv_train_result r = run(&s, 1, 0, 0);
    assert_true(r.accuracy_drop[0] > 0.5);
    assert_true(fabs(r.accuracy_drop[1]) < 0.1);
    assert_true(r.accuracy_drop[2] == 0 && r.loss_rise[2] == 0);
    kv_train_result_free(&r);
}

static void latency_alone_asks_for_the_fastest_width_and_quality_alone_for_the_best(void **state) {
    (void)state;
    static struct set s;
    make_set(&s);
    struct kv_train_result fast = run(&s, 0, 1, 0), good = run(&s, 0, 0, 1);
    assert_true(share_of_class(&s, &fast, 0) > 0.99);
    assert_true(share_of_class(&s, &good, 3) + share_of_class(&s, &good, 2) > 0.99);
    kv_train_result_free(&fast);
    kv_train_result_free(&good);
}

static void the_same_seed_gives_the_same_weights(void **state) {
    (void)state;
    static struct set s;
    make_set(&s);
    struct kv_train_result a = run(&s, 1, 0.1, 0.1), b = run(&s, 1, 0.1, 0.1);
    assert_int_equal(a.n_epochs, b.n_epochs);
    for (size_t l = 0; l < 3; l++) {
        const size_t n[] = {32 * 4, 32 * 32, 4 * 32};
        assert_memory_equal(a.weight[l], b.weight[l], n[l] * sizeof(float));
    }
    kv_train_result_free(&a);
    kv_train_result_free(&b);
}

static void training_stops_when_validation_gets_no_better(void **state) {
    (void)state;
    static struct set s;
    make_set(&s);
    for (size_t t = 0; t < TOKENS; t++) s.label[t] = (uint8_t)(4 * kv_draw(8, 8, t)); // pure noise
    struct kv_train_result r = run(&s, 1, 0, 0);
    assert_true(r.n_epochs < 40);
    assert_int_equal(r.n_epochs - 1 - r.best_epoch, 8);
    kv_train_result_free(&r);
}

static void what_cannot_be_trained_on_is_refused(void **state) {
    (void)state;
    static struct set s;
    struct kv_train_options o;
    struct kv_train_result r;
    struct kv_error e = {0};
    kv_train_defaults(&o);
    make_set(&s);
    s.x[40] = NAN;
    assert_int_equal(kv_train(&s.d, &o, &r, &e), KV_EFAIL);
    assert_string_equal(e.msg, "a feature of token 10 is no number");
    make_set(&s);
    s.d.n_items = 1;
    assert_int_equal(kv_train(&s.d, &o, &r, &e), KV_EUSAGE);
    make_set(&s);
    o.rate = 0;
    assert_int_equal(kv_train(&s.d, &o, &r, &e), KV_EUSAGE);
}

// The label asks whether one of two features alone is high, which no weighted sum can tell.
static void accuracy_stands_beside_the_majority_s_and_a_linear_softmax_s(void **state) {
    (void)state;
    static struct set s;
    make_set(&s);
    s.d.n_classes = 2;
    for (size_t t = 0; t < TOKENS; t++) {
        s.x[t * 4] = (float)kv_draw(4, 0, t);
        s.label[t] = (s.x[t * 4] > 0.5f) != (s.x[t * 4 + 3] > 0.5f);
    }
    struct kv_train_result r = run(&s, 1, 0, 0);
    assert_true(r.accuracy > 0.9);
    assert_true(r.linear_accuracy > 0.3 && r.linear_accuracy < 0.7);
    assert_true(r.majority_accuracy > 0.4 && r.majority_accuracy < 0.6);
    kv_train_result_free(&r);
}

static void items_that_are_reported_on_have_no_say_in_the_weights(void **state) {
    (void)state;
    static struct set s;
    make_set(&s);
    struct kv_train_result a = run(&s, 1, 0.1, 0.1);
    size_t changed = 0;
    for (size_t t = 0; t < TOKENS; t++)
        if (a.part[s.item[t]] == KV_TRAIN_REPORTED) s.x[t * 4] = (float)(t % 7), changed++;
    struct kv_train_result b = run(&s, 1, 0.1, 0.1);
    assert_int_equal(changed, a.n[KV_TRAIN_REPORTED]);
    assert_memory_equal(a.part, b.part, ITEMS);
    for (size_t l = 0; l < 3; l++) {
        const size_t n[] = {32 * 4, 32 * 32, 4 * 32};
        assert_memory_equal(a.weight[l], b.weight[l], n[l] * sizeof(float));
    }
    assert_true(b.accuracy < a.accuracy);
    kv_train_result_free(&a);
    kv_train_result_free(&b);
}

// Means of the scaled features: 0, 0.25, 0.5, 1 -> quarters in that order.
static void quartile_labels_follow_the_mean_of_the_scaled_features(void **state) {
    (void)state;
    const float x[] = {0, 0, 10, 0, 0, 1, 10, 0, 4, 0, 10, 0.5f, 4, 1, 10, 1};
    // Feature 2 never changes and adds nothing: means 0, 1/4, 1.5/4, 3/4.
    uint8_t label[4];
    kv_label_quartiles(x, 4, 4, label);
    const uint8_t expected[] = {0, 1, 2, 3};
    assert_memory_equal(label, expected, 4);
}

static void oracle_labels_take_the_narrowest_width_under_the_bound(void **state) {
    (void)state;
    const double damage[] = {0.5, 0.2, 0.01, 0, 0.05, 0.01, 0, 0, 9, 8, 7, 6};
    uint8_t label[3];
    kv_label_oracle(damage, 3, 4, 0.1, label);
    const uint8_t expected[] = {2, 0, 3};
    assert_memory_equal(label, expected, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_label_that_one_feature_tells_is_learned_over_raw_features),
        cmocka_unit_test(units_of_a_token_learn_a_class_each),
        cmocka_unit_test(only_the_feature_that_tells_is_worth_something),
        cmocka_unit_test(latency_alone_asks_for_the_fastest_width_and_quality_alone_for_the_best),
        cmocka_unit_test(the_same_seed_gives_the_same_weights),
        cmocka_unit_test(training_stops_when_validation_gets_no_better),
        cmocka_unit_test(accuracy_stands_beside_the_majority_s_and_a_linear_softmax_s),
        cmocka_unit_test(items_that_are_reported_on_have_no_say_in_the_weights),
        cmocka_unit_test(what_cannot_be_trained_on_is_refused),
        cmocka_unit_test(quartile_labels_follow_the_mean_of_the_scaled_features),
        cmocka_unit_test(oracle_labels_take_the_narrowest_width_under_the_bound),
    };
    return cmocka_run_group_tests_name("train", tests, NULL, NULL);
}
