// SPDX-License-Identifier: Apache-2.0
// What a controller's picks are worth: the divergence that the sensitivities foretell for them,
// beside that of two rules that store just as many bits and have learned nothing.
//
//     struct kv_worth w;
//     kv_worth_measure(&w, &items, picked, seed);
//     if (w.n && !kv_worth_better(&w)) ... no better than the threshold rule ...
#ifndef KV_ANALYSIS_STUDIES_WORTH_H
#define KV_ANALYSIS_STUDIES_WORTH_H

#include "sim/replay/damage.h"

// The items that count, and what is known of their tokens, in the recording's order.
struct kv_worth_items {
    const struct kv_trace *trace;
    const struct kv_cell_table *table; // of expected damage (KV_TABLE_ISO)
    size_t n_widths;                   // of the table
    size_t n_classes;
    const size_t *width; // [n_classes] of each class in the table
    const double *bits;  // [n_classes]
    const uint8_t *part; // [n_items of the trace]
    uint8_t counted;     // the part that counts
    const double *rank;  // [n_tokens] what the threshold rule compares: more gets more bits
};

struct kv_worth {
    size_t n;    // items
    double bits; // mean width of the picks, a token
    // Predicted KL, nats a scored token, mean over items: of the picks; of the same picks on the
    // wrong tokens of their item, mean of several shuffles; of the threshold rule, whose cuts give
    // as many tokens each width.
    double kl, shuffle_kl, rule_kl;
    double gain, gain_error; // mean of (rule - picks) over items, and its standard error
};

// picked [n_tokens]: a class each.
void kv_worth_measure(struct kv_worth *w, const struct kv_worth_items *in, const uint8_t *picked,
                      uint64_t seed);
// Whether the picks diverge less than the threshold rule by more than two standard errors.
bool kv_worth_better(const struct kv_worth *w);

#endif
