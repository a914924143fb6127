// SPDX-License-Identifier: Apache-2.0
// Matrix products on other hardware: a shared library that holds a model's weights and multiplies.
// Everything else of a run (norms, attention, formats, scores) stays where it is, but for the way
// back of a recording, which a library may offer whole. One model at a time.
//
//     if (kv_accelerator_open(model, "build/libkvsim-cublas.so", &e)) ...
//     ... kv_forward, kv_adjoint as before ...
//     kv_model_close(model);                                       lets go of it
//
// Sums come in the library's own order: another draw of rounding noise, as a run on another BLAS.
#ifndef KV_MODEL_ACCELERATOR_H
#define KV_MODEL_ACCELERATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KV_ACCELERATOR_ABI 2

// ---- the way back (adjoint.h) -------------------------------------------------------------------

// A layer on the way back: arrays of the host, NULL where the model has none. Matrices are held.
struct kv_back_layer {
    const float *attn_norm, *q_norm, *k_norm, *attn_post_norm, *ffn_norm, *ffn_post_norm;
    const float *qkv, *out, *gateup, *down;
    const float *turn; // [n_positions][head_dim / 2][2] cosine and sine of its RoPE
    uint32_t window;
    // Of the tape: kv_tape_layer's.
    const float *x, *q, *k, *v, *middle, *gateup_out, *q_raw, *k_raw, *attn_delta, *ffn_delta;
};
// All draws of one item: kv_adjoint's job in plain arrays.
struct kv_back_job {
    uint32_t rows, n_context, n_draws, n_positions;
    uint32_t n_layers, n_heads, n_kv_heads, head_dim, hidden, ffn;
    bool half_split, gelu; // order of channels in a head; the gate
    float rms_eps, query_gain;
    const uint32_t *position,
        *begin;                  // [rows]; begin: the first row of its choice, 0 in the context
    const uint32_t *counted;     // [rows] or NULL
    const float *d_final;        // [n_draws][rows][hidden]
    const float *x, *final_norm; // leaving the last layer
    // Fills in a layer; what it points to stays until the next call. Last layer first.
    void (*layer)(void *layer_self, uint32_t l, struct kv_back_layer *to);
    void *layer_self;
    void (*take)(void *self, size_t draw, uint32_t layer, const float *dk, const float *dv,
                 const float *d_evict); // as kv_adjoint's
    void *self;
};
enum { KV_BACK_TOO_LONG = 2 }; // nothing was taken: the item's matrices would not fit

// ---- the library
// ----------------------------------------------------------------------------------

struct kv_accelerator {
    uint32_t abi;
    const char *name;     // "cublas": a run's arithmetic is named by it
    const char *hardware; // "NVIDIA H100 80GB HBM3, cuBLAS 13.1"; set by start
    size_t tile_rows;     // rows of the vocabulary that one product of the output head covers
    // Fills `why` and returns non-zero when there is no device that can be used.
    int (*start)(char *why, size_t room);
    // Copies a weight matrix of n floats. It stays where it is, and is named by its address, until
    // stop. Not from several threads at once; non-zero: out of memory.
    int (*hold)(const float *w, size_t n);
    // y[rows][n] = x[rows][k] w[n][k]^T (transposed), or x[rows][k] w[k][n]; float32, w inside what
    // was held. From any thread; non-zero with `why` filled when the device fails.
    int (*multiply)(bool transposed, size_t rows, size_t n, size_t k, const float *x,
                    const float *w, float *y, char *why, size_t room);
    void (*stop)(void);
    // Optional: goes back over an item. From any thread; KV_BACK_TOO_LONG, or another non-zero with
    // `why` filled when the device fails.
    int (*back)(const struct kv_back_job *job, char *why, size_t room);
};
// What the library exports under the name kv_accelerator_entry; NULL: not this ABI.
typedef const struct kv_accelerator *kv_accelerator_entry_fn(uint32_t abi);

struct kv_model;
struct kv_error;
// Loads the library, starts it and hands it the model's weights; products of the model run there
// from now on. Errors: no such library, another ABI, no device, weights not held as float32.
int kv_accelerator_open(struct kv_model *m, const char *path, struct kv_error *e);

#endif
