// SPDX-License-Identifier: Apache-2.0
// GSM8K as lm-evaluation-harness asks and judges it (lm_eval/tasks/gsm8k/gsm8k.yaml of
// https://github.com/EleutherAI/lm-evaluation-harness, version 3): prompt, few-shot examples, the
// two filters that find a number in what was generated, and exact match.
//
//     char *found = kv_gsm8k_strict(generated);
//     bool right = kv_gsm8k_right(found, item->answer);
#ifndef KV_TRACES_GSM8K_H
#define KV_TRACES_GSM8K_H

#include "traces/tasks.h"

KV_BEGIN_DECLS

// What a filter gives where it finds nothing.
#define KV_GSM8K_NONE "[invalid]"

// "Question: ...\nAnswer:". Caller frees.
char *kv_gsm8k_prompt(const char *question);

// strict-match: the first of `#### (\-?[0-9\.\,]+)`. flexible-extract: the last of
// `(-?[$0-9.,]{2,})|(-?[0-9]+)`. Callers free.
char *kv_gsm8k_strict(const char *generated);
char *kv_gsm8k_flexible(const char *generated);

// A text as exact match compares it: without ',', '$', all up to the last "#### " and a full stop
// at the end, in small ASCII letters. Caller frees.
char *kv_gsm8k_normal(const char *text);
// Whether what a filter found is the number of an answer (kv_task_item's, whole).
bool kv_gsm8k_right(const char *found, const char *answer);

// Where the harness stops generating: ends with NULL.
extern const char *const kv_gsm8k_stops[];

// The share of t's items that the commonest answer gets right: what a policy that always says one
// number would score. *answer (or NULL): that number, caller frees. 0 and "" without answers.
double kv_gsm8k_floor(const struct kv_tasks *t, char **answer);

// Puts `shots` solved problems of `from` before each prompt of t, drawn as the harness's default
// sampler does it: Python's random.Random(1234).sample(problems, shots), once an item in file
// order. Errors: KV_EUSAGE where `from` holds too few.
KV_MUST_CHECK int kv_gsm8k_add_shots(struct kv_tasks *t, const struct kv_tasks *from, size_t shots,
                                     struct kv_error *e);

KV_END_DECLS

#endif
