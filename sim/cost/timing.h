// SPDX-License-Identifier: Apache-2.0
// Decode runs on this machine: a grid of contexts and mixes, measured in rounds so that slow drifts
// fall on all cells alike.
#ifndef KV_COST_TIMING_H
#define KV_COST_TIMING_H

#include "sim/cache/decode.h"
#include "sim/cost/runs.h"

struct kv_timing {
    const char *shape_name; // "" for a model of one's own
    struct kv_decoder_setting decoder;
    bool synthetic;
    const char *format; // of the cache
    size_t n_contexts, n_mixes;
    const uint32_t *contexts;   // ascending
    const struct kv_mix *mixes; // one by cell has its widths drawn, and a controller in the step
    unsigned rounds, steps;     // samples of a cell = rounds x steps
};

// Measures one model at one number of threads and appends a row a cell to *runs, contexts within
// mixes; fills the machine's fields of *runs that are still empty. Errors: KV_EFAIL when weights or
// caches do not fit into free memory, KV_EINTR.
KV_MUST_CHECK int kv_timing_run(const struct kv_timing *m, struct kv_runs *runs,
                                struct kv_error *e);

// Core clock while busy, from a chain of multiplications of three cycles each.
double kv_clock_mhz(void);
// Bytes of the last-level cache that core 0 sees, from sysfs; 0 = unknown.
size_t kv_last_level_bytes(void);

#endif
