// SPDX-License-Identifier: Apache-2.0
// Options that several commands read alike: a range of a trace's items, the model of a trace.
#ifndef KV_CLI_OPENING_H
#define KV_CLI_OPENING_H

#include "sim/cli/options.h"
#include "sim/model/model.h"
#include "traces/trace.h"

// Reads option `name`, "A-B" counted from 0, of a trace with n_items; without it *first and *n stay
// as they are. KV_EUSAGE says what is expected.
KV_MUST_CHECK int kv_opt_items(const struct kv_cli *c, const char *name, size_t n_items,
                               size_t *first, size_t *n, struct kv_error *e);

// The model file named, else $KVSIM_MODEL, else the only file data/*.gguf; NULL when there is none.
// Caller frees.
char *kv_model_path(const char *given);

// Opens the model that exact replay of a trace runs: by kv_model_path of --model;
// its products run where --compute says. KV_EUSAGE when there is none.
KV_MUST_CHECK int kv_opt_model(const struct kv_cli *c, const struct kv_trace_info *info,
                               struct kv_model **m, struct kv_error *e);

// Moves the model's products to where --compute says: "f32" here, "cublas" on a GPU, by the library
// $KVSIM_CUBLAS, else libkvsim-cublas.so beside the program.
KV_MUST_CHECK int kv_opt_compute(const struct kv_cli *c, struct kv_model *m, struct kv_error *e);
// What a run's arithmetic is called, and what does its products.
const char *kv_compute_name(const struct kv_model *m);
const char *kv_compute_blas(const struct kv_model *m);

#define KV_COMPUTE_OPTION                                                                          \
    {                                                                                              \
        "compute", 0, "HOW", "f32",                                                                \
            "matrix products: f32 on this CPU, or cublas on a GPU (`make cuda`)"                   \
    }

#endif
