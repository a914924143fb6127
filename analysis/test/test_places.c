// SPDX-License-Identifier: Apache-2.0
// Places: which tests judge them, where a difference is first said, worked out by hand.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "analysis/results/places.h"

enum { ITEMS = 12, PLACES = 4 };

static void near(double x, double expected, double tolerance) {
    if (!(fabs(x - expected) <= tolerance)) fail_msg("%.12g, expected %.12g", x, expected);
}

// Two lengths, two depths. lost[place]: of 12 items matched by 16 bit, so many are not by the
// policy; the margin falls by `fall` more or less.
static void fill(struct kv_place_item *items, const unsigned lost[PLACES], const double *fall,
                 double share16) {
    for (size_t p = 0; p < PLACES; p++)
        for (size_t i = 0; i < ITEMS; i++) {
            struct kv_place_item *x = &items[i * PLACES + (PLACES - 1 - p)]; // in any order
            *x = (struct kv_place_item){.place = {p < 2 ? 512 : 1024, 0, p % 2 ? 100 : 25},
                                        .match16 = (double)i < share16 * ITEMS,
                                        .margin16 = 10 + (double)i};
            x->match = x->match16 > 0 && i >= lost[p];
            x->margin = x->margin16 - fall[p] - (i % 2 ? 0.5 : -0.5);
        }
}

static void a_source_names_a_place(void **state) {
    struct kv_fact_place p;
    (void)state;
    assert_true(kv_place_read("length=512,depth=12.5", &p));
    assert_true(p.length == 512 && p.pairs == 0 && p.depth == 12.5);
    assert_true(kv_place_read("pairs=64,depth=0", &p));
    assert_true(p.length == 0 && p.pairs == 64 && p.depth == 0);
    assert_false(kv_place_read("wikihow", &p));
    assert_false(kv_place_read("", &p));
}

// McNemar's exact p of 11 lost and none won is 2 / 2^11; of 12, 2 / 2^12. Holm multiplies the least
// of four by 4, the next by 3.
static void matches_are_tested_exactly_and_adjusted_over_places(void **state) {
    struct kv_place_item items[ITEMS * PLACES];
    size_t n;
    (void)state;
    fill(items, (const unsigned[]){0, 11, 2, 12}, (const double[]){0, 0, 0, 0}, 1);
    struct kv_place_result *p = kv_places_judge(items, ITEMS * PLACES, &n);
    assert_int_equal(n, PLACES);
    assert_true(p[1].place.length == 512 && p[1].place.depth == 100);
    assert_true(p[2].place.length == 1024 && p[2].place.depth == 25);
    assert_int_equal(p[1].n, ITEMS);
    near(p[1].match16, 1, 0);
    near(p[1].match, 1. / 12, 1e-12);
    near(p[3].match_holm, 4 * 2 / 4096., 1e-12);
    near(p[1].match_holm, 3 * 2 / 2048., 1e-12);
    near(p[0].match_holm, 1, 0);
    assert_int_equal(kv_places_first(p, n, true), 1);
    assert_int_equal(kv_places_first(p, n, false), n);
    char *text = kv_places_text(p, n);
    assert_string_equal(text, "by match first at length 512, depth 100 % (p 0.0029); by margin "
                              "nowhere; a match tells from 10 of 12 items lost, none won");
    free(text);
    free(p);
}

// A fall of 2 with deviations of +-0.5: t = 2 / (0.5222 / sqrt(12)) = 13.27 at 11 degrees.
static void margins_are_tested_by_t(void **state) {
    struct kv_place_item items[ITEMS * PLACES];
    size_t n;
    (void)state;
    fill(items, (const unsigned[]){0, 0, 0, 0}, (const double[]){0, 0, 2, 0}, 1);
    struct kv_place_result *p = kv_places_judge(items, ITEMS * PLACES, &n);
    near(p[2].margin_to16.mean, -2, 1e-12);
    near(p[2].margin16, 15.5, 1e-12);
    near(p[2].margin_to16.sd, 0.5222329678670935, 1e-12);
    near(p[2].margin_p, 4.1e-8, 0.2e-8);
    near(p[2].margin_holm, 4 * p[2].margin_p, 1e-18);
    assert_int_equal(kv_places_first(p, n, true), n);
    assert_int_equal(kv_places_first(p, n, false), 2);
    free(p);
}

