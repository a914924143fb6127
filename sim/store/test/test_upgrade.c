// SPDX-License-Identifier: Apache-2.0
// Stores of older schemas: read as they are, brought up to date when they are written.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim/base/assets.h"
#include "sim/base/memory.h"
#include "sim/store/generated.h"

static struct kv_store *open_store(const char *path, enum kv_store_access access) {
    struct kv_store *s;
    struct kv_error e = {0};
    if (kv_store_open(&s, path, access, &e)) fail_msg("%s: %s", e.where, e.msg);
    return s;
}

static void close_store(struct kv_store *s) {
    struct kv_error e = {0};
    if (kv_store_close(s, &e)) fail_msg("%s: %s", e.where, e.msg);
}

// A store of schema 1 with one run of two items.
static void make_version_1(const char *path) {
    const struct kv_asset *schema = kv_asset_find("sim/store/schema.sql");
    const char *text = (const char *)schema->data, *end = strstr(text, "\n-- version 2");
    char *first = kv_format_text(
        "%.*s; PRAGMA user_version = 1; PRAGMA application_id = 1802924849;"
        "INSERT INTO trace VALUES (1, 'd', 'p', 'm', 'x', 'y', 'f32', 'hellaswag', 'h', 'harness',"
        " 'z', 'all 2', 0, 2, 8, '{\"head_dim\":64}', '0', 'b');"
        "INSERT INTO item VALUES (1, 0, 'a', 's', 0, 2, 2, 4, 'k', 'c'),"
        " (1, 1, 'b', 's', 1, 2, 2, 4, 'l', 'd');"
        "INSERT INTO policy_spec VALUES (1, 'none', 'none', '', 'baseline', 0);"
        "INSERT INTO run VALUES (7, 1, 1, 'exact', 'inline', 'coded', 'f32', '', 1, 0, '1', 'c',"
        " 'base', 'b');"
        "INSERT INTO outcome_item (run, item, kl_nats, n_scored) VALUES (7, 0, 0.5, 1),"
        " (7, 1, 0.25, 1);"
        "INSERT INTO outcome_share VALUES (7, 0, 0, 4, 1.0);",
        (int)(end - text), text);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, first, NULL, NULL, NULL)) fail_msg("%s", sqlite3_errmsg(db));
    sqlite3_close(db);
    free(first);
}

static void
issue_13_A10_an_older_store_is_read_as_it_is_and_its_runs_go_on_by_cpu_level(void **state) {
    char path[] = "/tmp/kvsim-upgrade-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    (void)state;
    struct kv_summary *rows;
    struct kv_error e = {0};
    long long same, other;
    size_t n;
    make_version_1(path);
    for (int pass = 0; pass < 2;
         pass++) { // reading leaves it as it is; writing keeps what it holds
        struct kv_store *s = open_store(path, pass ? KV_STORE_WRITE : KV_STORE_READ);
        if (kv_store_summaries(s, NULL, &rows, &n, &e)) fail_msg("%s", e.msg);
        assert_int_equal(n, 1);
        assert_int_equal(rows[0].n_items, 2);
        assert_string_equal(rows[0].cpu, "base");
        kv_summaries_free(rows, n);
        close_store(s);
    }
    struct kv_store *s = open_store(path, KV_STORE_WRITE);
    struct kv_run_key key = {.trace = 1,
                             .spec = "none",
                             .policy = "none",
                             .format = "",
                             .tag = "baseline",
                             .fidelity = KV_EXACT,
                             .compute = "cpu",
                             .seed = 1,
                             .version = "1",
                             .commit = "c",
                             .cpu = "base",
                             .blas = "b"};
    assert_int_equal(kv_store_run(s, &key, &same, &e), 0);
    assert_int_equal(same, 7);
    key.cpu = "avx2";
    if (kv_store_run(s, &key, &other, &e)) fail_msg("%s", e.msg);
    assert_true(other != 7);
    close_store(s);
    char *backup = kv_format_text("%s.bak-v1", path);
    assert_int_equal(unlink(backup), 0); // as it was before it was written
    free(backup);
    unlink(path);
}

// A store of schema 5 with one run of an item with two choices.
static void make_version_5(const char *path) {
    const struct kv_asset *schema = kv_asset_find("sim/store/schema.sql");
    const char *text = (const char *)schema->data, *end = strstr(text, "\n-- version 6");
    char *five = kv_format_text(
        "%.*s; PRAGMA user_version = 5; PRAGMA application_id = 1802924849;"
        "INSERT INTO trace VALUES (1, 'd', 'p', 'm', 'x', 'y', 'f32', 'needle', 'h', '',"
        " 'z', 'all 2', 0, 2, 8, '{\"head_dim\":64}', '0', 'b');"
        "INSERT INTO item VALUES (1, 0, 'a', 's', 0, 2, 2, 4, 'k', 'c'),"
        " (1, 1, 'b', 's', 0, 2, 2, 4, 'l', 'd');"
        "INSERT INTO policy_spec (id, spec, policy, format, tag, oracle) VALUES"
        " (1, 'none', 'none', '', 'baseline', 0);"
        "INSERT INTO run (id, spec, trace, fidelity, mode, self, compute, variant, seed, redraw,"
        " version, git_commit, cpu, blas) VALUES (7, 1, 1, 'exact', 'inline', 'coded', 'f32', '', "
        "1,"
        " 0, '1', 'c', 'base', 'b');"
        "INSERT INTO outcome_item (run, item, kl_nats, n_scored) VALUES (7, 0, 0.5, 1);"
        "INSERT INTO outcome_choice VALUES (7, 0, 0, -1, -1, 0.5, 2, 5, 5, -1, 2),"
        " (7, 0, 1, -3, -3, 0.5, 2, 5, 5, -3, 2);",
        (int)(end - text), text);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, five, NULL, NULL, NULL)) fail_msg("%s", sqlite3_errmsg(db));
    sqlite3_close(db);
    free(five);
}

