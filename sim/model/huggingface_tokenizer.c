// SPDX-License-Identifier: Apache-2.0
// The tokenizer.json of a Hugging Face folder: its pieces, merges and added tokens. What is done to
// a text before and after is huggingface_pipeline.c's.
#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/huggingface_pipeline.h"

// Whether an added token is one that the model has a row for. Others (Gemma 3's image token, in
// models of text) are passed over.
static bool has_row(const json_t *added, size_t n) {
    return json_integer_value(json_object_get(added, "id")) < (json_int_t)n;
}

// Fills pieces[id] from the vocabulary and the added tokens; ids without a piece keep "".
static int read_pieces(const json_t *root, const char *path, size_t n, const char **pieces,
                       struct kv_error *e) {
    json_t *id, *added;
    const char *piece;
    size_t i;
    for (i = 0; i < n; i++) pieces[i] = "";
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    json_object_foreach(vocab, piece, id) {
        json_int_t at = json_is_integer(id) ? json_integer_value(id) : -1;
        if (at < 0 || (size_t)at >= n || pieces[at][0])
            return kv_fail(e, KV_EFAIL, path,
                           "piece \"%.60s\" has no id of its own below the model's %zu", piece, n);
        pieces[at] = piece;
    }
    json_array_foreach(json_object_get(root, "added_tokens"), i, added) {
        json_int_t at = json_integer_value(json_object_get(added, "id"));
        piece = json_string_value(json_object_get(added, "content"));
        if (!piece || !*piece || at < 0 || !json_is_integer(json_object_get(added, "id")))
            return kv_fail(e, KV_EFAIL, path, "added token %zu has no text or no id", i);
        if (has_row(added, n) && !pieces[at][0]) pieces[at] = piece;
    }
    return KV_OK;
}

// Fills merges[i] with "left right", owned by the caller, from either spelling.
static int read_merges(const json_t *list, const char *path, char **merges, struct kv_error *e) {
    size_t i;
    json_t *merge;
    json_array_foreach(list, i, merge) {
        const char *left = json_string_value(json_array_get(merge, 0));
        const char *right = json_string_value(json_array_get(merge, 1));
        if (json_is_string(merge))
            merges[i] = kv_strdup(json_string_value(merge));
        else if (left && right)
            merges[i] = kv_format_text("%s %s", left, right);
        else
            return kv_fail(e, KV_EFAIL, path, "merge %zu is neither a text nor a pair of texts", i);
    }
    return KV_OK;
}

static bool flag(const json_t *added, const char *key) {
    return json_is_true(json_object_get(added, key));
}

// Tells the tokenizer which texts are one id; read_pieces has checked ids and texts.
static int add_tokens(struct kv_model *m, const json_t *list, struct kv_error *e) {
    size_t i, n = 0;
    json_t *one;
    struct kv_added_token *added = kv_alloc(json_array_size(list) + 1, sizeof *added);
    json_array_foreach(list, i, one) if (has_row(one, m->shape.vocab)) added[n++] =
        (struct kv_added_token){.text = json_string_value(json_object_get(one, "content")),
                                .id = (uint32_t)json_integer_value(json_object_get(one, "id")),
                                .normalized = flag(one, "normalized"),
                                .lstrip = flag(one, "lstrip"),
                                .rstrip = flag(one, "rstrip"),
                                .single_word = flag(one, "single_word")};
    int rc = kv_tokenizer_add(m->tokenizer, added, n, e);
    free(added);
    return rc;
}

int kv_huggingface_tokenizer(struct kv_model *m, const char *dir, struct kv_error *e) {
    json_t *root;
    char *path, **merges = NULL;
    const char **pieces = kv_alloc(m->shape.vocab, sizeof *pieces);
    struct kv_tokenizer_parts parts = {.pieces = pieces, .n_pieces = m->shape.vocab};
    int rc = kv_huggingface_json(&root, &path, dir, "tokenizer.json", e);
    if (!rc) rc = kv_huggingface_pipeline(root, path, &parts, m, e);
    if (!rc) rc = read_pieces(root, path, parts.n_pieces, pieces, e);
    if (rc) goto done;
    const json_t *list = json_object_get(json_object_get(root, "model"), "merges");
    parts.n_merges = json_array_size(list);
    merges = kv_alloc(parts.n_merges + 1, sizeof *merges);
    parts.merges = (const char *const *)merges;
    rc = read_merges(list, path, merges, e);
    if (rc) goto done;
    rc = kv_tokenizer_make(&m->tokenizer, &parts, e);
    if (!rc) rc = add_tokens(m, json_object_get(root, "added_tokens"), e);
    if (rc && e) snprintf(e->where, sizeof e->where, "%.190s", path);
done:
    for (size_t i = 0; i < parts.n_merges; i++) free(merges[i]);
    free(merges);
    free(pieces);
    json_decref(root);
    free(path);
    return rc;
}
