// SPDX-License-Identifier: Apache-2.0
// Tests of guards: memory that runs out ends the call that asked for it, and nothing else.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/resource.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

// What a failed call had allocated is lost by design, and sizes that nobody has are asked for.
const char *__asan_default_options(void);
const char *__tsan_default_options(void);
const char *__asan_default_options(void) {
    return "detect_leaks=0:allocator_may_return_null=1";
}
const char *__tsan_default_options(void) {
    return "allocator_may_return_null=1";
}

static int take(size_t n, char **p, struct kv_error *e) {
    *p = NULL;
    KV_GUARD(e);
    *p = kv_grow(NULL, n, 1);
    return 0;
}

static void a_call_that_finds_no_memory_returns_one_sentence(void **state) {
    (void)state;
    struct kv_error e = {0};
    char *p;
    kv_memory_fail(1);
    assert_int_equal(take(12, &p, &e), KV_ENOMEM);
    assert_null(p);
    assert_int_equal(e.code, KV_ENOMEM);
    assert_string_equal(e.where, "");
    assert_string_equal(e.msg, "out of memory: 12 x 1 bytes could not be had");
    assert_int_equal(take(12, &p, &e), 0);
    free(p);
    kv_memory_fail(1);
    assert_int_equal(take(12, &p, NULL), KV_ENOMEM);
    assert_int_equal(take(SIZE_MAX, &p, &e), KV_ENOMEM);
}

static int outer(bool *went_on, struct kv_error *e) {
    KV_GUARD(e);
    char *p;
    int rc = take(1, &p, e);
    *went_on = true;
    if (rc) return rc;
    free(p);
    kv_raise(KV_EFAIL, "device", "a product of %d failed", 7);
}

static void the_innermost_guard_takes_it_and_the_next_one_is_there_again(void **state) {
    (void)state;
    struct kv_error e = {0};
    bool went_on = false;
    kv_memory_fail(1);
    assert_int_equal(outer(&went_on, &e), KV_ENOMEM);
    assert_true(went_on);
    assert_int_equal(outer(&went_on, &e), KV_EFAIL);
    assert_string_equal(e.where, "device");
    assert_string_equal(e.msg, "a product of 7 failed");
}

static const char *made(void) {
    KV_GUARD_ELSE(return "none");
    free(kv_alloc(1, 1));
    return "some";
}

static int asks(const char **answer, struct kv_error *e) {
    KV_GUARD(e);
    *answer = made();
    return 0;
}

static void a_call_without_an_error_fails_for_its_caller(void **state) {
    (void)state;
    struct kv_error e = {0};
    const char *answer = "unset";
    kv_memory_fail(1);
    assert_string_equal(made(), "none");
    assert_string_equal(made(), "some");
    kv_memory_fail(1);
    assert_int_equal(asks(&answer, &e), KV_ENOMEM);
    assert_string_equal(answer, "unset");
    assert_int_equal(asks(&answer, &e), 0);
    assert_string_equal(answer, "some");
}

static void allocate_under(pthread_mutex_t *lock) {
    KV_LOCK(lock);
    free(kv_alloc(1, 1));
}

static int locks(pthread_mutex_t *a, pthread_mutex_t *b, struct kv_error *e) {
    KV_GUARD(e);
    KV_LOCK(a);
    allocate_under(b);
    free(kv_alloc(1, 1));
    return 0;
}

static void locks_are_given_back_on_either_way(void **state) {
    (void)state;
    pthread_mutex_t a = PTHREAD_MUTEX_INITIALIZER, b = PTHREAD_MUTEX_INITIALIZER;
    struct kv_error e = {0};
    for (size_t nth = 0; nth <= 2; nth++) {
        kv_memory_fail(nth);
        assert_int_equal(locks(&a, &b, &e), nth ? KV_ENOMEM : 0);
        assert_int_equal(pthread_mutex_trylock(&a), 0);
        assert_int_equal(pthread_mutex_trylock(&b), 0);
        pthread_mutex_unlock(&a);
        pthread_mutex_unlock(&b);
    }
}

