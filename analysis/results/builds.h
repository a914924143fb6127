// SPDX-License-Identifier: Apache-2.0
// What is to be said of a stored run beside others, wherever it is named: whether it comes of the
// newest build of its file, and whether it ran in a mode that its spec was published in.
#ifndef KV_ANALYSIS_RESULTS_BUILDS_H
#define KV_ANALYSIS_RESULTS_BUILDS_H

#include "analysis/results/rows.h"

// Of rows[n] that come from one file (kv_spec_digest) in several builds: whether i's ran last.
bool kv_build_newest(const struct kv_summary *const *rows, size_t n, size_t i);
// Whether some of rows[n] come from i's file in another build.
bool kv_build_several(const struct kv_summary *const *rows, size_t n, size_t i);
// kv_summary_mismatch for the run's own trace among a store's settings.
const char *kv_run_mismatch(const struct kv_summary *s, const struct kv_store_setting *settings,
                            size_t n_settings, const char **published);

#endif
