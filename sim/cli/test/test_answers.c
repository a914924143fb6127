// SPDX-License-Identifier: Apache-2.0
// What a store answers: verdict, frontier, sql, the evidence in diff and show, as a user meets
// them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <jansson.h>
#include <sys/stat.h>

#include "analysis/stats/stats.h"
#include "sim/cli/test/made_store.h"
#include "sim/base/files.h"

#define FORMAT "@asym:group=32,order=hf,scale=fp16,sinks=0,window=0"
static const struct made_spec random_spec = {"random:bits=2/8" FORMAT,
                                             "random:bits=2/8",
                                             "asym:group=32,order=hf,scale=fp16,sinks=0,window=0",
                                             0.2,
                                             4,
                                             4};
static const struct made_spec shuffled_spec = {"shuffle(random:bits=2/8):seed=0,within=item" FORMAT,
                                               "shuffle",
                                               "asym:group=32,order=hf,scale=fp16,sinks=0,window=0",
                                               0.2,
                                               4,
                                               4};
static const struct made_spec redrawn_spec = {"static:k=5,v=5" FORMAT,
                                              "static:k=5,v=5",
                                              "asym:group=32,order=hf,scale=fp16,sinks=0,window=0",
                                              0.2,
                                              5,
                                              5};

// The made store with a policy beside its shuffle, and one that was redrawn.
static int set_up_more(void **state) {
    struct kv_error e = {0};
    struct kv_store *s;
    struct synthetic *t = synthetic_new(N);
    long long trace;
    int code = set_up(state);
    const struct fixture *f = *state;
    if (!code) code = kv_store_open(&s, f->db, KV_STORE_WRITE, &e);
    if (!code) code = synthetic_trace(s, t, &trace, &e);
    if (!code) code = made_run(s, trace, &random_spec, 20, 0, &e);
    if (!code) code = made_run(s, trace, &shuffled_spec, 21, 0, &e);
    for (uint32_t r = 0; !code && r < 3; r++)
        code = made_run(s, trace, &redrawn_spec, 30 + r, r, &e);
    if (!code) code = kv_store_close(s, &e);
    synthetic_free(t);
    return code;
}

static json_t *ask(const struct fixture *f, const char *format, const char *file) {
    char *said, *arguments = kv_format_text(format, file, f->db);
    if (run(f, "", arguments, &said)) fail_msg("%s: %s", arguments, said);
    json_t *rows = json_loads(said, 0, NULL);
    if (!rows) fail_msg("%s: %s", arguments, said);
    free(said);
    free(arguments);
    return rows;
}

static const char *text_at(json_t *rows, size_t i, const char *key) {
    const char *s = json_string_value(json_object_get(json_array_get(rows, i), key));
    return s ? s : "";
}

static double number_at(json_t *rows, size_t i, const char *key) {
    return json_number_value(json_object_get(json_array_get(rows, i), key));
}

// ---- verdict --------------------------------------------------------------------------

// Writes a claim file and asks for its verdicts.
static json_t *judge(const struct fixture *f, const char *text) {
    struct kv_error e;
    char *path = kv_format_text("%s/x.claim", f->dir);
    assert_int_equal(kv_write_file(path, text, strlen(text), &e), 0);
    json_t *rows = ask(f, "verdict %s --db %s --json", path);
    free(path);
    return rows;
}

#define PAIR "source: s\nfirst: static:bits=4@asym:group=32\nsecond: static:k=8,v=4@asym:group=32\n"