static int one_job(void *self, unsigned worker, size_t i, struct kv_error *e) {
    (void)self, (void)worker, (void)e;
    if (i == 50) kv_raise(KV_EFAIL, "", "job %zu", i);
    free(kv_alloc(100, 1));
    return 0;
}

static void a_workers_failure_is_the_jobs(void **state) {
    (void)state;
    struct kv_error e = {0};
    assert_int_equal(kv_parallel(100, 4, one_job, NULL, &e), KV_EFAIL);
    assert_string_equal(e.msg, "job 50");
    assert_int_equal(kv_parallel(50, 4, one_job, NULL, &e), 0);
    for (size_t nth = 1; nth < 20; nth++) { // its own memory, or a job's
        kv_memory_fail(nth);
        assert_int_equal(kv_parallel(50, 4, one_job, NULL, &e), KV_ENOMEM);
    }
    kv_memory_fail(0);
}

static int add(struct kv_text *t, const char *more, struct kv_error *e) {
    KV_GUARD(e);
    kv_text_add(t, more, strlen(more));
    return 0;
}

static void text_survives_when_it_cannot_grow(void **state) {
    (void)state;
    struct kv_text t = {0};
    struct kv_error e;
    assert_int_equal(add(&t, "kept", &e), 0);
    for (int i = 0; i < 2; i++) {
        kv_memory_fail(1);
        assert_int_equal(add(&t, "01234567890123456789", &e), KV_ENOMEM);
        assert_string_equal(t.s, "kept");
    }
    assert_int_equal(add(&t, "!", &e), 0);
    char *s = kv_text_take(&t);
    assert_string_equal(s, "kept!");
    free(s);
}

// Every allocation of a call fails once, until one more than it makes.
static void specs_can_fail_at_every_allocation(void **state) {
    (void)state;
    struct kv_error e = {0};
    int rc = KV_ENOMEM;
    size_t nth = 0;
    for (; rc; nth++) {
        struct kv_spec s;
        kv_memory_fail(nth + 1);
        rc = kv_spec_parse(&s, "shuffle(static:bits=4):within=item,seed=2", &e);
        kv_memory_fail(0);
        if (rc) assert_int_equal(rc, KV_ENOMEM);
        kv_spec_fini(&s);
    }
    assert_in_range(nth, 8, 20);
    for (rc = KV_ENOMEM, nth = 0; rc; nth++) {
        char **list, *policy, *format;
        size_t n;
        kv_memory_fail(nth + 1);
        rc = kv_spec_expand("static:bits={2,4,8}@{sym,kivi}", &list, &n, &e);
        if (!rc) {
            rc = kv_spec_split(list[0], &policy, &format, &e);
            free(policy);
            free(format);
        }
        kv_memory_fail(0);
        if (rc) assert_int_equal(rc, KV_ENOMEM);
        kv_list_free(list, n);
    }
    kv_memory_fail(1);
    assert_null(kv_progress_start("recording", 3, "items"));
}

// The limit of the process itself, as a user meets it.
static void a_process_out_of_memory_lives_on(void **state) {
    (void)state;
    if (SANITIZED) skip(); // their shadow memory takes all address space
    struct rlimit old, small;
    struct kv_error e = {0};
    char *p;
    assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
    small = old;
    small.rlim_cur = 256u << 20;
    assert_int_equal(setrlimit(RLIMIT_AS, &small), 0);
    int large = take(1u << 30, &p, &e), few = take(1000, &p, &e);
    assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
    assert_int_equal(large, KV_ENOMEM);
    assert_int_equal(few, 0);
    free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_that_finds_no_memory_returns_one_sentence),
        cmocka_unit_test(the_innermost_guard_takes_it_and_the_next_one_is_there_again),
        cmocka_unit_test(a_call_without_an_error_fails_for_its_caller),
        cmocka_unit_test(locks_are_given_back_on_either_way),
        cmocka_unit_test(a_workers_failure_is_the_jobs),
        cmocka_unit_test(text_survives_when_it_cannot_grow),
        cmocka_unit_test(specs_can_fail_at_every_allocation),
        cmocka_unit_test(a_process_out_of_memory_lives_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
