// SPDX-License-Identifier: Apache-2.0
// Answers of GSM8K in what was generated: what the filters find in the stored tokens is what is
// judged, and shares and differences are those of counting by hand.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include "analysis/studies/generation.h"
#include "analysis/studies/generation_run.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/generate/sample.h"
#include "sim/model/test/model_files.h"
#include "sim/replay/test/tiny_trace.h"
#include "traces/gsm8k.h"

enum { PROBLEMS = 24, TOKENS = 60 };
static char dir[] = "/tmp/kvsim-answers-XXXXXX";
static char model[64], problems[64];

static int set_up(void **state) {
    const struct kv_shape shape = {2, 4, 2, 32, 64, 96, N_TINY_PIECES, 1024};
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_GGML, true, 7);
    struct gguf_type type = gguf_f32;
    struct kv_text t = {0};
    struct kv_error e;
    (void)state;
    kv_set_verbosity(-1);
    if (!mkdtemp(dir)) return 1;
    snprintf(model, sizeof model, "%s/good.gguf", dir);
    snprintf(problems, sizeof problems, "%s/gsm8k.jsonl", dir);
    build_gguf(&t, m, &type);
    int rc = kv_write_file(model, t.s, t.n, &e);
    free(t.s);
    kv_model_close(m);
    return rc;
}

static int tear_down(void **state) {
    (void)state;
    tiny_remove(dir);
    return 0;
}

// number[PROBLEMS]: the answer of each, NULL for 123456.
static void write_problems(char *const *number) {
    struct kv_text t = {0};
    struct kv_error e;
    for (int i = 0; i < PROBLEMS; i++)
        kv_text_addf(&t, "{\"question\": \"How many are %d?\", \"answer\": \"So.\\n#### %s\"}\n", i,
                     number && number[i] ? number[i] : "123456");
    assert_int_equal(kv_write_file(problems, t.s, t.n, &e), 0);
    free(t.s);
}

// Draws, since a model that was never trained writes digits by chance alone.
static void run(const char *db) {
    const char *const specs[] = {"static:bits=2@sym"};
    char *tasks = kv_format_text("gsm8k:%s", problems);
    const struct kv_generation_options o = {.model = model,
                                            .tasks = tasks,
                                            .specs = specs,
                                            .n_specs = 1,
                                            .tokens = TOKENS,
                                            .temperature = 2,
                                            .mode = KV_INLINE,
                                            .self = KV_SELF_CODED,
                                            .seed = 3,
                                            .jobs = 2,
                                            .db = db};
    struct kv_generation_done done;
    struct kv_error e;
    if (kv_generation_run(&o, &done, &e)) fail_msg("%s: %s", e.where, e.msg);
    assert_int_equal(done.generated, PROBLEMS);
    free(tasks);
}

static struct kv_generation_table table_of(const char *db) {
    struct kv_generation_table t;
    struct kv_store *s;
    struct kv_error e;
    assert_int_equal(kv_store_open(&s, db, KV_STORE_READ, &e), 0);
    assert_int_equal(kv_generation_table(s, 1, &t, &e), 0);
    kv_store_abandon(s);
    return t;
}

