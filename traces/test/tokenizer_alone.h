// SPDX-License-Identifier: Apache-2.0
// For tests: a model of which only the tokenizer is asked, a token a byte but for the tiny merges.
#ifndef KV_TRACES_TEST_TOKENIZER_ALONE_H
#define KV_TRACES_TEST_TOKENIZER_ALONE_H

#include "sim/model/test/model_files.h"

// *state gets the model. For a group's set-up.
static inline int tokenizer_alone(void **state, uint32_t max_tokens) {
    const struct kv_shape shape = {1, 1, 1, 8, 8, 8, N_TINY_PIECES, max_tokens};
    struct tiny_pieces pieces;
    struct kv_error e;
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_HF, true, 1);
    make_tiny_pieces(&pieces);
    *state = m;
    return kv_tokenizer_new(&m->tokenizer, pieces.text, N_TINY_PIECES, tiny_merges, N_TINY_MERGES,
                            true, &e);
}

static inline int tokenizer_gone(void **state) {
    kv_model_close(*state);
    return 0;
}

#endif
