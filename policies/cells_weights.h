// SPDX-License-Identifier: Apache-2.0
// The network of policy cells: from what a layer knows of a token to the sensitivity of each of its
// cells.
//
// log s = bias[p] + linear[p] . x + net([x, embedding[p]]) + probe[p] . h, p the place (layer, KV
// head, K or V), x standardised features, h the layer's normalised input, net = Linear, SiLU,
// Linear, SiLU, Linear. `kvsim train cells` fits it (analysis/search/cells.h) and writes the file.
#ifndef KV_POLICIES_CELLS_WEIGHTS_H
#define KV_POLICIES_CELLS_WEIGHTS_H

#include "policies/tensors.h"

// Groups of inputs, as bits of a set; a file lists its own in this order in its metadata `inputs`.
// Every model has a bias a place: `place` alone is no input.
enum kv_cells_group {
    KV_CELLS_PLACE,
    KV_CELLS_PAPER, // entropy_nats, confidence, rarity_nats, log(max(attn_var, 1e-12)), as recorded
    KV_CELLS_TOKEN, // surprisal, log(1 + position), position == 0, position < 4
    KV_CELLS_ATTENTION, // enum kv_cell_feature, by layer and KV head
    KV_CELLS_PROBE,     // the layer's normalised input
    KV_CELLS_N_GROUPS
};
// Positions of a sequence whose bits a file tells apart: steps of 16 tokens, the last one open.
enum { KV_CELLS_STEPS = 4, KV_CELLS_STEP_TOKENS = 16 };
// Grains whose spread a file tells (cell, kv, layer); numbers of a spread; classes of position of
// its table: 0, 1 to 3, 4 to 15, then one a step.
enum { KV_CELLS_SPREADS = 3, KV_CELLS_QUANTILES = 12, KV_CELLS_CLASSES = 6 };
enum { KV_CELLS_MOST_INPUTS = 14, KV_CELLS_EMBEDDING = 8, KV_CELLS_MOST_HIDDEN = 512 };
extern const char *const kv_cells_groups[]; // "place", "paper", ..., NULL

struct kv_cells_weights {
    struct kv_tensors file;
    struct kv_shape shape;
    uint32_t groups; // set of 1 << enum kv_cells_group
    char model_digest[17], model_name[64], grain[8], widths[48];
    char formats[512];    // canonical texts of the formats whose budgets are told, blanks between
    size_t budgets_of;    // which of them is meant
    double overhead_bits; // of the first: bits a value beyond the code's
    size_t n_x, n_token, n_hidden; // n_hidden 0: no net
    const float *channel, *bias, *linear, *probe;
    const float *attention_mean, *attention_deviation, *token_mean, *token_deviation;
    float *first, *second; // net, columns by input: [n_x][n_hidden], [n_hidden][n_hidden]; owned
    float *place;          // [places][n_hidden] first layer's bias and its embedding's share; owned
    const float *second_bias, *last, *last_bias;
    size_t n_budgets;
    const float *lambda, *budget_bits; // [n_budgets]
    const float *step_bits;            // [n_budgets][KV_CELLS_STEPS][n_layers]
    // Of files that tell them, else NULL. Logs of what cells that share a width lose together at
    // width `spread_width`: by grain, step and layer the quantiles at kv_cells_quantile(); by class
    // of position and place the mean. ratio: log of the loss at each width of training over that.
    const float *spread; // [KV_CELLS_SPREADS][KV_CELLS_STEPS][n_layers][KV_CELLS_QUANTILES]
    const float *ratio;  // [KV_CELLS_SPREADS][n_listed], of the format meant
    const float *table;  // [KV_CELLS_CLASSES][places]
    double listed[KV_MAX_WIDTHS]; // widths of training, bits
    size_t n_listed, spread_width;
};

// Reads an open file, which the model then owns (also when it fails). format: the cache's canonical
// text, whose budgets are taken; those of the first where the file tells none of it. Errors:
// tensors that do not fit the shape or each other, an unknown group or format.
KV_MUST_CHECK int kv_cells_weights_open(struct kv_cells_weights *m, struct kv_tensors *file,
                                        const struct kv_shape *s, const char *format,
                                        struct kv_error *e);
void kv_cells_weights_close(struct kv_cells_weights *m);

// The same of what a spec's weights= names: a path; "shipped", the first file that travels with the
// host and fits the shape; "shipped/NAME", that one. source [room]: as it is written back.
KV_MUST_CHECK int kv_cells_weights_find(struct kv_cells_weights *m, const struct kv_run *run,
                                        const struct kv_args *args, char *source, size_t room,
                                        struct kv_error *e);
// Whether they are of the model that was recorded. Error: another one's.
KV_MUST_CHECK int kv_cells_weights_fit(const struct kv_cells_weights *m, const struct kv_fitting *f,
                                       struct kv_error *e);

// What a token brings of its own, standardised: x[n_token], groups paper and token.
void kv_cells_token_features(const struct kv_cells_weights *m, const struct kv_item *item,
                             size_t row, float *x);
// log s of the cells of one row in one layer: out[n_kv_heads][2].
void kv_cells_log_s(const struct kv_cells_weights *m, const struct kv_layer_rows *rows, size_t row,
                    float *out);

// Lambda at which a budget (codes and metadata, bits a value in the file's format) was met in
// training by the tokens of one step, and what each layer then took; interpolated, log lambda
// linear in bits. layer: [n_layers].
double kv_cells_lambda(const struct kv_cells_weights *m, size_t step, double bits, double *layer);

// ---- other grains and widths than those of training ------------------------------------

// Share of the cells that lose less than quantile i of a spread.
static inline double kv_cells_quantile(size_t i) {
    return 0.01 + 0.98 * (double)i / (KV_CELLS_QUANTILES - 1);
}

// Widths to choose from. bits: allocated, of all cells that share a width; values: theirs.
struct kv_cells_offer {
    size_t n_widths, spread; // of grain cell, kv, layer: 0, 1, 2
    double width[KV_MAX_WIDTHS], bits[KV_MAX_WIDTHS], values;
};
// What kv_cells_lambda says, from the spread of losses: lambda at which tokens of one step take so
// many bits a value, and what each layer then takes. Needs m->spread.
double kv_cells_spread_lambda(const struct kv_cells_weights *m, const struct kv_cells_offer *o,
                              size_t step, double bits, double *layer);
// Log of the loss at a width over that at spread_width: as measured, or of a width that training
// did not have by the square of the step.
double kv_cells_ratio(const struct kv_cells_weights *m, size_t spread, double width);
// Class of a position.
static inline size_t kv_cells_class(uint32_t position) {
    if (position < KV_CELLS_STEP_TOKENS) return position < 1 ? 0 : position < 4 ? 1 : 2;
    size_t step = position / KV_CELLS_STEP_TOKENS;
    return 2 + (step < KV_CELLS_STEPS ? step : KV_CELLS_STEPS - 1);
}

#endif