// Divergences are 0.1 and 0.03 times 0.35: the ratio is 3.3 within a tenth.
static void each_answer_is_reached(void **state) {
    const struct fixture *f = *state;
    json_t *rows = judge(f, PAIR "model: made-up 135M\nbenchmark: hellaswag\nquantity: kl ratio\n"
                                 "claim: holds\nat least: 2\n"
                                 "claim: fails\nat most: 2\n"
                                 "claim: near\nvalue: 3.3\ntolerance: 0.001\n"
                                 "claim: on another model\nmodel: SmolLM-360M\nat least: 2\n"
                                 "claim: on another benchmark\nbenchmark: arc\nat most: 2\n"
                                 "claim: not run\nfirst: mlp:*\nat most: 2\n");
    static const struct {
        const char *answer, *here, *analogue;
    } expected[] = {{"holds", "yes", "holds"},
                    {"does not hold", "yes", "does not hold"},
                    {"cannot be told", "yes", "cannot be told"},
                    {"cannot be told", "no", "holds"},
                    {"cannot be told", "no", "does not hold"},
                    {"cannot be told", "", ""}};
    assert_int_equal(json_array_size(rows), 6);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(text_at(rows, i, "answer"), expected[i].answer);
        assert_string_equal(text_at(rows, i, "here"), expected[i].here);
        assert_string_equal(text_at(rows, i, "analogue"), expected[i].analogue);
    }
    for (size_t i = 0; i < 5; i++) {
        double estimate = number_at(rows, i, "estimate");
        assert_true(estimate > 3 && estimate < 3.7);
        assert_true(number_at(rows, i, "low") < estimate && estimate < number_at(rows, i, "high"));
        assert_true(number_at(rows, i, "n") == N);
    }
    assert_true(number_at(rows, 2, "items_needed") > N);
    assert_non_null(strstr(text_at(rows, 2, "because"), "items would tell"));
    assert_string_equal(text_at(rows, 3, "because"),
                        "it speaks of SmolLM-360M; the store holds made-up 135M");
    assert_string_equal(text_at(rows, 5, "because"),
                        "the store holds no exact run of mlp:* to measure it on");
    json_decref(rows);
}

static void an_accuracy_is_judged_by_its_paired_interval(void **state) {
    const struct fixture *f = *state;
    json_t *rows = judge(f, "source: s\nmodel: any\nquantity: acc difference\n"
                            "first: plugin*\nsecond: none\n"
                            "claim: much worse\nat most: -5\n"
                            "claim: lossless\nvalue: 0\ntolerance: 1\n"
                            "claim: at 8 and 4 bits within 1\nfirst: static:k=8,v=4@asym:group=32\n"
                            "value: 0\ntolerance: 1\n"
                            "claim: picks\nquantity: agreement\nfirst: none\nat least: 95\n");
    assert_string_equal(text_at(rows, 0, "answer"), "holds");
    assert_string_equal(text_at(rows, 1, "answer"), "does not hold");
    assert_string_equal(text_at(rows, 2, "answer"), "cannot be told");
    assert_string_equal(text_at(rows, 3, "answer"), "holds");
    assert_true(number_at(rows, 3, "estimate") == 100);
    json_decref(rows);
}

static void a_policy_is_judged_against_its_own_shuffle(void **state) {
    const struct fixture *f = *state;
    json_t *rows = judge(f, "source: s\nmodel: any\nquantity: kl ratio\nfirst: *\n"
                            "second: shuffle(first)\nclaim: noise\nat least: 0.8\nat most: 1.25\n");
    assert_int_equal(json_array_size(rows), 1);
    assert_string_equal(text_at(rows, 0, "answer"), "holds");
    assert_memory_equal(text_at(rows, 0, "first"), "random", 6);
    assert_memory_equal(text_at(rows, 0, "second"), "shuffle(random", 14);
    json_decref(rows);
}

static void latency_is_told_on_the_device_of_the_claim_alone(void **state) {
    const struct fixture *f = *state;
    json_t *rows = judge(f, PAIR "model: any\nquantity: latency saving\ncontext: 128\n"
                                 "claim: on an RTX 4090\ndevice: RTX 4090\nat least: 15\n"
                                 "claim: anywhere\ndevice: any\nat least: 15\n");
    assert_string_equal(text_at(rows, 0, "answer"), "cannot be told");
    assert_string_equal(text_at(rows, 0, "here"), "no");
    assert_non_null(
        strstr(text_at(rows, 0, "because"), "it speaks of RTX 4090; the device here is"));
    assert_string_equal(text_at(rows, 1, "here"), "yes");
    assert_string_equal(text_at(rows, 1, "answer"), "does not hold");
    assert_true(fabs(number_at(rows, 1, "estimate")) < 5);
    json_decref(rows);
}

