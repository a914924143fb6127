// SPDX-License-Identifier: Apache-2.0
// Files of a Hugging Face folder that are JSON.
#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/model/huggingface.h"

char *kv_huggingface_path(const char *dir, const char *file) {
    size_t n = strlen(dir);
    return kv_format_text("%s%s%s", dir, n > 0 && dir[n - 1] == '/' ? "" : "/", file);
}

int kv_huggingface_json(json_t **root, char **path, const char *dir, const char *file,
                        struct kv_error *e) {
    *path = kv_huggingface_path(dir, file);
    char *text = NULL;
    size_t n = 0;
    *root = NULL;
    int rc = kv_read_file(*path, &text, &n, e);
    if (rc) return rc;
    json_error_t bad;
    *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &bad);
    const char *kind = *root ? NULL : kv_file_kind(text, n, NULL);
    bool is_json = n > 0 && (text[strspn(text, " \t\r\n")] == '{');
    free(text);
    if (kind && !is_json) return kv_fail(e, KV_EFAIL, *path, "this is not JSON: %s", kind);
    if (!*root)
        return kv_fail(e, KV_EFAIL, *path, "this is not JSON: %.160s at line %d, byte %d", bad.text,
                       bad.line, bad.position);
    if (!json_is_object(*root))
        return kv_fail(e, KV_EFAIL, *path, "a JSON object was expected at byte 0");
    return KV_OK;
}

int kv_json_count(const json_t *object, const char *path, const char *key, bool optional,
                  uint32_t *x, struct kv_error *e) {
    const json_t *v = json_object_get(object, key);
    if (!v || json_is_null(v))
        return optional ? KV_OK : kv_fail(e, KV_EFAIL, path, "the key %s is missing", key);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > UINT32_MAX)
        return kv_fail(e, KV_EFAIL, path, "%s should be a whole number that fits 32 bits", key);
    *x = (uint32_t)json_integer_value(v);
    return KV_OK;
}

int kv_json_positive(const json_t *object, const char *path, const char *key, float *x,
                     struct kv_error *e) {
    const json_t *v = json_object_get(object, key);
    if (!v || json_is_null(v)) return KV_OK;
    double value = json_number_value(v);
    if (!json_is_number(v) || !(value > 0) || value > 3e38)
        return kv_fail(e, KV_EFAIL, path, "%s should be a positive number", key);
    *x = (float)value;
    return KV_OK;
}
