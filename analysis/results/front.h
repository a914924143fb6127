// SPDX-License-Identifier: Apache-2.0
// The frontier of a group of rows: who is on it, how surely, where its knee is, what it is worth,
// and who beats the others by how much. What `frontier` prints.
#ifndef KV_ANALYSIS_RESULTS_FRONT_H
#define KV_ANALYSIS_RESULTS_FRONT_H

#include "analysis/results/rows.h"

KV_BEGIN_DECLS

// What is traded. Values: higher is better but for kl.
enum { KV_FRONT_AGREEMENT = -1, KV_FRONT_KL = -2 };
struct kv_front_value {
    const char *name, *unit; // "acc"
    int scorer;              // of KV_N_SCORERS, or KV_FRONT_AGREEMENT, KV_FRONT_KL
};
extern const struct kv_front_value kv_front_values[]; // ends with {0}
struct kv_front_cost {
    const char *name, *unit;                                // "bits"
    double (*of)(const struct kv_row *row, size_t context); // NAN = unknown
    bool by_context;                                        // one frontier a context
};
extern const struct kv_front_cost kv_front_costs[]; // ends with {0}

struct kv_front {
    size_t n; // rows: those given that know the value on some item (all when none does)
    const struct kv_row **rows;
    size_t n_items;       // that all rows hold and judged: everything is measured on these
    size_t n_left_out;    // that some rows hold and others do not, or where one is not finite
    double *cost, *value; // [n]; value: of kl too the plain number
    bool *on;
    double *frequency;    // share of resamples in which a row is on the frontier
    size_t knee;          // n = none
    size_t *by;           // the row that beats one; n = it is on the frontier
    struct kv_mean *gain; // [n] of by over the row, in value, paired by item; n of items
    double hypervolume;   // up to the dearest row, down to `floor`
    double floor;         // chance, 0 agreement, or the largest divergence
    struct kv_interval hypervolume_interval;
};

// rows[n]: of one trace and alike (kv_rows_alike). Free with kv_front_fini.
KV_MUST_CHECK int kv_front_find(struct kv_front *f, struct kv_store *s,
                                const struct kv_row *const *rows, size_t n,
                                const struct kv_front_value *value,
                                const struct kv_front_cost *cost, size_t context, uint64_t seed,
                                size_t draws, struct kv_error *e);
void kv_front_fini(struct kv_front *f);

KV_END_DECLS

#endif
