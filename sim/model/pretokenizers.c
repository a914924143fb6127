// SPDX-License-Identifier: Apache-2.0
// The table of pre-tokenizers, and its regular expressions in PCRE2's spelling.
//
// Classes of characters (\p{L}, \p{N}, \p{M}, \p{P}, \p{S}) are PCRE2's own tables: Unicode 14.0 in
// PCRE2 10.40 to 10.42. (?i:'s) also takes U+017F, the long s, as the tokenizers library does.
#include "sim/model/pretokenizers.h"

#include <stdlib.h>

#include "sim/base/memory.h"

// Radford et al. 2019; src/encoder.py of https://github.com/openai/gpt-2.
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define REST " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
// tokenizer.json of Qwen2 and Qwen3, of Llama 3, of Mistral NeMo.
#define QWEN2 CONTRACTION "|" WORD "|\\p{N}|" REST
#define LLAMA3 CONTRACTION "|" WORD "|\\p{N}{1,3}|" REST
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define TEKKEN                                                                                     \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER            \
    "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

const char *const kv_step_gpt2 = GPT2, *const kv_step_digit = "\\p{N}",
                  *const kv_step_digits = "\\p{N}+";

// Names, what they stand for and their defaults: llama_vocab::impl::load and llm_tokenizer_bpe in
// src/llama-vocab.cpp of https://github.com/ggml-org/llama.cpp, whose contractions are spelled
// 'S|'s for (?i:'s). NFC is Qwen's own (tokenizer.json); llama.cpp leaves it out.
static const struct kv_pretokenizer table[] = {
    {.names = "smollm starcoder refact command-r codeshell exaone minerva-7b",
     .steps = {"\\p{N}", GPT2}},
    {.names = "gpt-2 gpt2 mpt olmo phi-2", .steps = {GPT2}},
    {.names = "qwen2", .steps = {QWEN2}, .nfc = true},
    {.names = "deepseek-r1-qwen stablelm2 megrez", .steps = {QWEN2}},
    {.names = "llama-bpe llama3 llama-v3 falcon3",
     .steps = {LLAMA3},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "smaug-bpe dbrx", .steps = {LLAMA3}},
    {.names = "tekken", .steps = {TEKKEN}, .ignore_merges = true, .add_bos = true},
    {.names = "deepseek-coder",
     .steps = {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+",
               "\\p{N}"}},
};
#define N_ROWS (sizeof table / sizeof *table)

static bool names_hold(const char *names, const char *name) {
    size_t n = strlen(name);
    for (const char *at = names; *at;) {
        size_t length = strcspn(at, " ");
        if (length == n && memcmp(at, name, n) == 0) return true;
        at += length + (at[length] == ' ');
    }
    return false;
}

int kv_pretokenizer_find(const struct kv_pretokenizer **row, const char *name, const char *where,
                         struct kv_error *e) {
    for (size_t i = 0; i < N_ROWS; i++)
        if (names_hold(table[i].names, name)) {
            *row = &table[i];
            return KV_OK;
        }
    struct kv_text known = {0};
    for (size_t i = 0; i < N_ROWS; i++) kv_text_addf(&known, "%s%s", i ? " " : "", table[i].names);
    char *names = kv_text_take(&known);
    int rc = kv_fail(e, KV_EFAIL, where,
                     "tokenizer.ggml.pre is %.60s, whose pattern is not known; supported: %s", name,
                     names);
    free(names);
    return rc;
}

const char *kv_step_known(const char *regex) {
    for (size_t i = 0; i < N_ROWS; i++)
        for (size_t k = 0; k < KV_MAX_STEPS && table[i].steps[k]; k++)
            if (strcmp(table[i].steps[k], regex) == 0) return table[i].steps[k];
    return NULL;
}

// White space spelled out, because PCRE2's \s under UCP also takes U+180E, which the tokenizers
// that models were trained with do not.
#define SPACES                                                                                     \
    "\\t-\\r "                                                                                     \
    "\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

// \s becomes the list of spaces, inside a class and outside of one, and \S, which stands outside in
// all patterns of the table, what is none of them.
static char *spell(const char *step) {
    struct kv_text out = {0};
    bool in_class = false;
    for (const char *p = step; *p; p++) {
        if (p[0] == '\\' && p[1] == 's')
            kv_text_addf(&out, in_class ? "%s" : "[%s]", SPACES);
        else if (p[0] == '\\' && p[1] == 'S')
            kv_text_addf(&out, "[^%s]", SPACES);
        else
            kv_text_add(&out, p, p[0] == '\\' ? 2 : 1);
        if (p[0] == '[') in_class = true;
        if (p[0] == ']') in_class = false;
        p += p[0] == '\\';
    }
    return kv_text_take(&out);
}

int kv_step_compile(pcre2_code **code, const char *step, struct kv_error *e) {
    int error;
    size_t at;
    char *pattern = spell(step);
    *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error,
                          &at, NULL);
    free(pattern);
    if (!*code)
        return kv_fail(e, KV_EFAIL, "tokenizer", "this PCRE2 does not know the pattern (byte %zu)",
                       at);
    // Where there is no JIT, matching is slower and else the same.
    (void)!pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE);
    return KV_OK;
}
