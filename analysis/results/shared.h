// SPDX-License-Identifier: Apache-2.0
// Results of many rows on the items that all of them hold, as a plain array to resample.
#ifndef KV_ANALYSIS_RESULTS_SHARED_H
#define KV_ANALYSIS_RESULTS_SHARED_H

#include "analysis/stats/stats.h"
#include "sim/store/store.h"

// One number of an item's result and its weight; `which` as kv_shared_read was given it, then
// counted up.
typedef double kv_shared_number(int which, const struct kv_item_result *r);

struct kv_shared {
    size_t n_rows, n;  // n: items that all rows hold with a value
    size_t n_left_out; // items that some rows hold and others do not
    double *x, *w;     // [n_rows * n_values][n]
    uint64_t *context; // [n] what kv_resampler_new takes
    const char **source;
    char **texts; // that source points into
    size_t n_texts;
};

// Reads rows[n_rows] of one trace, n_values numbers of each (which, which + 1, ...), row after row.
// Free with kv_shared_fini, also after an error.
KV_MUST_CHECK int kv_shared_read(struct kv_shared *g, struct kv_store *s,
                                 const struct kv_summary *const *rows, size_t n_rows,
                                 kv_shared_number *value, kv_shared_number *weight, int which,
                                 size_t n_values, struct kv_error *e);
void kv_shared_fini(struct kv_shared *g);
struct kv_resampler *kv_shared_resampler(const struct kv_shared *g);

#endif
