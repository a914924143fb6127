// SPDX-License-Identifier: Apache-2.0
// The forward pass over a token tree: a context computed once, choices that branch off it.
//
//     struct kv_scratch *s = kv_scratch_new();
//     kv_forward(model, &(struct kv_forward){.tree = tree, .store = round_to_fp16, ...}, s, &e);
//     kv_head_reference(...); kv_head_compare(...);                logits, only where they are
//     scored
//
// Every matrix product covers the rows of one tree alone, so its shape, and with it every bit of
// the result, depends on the item and nothing else: not on workers, batches or the other policies
// of a sweep. (A BLAS kernel may give a row other bits at another place of the matrix; Haswell's in
// OpenBLAS 0.3.21 does.)
#ifndef KV_MODEL_FORWARD_H
#define KV_MODEL_FORWARD_H

#include "sim/model/model.h"

struct kv_scratch; // buffers of one worker

// Rows: context [0, n_context), then choice c in [first[c], first[c + 1]). A token's position is
// its row in the context, and n_context + offset in a choice.
struct kv_tree {
    uint32_t n_tokens, n_context, n_choices;
    const uint32_t *first; // [n_choices + 1], or NULL when n_choices is 0
    const uint32_t *ids;   // [n_tokens]
};
uint32_t kv_tree_position(const struct kv_tree *t, uint32_t row);
uint32_t kv_tree_choice(const struct kv_tree *t,
                        uint32_t row); // index, or n_choices for the context

// One layer's keys and values of all rows, float32, [n_tokens][n_kv_heads * head_dim].
struct kv_layer_kv {
    float *k_raw; // before RoPE
    float *k;     // after RoPE
    float *v;
};

// What attention reads in a layer; each is [n_tokens][n_kv_heads * head_dim].
struct kv_layer_view {
    const float *k_exact, *v_exact;
    const float *k_coded, *v_coded;
    const uint8_t *evicted; // [n_kv_heads][n_tokens] non-zero: later queries do not see it; or NULL
};

// Per-token attention statistics, all optional, [n_tokens], zeroed by the caller (design:
// features).
struct kv_attention_stats {
    float *variance; // of the token's row over its visible entries, last layer, mean over heads
    float *so_far;   // received: context tokens from the context's queries, choice tokens from
                     // themselves
    float *future;   // received from later tokens, by a context token from the choices on the
                     // average, by a choice's from its own; mean over layers and heads
};

// What the backward pass needs of the forward pass, layer by layer; filled when a job carries one.
struct kv_tape_layer {
    float *x;      // [rows][hidden] entering the layer
    float *q;      // [rows][n_heads * d] after RoPE, unscaled
    float *k, *v;  // [n_tokens][n_kv_heads * d] as attention read them
    float *mixed;  // [rows][n_heads * d] attention's output
    float *middle; // [rows][hidden] after attention
    float *gateup; // [rows][2 ffn]
    // Before the norms that some models have, NULL in others: of heads, and of what is added.
    float *q_raw, *k_raw;          // [rows][n_heads * d], [rows][n_kv_heads * d]
    float *attn_delta, *ffn_delta; // [rows][hidden]
};
struct kv_tape {
    size_t n_layers;
    struct kv_tape_layer *layers;
    float *x; // [rows][hidden] leaving the last layer
    // A thrifty tape remembers x, k and v of each layer; the other members of all layers share one
    // block, which holds those of the layer that came last.
    float *shared; // the block, or NULL
    size_t holds;  // whose they are, for a thrifty tape
};
// Most bytes that a worker's tape takes before it turns thrifty, unless the caller says otherwise:
// the SmolLM2-135M's sequences up to 776 tokens stay below.
#define KV_TAPE_BYTES ((size_t)512 << 20)
// A whole tape if that takes no more than most_bytes, else a thrifty one. Gradients are the same
// bits from either; going back over a thrifty tape computes each layer's activations again
// (checkpoints: Chen et al., arXiv 1604.06174).
struct kv_tape *kv_tape_new(const struct kv_model *m, size_t n_tokens, size_t most_bytes);
void kv_tape_free(struct kv_tape *t); // NULL is fine
// Bytes that a whole and a thrifty tape take for that many tokens.
size_t kv_tape_bytes(const struct kv_model *m, size_t n_tokens, bool thrifty);
// Makes sure that the tape holds all members of a layer. Uses the scratch of kv_forward but for
// KV_BUF_X. (tape.c)
void kv_tape_recall(const struct kv_model *m, const struct kv_tree *t, struct kv_tape *tape,
                    uint32_t layer, struct kv_scratch *s);

