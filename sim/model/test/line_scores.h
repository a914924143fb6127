// SPDX-License-Identifier: Apache-2.0
// For tests: what a model gives each token of a plain sequence, nothing coded.
#ifndef KV_MODEL_TEST_LINE_SCORES_H
#define KV_MODEL_TEST_LINE_SCORES_H

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/forward.h"

static inline int read_all_exact(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                                 struct kv_layer_view *view, struct kv_error *e) {
    (void)self, (void)layer, (void)e;
    *view = (struct kv_layer_view){.k_exact = kv->k, .v_exact = kv->v};
    return 0;
}

// logprob[n - 1]: of token i + 1 after tokens 0 .. i, in nats.
static inline int score_line(const struct kv_model *m, const uint32_t *ids, uint32_t n,
                             double *logprob, struct kv_error *e) {
    struct kv_scratch *s = kv_scratch_new();
    float *final = kv_alloc((size_t)n * m->shape.hidden, sizeof *final);
    struct kv_tree tree = {.n_tokens = n, .n_context = n, .ids = ids};
    int rc = kv_forward(
        m, &(struct kv_forward){.tree = &tree, .store = read_all_exact, .final = final}, s, e);
    size_t most = kv_head_rows(m);
    for (size_t at = 0, rows; !rc && at + 1 < n; at += rows) {
        struct kv_reference r;
        rows = n - 1 - at < most ? n - 1 - at : most;
        kv_head_reference(m, final + at * m->shape.hidden, rows, s, &r);
        for (size_t i = 0; i < rows; i++)
            logprob[at + i] = kv_reference_logprob(m, &r, i, ids[at + i + 1]);
    }
    free(final);
    kv_scratch_free(s);
    return rc;
}

#endif
