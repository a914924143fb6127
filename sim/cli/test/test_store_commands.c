// SPDX-License-Identifier: Apache-2.0
// show, outcomes, diff and report as a user meets them: output, messages, exit codes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <jansson.h>
#include <sys/stat.h>

#include "sim/cli/test/made_store.h"
#include "sim/base/files.h"

static double right_share(size_t p) {
    size_t right = 0;
    for (size_t i = 0; i < N; i++) {
        struct kv_choice_outcome choice[SYNTHETIC_CHOICES];
        struct kv_outcome o =
            synthetic_outcome(i, p, 0.6, specs[p].damage, specs[p].k_bits, specs[p].v_bits, choice);
        right += o.pick[KV_ACC] == o.gold;
    }
    return (double)right / N;
}

static void show_prints_every_row_as_json_with_all_digits(void **state) {
    const struct fixture *f = *state;
    char *said, *arguments = kv_format_text("show --db %s --json", f->db);
    assert_int_equal(run(f, "", arguments, &said), 0);
    json_t *rows = json_loads(said, 0, NULL);
    assert_int_equal(json_array_size(rows), 4);
    for (size_t i = 0; i < 4; i++) {
        json_t *row = json_array_get(rows, i);
        const char *spec = json_string_value(json_object_get(row, "spec"));
        size_t p = 0;
        while (p < 4 && strcmp(specs[p].spec, spec) != 0) p++;
        assert_true(p < 4); // the hostile name came through whole
        assert_true(json_real_value(json_object_get(row, "acc")) == right_share(p));
        assert_int_equal(json_integer_value(json_object_get(row, "n")), N);
    }
    json_decref(rows);
    free(said);
    free(arguments);
}

// A store of its own with the same runs, in which one outcome of the second is not finite.
static void an_item_that_is_not_finite_is_left_out_and_named(void **state) {
    const struct fixture *f = *state;
    struct kv_error e = {0};
    struct kv_store *s;
    struct synthetic *t = synthetic_new(N);
    long long trace, odd;
    char *db = kv_format_text("%s/odd.db", f->dir);
    assert_int_equal(0, kv_store_open(&s, db, KV_STORE_CREATE, &e));
    assert_int_equal(0, synthetic_trace(s, t, &trace, &e));
    for (size_t p = 0; p < 3; p++) assert_int_equal(0, made_run(s, trace, &specs[p], p, 0, &e));
    struct kv_run_key key = synthetic_key(trace, specs[1].spec);
    key.policy = specs[1].policy;
    key.format = specs[1].format;
    assert_int_equal(0, kv_store_run(s, &key, &odd, &e));
    struct kv_choice_outcome choice[SYNTHETIC_CHOICES];
    struct kv_outcome o = synthetic_outcome(5, 1, 0.6, 0.1, 4, 4, choice);
    o.kl_nats = 0; // as if clamped: the score that is infinite tells
    choice[2].logprob = INFINITY;
    assert_int_equal(0, kv_store_put(s, odd, 5, &o, &e));
    assert_int_equal(0, kv_store_close(s, &e));
    synthetic_free(t);
    char *show = kv_format_text("show --db %s", db),
         *tsv = kv_format_text("show --db %s --tsv", db), *said;
    expect(f, show, 0, "199 of 200");
    expect(f, show, 0, "1 of 200 items, whose scores or divergence are not finite (id ");
    assert_int_equal(0, run(f, "", tsv, &said));
    assert_null(strstr(said, "199 of 200")); // scripts find a number under n
    assert_non_null(strstr(said, "\tleft_out\tleft_out_ids\t"));
    free(said);
    char *diff = kv_format_text("diff '%s' '%s' --db %s", specs[1].spec, specs[2].spec, db);
    expect(f, diff, 0, "1 items are left out on both sides");
    char *front = kv_format_text("frontier --db %s --value kl --draws 10", db);
    expect(f, front, 0, "199 items that all rows hold");
    expect(f, front, 0, "1 items are left out: not every row holds them with finite results");
    free(front);
    free(diff);
    free(tsv);
    free(show);
    free(db);
}

