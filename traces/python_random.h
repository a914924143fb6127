// SPDX-License-Identifier: Apache-2.0
// Draws as Python's `random` makes them, so that examples are those that lm-evaluation-harness
// draws. (private to traces)
#ifndef KV_TRACES_PYTHON_RANDOM_H
#define KV_TRACES_PYTHON_RANDOM_H

#include <stddef.h>
#include <stdint.h>

// MT19937 (Matsumoto and Nishimura, ACM TOMACS 8:3, 1998), seeded by their init_by_array, which is
// how random.Random(seed) seeds it and how GSL's generator is not.
struct kv_python_random {
    uint32_t state[624];
    size_t at;
};
void kv_python_random_init(struct kv_python_random *r, uint32_t seed);
uint32_t kv_python_random_next(struct kv_python_random *r);

// random.sample(range(n), k): out[k], all different. k <= n < 2^32.
void kv_python_sample(struct kv_python_random *r, size_t n, size_t k, size_t *out);

#endif
