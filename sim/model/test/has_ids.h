// SPDX-License-Identifier: Apache-2.0
// For tests: HAS(text, id, ...) holds that the tokenizer of a model `m` gives these ids.
#ifndef KV_MODEL_TEST_HAS_IDS_H
#define KV_MODEL_TEST_HAS_IDS_H

#include <stdlib.h>
#include <string.h>

#include "sim/model/model.h"

static inline void has_ids(const struct kv_model *m, const char *text, const uint32_t *expected,
                           size_t n) {
    uint32_t *ids = NULL;
    size_t got;
    struct kv_error e;
    assert_int_equal(kv_tokenizer_encode(m->tokenizer, text, strlen(text), &ids, &got, &e), 0);
    for (size_t i = 0; i < n && i < got; i++)
        if (ids[i] != expected[i])
            fail_msg("\"%s\": id %zu is %u, not %u", text, i, ids[i], expected[i]);
    assert_int_equal(got, n);
    free(ids);
}
#define HAS(text, ...)                                                                             \
    has_ids(&m, text, (const uint32_t[]){__VA_ARGS__},                                             \
            sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

#endif
