// SPDX-License-Identifier: Apache-2.0
// The tokenizer that a GGUF file holds: its pieces, merges and kinds of tokens.
#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/gguf.h"
#include "sim/model/model.h"

// Pre-tokenizers whose pattern is ours: GPT-2's, for some after setting each digit apart
// (llm_tokenizer_bpe in llama.cpp's src/llama-vocab.cpp).
struct pre_tokenizer {
    const char *name;
    bool split_digits;
};
static const struct pre_tokenizer pre_tokenizers[] = {
    {"smollm", true},    {"starcoder", true}, {"refact", true},
    {"command-r", true}, {"codeshell", true}, {"gpt-2", false},
};
#define PRE_TOKENIZERS "smollm, starcoder, refact, command-r, codeshell, gpt-2"

// Token types of llama.cpp (llama_token_type in gguf-py/gguf/constants.py): control tokens and
// those a user added are one id wherever their text stands.
enum { TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4 };

static int add_tokens(struct kv_model *m, const struct kv_gguf *g, const char *const *tokens,
                      size_t n, struct kv_error *e) {
    int32_t *types = kv_alloc(n + 1, sizeof *types);
    struct kv_added_token *added = kv_alloc(n + 1, sizeof *added);
    size_t n_added = 0;
    int rc = KV_OK;
    if (kv_gguf_find(g, "tokenizer.ggml.token_type") &&
        !kv_gguf_int_list(g, "tokenizer.ggml.token_type", types, n))
        rc = kv_fail(e, KV_EFAIL, g->path,
                     "tokenizer.ggml.token_type is no list of %zu whole numbers, one a token", n);
    for (size_t i = 0; i < n && !rc; i++)
        if ((types[i] == TOKEN_CONTROL || types[i] == TOKEN_USER_DEFINED) && *tokens[i])
            added[n_added++] = (struct kv_added_token){.text = tokens[i], .id = (uint32_t)i};
    if (!rc) rc = kv_tokenizer_add(m->tokenizer, added, n_added, e);
    free(types);
    free(added);
    return rc;
}

int kv_gguf_tokenizer(struct kv_model *m, const struct kv_gguf *g, struct kv_error *e) {
    char model[32], pre[32];
    int rc = kv_gguf_string(g, "tokenizer.ggml.model", false, model, sizeof model, e);
    if (!rc && strcmp(model, "gpt2") != 0)
        rc = kv_fail(e, KV_EFAIL, g->path,
                     "tokenizer.ggml.model is %s; only gpt2 (byte-level BPE) is read", model);
    if (!rc) rc = kv_gguf_string(g, "tokenizer.ggml.pre", false, pre, sizeof pre, e);
    if (rc) return rc;
    const struct pre_tokenizer *known = NULL;
    for (size_t i = 0; i < sizeof pre_tokenizers / sizeof *pre_tokenizers; i++)
        if (strcmp(pre_tokenizers[i].name, pre) == 0) known = &pre_tokenizers[i];
    if (!known)
        return kv_fail(
            e, KV_EFAIL, g->path,
            "tokenizer.ggml.pre is %s, whose pattern is not known; supported: " PRE_TOKENIZERS,
            pre);
    if (kv_gguf_true(g, "tokenizer.ggml.add_bos_token"))
        return kv_fail(e, KV_EFAIL, g->path,
                       "tokenizer.ggml.add_bos_token is true, but texts are scored without BOS");
    const char **tokens, **merges = NULL;
    size_t n_tokens = 0, n_merges = 0;
    rc = kv_gguf_strings(g, "tokenizer.ggml.tokens", &tokens, &n_tokens, e);
    if (!rc) rc = kv_gguf_strings(g, "tokenizer.ggml.merges", &merges, &n_merges, e);
    if (!rc) {
        rc = kv_tokenizer_new(&m->tokenizer, tokens, n_tokens, merges, n_merges,
                              known->split_digits, e);
        if (!rc) rc = add_tokens(m, g, tokens, n_tokens, e);
        if (rc && e) snprintf(e->where, sizeof e->where, "%.190s", g->path);
    }
    free(tokens);
    free(merges);
    return rc;
}
