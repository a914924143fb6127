// SPDX-License-Identifier: Apache-2.0
// The way back when a call cannot go on: memory has run out, or a device has failed in the middle
// of a product.
//
//     int kv_trace_open(struct kv_trace **t, const char *dir, struct kv_error *e) {
//         *t = NULL;
//         KV_GUARD(e);                     from here on kv_alloc fails by returning KV_ENOMEM here
//         struct kv_trace *made = kv_alloc(1, sizeof *made);
//
// Each function of kvsim.symbols that may allocate sets a guard (sim/test/guards.sh checks that),
// so a failure goes no further than the call that it happened in, and that call's error says it.
// Results are NULL or empty then; objects that the caller handed in can be used and closed as
// before. What the call had allocated or opened for itself is lost: the price of one sentence
// instead of 600 checks, due only when memory runs out.
//
// A function that has no error to return sets one only where the thread has none (KV_GUARD_ELSE),
// so that none of the library's own calls goes on with half of a result; in a program's callback
// the call that called back fails then.
//
// kv_parallel guards every job, so that a worker's failure becomes the job's. Locks that are held
// where something may fail are taken by KV_LOCK, which gives them back. In a thread that has no
// guard there is nobody to tell: abort() after the sentence. Only calls that are not part of the
// library's interface can get there, and not in the program, whose main has a guard.
#ifndef KV_BASE_GUARD_H
#define KV_BASE_GUARD_H

#include "policies/policy.h"

#include <pthread.h>
#include <setjmp.h>

// A held lock and a guard, both in the frame of the function that has them.
struct kv_lock {
    pthread_mutex_t *mutex;
    struct kv_lock *outer;
};
struct kv_guard {
    jmp_buf back;
    struct kv_guard *outer;
    struct kv_lock *held; // when it was set
    struct kv_error *e;
    volatile int code;
};

// Ends the innermost guarded call of this thread with that error.
KV_PRINTF(3, 4)
_Noreturn void kv_raise(int code, const char *where, const char *format, ...);

// Takes the code of an error that is passed over, and raises it again if it is memory that ran out:
// if (kv_tolerate(kv_trace_open(&t, path, &e), &e)) there is none, and that is all right
int kv_tolerate(int code, const struct kv_error *e);

// From here to the end of the function or block a raised error fills e (which may be NULL) and the
// function returns its code. Out parameters are set before.
#define KV_GUARD(e)                                                                                \
    KV_GUARD_DECLARE;                                                                              \
    kv_guard_enter(&kv_guard_here, e);                                                             \
    if (setjmp(kv_guard_here.back)) return kv_guard_here.code
// In a thread without a guard a raised error does what is said instead: KV_GUARD_ELSE(return NULL);
#define KV_GUARD_ELSE(otherwise)                                                                   \
    KV_GUARD_DECLARE;                                                                              \
    kv_guard_enter_first(&kv_guard_here);                                                          \
    if (setjmp(kv_guard_here.back)) otherwise
#define KV_GUARD_DECLARE __attribute__((cleanup(kv_guard_leave))) struct kv_guard kv_guard_here

// Holds a mutex to the end of the block, or until an error is raised in it.
#define KV_LOCK(mutex)                                                                             \
    __attribute__((cleanup(kv_lock_leave))) struct kv_lock kv_lock_here;                           \
    kv_lock_enter(&kv_lock_here, mutex)

void kv_guard_enter(struct kv_guard *g, struct kv_error *e);
void kv_guard_enter_first(struct kv_guard *g); // does nothing where there is one
void kv_guard_leave(struct kv_guard *g);
void kv_lock_enter(struct kv_lock *l, pthread_mutex_t *mutex);
void kv_lock_leave(struct kv_lock *l);

#endif
