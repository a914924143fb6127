// SPDX-License-Identifier: Apache-2.0
// The data of a frontier figure, line for line, and what is said when gnuplot cannot draw it. A
// program of the test's own stands for gnuplot.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "reports/draw/frontier.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    char dir[64];
    struct kv_row rows[3];
    struct kv_rows all;
};

// Bits, accuracy and its interval, divergence: the middle one is beaten by the first.
static const struct {
    char *label;
    double bits, acc, kl;
} points[] = {{"two\tbits", 2.5, 0.5, 0.25}, {"three", 3.5, 0.25, 0.5}, {"sixteen", 16, 0.75, 0}};

static int set_up(void **state) {
    struct fixture *f = kv_alloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/kvsim-draw-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    for (size_t i = 0; i < 3; i++) {
        struct kv_row *r = &f->rows[i];
        r->label = points[i].label;
        r->s.task = r->s.subset = r->s.model = "x";
        r->s.effective_bits = points[i].bits;
        r->s.acc[KV_ACC] = points[i].acc;
        r->s.acc_ref[KV_ACC] = 0.75;
        r->s.chance = 0.25;
        r->interval[KV_ACC] = (struct kv_interval){points[i].acc - 0.125, points[i].acc + 0.125};
        r->kl.mean = points[i].kl;
        r->kl.interval = (struct kv_interval){NAN, NAN};
    }
    f->all = (struct kv_rows){.n = 3, .row = f->rows};
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    char *command = kv_format_text("rm -rf %s", f->dir);
    int code = setenv("PATH", "/usr/bin:/bin", 1) || system(command);
    free(command);
    free(f);
    return code;
}

// Puts a program of that text where gnuplot is looked for, and draws.
static int draw(const struct fixture *f, const char *program, struct kv_error *e) {
    const struct kv_frontier_set set = {.all = &f->all, .rows = f->rows, .n = 3, .dir = f->dir};
    struct kv_drawn drawn[2];
    size_t n;
    char *path = kv_format_text("%s/gnuplot", f->dir);
    assert_int_equal(kv_write_file(path, program, strlen(program), e), 0);
    assert_int_equal(chmod(path, 0700), 0);
    assert_int_equal(setenv("PATH", f->dir, 1), 0);
    int code = kv_frontier_draw(&set, drawn, &n, e);
    assert_int_equal(n, f->all.device ? 2 : 1); // no device, no latency
    for (size_t i = 0; i < n; i++) {
        free(drawn[i].name);
        free(drawn[i].narrow);
    }
    free(path);
    return code;
}

// The first nine columns: what follows are places of names.
static char *points_of(const char *text) {
    struct kv_text t = {0};
    for (size_t tabs = 0; *text; text++) {
        tabs = *text == '\n' ? 0 : tabs + (*text == '\t');
        if (tabs < 9) kv_text_add(&t, text, 1);
    }
    return kv_text_take(&t);
}

static void points_come_by_panel_and_those_on_the_frontier_last(void **state) {
    const struct fixture *f = *state;
    struct kv_error e = {0};
    size_t n;
    char *text, *path = kv_format_text("%s/frontier_bits.tsv", f->dir);
    assert_int_equal(draw(f, "#!/bin/sh\n", &e), 0);
    assert_int_equal(kv_read_file(path, &text, &n, &e), 0);
    char *got = points_of(text);
    assert_string_equal(got, "panel\tx\ty\tlow\thigh\ton_frontier\thollow\toracle\tlabel\n"
                             // no interval; zero stands at a third of the least divergence
                             "1\t3.5\t0.5\t\t\t0\t0\t0\tthree\n"
                             "1\t2.5\t0.25\t\t\t1\t0\t0\ttwo?bits\n"
                             "1\t16\t0.08333333333\t\t\t1\t0\t0\tsixteen\n"
                             "2\t3.5\t25\t12.5\t37.5\t0\t0\t0\tthree\n"
                             "2\t2.5\t50\t37.5\t62.5\t1\t0\t0\ttwo?bits\n"
                             "2\t16\t75\t62.5\t87.5\t1\t0\t0\tsixteen\n");
    free(got);
    free(text);
    free(path);
}

