// SPDX-License-Identifier: Apache-2.0
// What policy cells is trained on, gathered from traces: targets, features, channel weights.
#ifndef KV_ANALYSIS_STUDIES_CELLS_GROUND_H
#define KV_ANALYSIS_STUDIES_CELLS_GROUND_H

#include "analysis/studies/cells.h"

struct kv_cells_item {
    const struct kv_trace *trace;
    const struct kv_trace_item *item;
    size_t first; // token of its row 0
    bool held;    // out of training
};

struct kv_cells_ground {
    const struct kv_cells_training *o;
    const struct kv_trace *const *traces;
    size_t n_traces;
    struct kv_shape shape;
    struct kv_format *format;
    size_t width_4;           // index of 4 bits in its widths
    struct kv_cells_shape of; // of the model to train
    size_t split;             // columns of group paper among the token features
    size_t n_items, n_tokens;
    struct kv_cells_item *items;
    uint32_t *item_of; // [n_tokens]
    float *channel;    // [P][head_dim] m
    float *bias;       // [P] log of the mean s over the tokens trained on, by weight
    float *target, *attention, *token, *weight;  // as in struct kv_cells_data
    const uint16_t **hidden;                     // borrowed from the traces
    float *attention_mean, *attention_deviation; // [L * G][n_attention]
    float *token_mean, *token_deviation;         // [n_token]
    uint32_t *learns, *held;                     // tokens, ascending
    size_t n_learns, n_held;
    uint64_t left_out;                    // cells without a coding error
    const struct kv_cells_weights *again; // of a file whose budgets are measured again, or NULL
};

// Checks the traces against each other, sums the channel weights, splits the items, reads every
// item. Free with kv_cells_ground_fini, also after an error. Errors: as kv_cells_train.
KV_MUST_CHECK int kv_cells_ground_open(struct kv_cells_ground *g, struct kv_error *e);
void kv_cells_ground_fini(struct kv_cells_ground *g);
struct kv_cells_data kv_cells_ground_data(const struct kv_cells_ground *g);

// sum_i m_i e_i^2 of rows of an item at one width of the format: out[n][P], rows[n] of the item or
// NULL for its first n.
KV_MUST_CHECK int kv_cells_errors(const struct kv_cells_ground *g, const struct kv_trace_item *item,
                                  const uint32_t *rows, size_t n, size_t width, float *out,
                                  struct kv_error *e);

// What a row counts in the ledger's mean bits of its item: the share of the paths that hold it,
// each over its length.
double kv_cells_row_weight(const struct kv_trace_item *item, uint32_t row);

// Index of a width in the format's. Errors: KV_EUSAGE when it is not offered.
KV_MUST_CHECK int kv_cells_width(const struct kv_cells_ground *g, uint32_t bits, size_t *index,
                                 struct kv_error *e);

#endif
