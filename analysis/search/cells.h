// SPDX-License-Identifier: Apache-2.0
// How sensitive a cache cell is, learned: gamma deviance regression on what is known when it is
// coded (after an independent study of widths by cell). A place is a (layer, KV head, K or V); of
// cell c at place p
//
//     log s = log mean s[p] + f,
//     f = bias[p] + linear[p] . x + net([x, embedding[p]]) + probe[p] . h
//
// with x the standardised features, h the layer's normalised input, net = Linear, SiLU, Linear,
// SiLU, Linear, one for all places. What is fitted is f, by the mean of t exp(-f) + f, t = s / mean
// s[p]: its least is where exp(f) is the mean of t, however noisy the draws of s are; squared error
// of log s would be biased.
//
//     struct kv_cells_model *m = kv_cells_new(&shape, seed);
//     struct kv_cells_options o;   kv_cells_defaults(&o);
//     if (kv_cells_fit(m, &data, learns, n_learns, &o, &e) == 0)
//         ... kv_cells_predict(m, &data, &rows, jobs, f, &e) ...
//     kv_cells_free(m);
#ifndef KV_ANALYSIS_SEARCH_CELLS_H
#define KV_ANALYSIS_SEARCH_CELLS_H

#include "policies/cells_weights.h"

struct kv_cells_shape {
    uint32_t n_layers, n_kv_heads;
    uint32_t hidden;      // numbers of a layer's input; 0: no probe
    uint32_t n_attention; // features of the cell's own attention: KV_N_CELL_FEATURES or 0
    uint32_t n_token;     // features of its token
    uint32_t net;         // units of each hidden layer; 0: no net
};

static inline size_t kv_cells_places(const struct kv_cells_shape *s) {
    return (size_t)s->n_layers * s->n_kv_heads * 2;
}
static inline size_t kv_cells_features_of(const struct kv_cells_shape *s) {
    return (size_t)s->n_attention + s->n_token;
}

// Places P = n_layers * n_kv_heads * 2, place = (layer * n_kv_heads + head) * 2 + side. All point
// into `parameter`; those of parts that the shape lacks are NULL.
struct kv_cells_model {
    struct kv_cells_shape shape;
    size_t n;         // parameters
    size_t probe_at;  // index of the probe's first, which come last
    float *parameter; // owned
    float *bias;      // [P] what f begins with
    float *linear;    // [P][n_x], x = attention features, then the token's
    float *embedding; // [P][KV_CELLS_EMBEDDING]
    float *weight[3]; // [net][n_x + KV_CELLS_EMBEDDING], [net][net], [1][net]
    float *offset[3]; // [net], [net], [1]
    float *probe;     // [P][hidden]
};

// Borrowed arrays over tokens 0 .. n_tokens - 1.
struct kv_cells_data {
    size_t n_tokens;
    const float *target;           // [n_tokens][P] t; negative: this cell is left out
    const float *attention;        // [n_tokens][n_layers][n_kv_heads][n_attention], standardised
    const float *token;            // [n_tokens][n_token], standardised
    const uint16_t *const *hidden; // [n_tokens] -> [n_layers][hidden] fp16
    const float *weight;           // [n_tokens] what a token counts in the loss; NULL: 1
};

// Tokens that are asked for, and from which token each part of their features is taken: the same,
// or another, where it is asked what a group of features is worth. Token features below `split`
// come from low, the others from high.
struct kv_cells_rows {
    size_t n;
    const uint32_t *token;                          // [n]
    const uint32_t *attention, *low, *high, *probe; // [n]; NULL: as token
    size_t split;
};

struct kv_cells_options {
    double rate, probe_rate; // Adam's first step, of all but the probe and of the probe
    double clip;             // norm that a gradient is scaled down to
    uint32_t passes, batch;  // over the tokens; tokens a step, drawn with replacement
    uint64_t window_bytes;   // of h that one window of draws spans, so that a disk is read in order
    uint64_t seed;
    unsigned jobs;
};

// Rate 3e-3, of the probe 2e-4, clip 1, 14 passes, 2,048 tokens a step, windows of 4 GiB.
void kv_cells_defaults(struct kv_cells_options *o);

// A model before training: f = 0 everywhere. Embedding 0.1 N(0, 1), layers below the last uniform
// in +-1 / sqrt(inputs), all else 0.
struct kv_cells_model *kv_cells_new(const struct kv_cells_shape *s, uint64_t seed);
void kv_cells_free(struct kv_cells_model *m); // NULL is fine

// Fits f on the given tokens, which ascend as they lie in the recording: Adam (Kingma and Ba 2015)
// with a cosine schedule down to 0, f clipped to +-12 in the loss. Each step's gradient is summed
// over chunks of 128 tokens in their order, so the weights depend on seed and data and not on jobs.
// Errors: no tokens, options out of range; KV_EFAIL when the loss is no longer finite; KV_EINTR.
KV_MUST_CHECK int kv_cells_fit(struct kv_cells_model *m, const struct kv_cells_data *d,
                               const uint32_t *learns, size_t n_learns,
                               const struct kv_cells_options *o, struct kv_error *e);

// f of the rows, [rows->n][P], not clipped. The same whatever `jobs`.
KV_MUST_CHECK int kv_cells_predict(const struct kv_cells_model *m, const struct kv_cells_data *d,
                                   const struct kv_cells_rows *rows, unsigned jobs, float *f,
                                   struct kv_error *e);

// Mean of t exp(-f) + f, f clipped to +-12, over the rows' cells that have a target, by the tokens'
// weights; f NULL: f = 0, the place alone. NAN when there are none.
double kv_cells_deviance(const struct kv_cells_model *m, const struct kv_cells_data *d,
                         const struct kv_cells_rows *rows, const float *f);

// The sum of that loss over the rows, and its gradient [m->n], one chunk of at most
// KV_CELLS_CHUNK rows: what fit sums up, for tests. Scaled by `scale`.
enum { KV_CELLS_CHUNK = 128 };
double kv_cells_gradient(const struct kv_cells_model *m, const struct kv_cells_data *d,
                         const struct kv_cells_rows *rows, float scale, float *gradient);

#endif
