// SPDX-License-Identifier: Apache-2.0
// How policy cells holds its budget along a sequence: what a bit costs at the next token, by what
// the tokens before it have taken. Plain numbers, which a GPU reads as they are.
#ifndef KV_POLICIES_CELLS_HOLD_H
#define KV_POLICIES_CELLS_HOLD_H

#include "policies/cells_weights.h"

#ifdef __CUDACC__
#define KV_CELLS_ANYWHERE __host__ __device__ static inline
#else
#define KV_CELLS_ANYWHERE static inline
#endif

enum { KV_CELLS_PAGE_TOKENS = 64 }; // how far hold=hard lets a layer's bits run ahead

struct kv_cells_hold {
    bool held, hard; // lambda moves along a sequence; a row's bits are bounded, too
    uint32_t n_layers;
    double gain, scale, lambda[KV_CELLS_STEPS]; // of each step of a sequence
    const double *share;                        // [KV_CELLS_STEPS][n_layers] bits a value
};

// What a layer remembers along a sequence; zeros at its start.
struct kv_cells_memory {
    double log_lambda;  // moves against the start
    double bits, ahead; // a value, summed over tokens; and beyond the layer's share
    uint32_t tokens;
};

KV_CELLS_ANYWHERE uint32_t kv_cells_step(uint32_t tokens) {
    uint32_t step = tokens / KV_CELLS_STEP_TOKENS;
    return step < KV_CELLS_STEPS ? step : KV_CELLS_STEPS - 1;
}

// Lambda of the next token.
KV_CELLS_ANYWHERE double kv_cells_price(const struct kv_cells_hold *b,
                                        const struct kv_cells_memory *m) {
    return b->scale * b->lambda[kv_cells_step(m->tokens)] * exp(m->log_lambda);
}

// Bits a value that the next token may take of a layer where hold=hard bounds them.
KV_CELLS_ANYWHERE double kv_cells_most_bits(const struct kv_cells_hold *b,
                                            const struct kv_cells_memory *m, uint32_t layer) {
    double last = b->share[(KV_CELLS_STEPS - 1) * b->n_layers + layer];
    return last * (m->tokens + 1 + KV_CELLS_PAGE_TOKENS) - m->bits;
}

// Counts a token's bits. After every step, log lambda stands off its start by what the sequence has
// taken beyond its share: a bit a value is about 1.6 in log lambda.
KV_CELLS_ANYWHERE void kv_cells_count(const struct kv_cells_hold *b, struct kv_cells_memory *m,
                                      uint32_t layer, double bits) {
    m->ahead += bits - b->share[kv_cells_step(m->tokens) * b->n_layers + layer];
    m->bits += bits;
    m->tokens++;
    if (b->held && m->tokens % KV_CELLS_STEP_TOKENS == 0)
        m->log_lambda = fmin(fmax(b->gain * m->ahead / KV_CELLS_STEP_TOKENS, -8.0), 8.0);
}

#endif
