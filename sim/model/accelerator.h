// SPDX-License-Identifier: Apache-2.0
// Matrix products on other hardware: a shared library that holds a model's weights and multiplies.
// Everything else of a run (norms, attention, formats, scores) stays where it is. One model at a
// time.
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

#define KV_ACCELERATOR_ABI 1

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
};
// What the library exports under the name kv_accelerator_entry; NULL: not this ABI.
typedef const struct kv_accelerator *kv_accelerator_entry_fn(uint32_t abi);

struct kv_model;
struct kv_error;
// Loads the library, starts it and hands it the model's weights; products of the model run there
// from now on. Errors: no such library, another ABI, no device, weights not held as float32.
int kv_accelerator_open(struct kv_model *m, const char *path, struct kv_error *e);

#endif
