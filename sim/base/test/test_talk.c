// SPDX-License-Identifier: Apache-2.0
// Progress on a log: it looks at the clock, and says rates as people do. And products of a library
// that is loaded, not linked.
// Runs alone: rates are those of a wait that another load would lengthen.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "sim/base/blas.h"
#include "sim/base/files.h"
#include "sim/base/talk.h"

// What is said between to_log and from_log goes to a file, and comes back as text. Caller frees.
struct log {
    char path[32];
    int before;
};

static void to_log(struct log *l) {
    strcpy(l->path, "/tmp/kvsim-talk-XXXXXX");
    int fd = mkstemp(l->path);
    assert_true(fd >= 0);
    l->before = dup(2);
    dup2(fd, 2);
    close(fd);
}

static char *from_log(const struct log *l) {
    struct kv_error e = {0};
    char *text;
    size_t n;
    dup2(l->before, 2);
    close(l->before);
    if (kv_read_file(l->path, &text, &n, &e)) fail_msg("%s", e.msg);
    unlink(l->path);
    return text;
}

static void wait_s(double s) {
    nanosleep(&(struct timespec){(time_t)s, (long)(1e9 * (s - (double)(time_t)s))}, NULL);
}

static void a_step_that_takes_long_is_told_of_before_it_ends(void **state) {
    (void)state;
    struct log l;
    to_log(&l);
    struct kv_progress *p = kv_progress_start("replaying", 40, "item-specs");
    wait_s(3.5);
    kv_progress_step(p, 4); // a tenth
    kv_progress_end(p);
    char *text = from_log(&l);
    assert_non_null(strstr(text, "replaying 0/40  0:0"));
    assert_non_null(strstr(text, " so far\n"));
    assert_non_null(strstr(text, "replaying 4/40  1.1 item-specs/s  0:3"));
    free(text);
}

static void rates_below_one_a_second_are_seconds_an_item(void **state) {
    (void)state;
    struct log l;
    to_log(&l);
    struct kv_progress *p = kv_progress_start("recording", 2, "items");
    wait_s(2.5);
    kv_progress_step(p, 1);
    kv_progress_end(p);
    char *text = from_log(&l);
    assert_non_null(strstr(text, "recording 1/2  2.5 s/item  0:0"));
    free(text);
}

static void what_ends_within_two_seconds_says_nothing(void **state) {
    (void)state;
    struct log l;
    to_log(&l);
    struct kv_progress *p = kv_progress_start("recording", 2, "items");
    kv_progress_step(p, 1);
    kv_progress_step(p, 1);
    kv_progress_end(p);
    char *text = from_log(&l);
    assert_string_equal(text, "");
    free(text);
}

static void a_command_of_which_nothing_is_known_still_says_that_it_runs(void **state) {
    (void)state;
    struct log l;
    to_log(&l);
    struct kv_progress *p = kv_progress_start("verdict", 0, "");
    wait_s(3.3);
    kv_progress_end(p);
    char *text = from_log(&l);
    assert_non_null(strstr(text, "verdict 0:0"));
    free(text);
}

// [[1 2 3] [4 5 6]] times [[1 0] [0 1] [1 1]] is [[4 5] [10 11]], in each way of writing it down.
static void products_are_right_whichever_side_is_transposed(void **state) {
    (void)state;
    struct kv_error e = {0};
    const float a[] = {1, 2, 3, 4, 5, 6}, a_t[] = {1, 4, 2, 5, 3, 6}, b[] = {1, 0, 0, 1, 1, 1},
                b_t[] = {1, 0, 1, 0, 1, 1}, expected[] = {4, 5, 10, 11}, twice[] = {8, 10, 20, 22};
    float c[4] = {0};
    if (kv_blas_open(&e)) fail_msg("%s: %s", e.where, e.msg);
    kv_sgemm(false, false, 2, 2, 3, a, 3, b, 2, 0, c, 2);
    assert_memory_equal(c, expected, sizeof c);
    kv_sgemm(false, true, 2, 2, 3, a, 3, b_t, 3, 0, c, 2);
    assert_memory_equal(c, expected, sizeof c);
    kv_sgemm(true, false, 2, 2, 3, a_t, 2, b, 2, 1, c, 2);
    assert_memory_equal(c, twice, sizeof c);
}

static void loading_leaves_the_environment_as_it_was(void **state) {
    (void)state;
    const char *threads = getenv("OPENBLAS_NUM_THREADS");
    assert_string_equal(threads, "3");
    assert_string_not_equal(kv_blas_core(), "none");
}

int main(void) {
    setenv("OPENBLAS_NUM_THREADS", "3", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_that_takes_long_is_told_of_before_it_ends),
        cmocka_unit_test(rates_below_one_a_second_are_seconds_an_item),
        cmocka_unit_test(what_ends_within_two_seconds_says_nothing),
        cmocka_unit_test(a_command_of_which_nothing_is_known_still_says_that_it_runs),
        cmocka_unit_test(products_are_right_whichever_side_is_transposed),
        cmocka_unit_test(loading_leaves_the_environment_as_it_was),
    };
    return cmocka_run_group_tests_name("talk", tests, NULL, NULL);
}
