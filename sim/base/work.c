// SPDX-License-Identifier: Apache-2.0
// Workers, interrupts, clocks.
#include "sim/base/work.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

// ---- interrupts and clocks ------------------------------------------------------------

static atomic_bool interrupted; // lock-free, so a signal handler may set it

void kv_interrupt(bool now) {
    atomic_store(&interrupted, now);
}

bool kv_interrupted(void) {
    return atomic_load_explicit(&interrupted, memory_order_relaxed);
}

static double clock_s(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double kv_now_s(void) {
    return clock_s(CLOCK_MONOTONIC);
}
double kv_cpu_time_s(void) {
    return clock_s(CLOCK_PROCESS_CPUTIME_ID);
}

// ---- workers --------------------------------------------------------------------------

// Of the outermost crew, for those who show it.
static struct {
    atomic_size_t depth, done, total;
    _Atomic double since_s;
} loop;

void kv_parallel_progress(size_t *done, size_t *total, double *since_s) {
    *done = atomic_load(&loop.done);
    *total = atomic_load(&loop.total);
    *since_s = atomic_load(&loop.since_s);
}

static bool loop_enter(size_t n) {
    if (atomic_fetch_add(&loop.depth, 1)) return false;
    atomic_store(&loop.done, 0);
    atomic_store(&loop.since_s, kv_now_s());
    atomic_store(&loop.total, n);
    return true;
}

static void loop_leave(bool outermost) {
    if (outermost) atomic_store(&loop.total, 0);
    atomic_fetch_sub(&loop.depth, 1);
}

struct crew {
    atomic_size_t next;
    size_t n;
    int (*job)(void *, unsigned, size_t, struct kv_error *);
    void *self;
    pthread_mutex_t lock;
    size_t failed_at; // smallest i that failed; n = none
    bool outermost;
    struct kv_error error;
};

struct hand {
    struct crew *crew;
    unsigned worker;
};

static int guarded(const struct crew *c, unsigned worker, size_t i, struct kv_error *e) {
    KV_GUARD(e);
    return c->job(c->self, worker, i, e);
}

static void *work(void *arg) {
    struct hand *h = arg;
    struct crew *c = h->crew;
    for (;;) {
        size_t i = atomic_fetch_add(&c->next, 1);
        if (i >= c->n) return NULL;
        struct kv_error e = {0};
        int rc = kv_interrupted() ? kv_fail(&e, KV_EINTR, "", "interrupted")
                                  : guarded(c, h->worker, i, &e);
        if (rc == 0) {
            if (c->outermost) atomic_fetch_add_explicit(&loop.done, 1, memory_order_relaxed);
            continue;
        }
        pthread_mutex_lock(&c->lock);
        if (i < c->failed_at) {
            c->failed_at = i;
            c->error = e;
            c->error.code = rc;
        }
        atomic_store(&c->next, c->n);
        pthread_mutex_unlock(&c->lock);
        return NULL;
    }
}

int kv_parallel(size_t n, unsigned n_workers,
                int (*job)(void *, unsigned, size_t, struct kv_error *), void *self,
                struct kv_error *e) {
    KV_GUARD(e);
    struct crew c = {.n = n, .job = job, .self = self, .failed_at = n};
    const unsigned n_hands = n < 1 || n_workers < 1 ? 1 : n_workers > n ? (unsigned)n : n_workers;
    pthread_mutex_init(&c.lock, NULL);
    struct hand *hands = kv_alloc(n_hands, sizeof *hands);
    pthread_t *threads = kv_alloc(n_hands, sizeof *threads);
    unsigned started = 0;
    for (unsigned w = 0; w < n_hands; w++) hands[w] = (struct hand){&c, w};
    c.outermost = loop_enter(n);
    // The caller is worker 0; a thread that cannot be had only makes the crew smaller.
    for (unsigned w = 1; w < n_hands; w++, started++)
        if (pthread_create(&threads[w], NULL, work, &hands[w])) break;
    work(&hands[0]);
    for (unsigned w = 1; w <= started; w++) pthread_join(threads[w], NULL);
    loop_leave(c.outermost);
    free(threads);
    free(hands);
    pthread_mutex_destroy(&c.lock);
    if (c.failed_at == n) return 0;
    if (e) *e = c.error;
    return c.error.code;
}
