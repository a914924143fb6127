// SPDX-License-Identifier: Apache-2.0
// Exact replay on other hardware: a shared library that holds a model and the formats, runs batches
// of coded passes whole, and gives back what is scored. Decisions go in, divergences come out;
// those of policy cells are made on the way and come out, too.
//
// A *run* is one item under one spec. Runs of a batch share what they can: an item's reference
// states and, in the prefill modes, its prompt, which is a run of its own that others copy from.
//
// Two kinds of rows. *Computed* rows go through the model; *stored* rows have a key and a value, of
// their own or copied. All arrays are the caller's and stay his.
#ifndef KV_MODEL_ENGINE_H
#define KV_MODEL_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policies/cells_plain.h"
#include "sim/quant/plain.h"

#define KV_ENGINE_ABI 3

// Weights in host memory, as sim/model/model.h says; NULL: the architecture has none.
struct kv_engine_layer {
    const float *attn_norm, *qkv, *qkv_bias, *q_norm, *k_norm, *out, *out_bias, *attn_post_norm;
    const float *ffn_norm, *gateup, *gateup_bias, *down, *down_bias, *ffn_post_norm;
    uint32_t window; // tokens that a query sees, 0: all
    uint32_t rope;   // which of the model's
};
struct kv_engine_model {
    uint32_t n_layers, n_heads, n_kv_heads, head_dim, hidden, ffn, vocab;
    uint32_t
        pairwise;  // channels 2i and 2i + 1 of a head turn together, else i and i + head_dim / 2
    uint32_t gelu; // the gate is GELU's tanh form, else SiLU
    float rms_eps, embed_scale, query_scale; // of a query after RoPE times a key
    uint32_t n_positions;                    // that the tables of turns cover
    const float *cos[2], *sin[2];            // [n_positions][head_dim / 2]
    const float *embed, *head, *final_norm;
    const struct kv_engine_layer *layers;
};

// The branch of a run that one call codes: KvBranch of sim/cuda/formats.
struct kv_engine_branch {
    uint32_t row, n, start, format, opening_row, n_opening, tally;
};
// How the cells of a branch are decided in the pass. Positions of its path below n_exact are of a
// prompt that attended exactly: their features read keys before coding, and computed row `prompt`
// is that of position 0; `own` is that of the branch's first position behind them.
struct kv_engine_decision {
    uint32_t decider; // of those held
    uint32_t context; // which decision is its context's; of a context, itself
    uint32_t n_exact, prompt, own;
    uint32_t known; // where in batch->known its rows' own features begin
};
// Computed rows [row, row + n) at positions from `position` on, of one branch of one run. Position
// p of their path is stored row context + p below n_context, own + p - n_context from there on.
struct kv_engine_tile {
    uint32_t row, n, position, context, n_context, own;
};
// Flags of a run: what is read exact is not even rounded to fp16; some of its rows read exact
// values.
enum { KV_ENGINE_RAW = 1, KV_ENGINE_READS_EXACT = 2 };
#define KV_ENGINE_NO_ROW 0xFFFFFFFFu
#define KV_ENGINE_RECORDED 0xFFFFFFFEu

struct kv_engine_target {
    uint32_t reference, id; // row of the references; the token
};

struct kv_engine_batch {
    uint32_t n_runs;
    const uint8_t *flags; // [n_runs]
    // Computed rows.
    uint32_t n_rows;
    const uint32_t *ids, *position, *stored_as; // [n_rows]
    const uint32_t *coded_upto; // [n_rows][2] positions below are read coded, K and V
    // Stored rows.
    uint32_t n_stored;
    const uint32_t *run; // [n_stored]
    uint8_t *cells;      // [n_stored][n_layers][n_kv_heads][2]; out where decided in the pass
    uint32_t n_copied;
    const uint32_t (*copied)[2]; // [n_copied] {to, from}, stored rows
    bool reads_exact;            // some row reads exact values
    // Branches: first those whose cells are decided in the pass, contexts before choices; last
    // those of formats that code keys before RoPE.
    uint32_t n_branches, n_before_rope, longest;
    const struct kv_engine_branch *branches;
    uint32_t n_decided, n_decided_contexts, n_known;
    const struct kv_engine_decision *decisions; // [n_decided]
    const float *known;                         // [n_known] as decider->plain_token has them
    uint32_t n_tiles;
    const struct kv_engine_tile *tiles;
    // What is scored: reference states [n_references][hidden], and for slot s which computed row is
    // compared with each, or KV_ENGINE_NO_ROW, or KV_ENGINE_RECORDED for the reference itself.
    uint32_t n_references, n_slots, n_targets;
    const float *references;
    const uint32_t *scored; // [n_slots][n_references]
    const struct kv_engine_target *targets;
    // Out.
    double *kl_nats; // [n_slots][n_references] NAN where a state or a logit is not finite
    // The likeliest token, the first of equal ones: [n_slots + 1][n_references], of what is
    // compared with each reference, and behind them of the references.
    uint32_t *top;
    double *logprob;          // [n_slots][n_targets]
    double *logprob_ref;      // [n_targets]
    uint8_t *not_finite;      // [n_runs] something that attention read was not
    uint64_t *tally;          // [n_runs][KV_MAX_WIDTHS][256] codes made
    uint32_t (*no_number)[2]; // [n_decided] {stored row + 1, layer} of a feature that is none, or 0
    uint32_t bad;             // stored row + 1 of a decision that its format has no width for, or 0
};

struct kv_engine {
    uint32_t abi;
    const char *hardware; // set by open
    uint32_t rows; // that a batch best has, by what the device has memory for; set by open. A
                   // row's bits do not depend on what else is in the batch
    // All fill `why` and return non-zero when the device fails.
    int (*open)(void **self, const struct kv_engine_model *m, bool bf16, char *why, size_t room);
    // The formats that branches name. turns: kv_plain_turns of each layer, [n_layers][n_positions]
    // [head_dim / 2][2], or NULL where no format needs them. Not while batches run.
    int (*hold)(void *self, const struct kv_plain_format *formats, uint32_t n, const float *turns,
                uint32_t n_positions, char *why, size_t room);
    // The deciders that decisions name; their arrays are copied. Not while batches run.
    int (*hold_deciders)(void *self, const struct kv_plain_cells *deciders, uint32_t n, char *why,
                         size_t room);
    int (*run)(void *self, struct kv_engine_batch *b, char *why, size_t room); // from any thread
    void (*close)(void *self);
};
// What the library exports under the name kv_engine_entry; NULL: not this ABI.
typedef const struct kv_engine *kv_engine_entry_fn(uint32_t abi);

struct kv_model;
struct kv_error;
// Loads the library, opens it and hands it the model, which keeps it as model->engine until it is
// closed. Errors: no such library, another ABI, no device or none that computes this model, weights
// not held as float32.
int kv_engine_attach(struct kv_model *m, const char *path, bool bf16, struct kv_error *e);
void kv_engine_detach(struct kv_model *m);

#endif
