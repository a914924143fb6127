// SPDX-License-Identifier: Apache-2.0
// Memory and text: allocation that is there or raises an error, and a growing text buffer.
#include "sim/base/memory.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "sim/base/guard.h"

static _Noreturn void out_of_memory(size_t count, size_t size) {
    kv_raise(KV_ENOMEM, "", "out of memory: %zu x %zu bytes could not be had", count, size);
}

static atomic_size_t until_failure; // allocations, the failing one included; 0 = none fails

size_t kv_memory_fail(size_t nth) {
    return atomic_exchange(&until_failure, nth);
}

static bool made_to_fail(void) {
    size_t n = atomic_load_explicit(&until_failure, memory_order_relaxed);
    while (n && !atomic_compare_exchange_weak(&until_failure, &n, n - 1)) {
    }
    return n == 1;
}

void *kv_alloc(size_t count, size_t size) {
    size_t n;
    if (__builtin_mul_overflow(count, size, &n) || n > SIZE_MAX - 64 || made_to_fail())
        out_of_memory(count, size);
    n = (n + 63) & ~(size_t)63;
    void *p = aligned_alloc(64, n ? n : 64);
    if (p) return memset(p, 0, n);
    out_of_memory(count, size);
}

void *kv_grow(void *p, size_t count, size_t size) {
    size_t n;
    if (__builtin_mul_overflow(count, size, &n) || made_to_fail()) out_of_memory(count, size);
    void *q = realloc(p, n ? n : 1);
    if (q) return q;
    out_of_memory(count, size);
}

char *kv_strdup(const char *s) {
    size_t n = strlen(s) + 1;
    return memcpy(kv_grow(NULL, n, 1), s, n);
}

static char *format_va(const char *format, va_list ap, size_t *n_out) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    size_t room = n < 0 ? 1 : (size_t)n + 1;
    char *s = kv_grow(NULL, room, 1);
    s[0] = '\0';
    vsnprintf(s, room, format, ap);
    *n_out = room - 1;
    return s;
}

char *kv_format_text(const char *format, ...) {
    va_list ap;
    size_t n;
    va_start(ap, format);
    char *s = format_va(format, ap, &n);
    va_end(ap);
    return s;
}

void kv_text_add(struct kv_text *t, const char *s, size_t n) {
    if (t->n + n + 1 > t->room) {
        size_t room = (t->n + n + 1) * 2;
        t->s = kv_grow(t->s, room, 1);
        t->room = room;
    }
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = '\0';
}

void kv_text_addf(struct kv_text *t, const char *format, ...) {
    va_list ap;
    size_t n;
    va_start(ap, format);
    char *s = format_va(format, ap, &n);
    va_end(ap);
    kv_text_add(t, s, n);
    free(s);
}

char *kv_text_take(struct kv_text *t) {
    char *s = t->s ? t->s : kv_strdup("");
    *t = (struct kv_text){0};
    return s;
}