// First with answers that nothing generates, then with what the flexible filter found in the text
// of every other problem.
static void what_the_filters_find_is_judged(void **state) {
    char *db = kv_format_text("%s/first.db", dir), *found[PROBLEMS] = {NULL};
    struct kv_model *m;
    struct kv_error e;
    size_t numbers = 0, right = 0;
    (void)state;
    write_problems(NULL);
    run(db);
    struct kv_generation_table t = table_of(db);
    assert_int_equal(t.n_answers, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(t.answers[i].filter, i ? "flexible" : "strict");
        assert_int_equal(t.answers[i].n, PROBLEMS);
        assert_true(t.answers[i].right == 0 && t.answers[i].right16 == 0);
    }
    assert_true(t.list[0].floor == 1); // all answers are one number
    assert_int_equal(kv_model_open(&m, model, KV_WEIGHTS_F32, &e), 0);
    for (size_t i = 0; i < PROBLEMS; i++) {
        const struct kv_generated_row *x = &t.list[0].item[i];
        long problem = strtol(x->id, NULL, 10);
        char *text = kv_sample_text(m->tokenizer, x->own, x->n_own, kv_gsm8k_stops),
             *number = kv_gsm8k_flexible(text);
        assert_in_range(problem, 0, PROBLEMS - 1);
        if (strspn(number, "0123456789") == strlen(number) && numbers++ % 2 == 0)
            found[problem] = number, right++;
        else
            free(number);
        free(text);
    }
    assert_true(right >= 2); // else nothing was tried
    kv_model_close(m);
    kv_generation_table_fini(&t);
    free(db);

    db = kv_format_text("%s/second.db", dir);
    write_problems(found);
    run(db);
    t = table_of(db);
    assert_true(fabs(t.answers[KV_ANSWER_FLEXIBLE].right - (double)right / PROBLEMS) < 1e-12);
    assert_true(t.answers[KV_ANSWER_STRICT].right == 0);
    for (size_t i = 0; i < PROBLEMS; i++) {
        const struct kv_generated_row *x = &t.list[0].item[i];
        assert_int_equal(x->own_answer.right[KV_ANSWER_FLEXIBLE],
                         found[strtol(x->id, NULL, 10)] ? KV_MATCH_YES : KV_MATCH_NO);
    }
    kv_generation_table_fini(&t);
    for (size_t i = 0; i < PROBLEMS; i++) free(found[i]);
    free(db);
}

// Of 20 prompts a policy has 6 right alone, the 16-bit run 1; 5 both; 3 have no answer.
static void shares_and_differences_are_those_by_hand(void **state) {
    const struct kv_generation_key key = {.spec = "none",
                                          .policy = "none",
                                          .format = "",
                                          .tag = "baseline",
                                          .label = "none",
                                          .model_name = "m",
                                          .model_digest = "d",
                                          .weights_as = "f32",
                                          .task_name = "gsm8k",
                                          .task_prompt = "",
                                          .task_digest = "t",
                                          .tokens = 1,
                                          .stop = "",
                                          .floor = 0.0625,
                                          .version = "0",
                                          .commit = "c",
                                          .cpu = "base",
                                          .compute = "cpu",
                                          .blas = ""};
    char *db = kv_format_text("%s/hand.db", dir);
    uint32_t token = 1;
    double kl = 0;
    long long id;
    struct kv_store *s;
    struct kv_error e;
    (void)state;
    assert_int_equal(kv_store_open(&s, db, KV_STORE_CREATE, &e), 0);
    assert_int_equal(kv_store_generation(s, &key, &id, &e), 0);
    for (uint64_t i = 0; i < 20; i++) {
        struct kv_generated_row row = {.key = i,
                                       .id = (char *)"x",
                                       .n_prompt = 2,
                                       .n_reference = 1,
                                       .n_own = 1,
                                       .reference = &token,
                                       .own = &token,
                                       .own_kl = &kl,
                                       .forced_kl = &kl,
                                       .equal = 1};
        for (int f = 0; f < KV_N_ANSWER_FILTERS && i < 17; f++) {
            row.own_answer.right[f] = i < 11 ? KV_MATCH_YES : KV_MATCH_NO;
            row.reference_answer.right[f] = i >= 6 && i < 12 ? KV_MATCH_YES : KV_MATCH_NO;
        }
        assert_int_equal(kv_store_put_generated(s, id, &row, &e), 0);
    }
    assert_int_equal(kv_store_close(s, &e), 0);
    struct kv_generation_table t = table_of(db);
    assert_int_equal(t.n_answers, 2);
    for (size_t i = 0; i < 2; i++) {
        const struct kv_generation_answers *a = &t.answers[i];
        assert_int_equal(a->n, 17);
        assert_true(fabs(a->right - 11.0 / 17) < 1e-12 && fabs(a->right16 - 6.0 / 17) < 1e-12);
        assert_true(fabs(a->to16.difference - 5.0 / 17) < 1e-12);
        // Two-sided binomial of 1 or fewer in 7: 2 (1 + 7) / 128.
        assert_true(fabs(a->to16.exact_p - 0.125) < 1e-12);
        assert_true(a->interval.low < a->right && a->interval.high > a->right);
    }
    assert_true(fabs(t.list[0].floor - 0.0625) < 1e-15);
    kv_generation_table_fini(&t);
    free(db);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_filters_find_is_judged),
        cmocka_unit_test(shares_and_differences_are_those_by_hand),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
