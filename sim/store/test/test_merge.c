// SPDX-License-Identifier: Apache-2.0
// Stores made of others: shards of a sweep, and what cannot be joined.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <unistd.h>

#include "analysis/test/synthetic.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/store/label.h"
#include "sim/store/merge.h"
#include "sim/store/test/store_rows.h"

enum { ITEMS = 11, SPECS = 3, ROOM = 8 };
static const char *const specs[SPECS] = {"none", "static:k=4,v=4@sym", "static:k=8,v=8@sym"};
static char dir[64], *path[ROOM];

static int set_up(void **state) {
    (void)state;
    kv_set_verbosity(-1);
    snprintf(dir, sizeof dir, "/tmp/kvsim-merge-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    for (int i = 0; i < ROOM; i++) path[i] = kv_format_text("%s/%c.db", dir, 'a' + i);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char *command = kv_format_text("rm -rf '%s'", dir);
    int code = system(command);
    free(command);
    for (int i = 0; i < ROOM; i++) free(path[i]);
    return code;
}

static void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

struct making {
    struct kv_shard shard; // parts 0: a sweep that is not split
    size_t stop;           // items of the last run that are not reached
    const char *commit, *name;
    double other; // added to item 4's log-prob
};

// A store as a sweep over all specs and items, or a part of them, makes it.
static void make(const char *file, const struct making *m) {
    struct kv_store *s;
    struct kv_error e = {0};
    struct synthetic *t = synthetic_new(ITEMS);
    long long trace, run;
    must(kv_store_open(&s, file, KV_STORE_CREATE, &e), &e);
    must(synthetic_trace(s, t, &trace, &e), &e);
    for (size_t p = 0; p < SPECS; p++) {
        struct kv_run_key key = synthetic_key(trace, specs[p]);
        if (m->commit) key.commit = m->commit;
        must(kv_store_run(s, &key, &run, &e), &e);
        if (m->name && p == 1) must(kv_store_name(s, specs[p], m->name, &e), &e);
        if (m->shard.parts) must(kv_store_put_shard(s, run, &m->shard, 0, ITEMS, &e), &e);
        for (size_t i = 0; i + (p + 1 == SPECS ? m->stop : 0) < ITEMS; i++) {
            struct kv_choice_outcome choice[SYNTHETIC_CHOICES];
            struct kv_outcome o = synthetic_outcome(i, p, 0.6, 0.1, 4, 4, choice);
            if (i == 4) choice[0].logprob += m->other;
            if (kv_shard_holds(&m->shard, i)) must(kv_store_put(s, run, (uint32_t)i, &o, &e), &e);
        }
        must(kv_store_put_timing(s, run, 1, 2, 3, &e), &e);
    }
    must(kv_store_close(s, &e), &e);
    synthetic_free(t);
}

static struct kv_merge_count merged_of(const char *const *files, size_t n, const char *out) {
    struct kv_merge_count count;
    struct kv_error e = {0};
    must(kv_store_merge(files, n, out, &count, &e), &e);
    return count;
}

static struct kv_merge_count merged(size_t n, const char *out) {
    return merged_of((const char *const *)path, n, out);
}

static void refused(size_t n, const char *message) {
    struct kv_merge_count count;
    struct kv_error e = {0};
    int rc = kv_store_merge((const char *const *)path, n, path[7], &count, &e);
    if (rc != KV_EFAIL || !strstr(e.msg, message)) fail_msg("%d: %s: %s", rc, e.where, e.msg);
    assert_true(access(path[7], F_OK) != 0);
    char *partial = kv_format_text("%s.partial", path[7]);
    assert_true(access(partial, F_OK) != 0);
    free(partial);
}

static void shards_make_the_rows_of_the_sweep_that_was_not_split(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 4; i++) make(path[i], &(struct making){.shard = {i + 1, 4}});
    make(path[6], &(struct making){.shard = {0, 0}});
    struct kv_merge_count n = merged(4, path[5]);
    assert_int_equal(n.runs, SPECS);
    assert_int_equal(n.outcomes, SPECS * ITEMS);
    assert_int_equal(n.missing, 0);
    assert_same_rows(path[5], path[6]);
}

static void a_store_that_was_begun_last_may_be_named_first(void **state) {
    (void)state;
    make(path[0], &(struct making){.shard = {2, 2}});
    make(path[1], &(struct making){.shard = {1, 2}});
    make(path[6], &(struct making){.stop = 0});
    merged(2, path[5]);
    assert_same_rows(path[5], path[6]);
}

