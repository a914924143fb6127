// SPDX-License-Identifier: Apache-2.0
// How the ranking of specs changes with the scorer.
#ifndef KV_ANALYSIS_RESULTS_SCORERS_H
#define KV_ANALYSIS_RESULTS_SCORERS_H

#include "analysis/results/rows.h"

// Rankings: by each scorer's accuracy, then by divergence.
enum { KV_BY_KL = KV_N_SCORERS, KV_N_RANKINGS };
extern const char *const kv_ranking_names[]; // "acc", ..., "kl_nats"

// Higher is better; NAN = not judged.
double kv_ranking_score(const struct kv_row *r, int by);
// 1 = best of rows[n]; equal scores share the better place. 0 = not judged.
size_t kv_ranking_place(const struct kv_row *rows, size_t n, size_t row, int by);
// Kendall's tau-b between two rankings of rows[n].
double kv_ranking_agreement(const struct kv_row *rows, size_t n, int by, int other);

// How far a row's places by the accuracies lie apart; NAN = not judged.
double kv_ranking_spread(const struct kv_row *rows, size_t n, size_t row);

#endif