static void the_shipped_claims_are_judged_without_a_name(void **state) {
    const struct fixture *f = *state;
    char *arguments = kv_format_text("verdict --db %s", f->db);
    expect(f, arguments, 0,
           "accuracy 7.6 points above a static 4-bit cache\n  claimed  acc "
           "difference: 6.6 to 8.6 points; SmolLM-360M, hellaswag;");
    free(arguments);
    arguments = kv_format_text("verdict keys-before-values --db %s --tsv", f->db);
    expect(f, arguments, 0, "\tthe store holds no exact run of static:k=4,v=2@asym:group=32 ");
    free(arguments);
}

static void
issue_13_C11_a_claim_that_fits_no_model_here_cannot_be_told_and_the_rest_goes_on(void **state) {
    const struct fixture *f = *state;
    json_t *rows = judge(f, PAIR "model: made-up 135M\nbenchmark: hellaswag\nquantity: kl ratio\n"
                                 "claim: too wide a group\nfirst: static:bits=4@asym:group=128\n"
                                 "at least: 2\n"
                                 "claim: holds\nfirst: static:bits=4@asym:group=32\nat least: 2\n");
    assert_int_equal(json_array_size(rows), 2);
    assert_string_equal(text_at(rows, 0, "answer"), "cannot be told");
    assert_non_null(strstr(text_at(rows, 0, "because"), "does not fit the model (group=128"));
    assert_string_equal(text_at(rows, 1, "answer"), "holds");
    json_decref(rows);
    char *arguments = kv_format_text("verdict %s/x.claim --db %s", f->dir, f->db);
    expect(f, arguments, 0, "cannot be told here: static:bits=4@asym:group=128 does not fit");
    free(arguments);
}

static void claim_files_that_are_wrong_are_refused_with_their_line(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    static const char typo[] = "source: s\nmodle: m\n";
    static const char no_spec[] =
        "source: s\nmodel: m\nquantity: kl\nclaim: x\nfirst: statik:bits=4\nat most: 1\n";
    char *path = kv_format_text("%s/x.claim", f->dir);
    char *arguments = kv_format_text("verdict %s --db %s", path, f->db);
    assert_int_equal(kv_write_file(path, typo, strlen(typo), &e), 0);
    expect(f, arguments, 2, "x.claim:2: unknown key 'modle'; did you mean 'model'?");
    assert_int_equal(kv_write_file(path, no_spec, strlen(no_spec), &e), 0);
    expect(f, arguments, 2, "x.claim:4: 'statik:bits=4': ");
    expect(f, "verdict nowhere.claim", 1, "kvsim: nowhere.claim: ");
    free(arguments);
    free(path);
}

// ---- diff, show, frontier -------------------------------------------------------------

static void diff_says_what_the_items_can_tell(void **state) {
    const struct fixture *f = *state;
    json_t *rows = ask(f, "diff %s static:k=8,v=4@asym:group=32 --db %s --json --margin 0.2",
                       "static:bits=4@asym:group=32");
    assert_true(number_at(rows, 0, "margin") == 0.2);
    assert_true(number_at(rows, 0, "tost_p") < 0.001);
    assert_true(number_at(rows, 0, "not_worse_p") <= number_at(rows, 0, "tost_p"));
    assert_true(number_at(rows, 0, "items_needed") > 10);
    assert_true(number_at(rows, 0, "smallest_seen") > 0.01);
    json_decref(rows);
    char *arguments = kv_format_text("diff none static:bits=4@asym:group=32 --db %s", f->db);
    expect(f, arguments, 0, "\nWithin 0.01 of each other (tost_p)");
    free(arguments);
    arguments = kv_format_text("diff none none --margin 2 --db %s", f->db);
    expect(f, arguments, 2, "--margin 2: a number from");
    free(arguments);
}