static void a_price_at_another_length_says_where_quality_was_measured(void **state) {
    const struct fixture *f = *state;
    char *show = kv_format_text("show --db %s --context 4096", f->db);
    char *front =
        kv_format_text("frontier --db %s --value kl --cost ms --context 4096 --draws 10", f->db);
    char *bits = kv_format_text("frontier --db %s --value kl --draws 10", f->db), *said;
    expect(f, show, 0, "\nquality was measured at ");
    expect(f, show, 0, " tokens (mean), not 4096\n");
    expect(f, front, 0, " tokens (mean), not 4096\n");
    assert_int_equal(0, run(f, "", bits, &said));
    assert_null(strstr(said, "quality was measured"));
    free(said);
    free(bits);
    free(front);
    free(show);
}

// Columns of the longest line below the heading, which wraps as text does.
static size_t widest_line(char *said) {
    size_t n_lines = 0, widest = 0;
    for (char *line = strtok(said, "\n"); line; line = strtok(NULL, "\n"), n_lines++) {
        size_t width = 0;
        for (const char *p = line; *p; p++) {
            width += ((unsigned char)*p & 0xC0) != 0x80;
            assert_true((unsigned char)*p >= 0x20);
        }
        if (n_lines > 0 && width > widest) widest = width;
    }
    assert_true(n_lines >= 6);
    return widest;
}

static void show_fits_the_terminal(void **state) {
    const struct fixture *f = *state;
    static const char *const settings[] = {"COLUMNS=60", "COLUMNS=80", "COLUMNS=100",
                                           "COLUMNS=133"};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char *said, *arguments = kv_format_text("show --db %s", f->db);
        assert_int_equal(run(f, settings[i], arguments, &said), 0);
        assert_in_range(widest_line(said), 40, strtoul(settings[i] + 8, NULL, 10));
        free(said);
        free(arguments);
    }
}

static void show_is_in_colour_only_when_asked(void **state) {
    const struct fixture *f = *state;
    char *plain, *colour, *arguments = kv_format_text("show --db %s", f->db);
    char *always = kv_format_text("show --db %s --color always", f->db);
    assert_int_equal(run(f, "", arguments, &plain), 0); // a pipe is no terminal
    assert_null(strchr(plain, '\033'));
    assert_int_equal(run(f, "NO_COLOR=1", always, &colour), 0);
    assert_non_null(strstr(colour, "\033[33mstatic"));
    free(plain);
    free(colour);
    free(arguments);
    free(always);
    char *wrong = kv_format_text("show --db %s --color red", f->db);
    expect(f, wrong, 2, "kvsim: --color: 'red' is not one of auto, always, never\n");
    free(wrong);
}

static void outcomes_are_found_by_any_spelling(void **state) {
    const struct fixture *f = *state;
    static const char *const spellings[] = {
        "static:bits=4@asym:group=32", "'static:v=4,k=4@asym:window=0,group=32'",
        "'static:k=4,v=4@asym:group=32,order=hf,scale=fp16,sinks=0,window=0'"};
    char *first = NULL;
    for (size_t i = 0; i < 3; i++) {
        char *said, *arguments = kv_format_text("outcomes %s --db %s --tsv", spellings[i], f->db);
        int code = run(f, "", arguments, &said);
        if (code) fail_msg("%s", said);
        static const char head[] =
            "ind\tchoice\tgold\tlogprob\tlogprob16\ttokens\tchars\tbytes\tkl_nats";
        assert_memory_equal(said, head, sizeof head - 1);
        assert_non_null(strstr(said, "\n100\t0\t0\t"));
        size_t lines = 0;
        for (const char *p = said; *p; p++) lines += *p == '\n';
        assert_int_equal(lines, 1 + N * SYNTHETIC_CHOICES);
        if (first) assert_string_equal(first, said);
        if (!first)
            first = said;
        else
            free(said);
        free(arguments);
    }
    free(first);
}

