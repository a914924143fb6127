// SPDX-License-Identifier: Apache-2.0
// What a store's generations say: when a policy's text parts from the 16-bit run's, and whether its
// divergence grows on its own path beyond what it is along the reference's.
//
//     struct kv_generation_table t;
//     kv_generation_table(store, 1, &t, &e);
//     ... t.row[i].at[3].share, t.row[i].all.ratio ...
//     kv_generation_table_fini(&t);
//
// KL(16 bit || policy) is taken at the same positions of both paths: those that both sequences of a
// prompt have. Own path: the policy's tokens, its companion the 16-bit run along them. Forced: the
// reference's tokens. If errors feed on each other through the text, the first grows beyond the
// second: ratio > 1.
#ifndef KV_ANALYSIS_STUDIES_GENERATION_H
#define KV_ANALYSIS_STUDIES_GENERATION_H

#include "analysis/stats/survival.h"
#include "sim/store/generated.h"

KV_BEGIN_DECLS

enum { KV_GENERATION_MARKS = 4, KV_GENERATION_QUARTERS = 4 };
extern const unsigned kv_generation_marks[KV_GENERATION_MARKS]; // 16, 32, 64, 128 tokens

struct kv_generation_ratio {
    double own, forced;          // KL, nats a token
    double ratio;                // of the sums; NAN where nothing diverges
    struct kv_interval interval; // 95 %, bootstrap over prompts
    size_t tokens;
};

struct kv_generation_row {
    const struct kv_generation *g;
    size_t n, n_parted, n_broken; // prompts
    size_t tokens;                // generated, all prompts
    struct kv_survival *curve;    // of the number of tokens; the event is the first other one
    struct kv_survival_point at[KV_GENERATION_MARKS];
    double median;    // first token that differs, counted from 1
    double agreement; // share of positions that both have with equal tokens
    struct kv_interval agreement_interval;
    struct kv_generation_ratio all;    // of all positions that both have
    struct kv_generation_ratio parted; // of those behind the first other token
    // The same by quarters of the longest sequence, so that growth shows.
    struct kv_generation_ratio quarter[KV_GENERATION_QUARTERS];
};

// How often one filter finds the right answer in what a policy generated, beside the 16-bit run.
struct kv_generation_answers {
    const struct kv_generation *g;
    const char *filter;
    size_t n;                    // prompts whose task has an answer
    double right, right16;       // shares
    struct kv_interval interval; // of right: Wilson's, 95 %
    struct kv_paired to16;
};

struct kv_generation_table {
    struct kv_generation *list; // of the store
    size_t n;
    struct kv_generation_row *row; // [n]
    struct kv_generation_answers *answers;
    size_t n_answers; // a row and a filter each, where tasks have answers
};

// Rows in the store's order. Errors: those of reading.
KV_MUST_CHECK int kv_generation_table(struct kv_store *s, uint64_t seed,
                                      struct kv_generation_table *t, struct kv_error *e);
void kv_generation_table_fini(struct kv_generation_table *t);
// Rows that can be drawn together: one model, task, mode, arithmetic and way to draw.
bool kv_generation_alike(const struct kv_generation *a, const struct kv_generation *b);

KV_END_DECLS

#endif