// Times that lie within 1 % of each other, on a device whose model errs by 5 %: the script knows
// the error, and an axis shows twelve times that and more.
static void issue_16_the_latency_models_error_is_drawn_and_bounds_the_axis(void **state) {
    struct fixture *f = *state;
    struct kv_error e = {0};
    struct kv_device *d = kv_device_new();
    size_t n;
    double low = NAN, high = NAN;
    d->error_median = 0.05;
    f->all.device = d;
    f->all.n_contexts = 1;
    f->all.context[0] = 128;
    for (size_t i = 0; i < 3; i++)
        f->rows[i].at[0] = (struct kv_latency){.step_ns = 1e7 + 5e4 * (double)i, .ceiling_ns = 1e7};
    char *text, *path = kv_format_text("%s/frontier_latency.gp", f->dir);
    assert_int_equal(draw(f, "#!/bin/sh\n", &e), 0);
    assert_int_equal(kv_read_file(path, &text, &n, &e), 0);
    assert_non_null(strstr(text, "array x_error[2] = [0.05, 0.05]"));
    assert_int_equal(sscanf(strstr(text, "array x_low[2]"), "array x_low[2] = [%lf", &low), 1);
    assert_int_equal(sscanf(strstr(text, "array x_high[2]"), "array x_high[2] = [%lf", &high), 1);
    assert_true(low < 10 && high > 10.1 && high - low >= 12 * 0.05 * 10);
    assert_non_null(strstr(text, "error_below = 37\n"));
    free(text);
    free(path);
    // a narrow figure has it too, on a line of its own for which each panel's foot grows
    path = kv_format_text("%s/frontier_latency-narrow.gp", f->dir);
    assert_int_equal(kv_read_file(path, &text, &n, &e), 0);
    assert_non_null(strstr(text, "array x_error[2] = [0.05, 0.05]"));
    assert_non_null(strstr(text, "error_below = 59\n"));
    f->all.device = NULL;
    kv_device_free(d);
    free(text);
    free(path);
}

static void what_gnuplot_complains_of_is_quoted(void **state) {
    const struct fixture *f = *state;
    struct kv_error e = {0};
    assert_int_equal(draw(f, "#!/bin/sh\necho >&2\necho '  ^ no such terminal' >&2\nexit 3\n", &e),
                     KV_EFAIL);
    assert_string_equal(e.where, "gnuplot");
    assert_non_null(strstr(e.msg, "/frontier_bits.svg: no such terminal"));
}

static void without_gnuplot_the_data_are_there_all_the_same(void **state) {
    const struct fixture *f = *state;
    struct kv_error e = {0};
    char *path = kv_format_text("%s/frontier_bits.gp", f->dir);
    assert_int_equal(draw(f, "#!/nowhere/sh\n", &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "is not installed (package gnuplot-nox"));
    assert_int_equal(access(path, R_OK), 0);
    free(path);
}

static void a_paper_has_millimetres_centimetres_or_inches(void **state) {
    static const struct {
        const char *text;
        double width_mm, height_mm;
    } good[] = {{"84mm", 84, 0}, {"84x60mm", 84, 60}, {"8.4cm", 84, 0}, {"4x2.5in", 101.6, 63.5}};
    static const char *const bad[] = {"84",    "mm",       "84mmx60mm", "84 mm", "84x",   "39mm",
                                      "-84mm", "84x0.5mm", "nanmm",     "infmm", "601mm", ""};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct kv_paper p = {0};
        struct kv_error e = {0};
        assert_int_equal(kv_paper_size(good[i].text, &p, &e), 0);
        assert_true(fabs(p.width_mm - good[i].width_mm) < 1e-9);
        assert_true(fabs(p.height_mm - good[i].height_mm) < 1e-9);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kv_paper p = {0};
        struct kv_error e = {0};
        assert_int_equal(kv_paper_size(bad[i], &p, &e), KV_EUSAGE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(points_come_by_panel_and_those_on_the_frontier_last, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            issue_16_the_latency_models_error_is_drawn_and_bounds_the_axis, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_gnuplot_complains_of_is_quoted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_gnuplot_the_data_are_there_all_the_same, set_up,
                                        tear_down),
        cmocka_unit_test(a_paper_has_millimetres_centimetres_or_inches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
