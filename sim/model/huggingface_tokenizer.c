// SPDX-License-Identifier: Apache-2.0
// The tokenizer.json of a Hugging Face folder, as https://github.com/huggingface/tokenizers writes
// it. Steps that are not computed as the file says are refused by name.
#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/huggingface.h"
#include "sim/model/model.h"

static const char *type_of(const json_t *step) {
    const char *type = json_string_value(json_object_get(step, "type"));
    return type ? type : "not stated";
}

// Accepts ByteLevel with GPT-2's pattern, alone or after Digits one by one.
static int read_pre_tokenizer(const json_t *pre, const char *path, bool *split_digits,
                              struct kv_error *e) {
    const json_t *steps = json_object_get(pre, "pretokenizers");
    size_t n = steps ? json_array_size(steps) : 1;
    bool byte_level = false;
    *split_digits = false;
    for (size_t i = 0; i < n; i++) {
        const json_t *step = steps ? json_array_get(steps, i) : pre;
        const char *type = type_of(step);
        if (strcmp(type, "Digits") == 0 && !byte_level &&
            json_is_true(json_object_get(step, "individual_digits")))
            *split_digits = true;
        else if (strcmp(type, "ByteLevel") == 0 && i + 1 == n &&
                 !json_is_true(json_object_get(step, "add_prefix_space")) &&
                 !json_is_false(json_object_get(step, "use_regex")))
            byte_level = true;
        else
            return kv_fail(e, KV_EFAIL, path,
                           "pre_tokenizer step %zu (%.60s) is not read; supported: Digits one by "
                           "one, then ByteLevel with its own pattern and no added space",
                           i + 1, type);
    }
    return byte_level ? KV_OK
                      : kv_fail(e, KV_EFAIL, path, "the pre_tokenizer lacks its ByteLevel step");
}

static int check_tokenizer(const json_t *root, const char *path, struct kv_error *e) {
    const json_t *model = json_object_get(root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (type && strcmp(type, "BPE") != 0)
        return kv_fail(e, KV_EFAIL, path, "the tokenizer's model is %.60s; only BPE is read", type);
    if (kv_json_is_set(model, "byte_fallback") || kv_json_is_set(model, "ignore_merges"))
        return kv_fail(e, KV_EFAIL, path,
                       "model.byte_fallback or model.ignore_merges is set, which is not computed");
    if (kv_json_is_set(root, "normalizer"))
        return kv_fail(e, KV_EFAIL, path, "the normalizer %.60s is not computed",
                       type_of(json_object_get(root, "normalizer")));
    const json_t *post = json_object_get(root, "post_processor");
    if (kv_json_is_set(root, "post_processor") && strcmp(type_of(post), "ByteLevel") != 0)
        return kv_fail(e, KV_EFAIL, path,
                       "the post_processor %.60s adds tokens, but texts are scored without",
                       type_of(post));
    return KV_OK;
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
        if (!piece || at < 0 || (size_t)at >= n)
            return kv_fail(e, KV_EFAIL, path, "added token %zu has no text or no id below %zu", i,
                           n);
        if (!pieces[at][0]) pieces[at] = piece;
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
    size_t i, n = json_array_size(list);
    json_t *one;
    struct kv_added_token *added = kv_alloc(n + 1, sizeof *added);
    json_array_foreach(list, i, one) added[i] =
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
    bool split_digits = false;
    size_t n_merges = 0;
    const char **pieces = kv_alloc(m->shape.vocab, sizeof *pieces);
    int rc = kv_huggingface_json(&root, &path, dir, "tokenizer.json", e);
    if (rc) goto done;
    rc = check_tokenizer(root, path, e);
    if (!rc)
        rc = read_pre_tokenizer(json_object_get(root, "pre_tokenizer"), path, &split_digits, e);
    if (!rc) rc = read_pieces(root, path, m->shape.vocab, pieces, e);
    if (rc) goto done;
    const json_t *list = json_object_get(json_object_get(root, "model"), "merges");
    n_merges = json_array_size(list);
    merges = kv_alloc(n_merges + 1, sizeof *merges);
    rc = read_merges(list, path, merges, e);
    if (rc) goto done;
    rc = kv_tokenizer_new(&m->tokenizer, pieces, m->shape.vocab, (const char *const *)merges,
                          n_merges, split_digits, e);
    if (!rc) rc = add_tokens(m, json_object_get(root, "added_tokens"), e);
    if (rc && e) snprintf(e->where, sizeof e->where, "%.190s", path);
done:
    for (size_t i = 0; i < n_merges; i++) free(merges[i]);
    free(merges);
    free(pieces);
    json_decref(root);
    free(path);
    return rc;
}
