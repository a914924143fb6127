// SPDX-License-Identifier: Apache-2.0
// What replaying one spec on one item yields: scores, divergence from the 16-bit run, and bits
// stored.
#ifndef KV_BASE_OUTCOME_H
#define KV_BASE_OUTCOME_H

#include "policies/policy.h"
#include "sim/base/width_bins.h"

KV_BEGIN_DECLS

// ---- how a spec is replayed; the names end with NULL ----------------------------------

enum kv_fidelity { KV_EXACT, KV_FISHER, KV_ATTENTION };
enum kv_mode { KV_INLINE, KV_PREFILL, KV_PREFILL1, KV_REQUANT, KV_N_MODES };
// A token's own query reads its K and V as coded, or exact.
enum kv_self { KV_SELF_CODED, KV_SELF_EXACT };
// Policies read the features of the recording, or of the run that they steer.
enum kv_feedback { KV_FEEDBACK_OPEN, KV_FEEDBACK_CLOSED };
// Form of the damage that a prediction or an oracle went by; NONE: nothing asked for any.
enum kv_form { KV_FORM_NONE, KV_FORM_ISO, KV_FORM_ELEMENT, KV_FORM_VECTOR, KV_FORM_CHANNEL };
extern const char *const kv_fidelity_names[]; // "exact", "fisher", "attention"
extern const char *const kv_mode_names[];     // "inline", "prefill", "prefill1", "requant"
extern const char *const kv_self_names[];     // "coded", "exact"
extern const char *const kv_feedback_names[]; // "open", "closed"
extern const char *const kv_form_names[];     // "none", "iso", "element", "vector", "channel"

// Form and feedback in one text, as stores and tables hold them: "", "form=iso", "feedback=closed",
// "feedback=closed,form=iso". The second reads it back; false: it is no such text.
const char *kv_variant_name(enum kv_form form, enum kv_feedback feedback);
KV_MUST_CHECK bool kv_variant_read(const char *text, enum kv_form *form,
                                   enum kv_feedback *feedback);

// What did a run's matrix products is a text, since any accelerator may name itself ("cublas"):
// these are the CPU, and a GPU in another precision than float32.
#define KV_COMPUTE_CPU "cpu"
#define KV_COMPUTE_IN_BF16 "cuda-bf16"

// ---- what comes of it -----------------------------------------------------------------

// The rules that turn log-probs into a pick. ACC: sum; NORM: per Unicode character; BYTES: per
// byte; TOKEN: per token after the prefix that all choices share (llama.cpp's --hellaswag).
enum kv_scorer { KV_ACC, KV_ACC_NORM, KV_ACC_BYTES, KV_ACC_TOKEN, KV_N_SCORERS };
extern const char *const kv_scorer_names[]; // "acc", "acc_norm", "acc_bytes", "acc_token", NULL

// Whether a choice is what greedy decoding would have written: each of its tokens is the likeliest
// one after those before it (the first of equal ones). Some fidelities and engines cannot know.
enum kv_exact_match { KV_MATCH_UNKNOWN, KV_MATCH_NO, KV_MATCH_YES };
static inline double kv_match_share(enum kv_exact_match m) { // 0 or 1; NAN: unknown
    return m == KV_MATCH_UNKNOWN ? NAN : m == KV_MATCH_YES;
}

struct kv_choice_outcome {
    double logprob;     // sum over the choice's tokens
    double logprob_ref; // of the 16-bit run
    double kl_nats;     // sum over the choice's scored positions of KL(16 bit || policy)
    uint32_t tokens, chars, bytes;
    // Without the tokens that all choices begin with (none of them when a choice would be left
    // empty).
    double logprob_after_prefix, logprob_ref_after_prefix;
    uint32_t tokens_after_prefix;
    enum kv_exact_match match, match_ref; // of the policy, of the 16-bit run
};

// Bits stored for one sequence (context + choice), mean over the item's choices, per cached value
// (one element of K or V of one token): nominal = codes; effective = codes and metadata; allocated
// = bytes as laid out, width tags and padding included. Exact tokens count 16 bits in all three.
struct kv_ledger {
    double nominal_bits, effective_bits, allocated_bits;
    double bytes_per_token; // allocated, K and V of all layers
    double entropy_bits;    // order-0 entropy of the codes, bits a value; NAN when not measured
    // Share of the cached values held at each width, K and V apart, by bin.
    double share[2][KV_WIDTH_BINS];
    // Cache type that each width is held in (sim/base/cache_types.h); 0 = none of llama.cpp's.
    uint8_t type[2][KV_WIDTH_BINS];
    bool by_place;   // a layer, head, K or V has one width for all tokens that its format codes
    bool by_cell;    // each key and value has a width for itself, whatever its token's others have
    bool controlled; // a controller within the step decides them, layer by layer
};

// One scored position of a text window against the 16-bit run.
struct kv_token_outcome {
    uint32_t row;   // whose next token is scored: it stands after row + 1 tokens
    float kl_nats;  // KL(16 bit || policy)
    float dp;       // probability of the next token minus that of the 16-bit run
    bool other_top; // the likeliest token is another one
};

struct kv_outcome {
    uint32_t n_choices;               // 0 for text: then choice[0] holds the window
    struct kv_choice_outcome *choice; // owned
    int32_t gold;
    int32_t pick[KV_N_SCORERS];     // -1 = none
    int32_t pick_ref[KV_N_SCORERS]; // of the 16-bit run
    double margin;  // log-prob of gold minus the best other, sum scorer; NAN for text
    double kl_nats; // a scored token: sum of KL / number of scored positions; NAN: not finite
    uint32_t n_scored;
    struct kv_ledger ledger;
    uint32_t n_tokens;              // of text, where the fidelity knows them; else 0
    struct kv_token_outcome *token; // [n_tokens] by row, owned
};

void kv_outcome_fini(struct kv_outcome *o);
// Whether divergence and scores are finite. Where one is not, none of them is a result: picks of
// both runs become -1, the others NAN, so that no mean, count or comparison takes the item.
bool kv_outcome_judged(struct kv_outcome *o);
// Fills picks and margin from the choices: the first maximum wins, as in numpy's argmax.
void kv_outcome_score(struct kv_outcome *o);

KV_END_DECLS

#endif
