// SPDX-License-Identifier: Apache-2.0
// The factors that a store's runs differ in, read off their specs and settings.
//
// Factors are: the policy, or k and v where all are static ("bits" where both are always equal);
// the format; rotation around it; every key that all formats have (group, order, ...); mode and own
// step. A key that only some formats have is part of the format's level ("sym:levels=max3"). What
// never varies is none.
#ifndef KV_ANALYSIS_RESULTS_FACTORS_H
#define KV_ANALYSIS_RESULTS_FACTORS_H

#include "analysis/stats/factorial.h"
#include "sim/store/store.h"

struct kv_factors {
    size_t n_rows, n;
    char *name[KV_MAX_FACTORS];
    char *level_name[KV_MAX_FACTORS][KV_MAX_LEVELS]; // in order of appearance
    size_t n_levels[KV_MAX_FACTORS];
    size_t *level; // [n_rows][n]
};

// KV_EFAIL when nothing varies, or more levels than there is room for.
KV_MUST_CHECK int kv_factors_find(struct kv_factors *f, const struct kv_summary *const *rows,
                                  size_t n_rows, struct kv_error *e);
void kv_factors_fini(struct kv_factors *f);

#endif
