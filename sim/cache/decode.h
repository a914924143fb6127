// SPDX-License-Identifier: Apache-2.0
// Whole decode steps at batch 1 over the packed cache, with the time each part takes.
//
//     struct kv_decoder *d;
//     if (kv_decoder_new(&d, &(struct kv_decoder_setting){.shape = s, .weights = KV_W_Q4, ...},
//     &e)) kv_decoder_steps(d, cache, bits, 5, x, times, NULL);      five steps at the same context
//     kv_decoder_free(d);
//
// A Llama layer: RMS norm, Q K V, RoPE, append, attention, output, RMS norm, SwiGLU; then the head.
// Biases, norms of heads and after parts, GeGLU and windows where the model has them.
#ifndef KV_CACHE_DECODE_H
#define KV_CACHE_DECODE_H

#include "sim/cache/controller.h"
#include "sim/cache/gemv.h"
#include "sim/cache/part.h"
#include "sim/quant/format.h"

enum kv_decoder_matrix {
    KV_M_ATTN_NORM, // one row of hidden
    KV_M_QKV,       // (n_heads + 2 n_kv_heads) head_dim rows of hidden
    KV_M_OUT,       // hidden rows of n_heads head_dim
    KV_M_FFN_NORM,
    KV_M_GATEUP, // 2 ffn rows of hidden: gate, then up
    KV_M_DOWN,   // hidden rows of ffn
    KV_M_FINAL_NORM,
    KV_M_HEAD, // vocab rows of hidden
    // Vectors, one row each, that some models have.
    KV_M_QKV_BIAS,
    KV_M_OUT_BIAS,
    KV_M_GATEUP_BIAS,
    KV_M_DOWN_BIAS,
    KV_M_Q_NORM, // head_dim: of each head before RoPE
    KV_M_K_NORM,
    KV_M_ATTN_POST_NORM, // hidden: of what attention adds to the residual stream
    KV_M_FFN_POST_NORM,
    KV_N_MATRICES
};

// Hands out rows [first, first + n) of a matrix; called by several threads.
struct kv_matrix_rows {
    void *self;
    void (*rows)(void *self, enum kv_decoder_matrix m, uint32_t layer, size_t first, size_t n,
                 float *out);
};

struct kv_decoder_setting {
    struct kv_shape shape;
    enum kv_order order; // of RoPE's pairs
    float rms_eps, rope_base;
    // Where a model differs from a Llama of its shape; zeros where it does not.
    uint32_t vectors;        // bit m: it has the vector m, KV_M_QKV_BIAS or a later one
    bool gelu;               // GeGLU (tanh) for SwiGLU
    float query_gain;        // of queries after RoPE; 0: 1
    const double *angles;    // [n_layers][head_dim / 2] radians a position; NULL: by rope_base
    float rope_gain;         // of what RoPE turns; 0: 1
    const uint32_t *windows; // [n_layers]: of a cache for it (kv_cache_setting)
    enum kv_weight_kind weights;
    unsigned n_threads;
    bool features; // compute what an entropy policy reads from the logits
    // Decides the widths of each token's cells, layer by layer; NULL: they are given. Its cache
    // varies by layer and head.
    const struct kv_controller *controller;
    // NULL rows = seeded noise of the true sizes: a step's time does not depend on the values.
    struct kv_matrix_rows source;
};

struct kv_step_time {
    double step_ns, part_ns[KV_N_PARTS];
    bool disturbed; // the system took a core away from the calling thread meanwhile
};

struct kv_decoder;

// Errors: KV_EFAIL for shapes that packed weights cannot hold, KV_ENOMEM before memory runs out.
KV_MUST_CHECK int kv_decoder_new(struct kv_decoder **d, const struct kv_decoder_setting *s,
                                 struct kv_error *e);
void kv_decoder_free(struct kv_decoder *d);
// Another controller from the next steps on, or none (NULL).
void kv_decoder_control(struct kv_decoder *d, const struct kv_controller *c);
size_t kv_decoder_weight_bytes(const struct kv_decoder *d);
unsigned kv_decoder_threads(const struct kv_decoder *d);

// n steps, each of which appends a token at `bits` [streams][2] (NULL with a controller) with
// embedding x [hidden], attends over everything and forgets the token again, so that each has the
// same context. keep: the last step's token stays. logits [vocab] of the last step, or NULL.
void kv_decoder_steps(struct kv_decoder *d, struct kv_cache *cache, const uint8_t *bits, size_t n,
                      const float *x, struct kv_step_time *times, bool keep, float *logits);

// Streaming read of a buffer of `bytes` by all threads, n times: bytes per ns each.
void kv_decoder_bandwidth(struct kv_decoder *d, size_t bytes, size_t n, double *bytes_per_ns);
// Time of an empty barrier.
double kv_decoder_barrier_ns(struct kv_decoder *d);

#endif
