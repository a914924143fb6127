// SPDX-License-Identifier: Apache-2.0
// Exact rows of a store beside what cheap fidelities predict for the same specs on the same items.
//
//     struct kv_fidelity_options o = {.db = "kvsim.db", .jobs = 4, .seed = 1};
//     struct kv_fidelity_study s;
//     if (kv_fidelity_open(&s, trace, &o, &e) == 0)
//         ... s.at[0].kl, s.at[0].by[KV_BY_ISO] ...
//     kv_fidelity_close(&s);
//
// What the predictions are worth is calibration.h's to say.
#ifndef KV_ANALYSIS_STUDIES_FIDELITY_H
#define KV_ANALYSIS_STUDIES_FIDELITY_H

#include "sim/replay/attention.h"
#include "sim/replay/draws.h"
#include "traces/range.h"

enum { KV_DRAW_LEVELS = 6 }; // 1, 2, 4, 8, 16, 32 draws

// Predictors of divergence, in the order of tables: the forms of fisher replay, then their rivals.
enum kv_predictor {
    KV_BY_ISO,
    KV_BY_ELEMENT,
    KV_BY_VECTOR,
    KV_BY_TOTAL,
    KV_BY_CHANNEL, // |g|^2 of the cell, e_i^2 weighed by channel: needs no whole gradients
    KV_BY_MENDED,  // element, each layer times its attention's stretch (sim/replay/attention.h)
    KV_BY_RECONSTRUCTION, // |e|^2/|K|^2 + |e|^2/|V|^2, mean over cells
    KV_BY_OUTPUT,         // attention's relative output error
    KV_BY_ATTENTION,      // KL of attention rows
    KV_N_PREDICTORS
};
extern const char *const kv_predictor_names[]; // ends with NULL

// One policy. NAN where nothing is known.
struct kv_fidelity_policy {
    struct kv_replay_spec spec;
    char *label;
    int family; // index into kv_fidelity_study.families
    bool exact; // the store holds exact rows
    size_t n_items;
    size_t n_left_out;   // exact outcomes that are not finite; predictions leave them out too
    double bits;         // allocated, of the exact run or of fisher's ledger
    double kl, kl_error; // exact, nats a scored token, and its standard error
    double acc, acc_ref, agree;                  // on the same items
    double by[KV_N_PREDICTORS];                  // forms: nats a scored token, all draws
    double draws[KV_DRAW_FORMS][KV_DRAW_LEVELS]; // forms from the first 1, 2, 4, ... draws
    double cross;                                // S2 / S1 over all cells
    double worst_layer;                          // S2 / S1 of the layer where it is furthest from 1
    const char *outside; // why a prediction is outside validity; NULL = inside
};

struct kv_fidelity_study {
    const struct kv_trace *trace; // borrowed
    size_t n;
    struct kv_fidelity_policy *at; // exact ones first, by exact KL
    size_t n_exact;
    char **families; // kv_policy_family of each, without repeats
    size_t n_families;
    size_t n_draws;
    double chance; // of a guess; NAN for text
};

struct kv_fidelity_options {
    const char *db;           // the store with exact rows of the trace
    const char *const *specs; // policies to predict besides; may be expansions
    size_t n_specs;
    struct kv_item_range items; // that count; none = all
    bool no_attention;          // leave out the rivals that need recorded queries
    unsigned jobs;              // threads
    uint64_t seed;
};

// Finds the trace's exact rows in the store and predicts them and the specs given besides. Errors:
// KV_EFAIL for a trace without sensitivities and a store without exact rows of it; those of specs
// and of replay.
KV_MUST_CHECK int kv_fidelity_open(struct kv_fidelity_study *s, const struct kv_trace *trace,
                                   const struct kv_fidelity_options *o, struct kv_error *e);
void kv_fidelity_close(struct kv_fidelity_study *s);

// What a policy is akin to, for leaving out whole families: "uniform", "K/V mix", "random by
// token", "layerwise by head", "runtime type", with "rotated " before it for wrapped formats.
// Caller frees.
char *kv_policy_family(const struct kv_replay_spec *spec);

#endif
