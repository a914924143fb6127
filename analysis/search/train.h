// SPDX-License-Identifier: Apache-2.0
// Training the controller of Don't Waste Bits (arXiv 2604.04722): a network that picks a width for
// a token from its features.
//
//     struct kv_train_options o;  kv_train_defaults(&o);
//     kv_train(&data, &o, &result, &e);
//     kv_train_pick(&result, x, n, picked);
//     kv_train_result_free(&result);
//
// Loss of a token (section 4 there): alpha CE(label) + beta E[latency] + gamma (1 - E[quality]),
// expectations over the softmax. Features are standardised on the training split and the
// standardisation is folded into the first layer, so that the file holds a plain network over raw
// features. Same data, options and seed: the same weights, bit for bit.
#ifndef KV_ANALYSIS_SEARCH_TRAIN_H
#define KV_ANALYSIS_SEARCH_TRAIN_H

#include "policies/policy.h"

enum { KV_TRAIN_INPUTS = 4, KV_TRAIN_MAX_CLASSES = KV_MAX_WIDTHS };

struct kv_train_data {
    size_t n_tokens, n_items, n_classes;
    const float *x;       // [n_tokens][4] entropy, rarity, attention variance, confidence
    const uint8_t *label; // [n_tokens][n_units]
    const uint32_t *item; // [n_tokens] which item a token is of: items are split, not tokens
    double latency[KV_TRAIN_MAX_CLASSES], quality[KV_TRAIN_MAX_CLASSES]; // of each class, 0..1
    size_t n_units; // parts of a token that have a class each; 0: the token alone, 1
};

struct kv_train_options {
    size_t struct_bytes;
    double alpha, beta, gamma; // weights of the loss
    double rate;               // Adam's step
    uint32_t hidden, batch, epochs;
    uint32_t patience; // epochs without a better validation loss before training stops
    double holdout;    // share of items that only validate, and of those that are only reported on
    uint64_t seed;
};
// alpha 1, beta 0.1, gamma 0.1, Adam 3e-3 with 0.9, 0.999, 1e-8, 128 hidden, batch 256 (the paper's
// network; loss weights and optimiser as in its independent reproduction, since it gives none), at
// most 60 epochs, patience 8, holdout 0.2.
void kv_train_defaults(struct kv_train_options *o);

// What an item is for: the network learns from it, or it picks the epoch whose weights are kept, or
// all that is said of the network is measured on it and on nothing else.
enum kv_train_part { KV_TRAIN_LEARNS, KV_TRAIN_VALIDATES, KV_TRAIN_REPORTED, KV_TRAIN_N_PARTS };

struct kv_epoch {
    size_t epoch; // counted from 1
    double train_loss, valid_loss, valid_accuracy;
};

struct kv_train_result {
    size_t n_classes, hidden;
    float *weight[3],
        *bias[3]; // over raw features; [hidden][4], [hidden][hidden], [units * classes][hidden]
    struct kv_epoch *epochs;
    size_t n_epochs, best_epoch; // counted from 0
    size_t n[KV_TRAIN_N_PARTS];  // tokens of each part
    uint8_t *part;               // [n_items] enum kv_train_part
    // Of the reported part: the network's; of saying always what is most frequent where it learns;
    // and of a softmax without hidden layers, trained the same way.
    double accuracy, majority_accuracy, linear_accuracy;
    // Of the reported part: [label][picked].
    size_t confusion[KV_TRAIN_MAX_CLASSES][KV_TRAIN_MAX_CLASSES];
    // How much accuracy falls and loss rises when a feature's values change places among the
    // reported tokens (Breiman, Machine Learning 45, 2001), mean of five permutations.
    double accuracy_drop[KV_TRAIN_INPUTS], loss_rise[KV_TRAIN_INPUTS];
    size_t n_units; // at least 1
};

// Errors: no tokens, fewer than three items, an option out of range (named), a feature that is no
// number; KV_EINTR.
KV_MUST_CHECK int kv_train(const struct kv_train_data *d, const struct kv_train_options *o,
                           struct kv_train_result *r, struct kv_error *e);
void kv_train_result_free(struct kv_train_result *r);

// Classes the network picks for n tokens, x [n][4]: picked [n][n_units].
void kv_train_pick(const struct kv_train_result *r, const float *x, size_t n, uint8_t *picked);

// mean [n]: each token's mean of the four features, each scaled to 0..1 over all n tokens.
void kv_train_feature_means(const float *x, size_t n, double *mean);

// Labels by quartile: each token's mean of the four features, each scaled to 0..1 over all tokens,
// cut into n_classes equal parts; the highest mean gets the last class.
void kv_label_quartiles(const float *x, size_t n, size_t n_classes, uint8_t *label);

// Labels by damage [n][n_classes], classes by rising width: the first class whose damage is at most
// `bound`, else the last.
void kv_label_oracle(const double *damage, size_t n, size_t n_classes, double bound,
                     uint8_t *label);

#endif
