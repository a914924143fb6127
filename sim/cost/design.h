// SPDX-License-Identifier: Apache-2.0
// The latency model as columns of a fit: which terms the runs can tell apart, and their values.
#ifndef KV_COST_DESIGN_H
#define KV_COST_DESIGN_H

#include "sim/base/talk.h"
#include "sim/cost/cost.h"
#include "sim/cost/runs.h"

enum { KV_MAX_TERMS = 7 + 2 * KV_COST_BINS };

// What a parameter multiplies. Costs come last.
enum kv_term_kind {
    KV_TERM_BASE,       // 1 of every step
    KV_TERM_START,      // 1 of every time of attention alone
    KV_TERM_CLASS,      // widths in use beyond the first, of a mix by token
    KV_TERM_CELL_CLASS, // the same, of a mix by cell
    KV_TERM_ROUND,      // rounds of round_tokens
    KV_TERM_SWITCH,     // widths beyond the first that one processor meets: no more than its rounds
    KV_TERM_MIXED,      // values of a cache whose tokens differ in width
    KV_TERM_COST,       // values at widths or types that always come together in these runs
};

struct kv_term {
    enum kv_term_kind kind;
    char name[40];
    bool holds[2][KV_COST_BINS]; // of a cost
};

struct kv_design {
    const struct kv_device_run *run; // borrowed; of one model, weights and threads
    size_t n_runs;
    double values; // K values of a token, all layers
    bool timed_apart;
    bool split_by_convention; // some widths have costs of keys and of values apart
    size_t n_terms, n_plain;  // plain ones first: the knee does not stretch them
    struct kv_term term[KV_MAX_TERMS];
    double (*share)[2][KV_COST_BINS]; // [n_runs]
    double round_tokens;              // 0 = no rounds
    double knee_bytes;                // INFINITY = none
    double hidden_bytes;              // of a cache, read while something else is waited for
};

struct kv_design_fit {
    double p[KV_MAX_TERMS], log_error[KV_MAX_TERMS];
    double knee_factor, cost, scale;
    size_t n_rows;
};

// Finds the terms of runs that check out (kv_calibrate); kv_design_fini frees what it holds.
void kv_design_init(struct kv_design *d, const struct kv_runs *runs);
void kv_design_fini(struct kv_design *d);

// What term j multiplies in run i: of a plain term the column of its step (part 0) or of its
// attention (part 1), of a cost the share of the tokens.
double kv_design_column(const struct kv_design *d, size_t j, size_t i, int part);

// Fits the runs that are kept. Rows: each run's step and, where timed, its attention.
KV_MUST_CHECK int kv_design_fit(const struct kv_design *d, const bool *kept,
                                struct kv_design_fit *fit, struct kv_error *e);
// Tries a knee at cache sizes among the measured ones and keeps the best one that explains far more
// than chance would (F test at 0.1 %): either the cost beyond it is 1.1 to 10 times as high, or
// below it nothing (hidden_bytes). That takes KV_KNEE_FITS fits, half of them a kind, at sizes
// spread over those measured; progress (may be NULL) is told of each.
enum { KV_KNEE_FITS = 48 };
void kv_design_choose_knee(struct kv_design *d, const bool *all, struct kv_design_fit *fit,
                           struct kv_progress *progress);

double kv_design_predict_ns(const struct kv_design *d, const struct kv_design_fit *fit, size_t run);

// One sigma of a run's time: of its median over the steps, at least half a percent, which is what
// one machine repeats on a good day.
double kv_run_uncertainty_ns(const struct kv_device_run *r, double time_ns);

#endif
