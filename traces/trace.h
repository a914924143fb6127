// SPDX-License-Identifier: Apache-2.0
// A trace: the recording of a model over items. traces/format.md is the specification of the
// folder.
//
//     struct kv_trace *t;
//     if (kv_trace_open(&t, "work/demo.trace", &e)) ...
//     const struct kv_trace_item *item = kv_trace_item(t, i);
//     ... item->tokens, item->k ...                              borrowed from the map
//     kv_trace_close(t);
//
// An opened trace is read-only and may be shared by threads.
#ifndef KV_TRACES_TRACE_H
#define KV_TRACES_TRACE_H

#include "policies/policy.h"
#include "sim/quant/format.h"

KV_BEGIN_DECLS

#define KV_TRACE_FORMAT 1

// What is kept of each token beyond ids, features and scores.
enum kv_keep {
    KV_KEEP_FINAL = 1,  // float32 final hidden state at scored positions
    KV_KEEP_KV = 2,     // K (after RoPE) and V, fp16
    KV_KEEP_Q = 4,      // Q (after RoPE), fp16
    KV_KEEP_HIDDEN = 8, // hidden state entering each layer, fp16
    KV_KEEP_SENS = 16,  // sensitivities of every cell, from the backward pass
    KV_KEEP_GRAD = 32,  // and whole gradients of each draw, bf16
    KV_KEEP_CELLS = 64, // what policies that learn a width for every cell are trained on; with KV
    KV_KEEP_ALL = 31    // all but GRAD and CELLS
};

extern const char
    *const kv_keep_names[]; // by bit: "final", "kv", "q", "hidden", "sens", "grad", "cells", NULL

// One item: a context and its choices as one token tree. Rows: the context's tokens, then choice
// after choice. Choice c covers rows [first[c], first[c + 1]); a text window has no choices. Scored
// rows are those whose next-token distribution is judged: for an item with choices the last context
// row once a choice, and each choice row but the last; for text all rows but the last, or a sample
// of them (tasks.h: score_one_in).
struct kv_trace_item {
    uint32_t index; // in the trace
    const char *id; // of the benchmark file
    const char *source;
    uint64_t key; // XXH64 of the token ids and boundaries: the same in every subset
    int32_t gold; // -1 for text
    uint32_t n_tokens, n_context, n_choices;
    const uint32_t *first; // [n_choices + 1] rows
    const uint32_t *chars,
        *bytes;                 // [n_choices] length of each choice in Unicode characters, in bytes
    const uint32_t *ids;        // [n_tokens]
    const float *features;      // [n_tokens][KV_N_FEATURES]
    const uint8_t *kinds;       // [n_tokens] enum kv_token_kind
    const float *next_logprob;  // [n_tokens] of the next token; NAN where there is none
    uint32_t n_final;           // distinct rows with a kept final hidden state
    const uint32_t *final_rows; // [n_final] ascending
    const float *final;         // [n_final][hidden] after the last norm, or NULL
    const double *score;        // [n_choices] summed log-prob; text: [1]
    const uint16_t *k, *v;      // [n_tokens][n_layers][n_kv_heads][head_dim] fp16, or NULL
    const uint16_t *q;          // [n_tokens][n_layers][n_heads][head_dim] fp16, or NULL
    // Mean and standard deviation over draws of |g|^2, g the gradient of sum log p(label) with
    // respect to the cell's key (after RoPE) or value; [n_tokens][n_layers][n_kv_heads][2], or
    // NULL.
    const float *sens, *sens_spread;
    const float
        *evict; // [n_tokens][n_layers][n_kv_heads] mean over draws of (change when evicted)^2
    const uint16_t *k_grad,
        *v_grad;            // [n_tokens][n_draws][n_layers][n_kv_heads][head_dim] bf16, or NULL
    const uint16_t *hidden; // [n_tokens][n_layers][hidden] fp16, or NULL
    // Sum over the item's tokens of the mean over draws of g_i^2, by channel (keys after RoPE):
    // [n_layers][n_kv_heads][2][head_dim]. NULL without sensitivities and in recordings that lack
    // it.
    const float *channel_gradient;
    // Of each cell, or NULL: mean over draws of sum_i g_i^2 e_i^2, e the error of coding the
    // recorded vector at 4 bits by the format that info names; [n_tokens][n_layers][n_kv_heads][2].
    const float *cells_numerator;
    // What the cell's own attention tells (enum kv_cell_feature), earlier keys exact (fp16):
    // [n_tokens][n_layers][n_kv_heads][KV_N_CELL_FEATURES], or NULL.
    const float *cells_attention;
    const uint16_t *cells_input; // [n_tokens][n_layers][hidden] fp16: the layer's normalised input
    // -log p of the token at its parent in the tree, nats; 0 for the first: [n_tokens], or NULL.
    const float *surprisal;
};

