// SPDX-License-Identifier: Apache-2.0
// One layer of a forward pass in steps, which going back over a thrifty tape takes again (private
// to sim/model): project, attend, add what was mixed, gate and up, down.
#ifndef KV_MODEL_LAYER_H
#define KV_MODEL_LAYER_H

#include <math.h>

#include "sim/model/paths.h"

// A sequence of up to KV_AT_ONCE_TOKENS (a window of 2,048 behind BOS) is computed whole: a product
// covers all its rows, a query attends by itself. A longer one goes through the products by chunks
// of rows and through attention by blocks of queries, so that nothing of tokens x tokens, nor of
// tokens x the feed-forward width, is ever held. Both sizes are fixed: bits depend on them.
enum { KV_AT_ONCE_TOKENS = 2049, KV_CHUNK_ROWS = 1024, KV_BLOCK_ROWS = 32 };

struct kv_layer_run {
    const struct kv_model *m;
    const struct kv_forward *job;
    uint32_t layer;
    struct kv_tape_layer *tape; // what is kept for the way back; NULL: nothing
    struct kv_paths at;
    struct kv_layer_view view;
    const float *q;  // [rows][n_heads * d], unscaled
    float *out;      // [rows][n_heads * d]
    float *k_t[2];   // transposed keys, exact and coded: [n_kv_heads][d][ld]
    float *weights;  // [group][ld_w]
    float *q_scaled; // [group][d]
    uint8_t *masked; // [longest path]
    bool by_blocks;  // the sequence is longer than KV_AT_ONCE_TOKENS; then also:
    struct kv_scratch *scratch;
};
// Sets paths and takes buffers of the scratch for m and job, which are set.
void kv_layer_run_init(struct kv_layer_run *p, struct kv_scratch *s);
void kv_layer_run_fini(struct kv_layer_run *p);

// How many of the rows that are left a product covers.
static inline size_t kv_layer_rows(const struct kv_layer_run *p, size_t left) {
    return p->by_blocks && left > KV_CHUNK_ROWS ? KV_CHUNK_ROWS : left;
}

// Attention of the context rows [from, to) in a sequence that goes by blocks. (blocks.c)
KV_MUST_CHECK int kv_layer_attend_blocks(struct kv_layer_run *p, uint32_t from, uint32_t to,
                                         struct kv_error *e);

// Buffers of the scratch for n tokens' keys and values.
struct kv_layer_kv kv_layer_take_kv(const struct kv_model *m, size_t n, struct kv_scratch *s);

// What a query is multiplied by after RoPE, so that scores are its products with keys over
// sqrt(head_dim) whatever the model's own scale.
static inline float kv_query_gain(const struct kv_model *m) {
    float usual = 1.0f / sqrtf((float)m->shape.head_dim);
    return m->attn_scale == usual ? 1.0f : m->attn_scale / usual;
}

// Threads share these where a sequence goes by blocks (kv_scratch_share), and such a pass ends with
// KV_EINTR when it is interrupted; else they return 0.

// Q, K and V of the rows computed, from x entering the layer.
KV_MUST_CHECK int kv_layer_project(const struct kv_layer_run *p, const float *x, size_t rows,
                                   float *q, struct kv_layer_kv *kv, struct kv_scratch *s,
                                   struct kv_error *e);
// p->out from p->q and the view (attention.c). Returns what the job's `age` returns if that fails.
KV_MUST_CHECK int kv_layer_attend(struct kv_layer_run *p, struct kv_error *e);
// Attention's output onto the residual stream.
KV_MUST_CHECK int kv_layer_add_mixed(const struct kv_layer_run *p, const float *mixed, size_t rows,
                                     float *x, struct kv_scratch *s, struct kv_error *e);
// The feed-forward part of all rows onto the residual stream. up: [rows][2 ffn] where the products
// of a taped pass stay; NULL: in the scratch.
KV_MUST_CHECK int kv_layer_feed_forward(const struct kv_layer_run *p, float *up, size_t rows,
                                        float *x, struct kv_scratch *s, struct kv_error *e);

// One thread's:
// [rows][2 ffn], gate and up side by side.
void kv_layer_gate_up(const struct kv_layer_run *p, const float *x, size_t rows, float *up,
                      struct kv_scratch *s);
// What of the feed-forward part is added to the residual stream, [rows][hidden], before its norm.
void kv_layer_down(const struct kv_layer_run *p, const float *up, size_t rows, float *delta,
                   struct kv_scratch *s);

// Of n weights of one query.
static inline double kv_variance_of(const float *w, size_t n) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)w[i];
        squares += (double)w[i] * (double)w[i];
    }
    double mean = sum / (double)n;
    return squares / (double)n - mean * mean;
}

#endif