static void diff_pairs_two_specs(void **state) {
    const struct fixture *f = *state;
    char *said,
        *arguments = kv_format_text(
            "diff static:bits=4@asym:group=32 static:k=8,v=4@asym:group=32 --db %s --json", f->db);
    assert_int_equal(run(f, "", arguments, &said), 0);
    json_t *rows = json_loads(said, 0, NULL), *acc = json_array_get(rows, 0);
    assert_int_equal(json_array_size(rows), KV_N_SCORERS + 1);
    double difference = json_real_value(json_object_get(acc, "difference"));
    double only_a = json_number_value(json_object_get(acc, "only_a"));
    double only_b = json_number_value(json_object_get(acc, "only_b"));
    assert_true(fabs(difference - (right_share(1) - right_share(2))) < 1e-12);
    assert_true(fabs(difference - (only_a - only_b) / N) < 1e-12);
    assert_true(json_real_value(json_object_get(acc, "low")) < difference);
    json_decref(rows);
    free(said);
    free(arguments);
}

static void what_is_not_there_is_said_in_one_sentence(void **state) {
    const struct fixture *f = *state;
    char *a = kv_format_text("outcomes static:bits=5@asym:group=32 --db %s", f->db);
    char *b = kv_format_text("diff none statik:bits=4 --db %s", f->db);
    char *c = kv_format_text("show --db %s --sort size", f->db);
    char *d = kv_format_text("show --db %s --context 1,x", f->db);
    char *g = kv_format_text("show --db %s --fidelity fisher", f->db);
    char *h = kv_format_text("show --db %s --fidelity exakt", f->db);
    char *k = kv_format_text("outcomes none --db %s --mode sideways", f->db);
    char *m = kv_format_text("diff none none --db %s --feedback open,shut", f->db);
    expect(f, "show --db /nonexistent.db", 1, "kvsim: /nonexistent.db: no such store\n");
    expect(f, a, 1, "the store holds no such run; it holds 'static:bits=4@asym:group=32'\n");
    expect(f, b, 2, "did you mean 'static'?");
    expect(f, c, 2, "kvsim: --sort: 'size' is not one of bits, acc, kl, ms, spec\n");
    expect(f, d, 2, "kvsim: --context: '1,x' is not a list of tokens such as 128,2048\n");
    expect(f, g, 1, "the store holds no outcomes of fidelity fisher\n");
    expect(f, h, 2, "kvsim: --fidelity: 'exakt' is not one of exact, fisher, attention\n");
    expect(f, k, 2, "kvsim: --mode: 'sideways' is not one of inline, prefill, prefill1, requant\n");
    expect(f, m, 2, "kvsim: --feedback: 'shut' is not one of open, closed\n");
    free(a);
    free(b);
    free(c);
    free(d);
    free(g);
    free(h);
    free(k);
    free(m);
}

static bool holds(const char *dir, const char *name, const char *start) {
    char *path = kv_format_text("%s/%s", dir, name), *text;
    struct kv_error e;
    size_t n;
    bool good = kv_read_file(path, &text, &n, &e) == 0;
    free(path);
    if (!good) return false;
    good = n > strlen(start) && memcmp(text, start, strlen(start)) == 0;
    free(text);
    return good;
}

static void report_draws_figures_and_a_page_that_escapes_names(void **state) {
    const struct fixture *f = *state;
    if (system("command -v gnuplot >/dev/null 2>&1") != 0) skip();
    char *dir = kv_format_text("%s/a report's folder", f->dir), *said, *html;
    char *arguments = kv_format_text("report --db %s -o \"%s\"", f->db, dir);
    struct kv_error e;
    size_t n;
    if (run(f, "", arguments, &said)) fail_msg("%s", said);
    assert_true(holds(dir, "frontier_bits.svg", "<?xml"));
    assert_true(holds(dir, "frontier_bits.png", "\x89PNG"));
    assert_true(holds(dir, "frontier_bits.tsv", "panel\tx\ty\tlow\thigh\ton_frontier\thollow\t"));
    assert_true(holds(dir, "index.html", "<!doctype html>"));
    char *path = kv_format_text("%s/index.html", dir);
    assert_int_equal(kv_read_file(path, &html, &n, &e), 0);
    // The page's own script and no other; figures as a part of it; nothing from elsewhere.
    const char *script = strstr(html, "<script");
    assert_non_null(script);
    assert_null(strstr(script + 1, "<script"));
    assert_null(strstr(html, "<script>alert"));
    assert_null(strstr(html, " onload"));
    assert_non_null(strstr(html, "&lt;script&gt;alert(&#39;&quot;"));
    assert_non_null(strstr(html, "<svg viewBox=\"0 0 1000 "));
    assert_null(strstr(html, "http://"));
    assert_null(strstr(html, "https://"));
    assert_null(strstr(html, "@parts@"));
    free(html);
    free(path);
    free(said);
    free(arguments);
    free(dir);
}

