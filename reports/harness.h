// SPDX-License-Identifier: Apache-2.0
// Results under the key names of EleutherAI's lm-evaluation-harness, for tools that read its files.
#ifndef KV_REPORTS_HARNESS_H
#define KV_REPORTS_HARNESS_H

#include "analysis/results/rows.h"

// Writes DIR/results.json, an array with an object a spec and setting that has the parts of a
// harness's result file ("results", "n-samples", "higher_is_better", "config"), and DIR/results.tsv
// with the same keys as columns, a row a spec, setting and task. "acc_stderr,none" is the sample
// standard deviation over items by the root of their number, as there. Rows without an accuracy
// have no such keys.
KV_MUST_CHECK int kv_harness_write(const struct kv_rows *rows, const char *dir, struct kv_error *e);

#endif
