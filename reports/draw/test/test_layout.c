// SPDX-License-Identifier: Apache-2.0
// Panels stand below each other, axes map to pixels and back, and names get the room they need.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "reports/draw/layout.h"

#include <stdlib.h>

static const struct kv_layout layout = {.right = 26, .panel_y = 300};

static struct kv_axes unit_axes(bool log_y) {
    struct kv_axes a = kv_axes_new(&layout, 0);
    kv_axes_take_x(&a, 2);
    kv_axes_take_x(&a, NAN);
    kv_axes_take_x(&a, 4);
    kv_axes_take_y(&a, 10);
    kv_axes_take_y(&a, 1000);
    a.log_y = log_y;
    return a;
}

static void panels_stand_below_each_other(void **state) {
    struct kv_axes first = kv_axes_new(&layout, 0), second = kv_axes_new(&layout, 1);
    (void)state;
    assert_true(first.top == 92 && first.bottom == 392);
    assert_true(second.top == 458 && second.bottom == 758);
    assert_true(first.left == 74 && first.right == 974);
    assert_true(kv_layout_height(&layout, 2) == 824); // a foot below the last
}

static void axes_map_to_pixels_and_back(void **state) {
    (void)state;
    for (int log_y = 0; log_y < 2; log_y++) {
        struct kv_axes a = unit_axes(log_y);
        double middle = log_y ? 100 : 505;
        assert_true(fabs(kv_axes_to_x(&a, 3) - 524) < 1e-9);
        assert_true(fabs(kv_axes_to_y(&a, 10) - 392) < 1e-9);
        assert_true(fabs(kv_axes_to_y(&a, middle) - 242) < 1e-9);
        assert_true(fabs(kv_axes_from_x(&a, 524) - 3) < 1e-9);
        assert_true(fabs(kv_axes_from_y(&a, 242) - middle) < 1e-9);
    }
}

// DejaVu Sans 2.37: s t a t i c are 1067, 803, 1255, 803, 569 and 1126 parts of 2048 wide.
static void a_name_is_as_wide_as_its_characters(void **state) {
    (void)state;
    assert_true(fabs(kv_text_width("static", 12) - 12 * 5623.0 / 2048) < 1e-9);
    assert_true(kv_text_width("static", 12) == kv_text_width("st\xC3\xA4tic", 12));
    assert_true(kv_text_width("\u2026", 7) == 7 && kv_text_width("", 12) == 0);
}

static void a_text_that_has_no_room_ends_in_an_ellipsis(void **state) {
    char *whole = kv_text_fit("static", 12, 33), *part = kv_text_fit("st\xC3\xA4tic", 12, 32);
    char *none = kv_text_fit("static", 12, 1);
    (void)state;
    assert_string_equal(whole, "static");
    assert_string_equal(part, "st\xC3\xA4\u2026");
    assert_true(kv_text_width(part, 12) <= 32);
    assert_string_equal(none, "\u2026");
    free(whole);
    free(part);
    free(none);
}

static void a_point_without_a_name_takes_no_more_room_than_a_dot(void **state) {
    struct kv_axes a = unit_axes(false);
    struct kv_label dot = kv_axes_label(&a, 3, 505, NAN, NAN, NULL);
    struct kv_label named = kv_axes_label(&a, 3, 505, 10, 1000, "name");
    (void)state;
    assert_true(dot.width == 1 && dot.height == 1 && dot.bar_low == dot.y && dot.bar_high == dot.y);
    assert_true(named.width == kv_text_width("name", 12) && named.bar_low == 392 &&
                named.bar_high == 92);
}

static void arrays_of_a_script_hold_minus_one_for_what_is_not_known(void **state) {
    struct {
        double x, other;
    } at[] = {{1.5, 0}, {NAN, 0}, {3, 0}};
    struct kv_text t = {0};
    (void)state;
    kv_script_array(&t, "chance", &at[0].x, 3, sizeof at[0]);
    char *text = kv_text_take(&t);
    assert_string_equal(text, "array chance[3] = [1.5, -1, 3]\n");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(panels_stand_below_each_other),
        cmocka_unit_test(axes_map_to_pixels_and_back),
        cmocka_unit_test(a_name_is_as_wide_as_its_characters),
        cmocka_unit_test(a_text_that_has_no_room_ends_in_an_ellipsis),
        cmocka_unit_test(a_point_without_a_name_takes_no_more_room_than_a_dot),
        cmocka_unit_test(arrays_of_a_script_hold_minus_one_for_what_is_not_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
