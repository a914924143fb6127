// SPDX-License-Identifier: Apache-2.0
// Least value of a function over a box, by grid, at random, by Nelder and Mead's simplex or by
// simulated annealing.
//
//     struct kv_search s = {.n = 2, .low = low, .high = high, .value = f, .self = &data,
//                           .method = KV_SEARCH_SIMPLEX, .tries = 400, .seed = 1};
//     kv_search_run(&s, best, &value, &e);
//
// Functions that do not answer for a point return INFINITY. Equal seeds give equal answers.
#ifndef KV_ANALYSIS_SEARCH_SEARCH_H
#define KV_ANALYSIS_SEARCH_SEARCH_H

#include "policies/policy.h"

enum kv_search_method { KV_SEARCH_GRID, KV_SEARCH_RANDOM, KV_SEARCH_SIMPLEX, KV_SEARCH_ANNEAL };
extern const char *const kv_search_methods[]; // "grid", "random", "simplex", "anneal", NULL

enum { KV_SEARCH_MAX = 16 }; // parameters

struct kv_search {
    size_t n;
    const double *low, *high; // [n]
    double (*value)(void *self, const double *x);
    void *self;
    enum kv_search_method method;
    size_t tries; // most calls of value
    uint64_t seed;
    size_t tried; // out: calls made
};

// Fills best[n] and *value. The simplex (Nelder and Mead 1965, as in GSL) starts anew from random
// points until the tries are used; the grid takes as many steps along each axis as fit. Errors:
// KV_EUSAGE for no or too many parameters or an empty box.
KV_MUST_CHECK int kv_search_run(struct kv_search *s, double *best, double *value,
                                struct kv_error *e);

#endif
