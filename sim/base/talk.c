// SPDX-License-Identifier: Apache-2.0
// What is said on stderr meanwhile: lines, and progress that several workers step.
#include "sim/base/talk.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/base/work.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int verbosity;

void kv_set_verbosity(int level) {
    verbosity = level;
}
int kv_verbosity(void) {
    return verbosity;
}

// ---- progress -------------------------------------------------------------------------

// On a log a line comes at least this often: 20 s are promised, and the clock is asked every
// second.
static const double line_every_s = 18, first_line_s = 2, bar_every_s = 0.1;

struct kv_progress {
    char what[48], unit[24];
    size_t done, total, tenth; // total 0: what runs is not known, or what kv_parallel counts
    double start_s, drawn_s;   // drawn_s 0: not yet
    struct kv_progress *older;
};

// Those that run, the newest first; the newest is the one that is shown. Beside them a thread that
// looks at the clock, for as long as there are any.
static struct {
    pthread_mutex_t lock;
    struct kv_progress *newest;
    bool watched;
    bool bar;       // stderr is a terminal
    bool line_open; // there is a bar on the line of the cursor
} shown = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void clear_line(void) {
    if (shown.line_open) fputs("\r\033[K", stderr);
    shown.line_open = false;
}

void kv_say(const char *format, ...) {
    if (verbosity < 0) return;
    va_list ap;
    KV_LOCK(&shown.lock);
    clear_line();
    va_start(ap, format);
    kv_vprint_to(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
}

// "0:07", "1:02:07"
static void put_time(double s) {
    long n = (long)(s + 0.5);
    if (n >= 3600)
        fprintf(stderr, "%ld:%02ld:%02ld", n / 3600, n / 60 % 60, n % 60);
    else
        fprintf(stderr, "%ld:%02ld", n / 60, n % 60);
}

// "3.1 items/s  0:20 left"; "12.3 s/item  ..." where one takes longer than a second.
static void put_rate(size_t done, size_t total, double spent_s, const char *unit) {
    if (done == 0 || !(spent_s > 0)) {
        put_time(spent_s);
        fputs(" so far", stderr);
        return;
    }
    double each_s = spent_s / (double)done;
    int letters = (int)strlen(unit);
    if (each_s <= 1)
        fprintf(stderr, "%.1f %s/s  ", 1 / each_s, unit);
    else
        fprintf(stderr, "%.1f s/%.*s  ", each_s, letters > 1 ? letters - 1 : letters, unit);
    put_time(total > done ? each_s * (double)(total - done) : 0);
    fputs(" left", stderr);
}

static void draw_bar(size_t done, size_t total) {
    char bar[21];
    memset(bar, '.', 20);
    memset(bar, '#', done < total ? done * 20 / total : 20);
    bar[20] = '\0';
    fprintf(stderr, " [%s]", bar);
}

// A command of which nothing is known but that it runs: always a line, since its results may be
// printed on the same terminal at any time.
static void draw_command(const struct kv_progress *p, double now_s) {
    size_t done, total;
    double since_s;
    kv_parallel_progress(&done, &total, &since_s);
    fprintf(stderr, "%s ", p->what);
    if (total > 1) fprintf(stderr, "step %zu/%zu  ", done, total);
    put_rate(total > 1 ? done : 0, total, now_s - (total > 1 ? since_s : p->start_s), "steps");
    fputc('\n', stderr);
}

static void draw(struct kv_progress *p, double now_s) {
    p->drawn_s = now_s;
    if (verbosity < 0) return;
    if (p->total == 0) {
        draw_command(p, now_s);
        return;
    }
    fprintf(stderr, "%s%s", shown.bar ? "\r" : "", p->what);
    if (shown.bar) draw_bar(p->done, p->total);
    fprintf(stderr, " %zu/%zu  ", p->done, p->total);
    put_rate(p->done, p->total, now_s - p->start_s, p->unit);
    fputs(shown.bar ? " \033[K" : "\n", stderr);
    shown.line_open = shown.bar;
}

// Whether a line is due on a log, or for a command.
static bool line_due(const struct kv_progress *p, double now_s) {
    return p->drawn_s > 0 ? now_s - p->drawn_s >= line_every_s : now_s - p->start_s >= first_line_s;
}

// One step may take minutes: somebody else has to look at the clock.
static void *watch(void *unused) {
    (void)unused;
    for (;;) {
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
        pthread_mutex_lock(&shown.lock);
        struct kv_progress *p = shown.newest;
        double now_s = kv_now_s();
        if (p && ((shown.bar && p->total) || line_due(p, now_s))) draw(p, now_s);
        // Whoever waits below for this one has been told of as well.
        for (struct kv_progress *o = p ? p->older : NULL; o; o = o->older)
            if (p->drawn_s > o->drawn_s) o->drawn_s = p->drawn_s;
        shown.watched = p != NULL;
        pthread_mutex_unlock(&shown.lock);
        if (!p) return NULL;
    }
}

static void start_watching(void) {
    pthread_t thread;
    sigset_t all, before;
    if (shown.watched) return;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    shown.watched = pthread_create(&thread, NULL, watch, NULL) == 0;
    if (shown.watched) pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

struct kv_progress *kv_progress_start(const char *what, size_t total, const char *unit) {
    KV_GUARD_ELSE(return NULL);
    struct kv_progress *p = kv_alloc(1, sizeof *p);
    snprintf(p->what, sizeof p->what, "%s", what);
    snprintf(p->unit, sizeof p->unit, "%s", unit);
    p->total = total;
    p->start_s = kv_now_s();
    KV_LOCK(&shown.lock);
    p->older = shown.newest;
    shown.newest = p;
    shown.bar = isatty(2);
    if (verbosity >= 0) start_watching();
    return p;
}

void kv_progress_step(struct kv_progress *p, size_t n) {
    if (!p) return;
    KV_LOCK(&shown.lock);
    p->done += n;
    double now_s = kv_now_s();
    size_t tenth = p->total ? p->done * 10 / p->total : 0;
    bool due = shown.bar
                   ? now_s - p->drawn_s > bar_every_s
                   : line_due(p, now_s) || (tenth > p->tenth && now_s - p->start_s > first_line_s);
    if (p->total && p == shown.newest && due) draw(p, now_s);
    p->tenth = tenth;
}

void kv_progress_end(struct kv_progress *p) {
    if (!p) return;
    KV_LOCK(&shown.lock);
    clear_line();
    for (struct kv_progress **at = &shown.newest; *at; at = &(*at)->older)
        if (*at == p) {
            *at = p->older;
            break;
        }
    free(p);
}