// How sensitivities were recorded: whose reads count, which positions are scored, how many label
// draws.
struct kv_adjoint_info {
    char mode[12], self[8], score[8]; // "inline", "coded", "choices"
    uint32_t draws;                   // 0 = none recorded
    uint64_t seed;
};

struct kv_trace_info {
    char digest[17]; // of the manifest: names the trace in a store
    char seal[17];   // the checksum that the manifest holds of itself; "" in older recordings
    char *path;
    struct kv_shape shape;
    enum kv_order order;
    char *model_name, *model_digest, *model_source, *weights_as;
    char *task_name, *task_path, *task_prompt, *task_digest, *subset;
    char *tokenizer_digest;
    uint32_t window_tokens; // 0 unless text
    float rope_base;
    double *rope; // [n_layers][head_dim / 2] radians a position by which RoPE turned the keys
    uint32_t
        *windows; // [n_layers] tokens that a layer's queries see, 0: all; NULL: all of them all
    struct kv_adjoint_info adjoint;
    uint32_t keep;      // enum kv_keep bits
    char *cells_format; // canonical: of the errors in cells_numerator; NULL without KV_KEEP_CELLS
    size_t n_items, n_tokens;
    char *tool_version, *blas;
    // Frobenius norms of each layer's key and value projection as the file holds them,
    // [n_layers][2]; NULL in recordings that lack them.
    float *kv_norms;
    uint32_t other_features; // KV_NEED bits of features that were recorded by another rule
};

struct kv_trace;

// Opens and checks the manifest and every shard's header; contents are checked against their
// checksums by kv_trace_verify, and, for shards below 64 MB, here too.
KV_MUST_CHECK int kv_trace_open(struct kv_trace **t, const char *dir, struct kv_error *e);
void kv_trace_close(struct kv_trace *t);
const struct kv_trace_info *kv_trace_info(const struct kv_trace *t);
// What formats must know to code its vectors; borrows from info.
struct kv_format_setting kv_trace_setting(const struct kv_trace_info *info);
const struct kv_trace_item *kv_trace_item(const struct kv_trace *t, size_t i);
// Where a row stands on its path: RoPE's position. A choice's rows follow the context's.
size_t kv_trace_position(const struct kv_trace_item *item, size_t row);
// How much a squared error of each channel weighs beside the others of its place:
// [n_layers][n_kv_heads][2][head_dim], the items' channel_gradient added up in their order (in
// double), scaled to mean 1 over the channels of a place; 1 where all are 0. Borrowed until
// kv_trace_close; summed on the first call. NULL: the recording lacks the sums.
const float *kv_trace_channels(const struct kv_trace *t);
// Whether the features in `needs` (KV_NEED bits) are what they are today. Errors: KV_EFAIL naming
// one that was recorded by another rule, and today's.
KV_MUST_CHECK int kv_trace_check_features(const struct kv_trace_info *info, uint32_t needs,
                                          struct kv_error *e);
// Compares what the trace says of its model with the model: digest, how weights are held, each
// dimension, channel order. Errors: KV_EFAIL naming what differs and both values.
struct kv_model;
KV_MUST_CHECK int kv_trace_check_model(const struct kv_trace_info *info, const struct kv_model *m,
                                       struct kv_error *e);
// Tests that what an item holds in columns that are kept always or named in `keep` (enum kv_keep
// bits) is finite: asked before an item is replayed, since large shards are not looked through on
// opening. Errors: KV_EFAIL naming item, column, layer, token and value.
KV_MUST_CHECK int kv_trace_check_item(const struct kv_trace *t, size_t i, uint32_t keep,
                                      struct kv_error *e);
// Lets the system have the memory back that reading an item's final states took, so that a replay
// of a whole recording holds no more than a few items; they can be read again at any time.
void kv_trace_item_read(const struct kv_trace *t, size_t i);
// Reads every byte, compares checksums and tests that every number is finite. The message names
// shard and both sums, or item, column, layer, token and value.
KV_MUST_CHECK int kv_trace_verify(const struct kv_trace *t, struct kv_error *e);

KV_END_DECLS

#endif
