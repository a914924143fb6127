// SPDX-License-Identifier: Apache-2.0
// Why a format fails on a model: what keys and values look like by layer, KV head and channel,
// where coding them does its damage, and which remedy is expected to help.
//
//     struct kv_anatomy a;
//     struct kv_anatomy_options o = {.model = m, .trace = t, .format = "asym:group=32", .bits = 4,
//                                    .budget_bits = 0.25, .jobs = 2};
//     if (kv_anatomy_open(&a, &o, &e) == 0) puts(a.verdict);
//     kv_anatomy_close(&a);
//
// Without a trace it speaks of the weights alone: what the biases of keys foretell.
#ifndef KV_ANALYSIS_STUDIES_ANATOMY_H
#define KV_ANALYSIS_STUDIES_ANATOMY_H

#include "sim/model/model.h"
#include "traces/range.h"
#include "traces/trace.h"

struct kv_anatomy_options {
    const struct kv_model *model; // borrowed; NULL: nothing is said of biases
    const struct kv_trace *trace; // borrowed; with keys, values and sensitivities, or NULL
    const char *format;           // whose failing is looked into
    uint32_t bits;                // at this width of it
    double budget_bits;           // allocated bits a value that a first remedy may cost more
    struct kv_item_range items;   // of the trace; none: all
    size_t check; // remedies that are run exactly (the model is needed), besides the format itself
    unsigned jobs;
    uint64_t seed;
};

// Keys or values of one KV head of one layer. NAN where the trace does not keep what it is made of.
struct kv_anatomy_place {
    uint32_t layer, head;
    enum kv_side side;
    double bias;         // norm of the projection's bias; 0 where there is none
    double constant_pct; // |mean|^2 of E|x|^2, the mean by channel; of keys before RoPE
    double after_pct;    // the same of keys after RoPE, as they are cached
    double mean;         // largest |mean| of a channel, of keys before RoPE, and which channel
    uint32_t mean_channel;
    double range; // widest max - min of a channel over tokens, as cached
    uint32_t range_channel;
    double kurtosis; // E x^4 / (E x^2)^2 over tokens and channels; 3: a normal distribution
    double pair_pct; // of a key's energy in the pair of channels with the most, and which pair
    uint32_t pair;
    double first_ratio; // norm of the first token's vector to the mean norm of the others
    double sink_pct;    // attention that later tokens pay to the first (every eighth row)
    double error;       // relative error of coding, |e| / |x|
    double buried;      // |e| / |x - mean|: errors beside what tells tokens apart
    double damage;      // nats a scored position, and its share of all
    double damage_pct;
    bool named; // in the verdict
};

// What might be done instead, and what it is expected to leave.
struct kv_anatomy_remedy {
    const char *name; // "centred keys, before RoPE"
    char *spec;
    double allocated_bits; // of a value, and more than the format itself takes
    double more_bits;
    bool within;      // the budget
    double kl_fisher; // nats a scored token, by fisher replay, and as a share of the format's own
    double left_pct;
    double kl_exact; // of the model run again, where it was checked; else NAN
    double exact_left_pct;
    bool rough; // fisher replay does not answer for it: groups of tokens count as closed
};

struct kv_anatomy {
    struct kv_anatomy_options options;
    size_t n_layers, n_heads, head_dim, n_tokens;
    struct kv_anatomy_place *places; // [n_layers][n_heads][2]
    // By channel, [n_layers][n_heads][2][head_dim]: |mean| (keys before RoPE), max - min as
    // cached, nats a scored position.
    double *mean, *range, *damage;
    double all_damage; // nats a scored position
    // The format itself, then those within the budget: first the cheapest of those that are about
    // as good as the best, then the best first; then those beyond the budget, the best first.
    size_t n_remedies;
    struct kv_anatomy_remedy *remedies;
    char *verdict; // one sentence and the remedy, or what the weights foretell
};

// Errors: KV_EFAIL for a trace without keys, values and sensitivities, or of another model;
// KV_EUSAGE ("bits", "format", "items") for what the format or the trace does not offer; those of
// kv_replay_exact.
KV_MUST_CHECK int kv_anatomy_open(struct kv_anatomy *a, const struct kv_anatomy_options *o,
                                  struct kv_error *e);
void kv_anatomy_close(struct kv_anatomy *a);

#endif
