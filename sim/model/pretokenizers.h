// SPDX-License-Identifier: Apache-2.0
// How texts are cut into the spans that byte-level BPE merges within: regular expressions as their
// models publish them, and the names under which GGUF files ask for them.
#ifndef KV_MODEL_PRETOKENIZERS_H
#define KV_MODEL_PRETOKENIZERS_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "policies/policy.h"

#define KV_MAX_STEPS 5

// One row of the table. Each step cuts what the steps before it left; what a step does not match is
// a span of its own.
struct kv_pretokenizer {
    const char *names;               // tokenizer.ggml.pre, "a b c"
    const char *steps[KV_MAX_STEPS]; // NULL after the last
    bool nfc;                        // texts are brought to NFC first
    bool ignore_merges;              // a span that is a piece is that token, whatever merges say
    bool add_bos;                    // where the file does not say
};

extern const char *const kv_step_gpt2, *const kv_step_digit, *const kv_step_digits;

// The row of a name in tokenizer.ggml.pre. Error at `where`: the name, and those that are known.
KV_MUST_CHECK int kv_pretokenizer_find(const struct kv_pretokenizer **row, const char *name,
                                       const char *where, struct kv_error *e);
// A regular expression of the table, equal to the given text; NULL when it is none of them.
const char *kv_step_known(const char *regex);
// Compiles a step, with \s and \S meaning Unicode's White_Space. Freed with pcre2_code_free.
KV_MUST_CHECK int kv_step_compile(pcre2_code **code, const char *step, struct kv_error *e);

#endif
