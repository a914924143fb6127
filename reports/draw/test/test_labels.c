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

// Whether the segment comes into the box with the margin around it, by points along it.
static bool comes_near(struct kv_segment s, struct kv_box b) {
    for (int i = 0; i <= 2000; i++) {
        double x = s.x0 + (s.x1 - s.x0) * i / 2000, y = s.y0 + (s.y1 - s.y0) * i / 2000;
        if (x > b.x0 - 1 && x < b.x1 + 1 && y > b.y0 - 1 && y < b.y1 + 1) return true;
    }
    return false;
}

static void no_name_is_crossed_by_a_line_a_bar_or_a_leader(void **state) {
    enum { N = 8, LINES = 3 };
    const struct kv_segment lines[LINES] = {
        {0, 150, 900, 150}, {250, 0, 250, 340}, {100, 300, 800, 20}};
    struct kv_label l[N];
    (void)state;
    for (size_t i = 0; i < N; i++) {
        double x = 200 + 30 * (double)i, y = 150 + 5 * (double)(i % 3);
        l[i] = (struct kv_label){
            .x = x, .y = y, .bar_low = y + 40, .bar_high = y - 40, .width = 90, .height = 13};
    }
    assert_int_equal(kv_place_labels(l, N, area, lines, LINES), 0);
    for (size_t i = 0; i < N; i++) {
        struct kv_box b = kv_label_box(&l[i]);
        for (size_t k = 0; k < LINES; k++) assert_false(comes_near(lines[k], b));
        for (size_t k = 0; k < N; k++) {
            struct kv_segment bar = {l[k].x, l[k].bar_low, l[k].x, l[k].bar_high};
            struct kv_segment leader = {l[k].x, l[k].y, l[k].leader_x, l[k].leader_y};
            assert_false(comes_near(bar, b));
            if (l[k].leader) assert_false(comes_near(leader, b)); // its own ends before its name
        }
    }
}

static void a_name_that_only_a_line_crosses_is_counted(void **state) {
    const struct kv_segment lines[] = {{0, 15, 120, 15}, {0, 5, 120, 5}, {0, 25, 120, 25}};
    const struct kv_box low = {0, 0, 120, 30};
    struct kv_label l = {
        .x = 10, .y = 15, .bar_low = 15, .bar_high = 15, .width = 60, .height = 13};
    (void)state;
    assert_int_equal(kv_place_labels(&l, 1, low, lines, 3), 1);
    assert_int_equal(kv_place_labels(&l, 1, low, NULL, 0), 0);
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
        cmocka_unit_test(no_name_is_crossed_by_a_line_a_bar_or_a_leader),
        cmocka_unit_test(a_name_that_only_a_line_crosses_is_counted),
        cmocka_unit_test(names_that_cannot_fit_are_counted),
    };
    return cmocka_run_group_tests_name("labels", tests, NULL, NULL);
}
