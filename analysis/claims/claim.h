// SPDX-License-Identifier: Apache-2.0
// Published claims as small text files, and what an interval says about one.
//
//     # Don't Waste Bits                      a comment
//     source: arXiv:2604.04722v1, table 3
//     model: SmolLM-360M                      keys before the first "claim:" hold for all claims
//     benchmark: hellaswag
//     claim: 7.6 points over static 4-bit     each "claim:" begins one
//     quantity: acc difference
//     first: mlp:*
//     second: static:bits=4@sym
//     value: 7.6
//     tolerance: 1
//
// Keys:
//   claim       what is claimed, in words; begins a claim
//   source      where it was published
//   model       name of the model it speaks of, or "any"
//   benchmark   name of the benchmark ("hellaswag"), or "any" (the default)
//   quantity    what is measured, of kv_quantities[]: "acc difference", "kl ratio", ...
//   first       a spec in any spelling, or a pattern with * over the stored ones
//   second      the spec it is compared with: the same, or "shuffle(first)": each stored spec's
//               own shuffle; left out for quantities of one spec
//   value, tolerance    the claim is "value, give or take tolerance", in the quantity's unit
//   at least, at most   or a bound; both make a range
//   mode, self  how it was replayed (default: whatever the store holds)
//   device      on which latency was measured; contexts in "context", tokens
//   note        a remark for readers
// Lines are "key: value"; "#" begins a comment at the start of a line or after a space.
#ifndef KV_ANALYSIS_CLAIMS_CLAIM_H
#define KV_ANALYSIS_CLAIMS_CLAIM_H

#include "sim/base/outcome.h"

enum kv_quantity {
    KV_Q_DIFFERENCE, // of an accuracy, points: first - second
    KV_Q_KL_RATIO,   // divergence of first / second
    KV_Q_KL,         // divergence of first, nats a scored token
    KV_Q_AGREE,      // picks of first that are the 16-bit run's, %
    KV_Q_PERPLEXITY, // of text: first - second
    KV_Q_SAVING,     // latency of first below that of second, %
};

struct kv_quantity_row {
    const char *name; // as claim files write it
    enum kv_quantity quantity;
    enum kv_scorer scorer; // of a difference
    const char *unit;
    bool pair; // compares two specs
    const char *help;
};
extern const struct kv_quantity_row kv_quantities[]; // ends with {0}

struct kv_claim {
    char *file;
    size_t line; // of its "claim:"
    char *claim, *source, *model, *benchmark, *first, *second, *device, *note;
    unsigned modes, selves; // bits 1 << enum kv_mode, 1 << enum kv_self; 0 = any
    const struct kv_quantity_row *quantity;
    double low, high; // what is claimed: the quantity lies in here; +-INFINITY = open
    double context;   // tokens; NAN = not of latency
};

// Reads the claims of a text; `file` names it in errors ("x.claim:12"). KV_EUSAGE: an unknown key,
// quantity, mode or own step (with the nearest known), a key that is missing, given twice or not a
// number.
KV_MUST_CHECK int kv_claims_parse(const char *file, const char *text, struct kv_claim **claims,
                                  size_t *n, struct kv_error *e);
KV_MUST_CHECK int kv_claims_read(const char *path, struct kv_claim **claims, size_t *n,
                                 struct kv_error *e);
void kv_claims_free(struct kv_claim *claims, size_t n);

// "7.6 +- 1 points", "at least -0.3 points": caller frees.
char *kv_claim_region_text(const struct kv_claim *c);

// Is the recorded model the claimed one? Every word of the claimed name ("SmolLM2-135M": two) must
// stand in the recorded one, in any case; a tuned model (instruct, chat, it) is not its base. "any"
// is every model.
bool kv_same_model(const char *claimed, const char *recorded);

enum kv_answer { KV_HOLDS, KV_FAILS, KV_CANNOT_TELL };
extern const char *const kv_answer_names[]; // "holds", "does not hold", "cannot be told", NULL

// What an estimate with its 95 % interval says: it holds when the interval lies inside the claimed
// range, does not when they are apart, and cannot be told when they overlap in part. With NANs:
// cannot be told.
enum kv_answer kv_claim_answer(const struct kv_claim *c, double low, double high);

// Distance from the estimate to the nearest bound of the claimed range: what the interval's half
// width must fall below.
double kv_claim_distance(const struct kv_claim *c, double estimate);

#endif