// What lm-evaluation-harness's make_table reads: each key of "results" has its place in every part,
// numbers under "metric,filter" with a direction, and is a task or a member of one.
static void results_json_has_the_nesting_of_the_harness(void **state) {
    static const char *const parts[] = {"configs", "versions", "n-shot", "n-samples",
                                        "higher_is_better"};
    const struct fixture *f = *state;
    char *dir = kv_format_text("%s/harness", f->dir), *said, *path, *name;
    char *arguments = kv_format_text("report --db %s -o %s", f->db, dir);
    const char *key, *metric;
    json_t *row, *x;
    if (system("command -v gnuplot >/dev/null 2>&1") != 0) skip();
    if (run(f, "", arguments, &said)) fail_msg("%s", said);
    path = kv_format_text("%s/results.json", dir);
    json_t *file = json_load_file(path, 0, NULL), *results = json_object_get(file, "results"),
           *groups = json_object_get(file, "group_subtasks");
    size_t members = 0, i;
    assert_true(json_object_size(results) > json_object_size(groups));
    json_object_foreach(results, key, row) {
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++)
            assert_non_null(json_object_get(json_object_get(file, parts[p]), key));
        assert_true(json_is_string(json_object_get(row, "alias")));
        assert_string_equal(json_string_value(json_object_get(row, "name")), key);
        x = json_object_get(json_object_get(json_object_get(file, "n-samples"), key), "effective");
        assert_true(json_is_integer(x) && json_equal(json_object_get(row, "sample_len"), x));
        json_object_foreach(json_object_get(json_object_get(file, "configs"), key), metric, x)
            assert_true(json_is_string(x));
        json_t *better = json_object_get(json_object_get(file, "higher_is_better"), key);
        json_object_foreach(row, metric, x) {
            if (!strchr(metric, ',') || strstr(metric, "_stderr,none")) continue;
            name = kv_format_text("%.*s", (int)strcspn(metric, ","), metric);
            assert_string_equal(metric + strlen(name), ",none");
            assert_true(json_is_number(x) && json_is_boolean(json_object_get(better, name)));
            free(name);
        }
    }
    json_object_foreach(groups, key, row) {
        assert_non_null(json_object_get(results, key));
        json_array_foreach(row, i, x) {
            assert_non_null(json_object_get(results, json_string_value(x)));
            members++;
        }
    }
    assert_int_equal(members + json_object_size(groups), json_object_size(results));
    json_decref(file);
    free(path);
    free(said);
    free(arguments);
    free(dir);
}

static void without_gnuplot_the_report_says_how_to_get_it(void **state) {
    const struct fixture *f = *state;
    char *said, *arguments = kv_format_text("report --db %s -o %s/r", f->db, f->dir);
    assert_int_equal(run(f, "PATH=/nonexistent", arguments, &said), 1);
    assert_non_null(strstr(said, "kvsim: gnuplot: is not installed (package gnuplot-nox; make deps "
                                 "installs it); the data and scripts of the figures are in "));
    free(said);
    free(arguments);
}

// Takes out what the schemas after the second added.
static void make_older(struct kv_store *s) {
    static const char *const steps[] = {"ALTER TABLE outcome_choice DROP COLUMN greedy_ref",
                                        "ALTER TABLE outcome_choice DROP COLUMN greedy",
                                        "DROP TABLE generated_item",
                                        "DROP TABLE generation",
                                        "DROP TABLE outcome_tokens",
                                        "DROP VIEW frontier",
                                        "DROP VIEW summary",
                                        "DROP TABLE shard",
                                        "ALTER TABLE run DROP COLUMN label",
                                        "ALTER TABLE policy_spec DROP COLUMN name",
                                        "CREATE VIEW summary AS SELECT 1",
                                        "CREATE VIEW frontier AS SELECT 1",
                                        "PRAGMA user_version = 2"};
    struct kv_error e;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (kv_store_query(s, steps[i], NULL, 0, NULL, NULL, &e)) fail_msg("%s", e.msg);
}

