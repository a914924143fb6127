// SPDX-License-Identifier: Apache-2.0
// A team of threads with a spinning barrier, which yields when a partner has lost its core.
#include "sim/cache/team.h"
#include "sim/base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SPINS_BEFORE_YIELD = 4096 };

struct kv_team {
    unsigned n;
    atomic_uint arrived, round; // of the barrier
    pthread_mutex_t lock;
    pthread_cond_t begin;
    unsigned session; // counts runs
    bool ending;
    void (*job)(void *, unsigned);
    void *self;
    struct hand {
        struct kv_team *team;
        unsigned worker;
        pthread_t thread;
    } * hands;
};

static inline void rest(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

void kv_team_barrier(struct kv_team *t) {
    unsigned round = atomic_load_explicit(&t->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) == t->n - 1) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&t->round, round + 1, memory_order_release);
        return;
    }
    for (unsigned spins = 0; atomic_load_explicit(&t->round, memory_order_acquire) == round;)
        if (++spins < SPINS_BEFORE_YIELD)
            rest();
        else
            sched_yield();
}

static void *work(void *arg) {
    struct hand *h = arg;
    struct kv_team *t = h->team;
    for (unsigned seen = 0;;) {
        pthread_mutex_lock(&t->lock);
        while (t->session == seen && !t->ending) pthread_cond_wait(&t->begin, &t->lock);
        seen = t->session;
        bool ending = t->ending;
        pthread_mutex_unlock(&t->lock);
        if (ending) return NULL;
        t->job(t->self, h->worker);
        kv_team_barrier(t);
    }
}

struct kv_team *kv_team_new(unsigned n_threads) {
    struct kv_team *t = kv_alloc(1, sizeof *t);
    t->n = n_threads ? n_threads : 1;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->begin, NULL);
    t->hands = kv_alloc(t->n, sizeof *t->hands);
    for (unsigned i = 1; i < t->n; i++) {
        t->hands[i] = (struct hand){.team = t, .worker = i};
        if (pthread_create(&t->hands[i].thread, NULL, work, &t->hands[i]) != 0) {
            t->n = i; // fewer than asked: kv_team_size tells
            break;
        }
    }
    return t;
}

unsigned kv_team_size(const struct kv_team *t) {
    return t->n;
}

void kv_team_run(struct kv_team *t, void (*job)(void *, unsigned), void *self) {
    pthread_mutex_lock(&t->lock);
    t->job = job;
    t->self = self;
    t->session++;
    pthread_cond_broadcast(&t->begin);
    pthread_mutex_unlock(&t->lock);
    job(self, 0);
    kv_team_barrier(t);
}

void kv_team_free(struct kv_team *t) {
    if (!t) return;
    pthread_mutex_lock(&t->lock);
    t->ending = true;
    pthread_cond_broadcast(&t->begin);
    pthread_mutex_unlock(&t->lock);
    for (unsigned i = 1; i < t->n; i++) pthread_join(t->hands[i].thread, NULL);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->begin);
    free(t->hands);
    free(t);
}
