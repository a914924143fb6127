// SPDX-License-Identifier: Apache-2.0
// Exact rows of a store beside what cheap fidelities predict for the same specs on the same items.
#ifndef KV_ANALYSIS_STUDIES_FIDELITY_H
#define KV_ANALYSIS_STUDIES_FIDELITY_H

#include "analysis/stats/agreement.h"
#include "sim/cli/options.h"
#include "sim/replay/attention.h"
#include "sim/replay/draws.h"

enum { KV_DRAW_LEVELS = 6 }; // 1, 2, 4, 8, 16, 32 draws

// Predictors of divergence, in the order of tables: the forms of fisher replay, then their rivals.
enum kv_predictor {
    KV_BY_ISO,
    KV_BY_ELEMENT,
    KV_BY_VECTOR,
    KV_BY_TOTAL,
    KV_BY_MENDED, // element, each layer times its attention's stretch (sim/replay/attention.h)
    KV_BY_RECONSTRUCTION, // |e|^2/|K|^2 + |e|^2/|V|^2, mean over cells
    KV_BY_OUTPUT,         // attention's relative output error
    KV_BY_ATTENTION,      // KL of attention rows
    KV_N_PREDICTORS
};
extern const char *const kv_predictor_names[]; // ends with NULL

// One spec. NAN where nothing is known.
struct kv_judged {
    struct kv_replay_spec spec;
    char *label;
    int family; // index into kv_judging.families
    bool exact; // the store holds exact rows
    size_t n_items;
    double bits;                // allocated, of the exact run or of fisher's ledger
    double kl, kl_error;        // exact, nats a scored token, and its standard error
    double acc, acc_ref, agree; // on the same items
    double by[KV_N_PREDICTORS]; // forms: nats a scored token, all draws
    double draws[KV_DRAW_FORMS][KV_DRAW_LEVELS]; // forms from the first 1, 2, 4, ... draws
    double cross;                                // S2 / S1 over all cells
    double worst_layer;                          // S2 / S1 of the layer where it is furthest from 1
    const char *outside; // why a prediction is outside validity; NULL = inside
};

struct kv_judging {
    struct kv_trace *trace;
    size_t n;
    struct kv_judged *at; // exact ones first, by exact KL
    size_t n_exact;
    char **families;
    size_t n_families;
    size_t n_draws;
    double chance; // of a guess; NAN for text
};

#define KV_JUDGING_OPTIONS                                                                         \
    {"db", 0, "FILE", "kvsim.db", "the store with exact rows of the trace"},                       \
        {"items", 0, "A-B", NULL, "only items A to B of the trace, counted from 0"}, {             \
        "no-attention", 0, NULL, NULL, "leave out the rivals that need recorded queries"           \
    }

// Opens the trace named by the first argument, finds its exact rows in the store and predicts them
// and the specs of further arguments. Errors: no exact rows, a trace without sensitivities.
KV_MUST_CHECK int kv_judging_open(struct kv_judging *j, struct kv_cli *c, struct kv_error *e);
void kv_judging_close(struct kv_judging *j);

// The family of a spec, for leaving out whole families: "uniform", "K/V mix", "random by token",
// "layerwise by head", "runtime type", with "rotated " before it for wrapped formats. Caller frees.
char *kv_family_of(const struct kv_replay_spec *spec);

#endif