static void durations_add_up_and_equal_rows_are_one(void **state) {
    (void)state;
    make(path[0], &(struct making){.stop = 0});
    make(path[1], &(struct making){.stop = 0});
    assert_int_equal(merged(2, path[5]).outcomes, SPECS * ITEMS);
    assert_same_rows(path[5], path[0]);
    struct kv_store *s;
    struct kv_error e = {0};
    struct kv_text t = {0};
    must(kv_store_open(&s, path[5], KV_STORE_READ, &e), &e);
    must(kv_store_query(s, "SELECT run, items FROM timing WHERE run = 1", NULL, 0, store_rows_add,
                        &t, &e),
         &e);
    assert_string_equal(t.s, "1 1|1 6|\n");
    free(t.s);
    kv_store_abandon(s);
}

static void missing_and_unfinished_shards_are_counted_until_they_come(void **state) {
    (void)state;
    make(path[0], &(struct making){.shard = {1, 3}});
    make(path[1], &(struct making){.shard = {2, 3}, .stop = 2}); // lacks item 10 of its last run
    assert_int_equal(merged(2, path[5]).missing, 2);
    // What is merged is a store as any: the missing ones may be merged into the next.
    make(path[2], &(struct making){.shard = {2, 3}});
    make(path[3], &(struct making){.shard = {3, 3}});
    const char *const rest[] = {path[5], path[2], path[3]};
    struct kv_merge_count n = merged_of(rest, 3, path[6]);
    assert_int_equal(n.missing, 0);
    make(path[4], &(struct making){.stop = 0});
    assert_same_rows(path[6], path[4]);
}

static void an_outcome_of_two_values_is_refused_by_its_name(void **state) {
    (void)state;
    make(path[0], &(struct making){.stop = 0});
    make(path[1], &(struct making){.other = 0x1p-40});
    refused(2, "conflict in outcome_choice, run none, item 4, choice 0: logprob is ");
}

static void names_that_contradict_are_refused_and_one_alone_is_kept(void **state) {
    (void)state;
    make(path[0], &(struct making){.stop = 0});
    make(path[1], &(struct making){.name = "four"});
    make(path[2], &(struct making){.name = "vier"});
    merged(2, path[6]);
    assert_same_rows(path[6], path[1]);
    refused(3, "name is vier here and four in a store before it");
}

static void another_build_makes_runs_of_its_own(void **state) {
    (void)state;
    make(path[0], &(struct making){.stop = 0});
    make(path[1], &(struct making){.commit = "another", .other = 1});
    assert_int_equal(merged(2, path[6]).runs, 2 * SPECS);
}

static void what_is_there_is_not_written_over(void **state) {
    (void)state;
    make(path[0], &(struct making){.stop = 0});
    struct kv_merge_count n;
    struct kv_error e = {0};
    const char *one[] = {path[0]}, *none[] = {path[4]};
    assert_int_equal(kv_store_merge(one, 1, path[0], &n, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "is there already"));
    assert_int_equal(kv_store_merge(none, 1, path[7], &n, &e), KV_EFAIL);
    assert_string_equal(e.msg, "no such store");
    assert_true(access(path[7], F_OK) != 0);
}

static void a_shard_is_one_of_so_many(void **state) {
    (void)state;
    static const char *const wrong[] = {"", "1", "0/4", "5/4", "1/4x", "-1/4", "a/b", "1/0"};
    struct kv_shard s;
    struct kv_error e = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (kv_shard_read(wrong[i], "--shard", &s, &e) != KV_EUSAGE) fail_msg("%s", wrong[i]);
    must(kv_shard_read("3/7", "--shard", &s, &e), &e);
    size_t held = 0;
    for (size_t i = 0; i < 70; i++) held += kv_shard_holds(&s, i);
    assert_int_equal(held, 10);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(shards_make_the_rows_of_the_sweep_that_was_not_split),
        TEST(a_store_that_was_begun_last_may_be_named_first),
        TEST(durations_add_up_and_equal_rows_are_one),
        TEST(missing_and_unfinished_shards_are_counted_until_they_come),
        TEST(an_outcome_of_two_values_is_refused_by_its_name),
        TEST(names_that_contradict_are_refused_and_one_alone_is_kept),
        TEST(another_build_makes_runs_of_its_own),
        TEST(what_is_there_is_not_written_over),
        TEST(a_shard_is_one_of_so_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
