// SPDX-License-Identifier: Apache-2.0
// Text as lm-evaluation-harness's Python handles it, for prompts that equal its own.
#ifndef KV_TRACES_HARNESS_TEXT_H
#define KV_TRACES_HARNESS_TEXT_H

#include "sim/base/memory.h"

// Appends str.capitalize() of s: the first character a capital, the others small.
void kv_add_capitalized(struct kv_text *out, const char *s);
// HellaSwag's preprocess() (lm_eval/tasks/hellaswag/utils.py). Caller frees.
char *kv_harness_text(const char *s);
// Whether nothing but Python's white space is left.
bool kv_is_blank(const char *s);

#endif
