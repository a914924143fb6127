// SPDX-License-Identifier: Apache-2.0
// What is said on stderr meanwhile: lines, and progress that several workers step.
#include "sim/base/talk.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int verbosity;

void kv_set_verbosity(int level) {
    verbosity = level;
}
int kv_verbosity(void) {
    return verbosity;
}

void kv_say(const char *format, ...) {
    if (verbosity < 0) return;
    va_list ap;
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
}

struct kv_progress {
    pthread_mutex_t lock;
    char what[48], unit[24];
    size_t done, total, tenth;
    double start_s, drawn_s;
    bool bar;
};

struct kv_progress *kv_progress_start(const char *what, size_t total, const char *unit) {
    KV_GUARD_ELSE(return NULL);
    struct kv_progress *p = kv_alloc(1, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    snprintf(p->what, sizeof p->what, "%s", what);
    snprintf(p->unit, sizeof p->unit, "%s", unit);
    p->total = total;
    p->start_s = kv_now_s();
    p->bar = isatty(2);
    return p;
}

static void draw(const struct kv_progress *p, double now_s) {
    double spent_s = now_s - p->start_s, rate = spent_s > 0 ? (double)p->done / spent_s : 0;
    long left_s = rate > 0 ? (long)((double)(p->total - p->done) / rate + 0.5) : 0;
    char bar[21];
    size_t full = p->total ? p->done * 20 / p->total : 20;
    memset(bar, '.', 20);
    memset(bar, '#', full);
    bar[20] = '\0';
    if (p->bar)
        fprintf(stderr, "\r%s [%s] %zu/%zu  %.1f %s/s  %ld:%02ld left \033[K", p->what, bar,
                p->done, p->total, rate, p->unit, left_s / 60, left_s % 60);
    else
        fprintf(stderr, "%s %zu/%zu  %.1f %s/s  %ld:%02ld left\n", p->what, p->done, p->total, rate,
                p->unit, left_s / 60, left_s % 60);
}

void kv_progress_step(struct kv_progress *p, size_t n) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->done += n;
    double now_s = kv_now_s();
    size_t tenth = p->total ? p->done * 10 / p->total : 10;
    bool due = p->bar ? now_s - p->drawn_s > 0.1 : tenth > p->tenth && now_s - p->start_s > 2;
    if (verbosity >= 0 && due) {
        draw(p, now_s);
        p->drawn_s = now_s;
    }
    p->tenth = tenth;
    pthread_mutex_unlock(&p->lock);
}

void kv_progress_end(struct kv_progress *p) {
    if (!p) return;
    if (p->bar && verbosity >= 0) fputs("\r\033[K", stderr);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
