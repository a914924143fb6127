// SPDX-License-Identifier: Apache-2.0
// Trains policy cells: a width for every cell of the cache from what is known when it is coded.
//
//     struct kv_cells_training o;
//     kv_cells_training_defaults(&o);
//     o.out = "work/cells.safetensors";
//     if (kv_cells_train(traces, n_traces, &o, &r, &e) == 0)
//         ... r.deviance against r.static_deviance; replay r.spec ...
//     kv_cells_trained_fini(&r);
//
// The target of cell c is s = mean over draws of sum_i g_i^2 e_i^2, over sum_i m_i e_i^2: recorded
// numerator (`--keep cells`) over the coding error at 4 bits that is made again from the recorded
// keys and values, weighed by channel. m[place][channel] is the mean over the tokens of all traces
// of g_i^2, scaled to mean 1 over the place's channels. What is fitted to s:
// analysis/search/cells.h.
#ifndef KV_ANALYSIS_STUDIES_CELLS_H
#define KV_ANALYSIS_STUDIES_CELLS_H

#include "analysis/search/cells.h"
#include "policies/cells_weights.h"
#include "traces/trace.h"

// Cells that share one width, from finest to coarsest: none; the KV heads of a token's K, or V, in
// a layer; all of a token in a layer; all of a token.
enum kv_cells_grain {
    KV_CELLS_GRAIN_CELL,
    KV_CELLS_GRAIN_KV,
    KV_CELLS_GRAIN_LAYER,
    KV_CELLS_GRAIN_TOKEN
};
extern const char *const kv_cells_grains[]; // "cell", "kv", "layer", "token", NULL

struct kv_cells_training {
    uint32_t groups; // set of 1 << enum kv_cells_group
    uint32_t net;    // hidden units; 0: none
    enum kv_cells_grain grain;
    uint32_t widths[KV_MAX_WIDTHS]; // bits, rising
    size_t n_widths;
    double holdout;              // share of the tokens, whole items, that are only reported on
    struct kv_cells_options fit; // with seed and jobs
    const char *out;             // weights, safetensors
    const char *items_out;       // trace digest, task, id, part of each item, TSV; or NULL
    const char *command;         // what the file says that made it
    // A file of weights that is not trained but read: written are its weights and curves, and what
    // it may lack, measured on these traces: the spread of losses that other grains and widths go
    // by, and the table of policy frozen. Inputs, net, grain and widths are the file's. Or NULL.
    const char *again;
};
// attention and probe, a net of 64, grain cell, widths 2/3/4/5/6/8, a tenth held out.
void kv_cells_training_defaults(struct kv_cells_training *o);

// The held-out deviance of one way to ask the model.
struct kv_cells_worth {
    char asked[32];  // "all", "place alone", "without probe": that group permuted over the tokens
    double deviance; // mean of t exp(-f) + f
    double gain;     // share of the way from place alone (0) to all (1)
};

struct kv_cells_trained {
    char *path, *spec; // the file written; the policy that reads it
    char digest[17];   // of the file, FNV-1a
    size_t bytes;
    size_t n_items, n_held_items, n_learns, n_held; // tokens of both parts
    uint64_t left_out;                              // cells whose coding error is 0
    double static_deviance, deviance;               // of place alone and of the model, held out
    double learned_static_deviance; // of place alone on the tokens trained on: 1 but for the cap
    size_t n_worth;
    struct kv_cells_worth worth[KV_CELLS_N_GROUPS + 2];
};

// Trains on all items of the traces, of one model and one cells_format. Errors: traces without
// cells or of different models, shapes or formats; numbers that are not finite, by item; widths
// that the format lacks or that do not rise; a format whose rows are not coded by themselves.
KV_MUST_CHECK int kv_cells_train(const struct kv_trace *const *traces, size_t n_traces,
                                 const struct kv_cells_training *o, struct kv_cells_trained *r,
                                 struct kv_error *e);
void kv_cells_trained_fini(struct kv_cells_trained *r);

#endif