static void show_splits_the_variance_of_redrawn_rows(void **state) {
    const struct fixture *f = *state;
    json_t *rows = ask(f, "show%s --db %s --json", "");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        bool redrawn = strstr(text_at(rows, i, "spec"), "k=5") != NULL;
        json_t *share = json_object_get(json_array_get(rows, i), "rounding_share");
        assert_true(json_is_null(share) == !redrawn);
        bool reference = strcmp(text_at(rows, i, "spec"), "none") == 0;
        json_t *holm = json_object_get(json_array_get(rows, i), "holm_p");
        assert_true(json_is_null(holm) == reference);
        if (!redrawn && !reference) { // Holm adjusts exact p's, which never promise too much
            unsigned won = (unsigned)number_at(rows, i, "won"),
                     lost = (unsigned)number_at(rows, i, "lost");
            assert_true(json_number_value(holm) >= kv_mcnemar(won, lost).exact_p - 1e-6);
        }
        if (redrawn) assert_in_range((int)(100 * json_number_value(share)), 1, 99);
    }
    json_decref(rows);
}

static void the_ranking_by_scorer_is_shown(void **state) {
    const struct fixture *f = *state;
    json_t *rows = ask(f, "show --scorers%s --db %s --json", "");
    assert_int_equal(json_array_size(rows), 7);
    for (size_t i = 0; i < 7; i++)
        if (strcmp(text_at(rows, i, "spec"), "none") == 0)
            assert_true(number_at(rows, i, "kl_nats_place") == 1);
    json_decref(rows);
    char *arguments = kv_format_text("show --scorers --db %s", f->db);
    expect(f, arguments, 0, "\nKendall's tau");
    free(arguments);
}

static void the_frontier_says_what_beats_the_others(void **state) {
    const struct fixture *f = *state;
    json_t *rows = ask(f, "frontier%s --db %s --json --value kl", "");
    assert_int_equal(json_array_size(rows), 7);
    for (size_t i = 0; i < 7; i++) {
        bool on = number_at(rows, i, "on_frontier") == 1;
        assert_true(on == (*text_at(rows, i, "beaten_by") == '\0'));
        assert_true(on || number_at(rows, i, "better_by") > 0);
        if (strncmp(text_at(rows, i, "spec"), "random", 6) == 0) {
            // As many bits as static 4, and twice the divergence.
            assert_non_null(strstr(text_at(rows, i, "beaten_by"), "static:k=4,v=4"));
            assert_true(number_at(rows, i, "better_low") > 0);
            assert_true(number_at(rows, i, "cheaper_by") == 0);
            assert_true(number_at(rows, i, "frequency") == 0);
        }
        if (strcmp(text_at(rows, i, "spec"), "none") == 0)
            assert_true(on && number_at(rows, i, "frequency") == 1);
    }
    json_decref(rows);
    char *arguments = kv_format_text("frontier --db %s --cost ms --context 128,2048", f->db);
    expect(f, arguments, 0, "ms a token at 2048 tokens on ");
    free(arguments);
    arguments = kv_format_text("frontier --db %s --cost bit", f->db);
    expect(f, arguments, 2, "kvsim: --cost: no cost is named 'bit'; did you mean 'bits'?\n");
    free(arguments);
}

// ---- attribute ------------------------------------------------------------------------