static void issue_13_point_5_an_older_store_is_copied_before_it_is_changed(void **state) {
    const struct fixture *f = *state;
    struct kv_store *s;
    struct kv_error e;
    char *copy = kv_format_text("%s.bak-v2", f->db),
         *query = kv_format_text("sql \"SELECT label FROM summary\" --db %s", f->db);
    assert_int_equal(kv_store_open(&s, f->db, KV_STORE_WRITE, &e), 0);
    make_older(s);
    assert_int_equal(kv_store_close(s, &e), 0);
    assert_int_equal(kv_store_open(&s, f->db, KV_STORE_WRITE, &e), 0);
    assert_int_equal(kv_store_close(s, &e), 0);
    assert_int_equal(access(copy, F_OK), 0);
    expect(f, query, 0, "static:k=8,v=4@asym");
    free(query);
    free(copy);
}

// Three redraws of every item, of which two of item 7 and one of item 9 overflow, and all of
// item 3.
static void issue_13_A1_redraws_that_are_not_finite_are_counted(void **state) {
    const struct fixture *f = *state;
    struct kv_error e = {0};
    struct kv_store *s;
    struct synthetic *t = synthetic_new(N);
    long long trace, run_id;
    char *db = kv_format_text("%s/redraws.db", f->dir), *said;
    assert_int_equal(0, kv_store_open(&s, db, KV_STORE_CREATE, &e));
    assert_int_equal(0, synthetic_trace(s, t, &trace, &e));
    assert_int_equal(0, made_run(s, trace, &specs[0], 0, 0, &e));
    for (uint32_t r = 0; r < 3; r++) {
        assert_int_equal(0, made_run(s, trace, &specs[1], 1 + r, r, &e));
        struct kv_run_key key = synthetic_key(trace, specs[1].spec);
        key.policy = specs[1].policy;
        key.format = specs[1].format;
        key.redraw = r;
        assert_int_equal(0, kv_store_run(s, &key, &run_id, &e));
        for (size_t i = 3; i < 10; i += i == 3 ? 4 : 2) {
            struct kv_choice_outcome choice[SYNTHETIC_CHOICES];
            struct kv_outcome o = synthetic_outcome(i, 1 + r, 0.6, 0.1, 4, 4, choice);
            o.kl_nats = NAN;
            if (i == 3 || (i == 7 && r > 0) || (i == 9 && r == 2))
                assert_int_equal(0, kv_store_put(s, run_id, (uint32_t)i, &o, &e));
        }
    }
    assert_int_equal(0, kv_store_close(s, &e));
    char *show = kv_format_text("show --db %s", db),
         *tsv = kv_format_text("show --db %s --json", db);
    expect(f, show, 0, "199 of 200, 594 of 597 redraws");
    expect(f, show, 0, "1 of 200 items, whose scores or divergence are not finite (id ");
    char *says =
        kv_format_text("; 3 of 597 redraws of other items, which count by their others (ids "
                       "%s, %s)",
                       t->ids[7], t->ids[9]);
    expect(f, show, 0, says);
    assert_int_equal(0, run(f, "", tsv, &said));
    assert_non_null(strstr(said, "\"left_out_redraws\": 3,"));
    synthetic_free(t);
    free(said);
    free(says);
    free(tsv);
    free(show);
    free(db);
}

static void change(const struct fixture *f, const char *sql) {
    struct kv_store *s;
    struct kv_error e;
    assert_int_equal(kv_store_open(&s, f->db, KV_STORE_WRITE, &e), 0);
    if (kv_store_query(s, sql, NULL, 0, NULL, NULL, &e)) fail_msg("%s", e.msg);
    assert_int_equal(kv_store_close(s, &e), 0);
}

