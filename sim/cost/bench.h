// SPDX-License-Identifier: Apache-2.0
// Decode runs of a model on this machine, at several kinds of weights and numbers of threads.
//
//     struct kv_bench_model m;
//     if (kv_bench_shape(&m, "135m", &e)) ...            or kv_bench_open, of a model's own weights
//     struct kv_bench b = {.grid = {.contexts = ...}, .weights = kinds, .n_weights = 1, ...};
//     int rc = kv_bench_run(&b, &m, runs, &e);
//     kv_bench_close(&m);
#ifndef KV_COST_BENCH_H
#define KV_COST_BENCH_H

#include "sim/cost/timing.h"

struct kv_model;

// What is measured: a model, or seeded weights of its shape.
struct kv_bench_model {
    const char *shape_name; // "" for a shape without a name
    struct kv_decoder_setting decoder;
    struct kv_model *model; // NULL = seeded weights
    double *angles;         // what the decoder's setting points to
    uint32_t *windows;
};
// Seeded weights of a shape named as in kv_shape_named. KV_EUSAGE names the known ones.
KV_MUST_CHECK int kv_bench_shape(struct kv_bench_model *m, const char *name, struct kv_error *e);
// How a decoder runs an opened model, whose weights it borrows; close it as the others.
void kv_bench_of(struct kv_bench_model *b, const struct kv_model *m);
// The weights of a GGUF file or Hugging Face folder, to be stored as `kinds` [n] say: they come by
// way of bf16, at half the memory, unless one of these is f32.
KV_MUST_CHECK int kv_bench_open(struct kv_bench_model *m, const char *path,
                                const enum kv_weight_kind *kinds, size_t n, struct kv_error *e);
void kv_bench_close(struct kv_bench_model *m);

// A kind of weights by its name. KV_EUSAGE names the known ones.
KV_MUST_CHECK int kv_bench_weights(enum kv_weight_kind *kind, const char *name, struct kv_error *e);

struct kv_bench {
    struct kv_timing grid; // contexts, mixes, format, rounds and steps; the rest is filled in
    bool features;         // also compute the entropy and confidence that a policy reads
    const enum kv_weight_kind *weights;
    const uint32_t *threads;
    size_t n_weights, n_threads;
    double policy_ns; // what a policy decides in, added to every step; 0 = none
};
// Measures every kind of weights at every number of threads and appends the runs to *runs; the
// bandwidth noted there is that of the first number of threads. Errors: those of kv_timing_run.
KV_MUST_CHECK int kv_bench_run(const struct kv_bench *b, const struct kv_bench_model *m,
                               struct kv_runs *runs, struct kv_error *e);

// Says so when other programs took cores away too often for the runs to be this machine's.
void kv_bench_warn_if_busy(const struct kv_runs *runs);

#endif
