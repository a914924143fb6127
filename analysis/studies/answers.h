// SPDX-License-Identifier: Apache-2.0
// Whether what was generated from a benchmark's prompts answers them: GSM8K by the harness's two
// filters and exact match, a needle or a pair by its number; each policy against the 16-bit run.
#ifndef KV_ANALYSIS_STUDIES_ANSWERS_H
#define KV_ANALYSIS_STUDIES_ANSWERS_H

#include "analysis/stats/stats.h"
#include "sim/model/model.h"
#include "sim/store/generated.h"
#include "traces/tasks.h"

KV_BEGIN_DECLS

// strict: GSM8K's strict-match, or the number that a sequence begins with; flexible: GSM8K's
// flexible-extract, or the number anywhere. a of kv_paired is the policy, b the 16-bit run.
struct kv_answers {
    size_t n;                                      // prompts with a known answer
    double strict, strict16, flexible, flexible16; // shares that are right
    struct kv_paired strict_to16, flexible_to16;
};
// Judges what `g` holds; prompts are found by their ids.
struct kv_answers kv_answers_of(const struct kv_generation *g, const struct kv_tasks *tasks,
                                const struct kv_tokenizer *t);

// A line a generation of these tasks in the store, and what always saying one number would score;
// "" where the tasks have no answers. Caller frees. Errors: those of reading.
KV_MUST_CHECK int kv_answers_text(struct kv_store *s, const char *model, const char *tasks,
                                  char **text, struct kv_error *e);

KV_END_DECLS

#endif
