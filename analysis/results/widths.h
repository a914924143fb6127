// SPDX-License-Identifier: Apache-2.0
// What policies decided, asked again of a recording: stores keep how many cells had which width,
// not which cells; the answers are the same each time, so nothing is lost.
//
//     struct kv_widths *w = kv_alloc(n, sizeof *w);
//     kv_widths_read(trace, specs, seeds, n, 16, jobs, w);
//     ... w[i].layer[KV_KEY][l], w[i].token[row] ...
//     kv_widths_free(w, n);
#ifndef KV_ANALYSIS_RESULTS_WIDTHS_H
#define KV_ANALYSIS_RESULTS_WIDTHS_H

#include "analysis/results/rows.h"

enum { KV_N_PLACES = 12 }; // equal parts of a sequence

// Bits are nominal bits of the decided widths: 0 = dropped, 32 = float32. Windows and sinks that a
// format keeps exact besides are not in them.
struct kv_widths {
    bool known;                                // the policy could be asked; else why says so
    char why[648];                             // "PLACE: what", as an error is printed
    size_t n_items, n_tokens;                  // asked about
    bool by_token, by_layer, by_head, by_side; // along which axes decisions differed
    double mean[2];                            // K and V
    double *layer[2];                          // [n_layers] means over tokens and heads
    double *head[2];                           // [n_layers][n_kv_heads] means over tokens
    double place[KV_N_PLACES];                 // mean by position in the sequence; NAN = no token
    // Of tokens, by their mean bits rounded: mean over items of the mean over choices of shares of
    // the sequence, as the ledger's shares are.
    double share[33];
    size_t item;  // one item, in the trace ...
    float *token; // ... and its tokens' mean bits [n_tokens]
};

// Asks the policy of each row about at most most_items of the items that its results come from,
// spread evenly over them.
void kv_widths_read(const struct kv_trace *trace, const struct kv_row *const *rows, size_t n,
                    size_t most_items, unsigned jobs, struct kv_widths *w);
void kv_widths_free(struct kv_widths *w, size_t n);

// The bits by layer of each row's policy in one line of text: a character a layer, its height by
// the mean width of keys and values, blank = dropped, full = 16 bits; "" when it could not be
// asked. Caller frees the n lines and the list.
char **kv_widths_sparklines(const struct kv_trace *trace, const struct kv_row *rows, size_t n,
                            size_t most_items, unsigned jobs);

// Opens the recording of a row: one of the folders in `list` (separated by commas; NULL = none),
// else the place that the store names. NULL: there is none, or it is another recording.
struct kv_trace *kv_widths_open(struct kv_store *s, const struct kv_summary *row, const char *list);

#endif
