// SPDX-License-Identifier: Apache-2.0
// The tokenizer that a GGUF file holds: byte-level BPE by merges (tokenizer.ggml.model gpt2), or
// SentencePiece's by scores (llama). Keys and defaults: llama_vocab::impl::load in
// src/llama-vocab.cpp of https://github.com/ggml-org/llama.cpp.
#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/gguf.h"
#include "sim/model/tokenizer.h"

#define KEY "tokenizer.ggml."

// Control tokens and those a user added are one id wherever their text stands. SentencePiece finds
// the latter in its normalized text: two spaces are one token also where one was spelled U+2581.
static int add_tokens(struct kv_model *m, const struct kv_tokenizer_parts *parts,
                      struct kv_error *e) {
    size_t n = parts->n_pieces, n_added = 0;
    struct kv_added_token *added = kv_alloc(n + 1, sizeof *added);
    for (size_t i = 0; i < n && parts->types; i++) {
        bool one = parts->types[i] == KV_PIECE_CONTROL || parts->types[i] == KV_PIECE_USER_DEFINED;
        if (one && *parts->pieces[i])
            added[n_added++] = (struct kv_added_token){
                .text = parts->pieces[i],
                .id = (uint32_t)i,
                .normalized = parts->characters && parts->types[i] == KV_PIECE_USER_DEFINED};
    }
    int rc = kv_tokenizer_add(m->tokenizer, added, n_added, e);
    free(added);
    return rc;
}

// Whether a key is there and true; `otherwise` where it is not there.
static bool is_true(const struct kv_gguf *g, const char *key, bool otherwise) {
    return kv_gguf_find(g, key) ? kv_gguf_true(g, key) : otherwise;
}

// Each sequence of a model that was trained with BOS begins with it.
static int read_bos(struct kv_model *m, const struct kv_gguf *g, bool usual, uint32_t usual_id,
                    struct kv_error *e) {
    m->add_bos = is_true(g, KEY "add_bos_token", usual);
    m->bos = m->add_bos ? usual_id : 0;
    if (!m->add_bos) return KV_OK;
    int rc = kv_gguf_u32(g, KEY "bos_token_id", usual_id != KV_NO_TOKEN, &m->bos, e);
    if (!rc && m->bos >= m->shape.vocab)
        rc = kv_fail(e, KV_EFAIL, g->path, KEY "bos_token_id is %u, but there are %u pieces",
                     m->bos, m->shape.vocab);
    return rc;
}

// ---- what the parts are made of -------------------------------------------------------

// The lists that parts points to; freed together.
struct lists {
    const char **pieces, **merges;
    int32_t *types;
    float *scores;
};

static int read_pieces(struct lists *l, struct kv_tokenizer_parts *parts, const struct kv_gguf *g,
                       struct kv_error *e) {
    int rc = kv_gguf_strings(g, KEY "tokens", &l->pieces, &parts->n_pieces, e);
    size_t n = parts->n_pieces;
    parts->pieces = l->pieces;
    if (rc || !kv_gguf_find(g, KEY "token_type")) return rc;
    parts->types = l->types = kv_alloc(n + 1, sizeof *l->types);
    return kv_gguf_int_list(g, KEY "token_type", l->types, n)
               ? KV_OK
               : kv_fail(e, KV_EFAIL, g->path,
                         KEY "token_type is no list of %zu whole numbers, one a token", n);
}

static int read_scores(struct lists *l, struct kv_tokenizer_parts *parts, const struct kv_gguf *g,
                       struct kv_error *e) {
    const struct kv_gguf_pair *p = kv_gguf_find(g, KEY "scores");
    size_t n = parts->n_pieces;
    if (!p || p->type != KV_GGUF_ARRAY || p->element != KV_GGUF_F32 || p->count != n)
        return kv_fail(e, KV_EFAIL, g->path,
                       p ? KEY "scores is no list of %zu floats, one a token"
                         : "the metadata lack " KEY "scores: %zu tokens merge by them",
                       n);
    parts->scores = l->scores = kv_alloc(n + 1, sizeof *l->scores);
    memcpy(l->scores, g->map.data + p->at, n * sizeof *l->scores);
    return KV_OK;
}

// SentencePiece's BPE: merges by scores over characters.
static int read_scored(struct kv_model *m, struct lists *l, struct kv_tokenizer_parts *parts,
                       const struct kv_gguf *g, struct kv_error *e) {
    if (kv_gguf_true(g, KEY "remove_extra_whitespaces"))
        return kv_fail(e, KV_EFAIL, g->path,
                       KEY "remove_extra_whitespaces is true, which is not computed");
    parts->characters = true;
    parts->space_prefix =
        is_true(g, KEY "add_space_prefix", true) ? KV_PREFIX_EACH : KV_PREFIX_NONE;
    int rc = read_scores(l, parts, g, e);
    return rc ? rc : read_bos(m, g, true, 1, e);
}

// Byte-level BPE: merges by rank inside of what the pre-tokenizer's pattern matches.
static int read_ranked(struct kv_model *m, struct lists *l, struct kv_tokenizer_parts *parts,
                       const struct kv_gguf *g, struct kv_error *e) {
    char pre[64];
    const struct kv_pretokenizer *row = NULL;
    int rc = kv_gguf_string(g, KEY "pre", false, pre, sizeof pre, e);
    if (!rc) rc = kv_pretokenizer_find(&row, pre, g->path, e);
    if (rc) return rc;
    memcpy(parts->steps, row->steps, sizeof parts->steps);
    parts->nfc = row->nfc;
    parts->ignore_merges = row->ignore_merges;
    rc = kv_gguf_strings(g, KEY "merges", &l->merges, &parts->n_merges, e);
    parts->merges = l->merges;
    return rc ? rc : read_bos(m, g, row->add_bos, KV_NO_TOKEN, e);
}

int kv_gguf_tokenizer(struct kv_model *m, const struct kv_gguf *g, struct kv_error *e) {
    struct lists lists = {0};
    struct kv_tokenizer_parts parts = {0};
    char model[32];
    int rc = kv_gguf_string(g, KEY "model", false, model, sizeof model, e);
    bool ranked = !rc && strcmp(model, "gpt2") == 0;
    if (!rc && !ranked && strcmp(model, "llama") != 0)
        rc = kv_fail(e, KV_EFAIL, g->path,
                     KEY "model is %s; only gpt2 (byte-level BPE) and llama (SentencePiece's BPE) "
                         "are read",
                     model);
    if (!rc) rc = read_pieces(&lists, &parts, g, e);
    if (!rc)
        rc = ranked ? read_ranked(m, &lists, &parts, g, e) : read_scored(m, &lists, &parts, g, e);
    if (!rc) {
        rc = kv_tokenizer_make(&m->tokenizer, &parts, e);
        if (!rc) rc = add_tokens(m, &parts, e);
        if (rc && e) snprintf(e->where, sizeof e->where, "%.190s", g->path);
    }
    free(lists.pieces);
    free(lists.merges);
    free(lists.types);
    free(lists.scores);
    return rc;
}
