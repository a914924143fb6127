// SPDX-License-Identifier: Apache-2.0
// Three runs of layers, each of one width: the first ones, the last ones, and those between.
#ifndef KV_RUNTIMES_LAYER_RUNS_H
#define KV_RUNTIMES_LAYER_RUNS_H

#include "policies/policy.h"

struct kv_runs_of_layers {
    size_t first, last; // how many layers stand at either end
    unsigned a, b, c;   // bits of the first, of those between, of the last
};

static inline unsigned kv_runs_at(const struct kv_runs_of_layers *r, size_t layer, size_t n) {
    return layer + r->last >= n ? r->c : layer < r->first ? r->a : r->b;
}

// Of all such runs of widths (bit b: b bits) whose mean is at most `most`, the one of least sum
// over layers of 4^-bits - 4^-wanted where fewer bits than wanted[n] are given; of equal ones that
// of fewer bits, then of fewer layers at the ends.
struct kv_runs_of_layers kv_runs_best(const double *wanted, size_t n, uint32_t widths, double most);

#endif