// Divergence doubles from asym to sym, triples from groups of 32 to heads, and once more by half
// for sym heads alone; the mean of the logarithms is taken off.
static void attribute_finds_the_effects_that_were_put_in(void **state) {
    const struct fixture *f = *state;
    static const struct made_spec runs[] = {
        {"static:k=4,v=4@asym:group=32", "static", "", 0.05, 4, 4},
        {"static:k=4,v=4@asym:group=head", "static", "", 0.15, 4, 4},
        {"static:k=4,v=4@sym:group=32,levels=full", "static", "", 0.1, 4, 4},
        {"static:k=4,v=4@sym:group=head,levels=full", "static", "", 0.45, 4, 4},
    };
    struct kv_error e = {0};
    struct kv_store *s;
    struct synthetic *t = synthetic_new(N);
    long long trace;
    char *db = kv_format_text("%s/effects.db", f->dir);
    int code = kv_store_open(&s, db, KV_STORE_CREATE, &e);
    if (!code) code = synthetic_trace(s, t, &trace, &e);
    for (size_t i = 0; !code && i < 4; i++) code = made_run(s, trace, &runs[i], 1, 0, &e);
    if (!code) code = kv_store_close(s, &e);
    synthetic_free(t);
    if (code) fail_msg("%s: %s", e.where, e.msg);

    char *arguments = kv_format_text("attribute --db %s --json", db), *said;
    if (run(f, "", arguments, &said)) fail_msg("%s", said);
    json_t *rows = json_loads(said, 0, NULL);
    size_t found = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *factor = text_at(rows, i, "factor"), *level = text_at(rows, i, "level");
        double expected = NAN;
        bool pair = *text_at(rows, i, "factor_2") != '\0', sym = strcmp(level, "sym") == 0;
        if (!pair && strcmp(factor, "format") == 0)
            expected = (sym ? 0.5 : -0.5) * (log(2) + log(1.5) / 2);
        if (!pair && strcmp(factor, "group") == 0)
            expected = (strcmp(level, "32") == 0 ? -0.5 : 0.5) * (log(3) + log(1.5) / 2);
        if (pair && sym && strcmp(text_at(rows, i, "level_2"), "head") == 0)
            expected = log(1.5) / 4;
        if (isnan(expected)) continue;
        found++;
        // The same draws everywhere: the items leave no spread.
        assert_true(fabs(number_at(rows, i, "log_kl") - expected) < 1e-4);
        assert_true(fabs(number_at(rows, i, "log_kl_high") - expected) < 1e-4);
    }
    assert_int_equal(found, 5);
    json_decref(rows);
    free(said);
    free(arguments);
    arguments = kv_format_text("attribute --db %s", db);
    expect(f, arguments, 0, "format x group");
    free(arguments);
    arguments = kv_format_text("attribute --db %s --only '*group=32*'", db);
    expect(f, arguments, 0, "hellaswag, all: made-up 135M; 2 runs on 200 items");
    free(arguments);
    arguments = kv_format_text("attribute --db %s --only 'mlp*'", db);
    expect(f, arguments, 1, "at least two exact runs below 16 bits are needed");
    free(arguments);
    free(db);
}

// 216 runs, so that the draws take longer than the ten seconds that they are given.
static void issue_13_point_6_attribute_counts_its_draws(void **state) {
    const struct fixture *f = *state;
    static const char *const formats[] = {"asym", "sym"}, *const groups[] = {"16", "32", "64"},
                             *const widths[] = {"2", "3", "4", "5", "6", "8"};
    struct kv_error e = {0};
    struct kv_store *s;
    struct synthetic *t = synthetic_new(N);
    long long trace;
    char *db = kv_format_text("%s/many.db", f->dir);
    int code = kv_store_open(&s, db, KV_STORE_CREATE, &e);
    if (!code) code = synthetic_trace(s, t, &trace, &e);
    for (size_t i = 0; !code && i < 216; i++) {
        char *spec = kv_format_text("static:k=%s,v=%s@%s:group=%s", widths[i / 36],
                                    widths[i / 6 % 6], formats[i % 2], groups[i / 2 % 3]);
        const struct made_spec m = {spec, "static", "", 0.004 * (double)(i + 1), 4, 4};
        code = made_run(s, trace, &m, i, 0, &e);
        free(spec);
    }
    if (!code) code = kv_store_close(s, &e);
    synthetic_free(t);
    if (code) fail_msg("%s: %s", e.where, e.msg);
    char *arguments = kv_format_text("attribute --db %s --draws 100000", db), *said;
    (void)run(f, "timeout -s KILL 10", arguments, &said); // done or not, it has counted
    if (!strstr(said, "resampling ") || !strstr(said, "/100000  ") || !strstr(said, " draws/s  ") ||
        !strstr(said, " left\n"))
        fail_msg("%s", said);
    free(said);
    free(arguments);
    free(db);
}