static void a_store_of_schema_5_knows_of_no_match_until_one_is_stored(void **state) {
    char path[] = "/tmp/kvsim-upgrade-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    (void)state;
    struct kv_choice_result *c;
    struct kv_error e = {0};
    size_t n;
    make_version_5(path);
    struct kv_choice_outcome choice[2] = {
        {.logprob = -1, .match = KV_MATCH_YES, .match_ref = KV_MATCH_NO},
        {.logprob = -2, .match = KV_MATCH_NO, .match_ref = KV_MATCH_YES}};
    for (int pass = 0; pass < 3; pass++) { // read as it is, written, read again
        struct kv_store *s = open_store(path, pass == 1 ? KV_STORE_WRITE : KV_STORE_READ);
        const struct kv_outcome o = {.n_choices = 2, .choice = choice, .kl_nats = 0.1};
        if (pass == 1 && kv_store_put(s, 7, 1, &o, &e)) fail_msg("%s", e.msg);
        if (pass == 1 && kv_store_flush(s, &e)) fail_msg("%s", e.msg);
        if (kv_store_choices(s, 7, &c, &n, &e)) fail_msg("%s", e.msg);
        assert_int_equal(n, pass ? 4 : 2);
        for (size_t i = 0; i < n; i++) {
            bool stored = c[i].item == 1;
            assert_int_equal(c[i].outcome.match,
                             stored ? choice[c[i].choice].match : KV_MATCH_UNKNOWN);
            assert_int_equal(c[i].outcome.match_ref,
                             stored ? choice[c[i].choice].match_ref : KV_MATCH_UNKNOWN);
        }
        kv_choice_results_free(c, n);
        close_store(s);
    }
    char *backup = kv_format_text("%s.bak-v5", path);
    assert_int_equal(unlink(backup), 0);
    free(backup);
    unlink(path);
}

// A store of schema 7 with one generated text.
static void make_version_7(const char *path) {
    const struct kv_asset *schema = kv_asset_find("sim/store/schema.sql");
    const char *text = (const char *)schema->data, *end = strstr(text, "\n-- version 8");
    char *seven = kv_format_text(
        "%.*s; PRAGMA user_version = 7; PRAGMA application_id = 1802924849;"
        "INSERT INTO policy_spec (id, spec, policy, format, tag, oracle) VALUES"
        " (1, 'none', 'none', '', 'baseline', 0);"
        "INSERT INTO generation VALUES (3, 1, 'none', 'm', 'x', 'f32', 'text', '', 'z', 64,"
        " 'prefill', 'coded', 8, 0, 1, '', NULL, 1, '1', 'c', 'base');"
        "INSERT INTO generated_item VALUES (3, '00000000000000ab', 'a', 4, '[1,2]', '[1,2]', 2, 0,"
        " 0, '[0,0]', '[0,0]', NULL, NULL, NULL, NULL);",
        (int)(end - text), text);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, seven, NULL, NULL, NULL)) fail_msg("%s", sqlite3_errmsg(db));
    sqlite3_close(db);
    free(seven);
}

static void texts_of_schema_7_were_generated_on_the_cpu(void **state) {
    char path[] = "/tmp/kvsim-upgrade-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    (void)state;
    struct kv_error e = {0};
    make_version_7(path);
    for (int pass = 0; pass < 2; pass++) { // read as it is, then written
        struct kv_store *s = open_store(path, pass ? KV_STORE_WRITE : KV_STORE_READ);
        struct kv_generation *list;
        size_t n;
        if (kv_store_generations(s, &list, &n, &e)) fail_msg("%s", e.msg);
        assert_int_equal(n, 1);
        assert_string_equal(list[0].compute, "cpu");
        assert_true(list[0].ends);
        assert_int_equal(list[0].n, 1);
        assert_int_equal(list[0].item[0].own[1], 2);
        kv_generations_free(list, n);
        struct kv_generation_key key = {.spec = "none",
                                        .policy = "none",
                                        .format = "",
                                        .tag = "baseline",
                                        .label = "none",
                                        .model_name = "m",
                                        .model_digest = "x",
                                        .weights_as = "f32",
                                        .task_name = "text",
                                        .task_prompt = "",
                                        .task_digest = "z",
                                        .window_tokens = 64,
                                        .mode = KV_PREFILL,
                                        .tokens = 8,
                                        .ends = true,
                                        .stop = "",
                                        .floor = NAN,
                                        .seed = 1,
                                        .version = "1",
                                        .commit = "c",
                                        .cpu = "base",
                                        .compute = "cpu",
                                        .blas = "b"};
        long long id = 0;
        if (pass && kv_store_generation(s, &key, &id, &e)) fail_msg("%s", e.msg);
        if (pass) assert_int_equal(id, 3); // goes on
        key.compute = "cublas";
        if (pass && kv_store_generation(s, &key, &id, &e)) fail_msg("%s", e.msg);
        if (pass) assert_int_not_equal(id, 3);
        close_store(s);
    }
    char *backup = kv_format_text("%s.bak-v7", path);
    assert_int_equal(unlink(backup), 0);
    free(backup);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            issue_13_A10_an_older_store_is_read_as_it_is_and_its_runs_go_on_by_cpu_level),
        cmocka_unit_test(a_store_of_schema_5_knows_of_no_match_until_one_is_stored),
        cmocka_unit_test(texts_of_schema_7_were_generated_on_the_cpu)};
    return cmocka_run_group_tests_name("upgrades", tests, NULL, NULL);
}
