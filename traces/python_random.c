// SPDX-License-Identifier: Apache-2.0
// MT19937 as Python seeds it, and random.sample().
#include "traces/python_random.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "sim/base/memory.h"

enum { N = 624, M = 397 };

void kv_python_random_init(struct kv_python_random *r, uint32_t seed) {
    uint32_t *s = r->state;
    s[0] = 19650218;
    for (uint32_t i = 1; i < N; i++) s[i] = 1812433253 * (s[i - 1] ^ s[i - 1] >> 30) + i;
    uint32_t i = 1;
    for (size_t k = 0; k < N; k++) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1664525) + seed;
        if (++i == N) s[0] = s[N - 1], i = 1;
    }
    for (size_t k = 0; k < N - 1; k++) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1566083941) - i;
        if (++i == N) s[0] = s[N - 1], i = 1;
    }
    s[0] = 0x80000000;
    r->at = N;
}

static void refill(uint32_t *s) {
    for (size_t i = 0; i < N; i++) {
        uint32_t y = (s[i] & 0x80000000) | (s[(i + 1) % N] & 0x7FFFFFFF);
        s[i] = s[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908B0DF : 0);
    }
}

uint32_t kv_python_random_next(struct kv_python_random *r) {
    if (r->at == N) {
        refill(r->state);
        r->at = 0;
    }
    uint32_t y = r->state[r->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9D2C5680;
    y ^= y << 15 & 0xEFC60000;
    return y ^ y >> 18;
}

// A whole number below n, as _randbelow_with_getrandbits draws it.
static size_t below(struct kv_python_random *r, size_t n) {
    unsigned bits = 0;
    while (n >> bits) bits++;
    size_t x;
    do x = kv_python_random_next(r) >> (32 - bits);
    while (x >= n);
    return x;
}

// Few of many are drawn until one is new; of a short list each draw takes one out. Which of the two
// it is, is part of the sequence.
void kv_python_sample(struct kv_python_random *r, size_t n, size_t k, size_t *out) {
    double most = 21;
    if (k > 5) most += pow(4, ceil(log((double)k * 3) / log(4)));
    if ((double)n > most) {
        for (size_t i = 0; i < k; i++)
            for (bool seen = true; seen;) {
                out[i] = below(r, n);
                seen = false;
                for (size_t j = 0; j < i; j++) seen = seen || out[j] == out[i];
            }
        return;
    }
    size_t *pool = kv_alloc(n + 1, sizeof *pool);
    for (size_t i = 0; i < n; i++) pool[i] = i;
    for (size_t i = 0; i < k; i++) {
        size_t j = below(r, n - i);
        out[i] = pool[j];
        pool[j] = pool[n - i - 1];
    }
    free(pool);
}
