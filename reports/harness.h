// SPDX-License-Identifier: Apache-2.0
// Results under the key names of EleutherAI's lm-evaluation-harness, for tools that read its files.
#ifndef KV_REPORTS_HARNESS_H
#define KV_REPORTS_HARNESS_H

#include "analysis/results/rows.h"

// Writes DIR/results.json, one object with the parts of a harness's result file ("results",
// "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples"), which its
// make_table prints and whose EvalResults it is: a task is a group that the 16-bit run leads, and
// "TASK: LABEL" each row of it.
// DIR/results.tsv has the same keys as columns, a row a spec, setting and task. "acc_stderr,none"
// is the sample standard deviation over items by the root of their number, as there. Rows without
// an accuracy have no such keys.
// Source: lm-evaluation-harness 0.4.13, lm_eval/evaluator_utils.py (the parts), result_schema.py
// (EvalResults) and utils.py (make_table).
KV_MUST_CHECK int kv_harness_write(const struct kv_rows *rows, const char *dir, struct kv_error *e);

#endif
