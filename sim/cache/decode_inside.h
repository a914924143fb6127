// SPDX-License-Identifier: Apache-2.0
// The decoder's insides, shared by what makes it (decode_new.c) and its steps (decode.c).
#ifndef KV_CACHE_DECODE_INSIDE_H
#define KV_CACHE_DECODE_INSIDE_H

#include "sim/cache/decode.h"
#include "sim/cache/team.h"

// What a thread computes for itself: the residual stream, its normed copy, partial attention.
struct lane {
    float *x, *normed, *context;
    struct kv_activation act;
    struct kv_partial partial;
};

struct kv_decoder {
    struct kv_decoder_setting s;
    struct kv_team *team;
    unsigned n_threads;
    struct layer {
        float *attn_norm, *ffn_norm;
        float *vector[KV_N_MATRICES]; // those from KV_M_QKV_BIAS on that the model has
        struct kv_weights qkv, out, gateup, down;
    } * layers;
    float *final_norm;
    struct kv_weights head;
    float *qkv, *y, *ffn, *gate, *up, *logits; // shared; a phase writes rows, a barrier, all read
    float *cos, *sin;
    struct lane *lanes;
    struct kv_partial *partials; // [n_threads], and the token's own
    float *features;             // of each worker: [n_kv_heads][KV_N_CELL_FEATURES]
    uint8_t *widths;             // [n_kv_heads][2]
    // the call in progress
    struct kv_cache *cache;
    const uint8_t *bits;
    const float *embedding;
    size_t n_steps;
    bool keep;
    struct kv_step_time *times;
    double entropy, confidence;
};

#endif
