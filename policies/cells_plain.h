// SPDX-License-Identifier: Apache-2.0
// Policy cells as plain numbers: what a program that cannot call it (a GPU's) needs to decide as it
// does.
//
//     struct kv_plain_cells plain;
//     if (policy->plain_cells(self, &plain, &e)) return e.code;      arrays are the policy's
//     policy->plain_token(self, item, row, x);                       x[plain.n_token]
#ifndef KV_POLICIES_CELLS_PLAIN_H
#define KV_POLICIES_CELLS_PLAIN_H

#include "policies/cells_hold.h"
#include "policies/cells_choice.h"

struct kv_plain_cells {
    uint32_t n_layers, n_kv_heads, head_dim, hidden;
    // log s as cells_weights.h computes it; x holds the six of a cell's attention, if they are
    // read, and behind them the token's own. An array that is NULL adds nothing.
    uint32_t n_x, n_token, n_hidden;
    const float *channel, *bias, *linear, *probe;      // by place
    const float *attention_mean, *attention_deviation; // [n_layers][n_kv_heads][6]
    const float *first, *place, *second, *second_bias, *last;
    float last_bias;
    struct kv_cells_choice choice;
    uint32_t error_widths; // whose errors are tried, a bit a width of the format
    bool exact_keys;       // features read earlier keys as they were before coding
    struct kv_cells_hold budget;
};

#endif
