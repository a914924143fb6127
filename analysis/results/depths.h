// SPDX-License-Identifier: Apache-2.0
// What rows of text windows say by depth: each bucket of contexts, the one that a context lies in,
// and the tokens that diverge most.
#ifndef KV_ANALYSIS_RESULTS_DEPTHS_H
#define KV_ANALYSIS_RESULTS_DEPTHS_H

#include "analysis/results/rows.h"

enum { KV_DEPTH_DRAWS = 1000 }; // of each bootstrap
#define KV_DEPTH_SEED 1

// Reads the scored positions of a row that has some. (Part of kv_rows_open.)
KV_MUST_CHECK int kv_row_read_tokens(struct kv_row *row, const struct kv_rows *rows,
                                     struct kv_store *s, struct kv_error *e);
void kv_row_free_tokens(struct kv_row *row);

// A row at some depths.
struct kv_depth_row {
    const struct kv_row *row;
    struct kv_depths depths;
    double middle; // geometric, of the contexts that it holds, for figures
    struct kv_token_summary s;
};
// The buckets of rows[n] that hold positions, row after row, shallow ones first. Caller frees.
struct kv_depth_row *kv_rows_by_depth(const struct kv_row *rows, size_t n, size_t *n_out);

// The row in the bucket of a context, at a confidence. False: no position stands there.
bool kv_row_at_depth(const struct kv_row *row, double context, double confidence,
                     struct kv_token_summary *s);

// "0.0123 [0.0110, 0.0140]"; "> 0.3", "0.3 to 0.9" where bounds are all there is; NULL where
// nothing is known. Caller frees.
char *kv_token_estimate_text(const struct kv_token_estimate *x);

// One scored position and the text before and of the token that follows it.
struct kv_worst_token {
    const struct kv_row *row;
    const char *id; // of the window
    uint32_t item;
    struct kv_token_outcome t;
    char *before, *token; // NULL where the recording or its tokenizer is not at hand
};
// The `most` positions of each row with the largest KL. traces: folders to look for the rows'
// recordings in (NULL: where the store says they were); model: whose tokenizer spells them, or
// NULL.
struct kv_worst_token *kv_rows_worst(const struct kv_rows *rows, struct kv_store *s, size_t most,
                                     const char *traces, const char *model, size_t *n_out);
void kv_worst_tokens_free(struct kv_worst_token *w, size_t n);

#endif
