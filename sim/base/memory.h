// SPDX-License-Identifier: Apache-2.0
// Memory that is there or ends the call with one sentence, and growing text.
#ifndef KV_BASE_MEMORY_H
#define KV_BASE_MEMORY_H

#include "policies/policy.h"

// malloc, realloc and strdup that never return NULL: when memory runs out they raise KV_ENOMEM,
// which the innermost guarded call returns (guard.h). No result is half-written then, since stores
// and shards are written whole. What is grown stays as it was. kv_alloc zeroes and is 64-byte
// aligned.
void *kv_alloc(size_t count, size_t size);
void *kv_grow(void *p, size_t count, size_t size);
char *kv_strdup(const char *s);
KV_PRINTF(1, 2) char *kv_format_text(const char *format, ...); // caller frees
// For tests: the nth allocation from now on fails, in whichever thread; 0 = none does. Returns how
// many were still to come until the failure set before; 0 = it has come.
size_t kv_memory_fail(size_t nth);

// A growing text buffer. Init with {0}; kv_text_take hands out the string and empties the buffer.
struct kv_text {
    char *s;
    size_t n, room;
};
void kv_text_add(struct kv_text *t, const char *s, size_t n);
KV_PRINTF(2, 3) void kv_text_addf(struct kv_text *t, const char *format, ...);
char *kv_text_take(struct kv_text *t); // never NULL; caller frees

#endif
