// SPDX-License-Identifier: Apache-2.0
// Labels stay in the figure and hide neither points nor each other, at a few and at many points.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "reports/draw/labels.h"

static const struct kv_box area = {0, 0, 900, 340};

static size_t overlaps(const struct kv_label *l, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        struct kv_box a = kv_label_box(&l[i]);
        for (size_t j = 0; j < n; j++) {
            struct kv_box b = kv_label_box(&l[j]);
            count += j != i && a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;
        }
    }
    return count;
}

static void a_lone_label_stands_to_the_right_of_its_point(void **state) {
    struct kv_label l = {
        .x = 100, .y = 100, .bar_low = 100, .bar_high = 100, .width = 60, .height = 12};
    (void)state;
    assert_int_equal(kv_place_labels(&l, 1, area, NULL, 0), 0);
    assert_int_equal(l.justify, 1);
    assert_true(l.label_x > 100 && l.label_x < 112 && l.label_y == 100 && !l.leader);
}

static void at_the_right_edge_it_stands_to_the_left(void **state) {
    struct kv_label l = {
        .x = 895, .y = 100, .bar_low = 100, .bar_high = 100, .width = 60, .height = 12};
    (void)state;
    assert_int_equal(kv_place_labels(&l, 1, area, NULL, 0), 0);
    assert_int_equal(l.justify, -1);
}

static void names_of_nine_points_in_one_corner_can_all_be_read(void **state) {
    struct kv_label l[9];
    (void)state;
    for (size_t i = 0; i < 9; i++)
        l[i] = (struct kv_label){.x = 300 + 14 * (double)(i % 3),
                                 .y = 200 + 9 * (double)(i / 3),
                                 .bar_low = 150,
                                 .bar_high = 250,
                                 .width = 150,
                                 .height = 13};
    assert_int_equal(kv_place_labels(l, 9, area, NULL, 0), 0);
    assert_int_equal(overlaps(l, 9), 0);
}

static void numbers_of_sixty_points_can_all_be_read(void **state) {
    enum { N = 60 };
    struct kv_label l[N], again[N];
    (void)state;
    for (uint64_t r = 0; r < 5; r++) {
        for (size_t i = 0; i < N; i++) {
            double x = 50 + 700 * pow(kv_draw(r, 1, i), 2), y = 40 + 260 * sqrt(kv_draw(r, 2, i));
            l[i] = (struct kv_label){
                .x = x, .y = y, .bar_low = y - 30, .bar_high = y + 30, .width = 14, .height = 12};
        }
        memcpy(again, l, sizeof l);
        assert_int_equal(kv_place_labels(l, N, area, NULL, 0), 0);
        assert_int_equal(overlaps(l, N), 0);
        kv_place_labels(again, N, area, NULL, 0);
        assert_memory_equal(l, again, sizeof l);
    }
}

static void names_that_cannot_fit_are_counted(void **state) {
    enum { N = 60 };
    struct kv_label l[N];
    (void)state;
    for (size_t i = 0; i < N; i++)
        l[i] = (struct kv_label){
            .x = 400, .y = 170, .bar_low = 170, .bar_high = 170, .width = 400, .height = 14};
    assert_true(kv_place_labels(l, N, area, NULL, 0) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lone_label_stands_to_the_right_of_its_point),
        cmocka_unit_test(at_the_right_edge_it_stands_to_the_left),
        cmocka_unit_test(names_of_nine_points_in_one_corner_can_all_be_read),
        cmocka_unit_test(numbers_of_sixty_points_can_all_be_read),
        cmocka_unit_test(names_that_cannot_fit_are_counted),
    };
    return cmocka_run_group_tests_name("labels", tests, NULL, NULL);
}