static void lengths_that_16_bit_hardly_solves_are_judged_by_margin_alone(void **state) {
    struct kv_place_item items[ITEMS * PLACES];
    size_t n;
    (void)state;
    fill(items, (const unsigned[]){12, 12, 12, 12}, (const double[]){3, 3, 3, 3}, 0.25);
    for (size_t i = 0; i < ITEMS * PLACES; i++)
        if (items[i].place.length == 1024) items[i].match16 = 1;
    struct kv_place_result *p = kv_places_judge(items, ITEMS * PLACES, &n);
    assert_true(isnan(p[0].match_holm) && isnan(p[1].match_holm));
    near(p[2].match_holm, 2 * 2 / 4096., 1e-12);
    assert_int_equal(kv_places_first(p, n, true), 2);
    assert_int_equal(kv_places_first(p, n, false), 0);
    char *text = kv_places_text(p, n);
    assert_non_null(strstr(text, "; 2 of 4 places by margin alone (16 bit matches below 30 %)"));
    free(text);
    free(p);
}

static void items_without_a_finite_margin_count_nowhere(void **state) {
    struct kv_place_item items[ITEMS * PLACES];
    size_t n;
    (void)state;
    fill(items, (const unsigned[]){0, 0, 0, 0}, (const double[]){0, 0, 0, 0}, 1);
    for (size_t i = 0; i < ITEMS * PLACES; i++)
        if (items[i].place.length == 512 && items[i].place.depth == 25)
            items[i].margin = i % 3 ? NAN : -INFINITY;
    items[3].margin = NAN;
    struct kv_place_result *p = kv_places_judge(items, ITEMS * PLACES, &n);
    assert_int_equal(n, PLACES - 1);
    free(p);
    fill(items, (const unsigned[]){0, 0, 0, 0}, (const double[]){0, 0, 0, 0}, 1);
    for (size_t i = 0; i < ITEMS * PLACES; i++) items[i].match = items[i].match16 = NAN;
    p = kv_places_judge(items, ITEMS * PLACES, &n);
    char *text = kv_places_text(p, n);
    assert_string_equal(text, "by margin nowhere; matches of 4 of 4 places are not known");
    free(text);
    free(p);
    p = kv_places_judge(items, 0, &n);
    assert_int_equal(n, 0);
    free(p);
}

static void few_items_are_said_to_be_too_few(void **state) {
    struct kv_place_item items[ITEMS * PLACES];
    size_t n, few = 0;
    (void)state;
    fill(items, (const unsigned[]){12, 12, 12, 12}, (const double[]){0, 0, 0, 0}, 1);
    for (size_t i = 0; i < ITEMS * PLACES; i++)
        if (items[i].margin16 < 15) items[few++] = items[i]; // 5 of each
    struct kv_place_result *p = kv_places_judge(items, few, &n);
    char *text = kv_places_text(p, n);
    assert_string_equal(text,
                        "by match nowhere; by margin nowhere; 5 items a place are too few for "
                        "a match to tell");
    free(text);
    free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_source_names_a_place),
        cmocka_unit_test(matches_are_tested_exactly_and_adjusted_over_places),
        cmocka_unit_test(margins_are_tested_by_t),
        cmocka_unit_test(lengths_that_16_bit_hardly_solves_are_judged_by_margin_alone),
        cmocka_unit_test(items_without_a_finite_margin_count_nowhere),
        cmocka_unit_test(few_items_are_said_to_be_too_few)};
    return cmocka_run_group_tests_name("places", tests, NULL, NULL);
}
