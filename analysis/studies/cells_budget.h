// SPDX-License-Identifier: Apache-2.0
// How many bits the decision rule of policy cells takes at each price of a bit.
#ifndef KV_ANALYSIS_STUDIES_CELLS_BUDGET_H
#define KV_ANALYSIS_STUDIES_CELLS_BUDGET_H

#include "analysis/studies/cells_ground.h"

enum { KV_CELLS_BUDGETS = 49 };

// Mean allocated bits a value (codes and metadata, no tags) at each lambda, over all cells and by
// layer, of width = argmin over w of 0.5 exp(log s) sum_i m_i e_i(w)^2 + lambda bits(w), bits(w)
// those of the whole cell; cells of one grain take the width of their sums. Ties go to the
// narrower.
struct kv_cells_budget {
    float lambda[KV_CELLS_BUDGETS], bits[KV_CELLS_BUDGETS]; // lambda rises, bits fall
    float *layer_bits;                                      // [KV_CELLS_BUDGETS][n_layers], owned
    // The same of the tokens at positions [16 k, 16 k + 16), the last step's from 48 on: a
    // sequence's first tokens take more. [KV_CELLS_BUDGETS][KV_CELLS_STEPS][n_layers], owned.
    float *step_bits;
    char *format;                   // canonical, of the cache that the bits are of; owned
    struct kv_cells_spread *spread; // owned; NULL: not measured
};

// What other grains, other widths and a frozen table go by (policies/cells_weights.h): losses at
// one width as quantiles by grain, step and layer, as means by class of position and place, and the
// ratio of the other widths' to them. All logs.
struct kv_cells_spread {
    float *quantile; // [KV_CELLS_SPREADS][KV_CELLS_STEPS][n_layers][KV_CELLS_QUANTILES], owned
    float *table;    // [KV_CELLS_CLASSES][P], owned
    float *ratio;    // [KV_CELLS_SPREADS][n_widths] over width `middle` of the same format, owned
    float level[KV_CELLS_SPREADS]; // mean log loss at that width
};

// What the rule is told: n tokens.
struct kv_cells_choices {
    const struct kv_shape *shape;
    enum kv_cells_grain grain;
    size_t n, n_widths;
    const float *damage;                 // [n][P][n_widths] 0.5 exp(log s) sum_i m_i e_i^2
    const double (*bits)[KV_MAX_WIDTHS]; // [2] K, V: allocated bits a value at each width, rising
    const double *weight;                // [n] of each token in the means; NULL: all alike
    const uint8_t *step;                 // [n] below KV_CELLS_STEPS; NULL: all 0
    const uint8_t *class;                // [n] below KV_CELLS_CLASSES; for a spread
};

// Mean bits a value at one lambda; layer_bits [n_layers] and step_bits [KV_CELLS_STEPS][n_layers]
// may be NULL. A step without tokens has the layer's own.
double kv_cells_bits_at(const struct kv_cells_choices *c, double lambda, double *layer_bits,
                        double *step_bits);

// The curve, from where all but a hundredth of the range is spent to where as much is saved, in
// equal steps of log lambda. Free with
// kv_cells_budget_fini.
void kv_cells_budget_curve(const struct kv_cells_choices *c, struct kv_cells_budget *budget);

// The spread, of the losses at width `middle`. A step or class without tokens has all tokens'.
struct kv_cells_spread *kv_cells_spread_measure(const struct kv_cells_choices *c, size_t middle);
void kv_cells_spread_free(struct kv_cells_spread *s); // NULL is fine
// Index of the width nearest to 4 bits.
size_t kv_cells_middle(const struct kv_cells_training *o);

// Frees what a curve owns.
void kv_cells_budget_fini(struct kv_cells_budget *budget);

// The same of a trained model in the ground's format, on at most 8,000 of the tokens that it was
// trained on, drawn by the seed, weighed as the ledger does: items alike, of an item its sequences
// (context and one choice).
KV_MUST_CHECK int kv_cells_budget_measure(const struct kv_cells_ground *g,
                                          const struct kv_cells_model *m,
                                          struct kv_cells_budget *budget, struct kv_error *e);

#endif
