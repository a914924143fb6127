// SPDX-License-Identifier: Apache-2.0
// Buffers of one worker, by what they hold, and the threads that share its pass (private to
// sim/model).
#ifndef KV_MODEL_SCRATCH_H
#define KV_MODEL_SCRATCH_H

#include "sim/model/forward.h"

enum kv_buffer {
    KV_BUF_X, // residual stream
    KV_BUF_NORM,
    KV_BUF_QKV,
    KV_BUF_Q,
    KV_BUF_MIXED, // attention's output, heads side by side
    KV_BUF_GATEUP,
    KV_BUF_ACT,
    KV_BUF_DELTA,
    KV_BUF_K_RAW,
    KV_BUF_K,
    KV_BUF_V,
    KV_BUF_KEYS_EXACT, // transposed
    KV_BUF_KEYS_CODED,
    KV_BUF_WEIGHTS_ROW, // softmax weights of one row
    KV_BUF_Q_SCALED,
    KV_BUF_WEIGHTS, // bf16 matrix widened
    KV_BUF_LOGITS,  // a tile of the vocabulary
    KV_BUF_REF_LOGITS,
    KV_BUF_REF_P,
    KV_BUF_REF_SUMS,
    KV_BUF_DK, // gradients of keys and values
    KV_BUF_DQ,
    KV_BUF_EVICT,
    KV_BUF_BLOCK_Q, // queries, weights and exactly read weights of a block of rows
    KV_BUF_BLOCK,
    KV_BUF_BLOCK_EXACT,
    KV_BUF_BLOCK_OUT,
    KV_BUF_BLOCK_COUNTS, // what blocks computed at once saw of attention
    KV_BUF_APART,        // rows of a product filled up to the shape that all have
    KV_N_BUFFERS
};

struct kv_scratch {
    struct {
        float *p;
        size_t n;
    } buffer[KV_N_BUFFERS];
    bool row_by_row;          // products as kv_scratch_row_by_row says
    struct kv_scratch **more; // [n_more] of the other threads of kv_scratch_share
    unsigned n_more;
};

// At least n floats; contents are lost when it grows.
float *kv_scratch_floats(struct kv_scratch *s, enum kv_buffer which, size_t n);
// Calls part(self, hand, i) for i in [0, n) on as many threads as share the scratch, each with
// buffers of its own, the caller with s itself. Returns what kv_parallel does; one part is called
// as it is, and 0 returned.
KV_MUST_CHECK int kv_scratch_parallel(struct kv_scratch *s, size_t n,
                                      void (*part)(void *self, struct kv_scratch *hand, size_t i),
                                      void *self, struct kv_error *e);

#endif