// ---- sql ------------------------------------------------------------------------------

static void sql_reads_and_refuses_to_write(void **state) {
    const struct fixture *f = *state;
    static const struct {
        const char *query, *said;
        int code;
    } cases[] = {
        {"SELECT COUNT(*) AS n FROM summary", "n\n7\n", 0},
        {"SELECT spec FROM summary WHERE 0", "spec\n", 0},
        {"DELETE FROM run", "the store is only read here; a SELECT is expected", 2},
        {"ATTACH 'other.db' AS other", "the store is only read here", 2},
        {"CREATE TEMP TABLE t (x)", "the store is only read here", 2},
        {"PRAGMA user_version = 7", "the store is only read here", 2},
        {"VACUUM INTO 'copy.db'", "the store is only read here", 2},
        {"SELECT 1; DELETE FROM run", "one statement at a time is expected", 2},
        {"SELECT no_column FROM summary", "no such column: no_column (kvsim sql --views", 2},
        {"", "this is no statement", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *arguments = kv_format_text("sql \"%s\" --tsv --db %s", cases[i].query, f->db);
        expect(f, arguments, cases[i].code, cases[i].said);
        free(arguments);
    }
    expect(f, "sql", 2, "one query is expected, in quotes, or --views");
    json_t *rows = ask(f,
                       "sql \"SELECT spec, oracle, NULL AS gap FROM %s ORDER BY spec\" --db %s "
                       "--json",
                       "summary");
    assert_int_equal(json_array_size(rows), 7);
    assert_string_equal(text_at(rows, 1, "spec"), hostile);
    assert_true(json_is_null(json_object_get(json_array_get(rows, 0), "gap")));
    assert_true(json_is_integer(json_object_get(json_array_get(rows, 0), "oracle")));
    json_decref(rows);
}

static void every_view_is_explained(void **state) {
    const struct fixture *f = *state;
    char *said;
    size_t views = 0;
    assert_int_equal(run(f, "", "sql --views --json", &said), 0);
    json_t *rows = json_loads(said, 0, NULL);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        if (strcmp(text_at(rows, i, "kind"), "view") != 0) continue;
        assert_true(strlen(text_at(rows, i, "about")) > 20);
        assert_true(strlen(text_at(rows, i, "columns")) > 3);
        views++;
    }
    assert_true(views >= 6);
    json_decref(rows);
    free(said);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_answer_is_reached),
        cmocka_unit_test(an_accuracy_is_judged_by_its_paired_interval),
        cmocka_unit_test(a_policy_is_judged_against_its_own_shuffle),
        cmocka_unit_test(latency_is_told_on_the_device_of_the_claim_alone),
        cmocka_unit_test(the_shipped_claims_are_judged_without_a_name),
        cmocka_unit_test(
            issue_13_C11_a_claim_that_fits_no_model_here_cannot_be_told_and_the_rest_goes_on),
        cmocka_unit_test(claim_files_that_are_wrong_are_refused_with_their_line),
        cmocka_unit_test(diff_says_what_the_items_can_tell),
        cmocka_unit_test(show_splits_the_variance_of_redrawn_rows),
        cmocka_unit_test(the_ranking_by_scorer_is_shown),
        cmocka_unit_test(the_frontier_says_what_beats_the_others),
        cmocka_unit_test(attribute_finds_the_effects_that_were_put_in),
        cmocka_unit_test(issue_13_point_6_attribute_counts_its_draws),
        cmocka_unit_test(sql_reads_and_refuses_to_write),
        cmocka_unit_test(every_view_is_explained),
    };
    return cmocka_run_group_tests_name("answers", tests, set_up_more, tear_down);
}
