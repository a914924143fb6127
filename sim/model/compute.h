// SPDX-License-Identifier: Apache-2.0
// What does a model's matrix products, by name: this CPU, or a GPU through an accelerator library.
#ifndef KV_MODEL_COMPUTE_H
#define KV_MODEL_COMPUTE_H

#include "sim/model/model.h"

KV_BEGIN_DECLS

enum kv_compute { KV_COMPUTE_HOST, KV_COMPUTE_CUBLAS, KV_COMPUTE_CUDA, KV_COMPUTE_CUDA_BF16 };
// Where products are made, and in which precision: of all pairs bf16 goes with cuda alone.
extern const char *const kv_compute_names[];   // "cpu", "cublas", "cuda", NULL
extern const char *const kv_precision_names[]; // "f32", "bf16", NULL

// Moves the model's products to where `how` says: the host leaves them here, cublas takes the
// library $KVSIM_CUBLAS, else libkvsim-cublas.so beside the program; cuda, in bf16 with weights and
// activations of exact replay so, takes $KVSIM_CUDA, else libkvsim-cuda.so, which runs whole passes
// of exact replay too. Errors: no such library, no device.
KV_MUST_CHECK int kv_model_compute(struct kv_model *m, enum kv_compute how, struct kv_error *e);

// What a run's arithmetic is called in stores ("cpu", "cublas", "cuda", "cuda-bf16", or as an
// accelerator names itself), and what does its products; NULL = a run without a model.
const char *kv_compute_name(const struct kv_model *m);
const char *kv_compute_blas(const struct kv_model *m);

KV_END_DECLS

#endif
