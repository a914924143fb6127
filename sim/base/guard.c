// SPDX-License-Identifier: Apache-2.0
// Guards and locks of a thread as two lists over its frames, and the jump from one to the other.
#include "sim/base/guard.h"

#include <stdlib.h>

static _Thread_local struct kv_guard *innermost;
static _Thread_local struct kv_lock *held;

void kv_guard_enter(struct kv_guard *g, struct kv_error *e) {
    g->outer = innermost;
    g->held = held;
    g->e = e;
    g->code = 0;
    innermost = g;
}

void kv_guard_enter_first(struct kv_guard *g) {
    if (!innermost) kv_guard_enter(g, NULL);
}

void kv_guard_leave(struct kv_guard *g) {
    if (innermost == g) innermost = g->outer;
}

void kv_lock_enter(struct kv_lock *l, pthread_mutex_t *mutex) {
    pthread_mutex_lock(mutex);
    l->mutex = mutex;
    l->outer = held;
    held = l;
}

void kv_lock_leave(struct kv_lock *l) {
    held = l->outer;
    pthread_mutex_unlock(l->mutex);
}

int kv_tolerate(int code, const struct kv_error *e) {
    if (code == KV_ENOMEM) kv_raise(code, e ? e->where : "", "%s", e ? e->msg : "out of memory");
    return code;
}

void kv_raise(int code, const char *where, const char *format, ...) {
    struct kv_error e;
    va_list ap;
    va_start(ap, format);
    vsnprintf(e.msg, sizeof e.msg, format, ap);
    va_end(ap);
    struct kv_guard *g = innermost;
    if (!g) {
        fprintf(stderr, "kvsim: %s%s%s\n", where, *where ? ": " : "", e.msg);
        abort();
    }
    while (held != g->held) kv_lock_leave(held);
    g->code = kv_fail(g->e, code, where, "%s", e.msg);
    longjmp(g->back, 1);
}