struct kv_forward {
    const struct kv_tree *tree;
    // Rows below first_row are not computed: their K and V come from `prefix`, [n_layers] times the
    // three arrays of kv_layer_kv with first_row rows each.
    uint32_t first_row;
    const struct kv_layer_kv *prefix;
    // Position p of a path is read coded by a row if p < coded_upto; [n_tokens][2] for K and V.
    // NULL: everything is read exact.
    const uint32_t *coded_upto;
    // Called when a layer's K and V are complete (rows below first_row included); fills *view.
    int (*store)(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                 struct kv_layer_view *view, struct kv_error *e);
    // Optional: sees the rows computed, before `store`: x entering the layer and its norm times the
    // norm's gain [rows][hidden], q after RoPE [rows][n_heads * d]. norm and q stay until `store`
    // returns.
    void (*observe)(void *self, uint32_t layer, const float *x, const float *norm, const float *q,
                    const struct kv_layer_kv *kv);
    // Optional: what is stored changes as the context grows. Called in each layer before the first
    // row computed attends, before each row of the context at a multiple of age_tokens, and before
    // the choices, with the position that comes next. May change in place what the view's k_coded
    // and v_coded point to, for all that follows; returns 1 if it did, 0 if not, or an error.
    int (*age)(void *self, uint32_t layer, uint32_t position, struct kv_error *e);
    uint32_t age_tokens; // > 0 with `age`
    void *self;
    struct kv_attention_stats *stats; // or NULL
    struct kv_tape *tape; // or NULL; needs first_row 0, one view (all coded or all exact), no `age`
    // Disturbs each embedding by a relative amount drawn from (seed, row); 0 = none (design:
    // redraws).
    double disturb;
    uint64_t disturb_seed;
    // Out: hidden state after the last norm of all computed rows, [n_tokens - first_row][hidden].
    float *final;
};

// Buffers grow as needed and are reused.
struct kv_scratch *kv_scratch_new(void);
void kv_scratch_free(struct kv_scratch *s); // NULL is fine
// From now on each row of a product has bits that depend on that row and the weights alone, not on
// the rows beside it: for steps of several sequences at once (step.h). Slower where rows are many.
void kv_scratch_row_by_row(struct kv_scratch *s, bool on);
// From now on a pass over a sequence that goes by blocks (longer than 2,048 tokens and BOS) is
// shared by n_threads: workers that have no item of their own. Bits are the same whatever n.
void kv_scratch_share(struct kv_scratch *s, unsigned n_threads);
// A scratch for each of n_workers that have n_passes to compute, and who has none helps the others.
struct kv_scratch **kv_scratch_crew_new(unsigned n_workers, size_t n_passes);
void kv_scratch_crew_free(struct kv_scratch **crew, unsigned n_workers); // NULL is fine

KV_MUST_CHECK int kv_forward(const struct kv_model *m, const struct kv_forward *job,
                             struct kv_scratch *s, struct kv_error *e);

// Rotates n rows of a layer's keys [n][n_kv_heads * head_dim] in place for the given positions
// (rope.c).
void kv_rope_keys(const struct kv_model *m, uint32_t layer, float *k, size_t n,
                  const uint32_t *positions);

// y[rows][w->rows] = x[rows][w->cols] w^T, row-major, in float32 (bf16 weights are widened first).
void kv_product(const struct kv_matrix *w, const float *x, size_t rows, float *y,
                struct kv_scratch *s);

// Their backward passes: dx[rows][w->cols] = dy[rows][w->rows] w, and the inverse rotation of n
// rows of heads [n][n_heads * head_dim].
void kv_product_back(const struct kv_matrix *w, const float *dy, size_t rows, float *dx,
                     struct kv_scratch *s);
void kv_rope_back(const struct kv_model *m, uint32_t layer, float *x, size_t n, size_t n_heads,
                  const uint32_t *positions);

// ---- head (head.c) --------------------------------------------------------------------

// Rows judged together, 256 or so many that their logits and probabilities take no more memory than
// 256 rows of a vocabulary of 49,152.
size_t kv_head_rows(const struct kv_model *m);

// The 16-bit run's distributions at up to kv_head_rows rows.
struct kv_reference {
    size_t n_rows;
    float *logit, *p; // [n_rows][vocab]
    double *log_z;    // [n_rows] log of the sum of exp(logit)
    double *sum_p;    // [n_rows] of p as rounded, so that equal logits give a KL of exactly 0
};
// Computes logits and probabilities of final hidden states [n_rows][hidden]. Buffers are the
// scratch's.
void kv_head_reference(const struct kv_model *m, const float *final, size_t n_rows,
                       struct kv_scratch *s, struct kv_reference *r);
// KL(row || other) in nats between two rows of the reference; of equal logits exactly 0. NAN where
// one of them is not finite.
double kv_reference_divergence(const struct kv_model *m, const struct kv_reference *r, size_t row,
                               size_t other);
// Log-prob of a token at a row of the reference.
double kv_reference_logprob(const struct kv_model *m, const struct kv_reference *r, size_t row,
                            uint32_t id);

// Divergence of other final states of the same rows from the reference: kl_nats[n_rows] = KL(ref ||
// these), log_ratio[n_rows] = log of (Z / Z_ref). logit_delta[n_rows]: logit minus reference logit
// of the row's next token, for targets [n_targets] given as (row, id) pairs. Tiles of the
// vocabulary; logits are not kept. other_top[n_rows] (or NULL): whether the two distributions have
// their largest probability (the first of equal ones) at different tokens. Where it is asked for,
// targets are told, too, whether they are the likeliest token at their row.
struct kv_target {
    uint32_t row, id;
    double logprob;    // out
    bool top, ref_top; // out: the likeliest of these states, of the reference; with other_top
};
void kv_head_compare(const struct kv_model *m, const struct kv_reference *r, const float *final,
                     struct kv_scratch *s, double *kl_nats, struct kv_target *targets,
                     size_t n_targets, bool *other_top);

// Entropy and largest probability of the distribution at a row of the reference.
void kv_reference_features(const struct kv_model *m, const struct kv_reference *r, size_t row,
                           float *entropy_nats, float *confidence);

#endif