// No call of the library stores such numbers, so they are written as another program would.
static void issue_13_A1_numbers_of_another_hand_that_are_not_finite_are_refused(void **state) {
    const struct fixture *f = *state;
    static const struct {
        const char *table, *column, *value;
    } cases[] = {
        {"outcome_item", "kl_nats", "9e999"},    {"outcome_item", "margin", "-9e999"},
        {"outcome_item", "n_scored", "9e999"},   {"outcome_item", "pick_acc", "9e999"},
        {"outcome_item", "kl_nats", "'nan'"},    {"outcome_item", "effective_bits", "9e999"},
        {"outcome_choice", "logprob", "-9e999"}, {"outcome_choice", "kl_nats", "9e999"},
        {"outcome_share", "share", "9e999"}};
    static const char *const commands[] = {"verify %s", "show --db %s", "frontier --db %s",
                                           "diff none static:k=8,v=4@asym:group=32 --db %s",
                                           "outcomes none --db %s"};
    char *copy = kv_format_text("cp %s %s.whole && rm -f %s.bak*", f->db, f->db, f->db),
         *back = kv_format_text("cp %s.whole %s", f->db, f->db);
    assert_int_equal(system(copy), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool choices = strcmp(cases[i].table, "outcome_choice") == 0;
        char *sql = kv_format_text("UPDATE %s SET %s = %s WHERE run = 1 AND item = 5",
                                   cases[i].table, cases[i].column, cases[i].value),
             *first = kv_format_text("of %s, the first %s of run 1, item 5; nothing is computed",
                                     cases[i].table, cases[i].column);
        change(f, sql);
        for (size_t k = 0; k < sizeof commands / sizeof *commands; k++) {
            char *arguments = kv_format_text(commands[k], f->db);
            const char *says = choices ? "of item 5 is not finite" : first;
            if (k == 0) says = first;
            if (choices && k > 0 && k < 4)
                expect(f, arguments, 0, "none"); // reads no choices
            else
                expect(f, arguments, 1, says);
            free(arguments);
        }
        assert_int_equal(system(back), 0);
        free(sql);
        free(first);
    }
    char *query = kv_format_text("sql 'SELECT 7' --db %s", f->db),
         *verify = kv_format_text("verify %s", f->db);
    change(f, "UPDATE outcome_item SET kl_nats = 1e308 WHERE run = 1"); // finite, and their sum not
    char *show = kv_format_text(commands[1], f->db);
    expect(f, show, 1, "the mean kl_nats of a run is not finite");
    free(show);
    change(f, "UPDATE outcome_item SET kl_nats = 9e999 WHERE run = 1 AND item < 3");
    expect(f, verify, 1, ": 3 rows of outcome_item, the first kl_nats of run 1, item 0;");
    expect(f, query, 0, "another program wrote numbers into it that are not finite");
    assert_int_equal(system(back), 0);
    expect(f, verify, 0, "a whole store");
    free(copy);
    free(back);
    free(query);
    free(verify);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(show_prints_every_row_as_json_with_all_digits),
        {"issue 13 A1: an_item_that_is_not_finite_is_left_out_and_named",
         an_item_that_is_not_finite_is_left_out_and_named, NULL, NULL, NULL},
        {"issue 13 A13: a_price_at_another_length_says_where_quality_was_measured",
         a_price_at_another_length_says_where_quality_was_measured, NULL, NULL, NULL},
        cmocka_unit_test(issue_13_point_5_an_older_store_is_copied_before_it_is_changed),
        cmocka_unit_test(issue_13_A1_redraws_that_are_not_finite_are_counted),
        cmocka_unit_test(issue_13_A1_numbers_of_another_hand_that_are_not_finite_are_refused),
        cmocka_unit_test(show_fits_the_terminal),
        cmocka_unit_test(show_is_in_colour_only_when_asked),
        cmocka_unit_test(outcomes_are_found_by_any_spelling),
        cmocka_unit_test(diff_pairs_two_specs),
        cmocka_unit_test(what_is_not_there_is_said_in_one_sentence),
        cmocka_unit_test(report_draws_figures_and_a_page_that_escapes_names),
        cmocka_unit_test(results_json_has_the_nesting_of_the_harness),
        cmocka_unit_test(without_gnuplot_the_report_says_how_to_get_it),
    };
    return cmocka_run_group_tests_name("store commands", tests, set_up, tear_down);
}
